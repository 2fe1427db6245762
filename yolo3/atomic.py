"""Write a file so that whatever happens, its name holds the whole old content or the whole new one."""
import contextlib
import fcntl
import functools
import glob
import json
import os
import secrets


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary name beside `path`; when the block ends well, it becomes `path` on disk.

    The content is synced before the rename and the folder after it, so a crash or a power cut at any moment
    leaves a complete file. If the block raises, the temporary file is removed and `path` is as it was; an OSError that
    names no file then names `path`. What a kill leaves behind is removed by the next process that writes into the
    folder.
    """
    temporary, folder = None, os.path.dirname(os.path.abspath(path))
    remove_leftovers(folder)
    try:
        with temporary_file(folder) as temporary:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        sync(folder)
    except OSError as error:
        if error.filename in (None, temporary):
            error.filename, error.filename2 = path, None
        raise


@contextlib.contextmanager
def temporary_file(folder):
    """Yield the path of a new file in `folder`, which no other writer uses; it is removed unless it is renamed.

    A lock on it dies with this process, which tells the others that the file is in use.
    """
    temporary, descriptor = os.path.join(folder, 'yolo3-%s.tmp' % secrets.token_hex(8)), None
    try:
        while not os.path.exists(temporary):  # again if another process removed it before it was locked
            if descriptor is not None:
                os.close(descriptor)
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if descriptor is not None:
            os.close(descriptor)


@functools.lru_cache(maxsize=None)  # once in a process, as a folder may hold many files
def remove_leftovers(folder):
    """Remove from `folder` the temporary files of processes that were killed: nobody has them locked."""
    for path in glob.glob(os.path.join(glob.escape(folder), 'yolo3-%s.tmp' % ('[0-9a-f]' * 16))):
        with contextlib.suppress(OSError), open(path, 'rb+') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(path)


def sync(path):
    """Wait until the file or folder `path` is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path, content):
    """Write `content` as indented UTF-8 JSON to `path`, replacing it whole."""
    with replacing(path) as temporary:
        dump_json(temporary, content)


def dump_json(path, content):
    """Write `content` as indented UTF-8 JSON to `path`, which a kill may leave half written: see `replacing`."""
    # A file name that is not UTF-8 holds half surrogates: their escapes are JSON's too.
    with open(path, 'w', encoding='utf-8', errors='backslashreplace') as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write('\n')
