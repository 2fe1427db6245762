"""Make a public data set from its archives: download, verify, unpack, count. An interrupted run can be continued."""
import contextlib
import filecmp
import hashlib
import os
import shutil
import stat
import sys
import tarfile
import threading
import time
import zipfile
from typing import NamedTuple

import requests
import urllib3
from tqdm import tqdm

from yolo3.cli import ArgumentParser, UserError
from yolo3.files import open_input, require_regular

WORK = '.prepare'  # a folder in the data set's folder, removed at the end
DOWNLOADS = 3  # attempts, if an archive arrives damaged
ANSWER_SECONDS = 10
# How long to retry since the last byte arrived. A server that never answers is reported within half a minute.
FIRST_PATIENCE, PATIENCE, LONGEST_WAIT = 12, 300, 30  # seconds
BLOCK = 1 << 16
REMEDY = 'run again to continue, or give --mirror URL or --archives DIR'


class Archive(NamedTuple):
    """A tar or zip file, and the part of the data set in it."""
    url: str
    sha1: str  # hexadecimal
    size: int  # bytes
    unpacked: int  # bytes on disk, rounded up
    part: str  # what `count` counts
    expected: int  # how many of that there must be

    @property
    def name(self):
        """The name of the file."""
        return self.url.rsplit('/', 1)[1]


def parse_args(description, root, argv=None):
    """The flags of a script that prepares a data set, by default in the folder `root`. Raises UserError."""
    parser = ArgumentParser(description=description)
    add = parser.add_argument
    add('--root', default=root, metavar='DIR', help='folder to make (default: %(default)s)')
    add('--mirror', default='', metavar='URL', help='download each archive from URL/NAME instead')
    add('--archives', default='', metavar='DIR', help='folder with archives you have already, under their own names; '
                                                      'they are kept; downloads are deleted once unpacked')
    args = parser.parse_args(argv)
    args.root = os.path.abspath(os.path.expanduser(args.root))
    args.archives = os.path.expanduser(args.archives)
    if args.mirror and not args.mirror.startswith(('http://', 'https://')):
        raise UserError('--mirror %s: must start with http:// or https://' % args.mirror)
    if args.archives and not os.path.isdir(args.archives):
        raise UserError('--archives %s: no such folder' % args.archives)
    return args


def prepare(args, archives, count, top=''):
    """Bring whatever a data set lacks into the folder args.root, and print the counts.

    args: from `parse_args`. archives: a list of Archive. count(root, part): how much of a part is there.
    top: the folder inside the archives whose content goes into the root. Raises UserError.
    """
    work = os.path.join(args.root, WORK)
    try:
        missing = [archive for archive in archives
                   if os.path.isdir(_unpacked(work, archive)) or count(args.root, archive.part) < archive.expected]
        if missing:
            os.makedirs(work, exist_ok=True)
            for archive in missing:
                shutil.rmtree(_unpacked(work, archive) + '.part', ignore_errors=True)
            _check_space(args, missing, work)
        for archive in missing:
            unpacked = _unpacked(work, archive)
            if not os.path.isdir(unpacked):
                path = fetch(archive, work, args.mirror, args.archives)
                unpack(path, unpacked + '.part', archive.unpacked)
                os.sync()  # the folder's new name says that all is there, so all must be on disk before it
                os.rename(unpacked + '.part', unpacked)
                if os.path.dirname(path) == work:
                    os.remove(path)
            merge(os.path.join(unpacked, top), args.root)
            shutil.rmtree(unpacked)
        if os.path.isdir(work):
            shutil.rmtree(work)
        counts = [(archive, count(args.root, archive.part)) for archive in archives]
    except OSError as error:
        raise UserError('--root %s: %s' % (args.root, error))
    for archive, found in counts:
        if found != archive.expected:
            raise UserError('%s: there are %d of %s, not %d; move files of other data sets away, and run again'
                            % (args.root, found, archive.part, archive.expected))
    print('%s: complete (%s)' % (args.root, ', '.join('%s %d' % (archive.part, found) for archive, found in counts)))


