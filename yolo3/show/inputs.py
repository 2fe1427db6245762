"""What demo.py looks at: names on the command line -> files, addresses and stdin; and the bytes of what is no file."""
import glob
import os
import re
import urllib.parse

from yolo3.cli import UserError, comma_list
from yolo3.data.images import EXTENSIONS
from yolo3.show.fetch import MOST_BYTES, fetch

VIDEO_EXTENSIONS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv')
STDIN = '-'


def expand(name):
    """What `name` stands for: a file, a folder, a glob, several joined by commas; an address and '-' for themselves.

    Raises UserError.
    """
    known = EXTENSIONS + VIDEO_EXTENSIONS
    if not is_file(name):
        return [name]
    if os.path.isdir(name):
        return [os.path.join(name, entry) for entry in sorted(os.listdir(name)) if entry.lower().endswith(known)]
    if os.path.exists(name):
        return [name]
    matches = sorted(glob.glob(name, recursive=True))
    if matches:
        return [path for match in matches for path in expand(match) if path.lower().endswith(known)]
    if ',' in name:
        return [path for part in comma_list(name) for path in expand(part)]
    raise UserError('no such image, video or folder: %s' % name)


def is_address(name):
    """Whether `name` is an http:// or https:// address."""
    return re.match('https?://', name, re.IGNORECASE) is not None


def is_file(name):
    """Whether `name` names a file, as opposed to an address or stdin."""
    return name != STDIN and not is_address(name)


def is_video(name):
    """Whether `name` names a video file."""
    return is_file(name) and name.lower().endswith(VIDEO_EXTENSIONS)


def content(name):
    """The bytes of an address or of stdin, None for a file. Raises UserError."""
    if is_address(name):
        return fetch(name)
    return read_stdin() if name == STDIN else None


def file_name(name):
    """A name for the file that `name` leads to: its own, or one from the last part of an address; 'stdin'."""
    if is_file(name):
        return name
    if name == STDIN:
        return 'stdin'
    last = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(name).path))
    stem, extension = os.path.splitext(re.sub(r'[^\w .-]', '_', last))
    return (stem.strip(' .')[:60] or 'image') + extension[:8]


def read_stdin():
    """An image file's bytes from stdin. Raises UserError."""
    if os.isatty(0):
        raise UserError('-: reads an image from stdin, which is a terminal: demo.py - < street.jpg')
    try:
        with open(0, 'rb', closefd=False) as file:
            found = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError('-: cannot read stdin: %s' % error.strerror)
    if len(found) > MOST_BYTES:
        raise UserError('-: stdin has more than %d bytes' % MOST_BYTES)
    return found
