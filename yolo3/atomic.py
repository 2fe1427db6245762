"""Write a file so that whatever happens, its name holds the whole old content or the whole new one."""
import contextlib
import json
import os


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary name beside `path`; when the block ends well, it becomes `path` on disk.

    The content is synced before the rename and the folder after it, so a crash or a power cut at any moment
    leaves a complete file. If the block raises, the temporary file is removed and `path` is as it was. What a kill
    leaves behind is replaced by the next attempt: its name is always the same.
    """
    temporary = path + '.tmp'
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    sync(os.path.dirname(os.path.abspath(path)))


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
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write('\n')