def fetch(archive, folder, mirror='', archives=''):
    """The path of a verified archive: in the folder `archives`, else downloaded to `folder`. Raises UserError."""
    given, path = os.path.join(archives, archive.name), os.path.join(folder, archive.name)
    if archives and os.path.isfile(given):
        if is_sound(given, archive):
            return given
        print('%s is damaged or incomplete: downloading it' % given, file=sys.stderr)
    url = '%s/%s' % (mirror.rstrip('/'), archive.name) if mirror else archive.url
    if os.path.lexists(path):  # part of a download
        require_regular(path)
    for _ in range(DOWNLOADS):
        download(url, path, archive.size)
        if is_sound(path, archive):
            return path
        os.remove(path)
        print('%s is damaged: downloading it again' % path, file=sys.stderr)
    raise UserError('%s is not the file with SHA-1 %s, after %d downloads: give another --mirror URL, or --archives DIR'
                    % (url, archive.sha1, DOWNLOADS))


def is_sound(path, archive):
    """Whether the file at `path` has the archive's size and SHA-1."""
    if os.path.getsize(path) != archive.size:
        return False
    digest = hashlib.sha1()
    with open_input(path) as file, _bar('verifying ' + archive.name, archive.size) as bar:
        for block in iter(lambda: file.read(BLOCK), b''):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest() == archive.sha1


def download(url, path, size):
    """Append to the file at `path` whatever it lacks of the `size` bytes of `url`, retrying after failures.

    Raises UserError if the server refuses, or nothing arrives for FIRST_PATIENCE seconds (PATIENCE after a first byte).
    """
    patience, last, wait = FIRST_PATIENCE, time.monotonic(), 1
    with open(path, 'ab') as file, _bar(os.path.basename(path), size, file.tell()) as bar:
        while file.tell() < size:
            start, reason = file.tell(), 'the connection closed early'
            bar.set_postfix_str('', refresh=False)
            try:
                for block in _receive(url, start, size):
                    file.write(block[:size - file.tell()])
                    bar.update(len(block))
                    if file.tell() == size:  # the server may send more
                        break
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _reason(error)
            file.flush()
            if file.tell() == size:
                break
            if file.tell() > start:
                patience, last, wait = PATIENCE, time.monotonic(), 1
            elif time.monotonic() + wait > last + patience:
                raise UserError('%s: %s; %s' % (url, reason, REMEDY))
            bar.set_postfix_str('%s; retrying in %d s' % (reason, wait), refresh=patience == PATIENCE)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)


def _receive(url, start, size):
    """Yield the bytes of `url`, of length `size`, from byte `start` on. Raises UserError if the server refuses."""
    with _answer(url, start) as response:
        code, skip = response.status_code, 0
        if code == 206:
            extent, total = response.headers.get('Content-Range', '').partition('/')[::2]
            if not extent.startswith('bytes %d-' % start):
                raise requests.HTTPError('asked for bytes from %d on, it sent %s' % (start, extent or 'others'))
        elif code == 200:  # from the beginning, whatever was asked for
            total, skip = response.headers.get('Content-Length', ''), start
        elif 400 <= code < 500 and code not in (408, 429):
            raise UserError('%s: the server refuses (HTTP %d); give another --mirror URL, or --archives DIR'
                            % (url, code))
        else:
            raise requests.HTTPError('HTTP %d' % code)
        if total.isdigit() and int(total) != size:
            raise requests.HTTPError('it has %s bytes instead of %d' % (total, size))
        # Not iter_content(), which loses the last bytes before a connection breaks.
        for block in response.raw.stream(BLOCK, decode_content=False):
            yield block[skip:]
            skip = max(skip - len(block), 0)


