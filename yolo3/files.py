"""Write a file so that whatever happens, its name holds the whole old content or the whole new one."""
import contextlib
import json
import os


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary name beside `path`; when the block ends well, it becomes `path` on disk.

    The content is synced before the rename and the folder after it, so a crash or a power cut at any moment
    leaves a complete file. Where the block raises, the temporary file is removed and `path` is as it was.
    """
    temporary = '%s.tmp%d' % (path, os.getpid())
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path, content):
    """Write `content` as indented UTF-8 JSON to `path`, replacing it whole."""
    with replacing(path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write('\n')
