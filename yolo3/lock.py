"""One training at a time writes files of one --save-prefix: a lock that ends with its process, however that ends."""
import contextlib
import errno
import fcntl
import logging
import os
import socket

from yolo3.cli import UserError
from yolo3.files import make_output_folder

logger = logging.getLogger('yolo3')


@contextlib.contextmanager
def exclusive(prefix, rank=0):
    """Hold the lock of the files that begin with `prefix`, at rank 0. Raises UserError if another process holds it.

    It is a POSIX lock, which workers do not inherit, on a file that is there as long as the lock.
    """
    if rank:
        yield
        return
    path = prefix + '_train.lock'
    make_output_folder('--save-prefix', os.path.dirname(os.path.abspath(path)))
    file = _locked(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        file.close()


def _locked(path):
    """The file `path`, open and locked."""
    while True:
        try:
            file = open(path, 'a+', encoding='utf-8')
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                raise UserError('--save-prefix: another training (%s) is writing the files of %s: stop it, or give '
                                'another --save-prefix' % (file.read().strip(), path[:-len('_train.lock')]))
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise UserError('--save-prefix: cannot write %s (%s)' % (path, error.strerror))
            logger.warning('%s: this file system has no locks, so nothing stops a second training there', path)
            return file
        # Its last holder may have removed it after it was opened here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                break
        file.close()
    file.truncate(0)
    file.write('process %d on %s\n' % (os.getpid(), socket.gethostname()))
    file.flush()
    return file
