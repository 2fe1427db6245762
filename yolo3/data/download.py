"""Make a public data set from its archives: download, verify, unpack, count; what is interrupted is carried on."""
import collections
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

import requests
import urllib3
from tqdm import tqdm

from yolo3.cli import ArgumentParser, UserError

# url: whose last part is the name. sha1: hexadecimal. size: bytes. unpacked: bytes on disk, rounded up.
# part: what of the data set it brings; expected: how many of that there must be.
Archive = collections.namedtuple('Archive', 'url sha1 size unpacked part expected')

WORK = '.prepare'  # folder in the data set's folder; when all is done it is gone
DOWNLOADS = 3  # of an archive that comes damaged
ANSWER_SECONDS = 10
# How long to try again since the last byte came: a server that was never there is told within half a minute.
FIRST_PATIENCE, PATIENCE, LONGEST_WAIT = 12, 300, 30  # seconds
BLOCK = 1 << 16
REMEDY = 'run again to carry on, or give --mirror URL or --archives DIR'


def parse_args(description, root):
    """The flags of a script that prepares a data set, by default in the folder `root`. Raises UserError."""
    parser = ArgumentParser(description=description)
    add = parser.add_argument
    add('--root', default=root, help='folder to make (default: %(default)s)')
    add('--mirror', default='', help='download MIRROR/NAME instead of each archive of that name')
    add('--archives', default='', help='folder with archives that are there already, by their own names; they stay as '
                                       'they are (what is downloaded is deleted once it is unpacked)')
    args = parser.parse_args()
    args.root = os.path.abspath(os.path.expanduser(args.root))
    args.archives = os.path.expanduser(args.archives)
    if args.mirror and not args.mirror.startswith(('http://', 'https://')):
        raise UserError('--mirror %s is no http:// or https:// address' % args.mirror)
    if args.archives and not os.path.isdir(args.archives):
        raise UserError('--archives %s is no folder' % args.archives)
    return args


def prepare(args, archives, count, top=''):
    """Bring what is missing of a data set into the folder args.root and print the counts.

    args: from `parse_args`. archives: a list of Archive. count(root, part) says how many of a part are there.
    top: the folder inside the archives whose content belongs into the root. Raises UserError.
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
                os.sync()  # nothing may be on disk later than the name that says all is there
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
            raise UserError('%s: there are %d of %s, not %d; move away what is not of this data set, and run again'
                            % (args.root, found, archive.part, archive.expected))
    print('%s: complete (%s)' % (args.root, ', '.join('%s %d' % (archive.part, found) for archive, found in counts)))


def fetch(archive, folder, mirror='', archives=''):
    """The path of a verified archive: in the folder `archives`, or else downloaded to `folder`. Raises UserError."""
    given, path = os.path.join(archives, _name(archive)), os.path.join(folder, _name(archive))
    if archives and os.path.isfile(given):
        if is_sound(given, archive):
            return given
        print('%s is damaged or incomplete: downloading it' % given, file=sys.stderr)
    url = '%s/%s' % (mirror.rstrip('/'), _name(archive)) if mirror else archive.url
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
    with open(path, 'rb') as file, _bar('verifying ' + _name(archive), archive.size) as bar:
        for block in iter(lambda: file.read(BLOCK), b''):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest() == archive.sha1


def download(url, path, size):
    """Append to the file at `path` what it lacks of the `size` bytes of `url`, trying again after failures.

    Raises UserError where the server refuses, or nothing came for FIRST_PATIENCE seconds (PATIENCE once some did).
    """
    patience, last, wait = FIRST_PATIENCE, time.monotonic(), 1
    with open(path, 'ab') as file, _bar(os.path.basename(path), size, file.tell()) as bar:
        while file.tell() < size:
            start, reason = file.tell(), 'the connection closed too early'
            bar.set_postfix_str('', refresh=False)
            try:
                for block in _receive(url, start, size):
                    file.write(block[:size - file.tell()])
                    bar.update(len(block))
                    if file.tell() == size:  # whatever else it sends
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
            bar.set_postfix_str('%s; again in %d s' % (reason, wait), refresh=patience == PATIENCE)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)


def _receive(url, start, size):
    """Yield the bytes of `url`, whose length is `size`, from byte `start` on. Raises UserError where it is refused."""
    with _answer(url, start) as response:
        code, skip = response.status_code, 0
        if code == 206:
            extent, total = response.headers.get('Content-Range', '').partition('/')[::2]
            if not extent.startswith('bytes %d-' % start):
                raise requests.HTTPError('asked for byte %d on, it sent %s' % (start, extent or 'something else'))
        elif code == 200:  # from the beginning, be it asked for or not
            total, skip = response.headers.get('Content-Length', ''), start
        elif 400 <= code < 500 and code not in (408, 429):
            raise UserError('%s: the server refuses it (HTTP %d); give another --mirror URL, or --archives DIR'
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
    """The response for `url` from byte `start` on, its body yet unread. Raises requests.RequestException."""
    # A server that compresses would count other bytes than ours.
    headers = dict({'Accept-Encoding': 'identity'}, **({'Range': 'bytes=%d-' % start} if start else {}))
    return within(ANSWER_SECONDS, lambda: requests.get(url, headers=headers, stream=True, timeout=ANSWER_SECONDS))


def within(seconds, call):
    """What `call()`, a request, returns within `seconds`. Raises requests.RequestException.

    In a thread, as the timeout of requests limits neither the name look-up nor a name with many addresses.
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
    """What was wrong at the bottom of a failed request."""
    while error.__context__:
        error = error.__context__
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__


