"""The files a command reads: regular ones only, since a FIFO or a device may never end."""
import errno
import os
import stat


def require_regular(path):
    """Raise OSError, whose strerror says why, unless `path` is a regular file or a link to one.

    For libraries that open files themselves; otherwise use `open_input`.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, 'not a regular file', path)


def open_input(path, mode='rb', encoding=None):
    """Open the regular file `path` to read, as `open`. Raises OSError as `require_regular`."""
    require_regular(path)
    return open(path, mode, encoding=encoding)