def _answer(url, start):
    """The response for `url` from byte `start` on, its body unread. Raises requests.RequestException."""
    # A server that compresses would count other bytes than we do.
    headers = dict({'Accept-Encoding': 'identity'}, **({'Range': 'bytes=%d-' % start} if start else {}))
    return within(ANSWER_SECONDS, lambda: requests.get(url, headers=headers, stream=True, timeout=ANSWER_SECONDS))


def within(seconds, call):
    """What `call()`, a request, returns within `seconds`. Raises requests.RequestException.

    It runs in a thread: the timeout of requests covers neither the name look-up nor a name with many addresses.
    """
    def ask():
        try:
            answers.append(call())
        except requests.RequestException as error:
            answers.append(error)
    answers = []
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    answer = answers[0] if answers else requests.Timeout('no answer within %d s' % seconds)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _reason(error):
    """The first cause of a failed request."""
    while error.__context__:
        error = error.__context__
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__


def unpack(path, folder, size):
    """Unpack the tar or zip at `path`, about `size` bytes in all, into the new folder `folder`.

    It makes folders and files only: a link becomes a copy of its target. Raises UserError for a member that would end
    up outside the folder, for a link to anything but a file of the archive, and for a device.
    """
    os.mkdir(folder)
    with _bar('unpacking ' + os.path.basename(path), size) as bar, contextlib.closing(_members(path)) as members:
        for name, content in members:
            target = os.path.normpath(os.path.join(folder, name))
            if content is None or not target.startswith(folder + os.sep):
                raise UserError('%s: not unpacked: its member %s is a device, or leads outside' % (path, name))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with content, open(target, 'wb') as file:
                shutil.copyfileobj(content, file, BLOCK)
                bar.update(file.tell())


def _members(path):
    """Yield the name and the open content of each member of a tar or zip but folders; None cannot be unpacked."""
    if path.endswith('.zip'):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    kind = stat.S_IFMT(member.external_attr >> 16)
                    yield member.filename, archive.open(member) if kind in (0, stat.S_IFREG) else None
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isdir():
                    try:
                        content = archive.extractfile(member)
                    except (KeyError, RecursionError):  # a link out of the archive, or to itself
                        content = None
                    yield member.name, content


def merge(source, target):
    """Move all files below the folder `source` to the same places below `target`.

    Raises UserError, before anything is moved, if the place of one is taken by another file.
    """
    names = [os.path.relpath(os.path.join(parent, name), source)
             for parent, _, files in os.walk(source) for name in files]
    for name in names:
        place = os.path.join(target, name)
        if os.path.lexists(place) and not filecmp.cmp(os.path.join(source, name), place, shallow=False):
            raise UserError("%s is not this data set's file of that name: move it away or give another --root, and run "
                            "again" % place)
    for name in names:
        place = os.path.join(target, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.replace(os.path.join(source, name), place)


def _check_space(args, missing, work):
    """Raise UserError if the disk has no room for everything that must still be downloaded and unpacked."""
    download, unpacked = 0, 0
    for archive in missing:
        if not os.path.isdir(_unpacked(work, archive)):
            places = [os.path.join(folder, archive.name) for folder in (args.archives, work) if folder]
            there = max([os.path.getsize(place) for place in places if os.path.isfile(place)], default=0)
            # Each archive is downloaded, unpacked and deleted before the next.
            download = max(download, archive.size - there)
            unpacked += archive.unpacked
    free = shutil.disk_usage(args.root).free
    if free < download + unpacked:
        raise UserError('--root %s: needs %.1f GB, but %.1f GB are free; free some space or give another --root'
                        % (args.root, (download + unpacked) / 1e9, free / 1e9))


def _unpacked(work, archive):
    """The folder of an archive that is unpacked, until all its files are in their places."""
    return os.path.join(work, archive.name + '.unpacked')


def _bar(description, size, start=0):
    # Shown only after a delay: if nothing arrives, the error is the only line.
    return tqdm(desc=description, total=size, initial=start, unit='B', unit_scale=True, dynamic_ncols=True, leave=False,
                delay=0.5, mininterval=0.5 if sys.stderr.isatty() else 30)