def unpack(path, folder, size):
    """Unpack the tar or zip at `path`, about `size` bytes in all, into the new folder `folder`.

    Only folders and files are made: a link becomes a copy of the member it points to. Raises UserError for a member
    that would lie outside, points to what is no file of the archive, or is a device.
    """
    os.mkdir(folder)
    with _bar('unpacking ' + os.path.basename(path), size) as bar, contextlib.closing(_members(path)) as members:
        for name, content in members:
            target = os.path.normpath(os.path.join(folder, name))
            if content is None or not target.startswith(folder + os.sep):
                raise UserError('%s: not unpacked, as its member %s is a device, or leads out of it' % (path, name))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with content, open(target, 'wb') as file:
                shutil.copyfileobj(content, file, BLOCK)
                bar.update(file.tell())


def _members(path):
    """Yield the name and the opened content of all but the folders of a tar or zip; None is no content to unpack."""
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
                    except (KeyError, RecursionError):  # a link to what is not in the archive, or to itself
                        content = None
                    yield member.name, content


def merge(source, target):
    """Move all files below the folder `source` to the same places below `target`.

    Raises UserError, before anything is moved, where another file has the place of one.
    """
    names = [os.path.relpath(os.path.join(parent, name), source)
             for parent, _, files in os.walk(source) for name in files]
    for name in names:
        place = os.path.join(target, name)
        if os.path.lexists(place) and not filecmp.cmp(os.path.join(source, name), place, shallow=False):
            raise UserError("%s is not the data set's file of that name: move it away or give another --root, and run "
                            "again" % place)
    for name in names:
        place = os.path.join(target, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.replace(os.path.join(source, name), place)


def _check_space(args, missing, work):
    """Raise UserError where the disk is too small for what has yet to be downloaded and unpacked."""
    download, unpacked = 0, 0
    for archive in missing:
        if not os.path.isdir(_unpacked(work, archive)):
            places = [os.path.join(folder, _name(archive)) for folder in (args.archives, work) if folder]
            there = max([os.path.getsize(place) for place in places if os.path.isfile(place)], default=0)
            # One archive after the other is downloaded, unpacked and deleted.
            download = max(download, archive.size - there)
            unpacked += archive.unpacked
    free = shutil.disk_usage(args.root).free
    if free < download + unpacked:
        raise UserError('--root %s: %.1f GB are needed there, and %.1f are free; free some or give another --root'
                        % (args.root, (download + unpacked) / 1e9, free / 1e9))


def _name(archive):
    return archive.url.rsplit('/', 1)[1]


def _unpacked(work, archive):
    """The folder that is there as long as an archive is unpacked, but not all of it is in its place yet."""
    return os.path.join(work, _name(archive) + '.unpacked')


def _bar(description, size, start=0):
    # Nothing is shown before something moves: where nothing does, the error is the only line.
    return tqdm(desc=description, total=size, initial=start, unit='B', unit_scale=True, dynamic_ncols=True, leave=False,
                delay=0.5, mininterval=0.5 if sys.stderr.isatty() else 30)
