"""The files of a command: it reads regular ones only, and what it writes destroys nothing."""
import errno
import os
import stat

from yolo3.atomic import temporary_file
from yolo3.cli import UserError


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
    """Open the regular file `path` to read, as `open`. Raises OSError as `require_regular`.

    A FIFO or a device may never end.
    """
    require_regular(path)
    return open(path, mode, encoding=encoding)


def walk(folder):
    """Yield the path of every file below `folder`, sorted within a folder. Raises OSError.

    Links to folders are followed, but no folder is visited twice.
    """
    def refuse(error):
        raise error
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (os.path.join(parent, name) for name in sorted(names))


def files_below(folder):
    """The paths of all files below `folder`, sorted; see `walk`. Raises UserError."""
    try:
        return sorted(walk(folder))
    except OSError as error:
        raise UserError('cannot read folder %s: %s' % (error.filename, error.strerror))


def check_output(flag, path, used=(), kinds=('.json',), begins=''):
    """Check, before the work, the file `path` that `flag` has the command write; '' is none. Raises UserError.

    used: the other files that the command reads or writes ('': none), and the folders of its inputs. A file that exists
    may be replaced if it has an extension of `kinds` and begins as this output does, white space apart: with `begins`.
    Returns the path to write: of a link, the file that it leads to.
    """
    if not path:
        return path
    target = os.path.realpath(path) if os.path.islink(path) else path
    try:
        problem = _problem(target, used, kinds, begins)
        if not problem:
            with temporary_file(os.path.dirname(os.path.abspath(target))):  # whatever else may speak against it
                pass
    except (OSError, ValueError) as error:
        problem = getattr(error, 'strerror', None) or error
    if problem:
        raise UserError('%s %s: %s' % (flag, path, problem))
    return target


def _problem(path, used, kinds, begins):
    """Why the file `path` is not to be written, '' if nothing speaks against it. Raises OSError."""
    folder, name = os.path.split(path)
    if os.path.isdir(path) or not name or not os.path.isdir(folder or os.curdir):
        return 'name a file in a folder that exists'
    stem, extension = os.path.splitext(path)
    if extension == '.json' and os.path.exists(stem + '.params'):
        return 'describes the weights %s.params: name another file' % stem
    real, used = os.path.realpath(path), [os.path.realpath(os.path.expanduser(other)) for other in used if other]
    if real in used:
        return 'this command uses that file already: name another'
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ''
    if not stat.S_ISREG(found.st_mode):
        return 'is not a regular file'
    if any(os.path.exists(other) and os.path.samestat(found, os.stat(other)) for other in used) or any(
            os.path.samestat(found, os.fstat(number)) for number in (1, 2)):
        return 'this command uses that file already: name another'
    for other in used:
        if real.startswith(os.path.join(other, '')):
            return 'exists, in the folder %s of the input: name another file, or remove it' % other
    if extension.lower() not in kinds:
        return 'exists, and is not a %s file: name another, or remove it' % ' or '.join(kinds)
    if not (found.st_mode & 0o222 and os.access(path, os.W_OK)):  # root may write what nobody should
        return 'exists, and is not writable'
    with open(path, 'rb') as file:
        head = b''.join(file.read(4096).split())
    if head not in (b'', b'[]') and not head.startswith(begins.encode()):
        return 'exists, and is not of this output: name another file, or remove it'
    return ''


def make_output_folder(flag, path, used=()):
    """Make the folder `path` of `flag` unless it exists. Raises UserError if nothing is to be written there.

    used: folders of the command's inputs.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with temporary_file(path):
            pass
    except FileExistsError:
        raise UserError('%s %s: is not a folder' % (flag, path))
    except (OSError, ValueError) as error:
        raise UserError('%s %s: not writable (%s)' % (flag, path, getattr(error, 'strerror', None) or error))
    if any(os.path.isdir(other) and os.path.samefile(path, other) for other in used):
        raise UserError('%s %s: holds input of this command: name another folder' % (flag, path))
