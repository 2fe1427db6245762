"""download.py against a server that fails in every way, malicious archives, and a kill at any point."""
import argparse
import collections
import hashlib
import http.server
import io
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import pytest
import requests

from conftest import ROOT
from yolo3.data import download
from yolo3.cli import UserError



class Server(http.server.ThreadingHTTPServer):
    """Serves self.files ({name: bytes}); each request takes one of self.faults away and suffers it."""
    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.faults, self.requests, self.release = {}, [], [], threading.Event()
        self.url = 'http://127.0.0.1:%d/pub/' % self.server_port

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        server, name = self.server, self.path.rsplit('/', 1)[1]
        asked = self.headers.get('Range')
        server.requests.append((name, asked))
        fault = server.faults.pop(0) if server.faults else None
        if fault == 'hang up':
            self.close_connection = True
            return
        if isinstance(fault, int) or name not in server.files:
            self.send_response(fault if isinstance(fault, int) else 404)
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        content = server.files[name]
        if fault == 'truncated file':
            content = content[:-1000]
        start = int(re.match(r'bytes=(\d+)-$', asked).group(1)) if asked and fault != 'ignore range' else 0
        body = content[start:]
        self.send_response(206 if asked and fault != 'ignore range' else 200)
        if asked and fault != 'ignore range':
            shown = start - (fault == 'other range')
            self.send_header('Content-Range', 'bytes %d-%d/%d' % (shown, len(content) - 1, len(content)))
        if fault == 'endless':
            self.close_connection = True
        else:
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if fault == 'corrupt':
            body = body[:-500] + bytes([body[-500] ^ 1]) + body[-499:]
        if fault in ('drop', 'stall'):
            self.wfile.write(body[:len(body) // 2])
            if fault == 'stall':
                server.release.wait()
            self.close_connection = True
            return
        self.wfile.write(body)
        while fault == 'endless' and not server.release.is_set():
            self.wfile.write(bytes(1 << 16))

    def log_message(self, *args):
        pass


class Clock:
    """Time that passes only in sleep(); notes how long each was."""

    def __init__(self):
        self.now, self.waits = 1000, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def server(monkeypatch):
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.setenv(name, '127.0.0.1')
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(download, 'time', clock)
    return clock


def tar(*members):
    """The bytes of a tar of (name, content) or TarInfo members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def zipped(*members):
    """The bytes of a zip of (name or ZipInfo, content) members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name, content in members:
            # A ZipInfo of its own has no time in it: the same bytes in every process.
            archive.writestr(zipfile.ZipInfo(name) if isinstance(name, str) else name, content)
    return out.getvalue()


def special(name, kind, target=''):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


FILES = {'SET/images/%d.jpg' % number: random.Random(number).getrandbits(8 * 40000).to_bytes(40000, 'big')
         for number in range(5)}
FIRST = tar(special('SET', tarfile.DIRTYPE), *list(FILES.items())[:3], ('SET/notes/a.txt', b'a'))
SECOND = zipped(('SET/', b''), *list(FILES.items())[3:], ('SET/notes/b.txt', b'b'))
WHOLE = {name[4:]: content for name, content in dict(FILES, **{'SET/notes/a.txt': b'a',
                                                              'SET/notes/b.txt': b'b'}).items()}


def archive(url, content, part='first', expected=3):
    return download.Archive(url, hashlib.sha1(content).hexdigest(), len(content), 200000, part, expected)


def count(root, part):
    folder = os.path.join(root, 'images')
    there = os.listdir(folder) if os.path.isdir(folder) else []
    return len(set(there) & set(['0.jpg', '1.jpg', '2.jpg'] if part == 'first' else ['3.jpg', '4.jpg']))


def table(url):
    return [archive(url + 'first.tar', FIRST), archive(url + 'second.zip', SECOND, 'second', 2)]


def prepare(root, url, mirror='', archives=''):
    args = argparse.Namespace(root=str(root), mirror=mirror, archives=str(archives))
    download.prepare(args, table(url), count, 'SET')


@pytest.fixture
def both(server):
    server.files = {'first.tar': FIRST, 'second.zip': SECOND}
    return server


def snapshot(folder):
    return {os.path.relpath(os.path.join(parent, name), str(folder)): pathlib.Path(parent, name).read_bytes()
            for parent, _, names in os.walk(str(folder)) for name in names}


# ---- From archives to the set

def test_the_set_is_made_once(both, tmp_path, capsys):
    prepare(tmp_path / 'a' / 'set', both.url)
    assert snapshot(tmp_path / 'a' / 'set') == WHOLE and not (tmp_path / 'a' / 'set' / download.WORK).exists()
    assert capsys.readouterr().out == '%s: complete (first 3, second 2)\n' % (tmp_path / 'a' / 'set')
    assert both.requests == [('first.tar', None), ('second.zip', None)]
    before = {path: os.stat(path).st_mtime_ns for path, _, _ in os.walk(str(tmp_path))}
    prepare(tmp_path / 'a' / 'set', both.url)
    assert len(both.requests) == 2 and 'complete (first 3, second 2)' in capsys.readouterr().out
    assert {path: os.stat(path).st_mtime_ns for path, _, _ in os.walk(str(tmp_path))} == before


def test_only_missing_archives_are_downloaded(both, tmp_path):
    prepare(tmp_path, both.url)
    (tmp_path / 'images' / '4.jpg').unlink()
    prepare(tmp_path, both.url)
    assert snapshot(tmp_path) == WHOLE and [name for name, _ in both.requests[2:]] == ['second.zip']


def test_mirror(both, tmp_path):
    prepare(tmp_path, 'http://nowhere.invalid/deep/', mirror=both.url.rstrip('/'))
    assert snapshot(tmp_path) == WHOLE


def test_given_archives_are_used_and_kept(both, tmp_path, capsys):
    (tmp_path / 'there').mkdir()
    (tmp_path / 'there' / 'first.tar').write_bytes(FIRST)
    prepare(tmp_path / 'set', both.url, archives=tmp_path / 'there')
    assert snapshot(tmp_path / 'set') == WHOLE and [name for name, _ in both.requests] == ['second.zip']
    assert snapshot(tmp_path / 'there') == {'first.tar': FIRST} and 'damaged' not in capsys.readouterr().err


@pytest.mark.parametrize('content', [FIRST[:-100], FIRST[:70000] + b'x' + FIRST[70001:], b''])
def test_a_damaged_archive_in_the_folder_is_reported_and_downloaded(both, tmp_path, capsys, content):
    (tmp_path / 'there').mkdir()
    (tmp_path / 'there' / 'first.tar').write_bytes(content)
    prepare(tmp_path / 'set', both.url, archives=tmp_path / 'there')
    assert snapshot(tmp_path / 'set') == WHOLE and snapshot(tmp_path / 'there') == {'first.tar': content}
    assert '%s is damaged' % (tmp_path / 'there' / 'first.tar') in capsys.readouterr().err


@pytest.mark.parametrize('content', [FIRST[:90000] + b'x' + FIRST[90001:], FIRST + b'x', FIRST[:50000] + b'x'])
def test_a_damaged_download_is_reported_and_repeated(both, tmp_path, capsys, content):
    (tmp_path / download.WORK).mkdir()
    (tmp_path / download.WORK / 'first.tar').write_bytes(content)
    prepare(tmp_path, both.url)
    assert snapshot(tmp_path) == WHOLE
    assert '%s is damaged' % (tmp_path / download.WORK / 'first.tar') in capsys.readouterr().err


def test_other_files_are_left_alone(both, tmp_path):
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / 'b.txt').write_text('mine')
    with pytest.raises(UserError, match='notes/b.txt is not.*move it away'):
        prepare(tmp_path, both.url)
    assert (tmp_path / 'notes' / 'b.txt').read_text() == 'mine' and not (tmp_path / 'images' / '4.jpg').exists()
    asked = len(both.requests)
    (tmp_path / 'notes' / 'b.txt').rename(tmp_path / 'mine.txt')
    prepare(tmp_path, both.url)
    assert snapshot(tmp_path) == dict(WHOLE, **{'mine.txt': b'mine'}) and len(both.requests) == asked


def test_what_is_not_a_regular_file_is_no_download(both, tmp_path):
    (tmp_path / download.WORK).mkdir()
    os.mkfifo(str(tmp_path / download.WORK / 'first.tar'))
    with pytest.raises(UserError, match='not a regular file.*first.tar'):
        prepare(tmp_path, both.url)


def test_wrong_counts_are_reported(both, tmp_path):
    args = argparse.Namespace(root=str(tmp_path), mirror='', archives='')
    with pytest.raises(UserError, match='%s: there are 3 of first, not 2' % tmp_path):
        download.prepare(args, [table(both.url)[0]._replace(expected=2)], count, 'SET')
    with pytest.raises(UserError, match='there are 3 of first, not 4'):
        download.prepare(args, [table(both.url)[0]._replace(expected=4)], count, 'SET')


def test_space_is_checked_first(both, tmp_path, monkeypatch):
    """One archive at a time is on the disk, beside what is unpacked of all."""
    usage = collections.namedtuple('usage', 'total used free')

    def free(number):
        monkeypatch.setattr(download.shutil, 'disk_usage', lambda path: usage(10 ** 9, 0, number))
    need = 2 * 200000 + len(FIRST)
    assert len(FIRST) > len(SECOND)
    free(need - 1)
    with pytest.raises(UserError, match=r'--root %s: needs 0.0 GB' % tmp_path):
        prepare(tmp_path, both.url)
    assert both.requests == []
    (tmp_path / download.WORK / 'first.tar').write_bytes(FIRST[:50000])  # on the disk already
    free(2 * 200000 + len(SECOND) - 1)
    with pytest.raises(UserError):
        prepare(tmp_path, both.url)
    free(2 * 200000 + max(len(FIRST) - 50000, len(SECOND)))
    prepare(tmp_path, both.url)
    free(0)
    prepare(tmp_path, both.url)


def test_a_root_that_cannot_be_made(both, tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(UserError, match='--root .*file'):
        prepare(tmp_path / 'file' / 'set', both.url)


# ---- A server that fails

@pytest.mark.parametrize('faults', [
    ['drop'], ['drop'] * 6, ['hang up', 'hang up'], ['truncated file'], [500, 503, 429], ['drop', 'ignore range'],
    ['drop', 'other range'], ['drop', 500, 'drop', 'hang up', 'truncated file'], ['corrupt'], ['drop', 'corrupt'],
    ['endless'], ['stall']])
def test_failures_are_overcome(server, clock, tmp_path, monkeypatch, faults):
    if faults == ['stall']:
        monkeypatch.setattr(download, 'ANSWER_SECONDS', 1)
    server.files, server.faults = {'first.tar': FIRST}, list(faults)
    path = download.fetch(archive(server.url + 'first.tar', FIRST), str(tmp_path))
    assert snapshot(tmp_path) == {'first.tar': FIRST} and path == str(tmp_path / 'first.tar')
    # Two of the faults are none to whoever counts bytes; each of the others costs one request.
    assert len(server.requests) == len(faults) + (faults[-1] not in ('ignore range', 'endless'))


def test_received_bytes_are_not_requested_again(server, clock, tmp_path):
    server.files, server.faults = {'first.tar': FIRST}, ['drop', 'drop']
    download.download(server.url + 'first.tar', str(tmp_path / 'first.tar'), len(FIRST))
    half, quarter = len(FIRST) // 2, (len(FIRST) + 1) // 2 // 2
    assert [asked for _, asked in server.requests] == [None, 'bytes=%d-' % half, 'bytes=%d-' % (half + quarter)]
    assert clock.waits == [1, 1]


def test_waits_grow_and_end(server, clock, tmp_path):
    server.files, server.faults = {'first.tar': FIRST}, [500] * 99
    with pytest.raises(UserError, match='first.tar: HTTP 500; .*--mirror URL or --archives DIR'):
        download.download(server.url + 'first.tar', str(tmp_path / 'first.tar'), len(FIRST))
    assert clock.waits == [1, 2, 4]
    server.faults, clock.waits = ['drop'] + [500] * 99, []
    with pytest.raises(UserError, match='HTTP 500'):
        download.download(server.url + 'first.tar', str(tmp_path / 'first.tar'), len(FIRST))
    assert clock.waits[:7] == [1, 2, 4, 8, 16, 30, 30] and 240 < sum(clock.waits) <= 300


def test_no_progress_ends_too(server, clock, tmp_path):
    """It always starts again and never comes further: no progress, though bytes come."""
    server.files, server.faults = {'first.tar': FIRST}, ['drop']

    def from_the_start(self):
        del self.headers['Range']
        self.server.faults.append('drop')
        Handler.do_GET(self)
    server.RequestHandlerClass = type('Stuck', (Handler,), {'do_GET': from_the_start})
    with pytest.raises(UserError):
        download.download(server.url + 'first.tar', str(tmp_path / 'first.tar'), len(FIRST))
    assert os.path.getsize(str(tmp_path / 'first.tar')) == len(FIRST) // 2


@pytest.mark.parametrize('status', [403, 404, 416])
def test_refusals_are_reported_at_once(server, clock, tmp_path, status):
    server.files, server.faults = {'first.tar': FIRST}, [status]
    with pytest.raises(UserError, match='first.tar: the server refuses .HTTP %d.*--mirror.*--archives' % status):
        download.fetch(archive(server.url + 'first.tar', FIRST), str(tmp_path))
    assert len(server.requests) == 1 and clock.waits == []


def test_another_file_is_reported(server, clock, tmp_path):
    server.files = {'first.tar': FIRST[:-1] + b'x'}
    with pytest.raises(UserError, match='first.tar is not the file with SHA-1 %s' % hashlib.sha1(FIRST).hexdigest()):
        download.fetch(archive(server.url + 'first.tar', FIRST), str(tmp_path))
    assert len(server.requests) == 3 and os.listdir(tmp_path) == []
    server.files = {'first.tar': b'<html>Log in first</html>'}
    with pytest.raises(UserError, match='it has 25 bytes instead of %d' % len(FIRST)):
        download.fetch(archive(server.url + 'first.tar', FIRST), str(tmp_path))


def test_a_name_look_up_that_hangs(clock, tmp_path, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(requests, 'get', lambda *args, **more: never.wait())
    monkeypatch.setattr(download, 'ANSWER_SECONDS', 0.01)
    with pytest.raises(UserError, match='no answer'):
        download.download('http://example.invalid/first.tar', str(tmp_path / 'first.tar'), 1)
    never.set()


@pytest.mark.parametrize('script', ['prepare_voc.py', 'prepare_coco.py'])
def test_no_network_is_one_line(run, clock, tmp_path, script):
    if script == 'prepare_coco.py' and shutil.disk_usage(tmp_path).free < 42e9:
        pytest.skip('the disk has no room for COCO, which is reported first')
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))  # and does not listen
        result = run('scripts/' + script, '--root', tmp_path, '--mirror',
                     'http://127.0.0.1:%d/' % unused.getsockname()[1], env={'no_proxy': '127.0.0.1'})
    assert result.returncode == 2 and result.stdout == ''
    assert re.match(r'%s: error: http.*refused.*--mirror.*--archives[^\n]*\n$' % script, result.stderr)


@pytest.mark.parametrize('flag, value', [('--mirror', 'ftp://host/'), ('--mirror', '/folder'),
                                         ('--archives', 'nowhere')])
def test_wrong_flags(flag, value):
    with pytest.raises(UserError, match=flag):
        download.parse_args('', '~', [flag, value])


# ---- Malicious archives

def link(name, target, kind=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info, target


def harm(outside):
    """Archives with a member named evil, that lies in the folder `outside`, points there or is a device."""
    return {
        'parent.tar': tar(('../evil', b'evil')),
        'deep.tar': tar(('a/b/../../../evil', b'evil')),
        'sibling.tar': tar(('../new-evil', b'evil')),
        'absolute.tar': tar((outside + '/evil', b'evil')),
        'symlink.tar': tar(special('evil', tarfile.SYMTYPE, '../victim')),
        'absolute_symlink.tar': tar(special('evil', tarfile.SYMTYPE, outside + '/victim')),
        'through.tar': tar(special('evil', tarfile.SYMTYPE, '..'), ('evil/evil', b'evil')),
        'hardlink.tar': tar(special('evil', tarfile.LNKTYPE, '../victim')),
        'absolute_hardlink.tar': tar(special('evil', tarfile.LNKTYPE, outside + '/victim')),
        'loop.tar': tar(special('evil', tarfile.SYMTYPE, 'loop'), special('loop', tarfile.SYMTYPE, 'evil')),
        'char.tar': tar(special('evil', tarfile.CHRTYPE)),
        'block.tar': tar(special('evil', tarfile.BLKTYPE)),
        'fifo.tar': tar(special('evil', tarfile.FIFOTYPE)),
        'parent.zip': zipped(('../evil', b'evil')),
        'deep.zip': zipped(('a/b/../../../evil', b'evil')),
        'absolute.zip': zipped((outside + '/evil', b'evil')),
        'symlink.zip': zipped(link('evil', '../victim')),
        'through.zip': zipped(link('evil', '..'), ('evil/evil', b'evil')),
        'device.zip': zipped(link('evil', '', stat.S_IFCHR)),
    }


@pytest.mark.parametrize('name', sorted(harm('')))
def test_harm_is_refused(tmp_path, name):
    (tmp_path / 'victim').write_text('mine')
    (tmp_path / name).write_bytes(harm(str(tmp_path))[name])
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match='%s: not unpacked: its member .*evil' % name):
        download.unpack(str(tmp_path / name), str(tmp_path / 'new'), 100)
    assert snapshot(tmp_path) == before and os.listdir(tmp_path / 'new') == []


def test_links_within_become_copies(tmp_path):
    (tmp_path / 'a.tar').write_bytes(tar(('d/file', b'content'), special('d/soft', tarfile.SYMTYPE, 'file'),
                                         special('hard', tarfile.LNKTYPE, 'd/file')))
    download.unpack(str(tmp_path / 'a.tar'), str(tmp_path / 'new'), 100)
    assert snapshot(tmp_path / 'new') == {name: b'content' for name in ('d/file', 'd/soft', 'hard')}
    for name in ('d/soft', 'hard'):
        assert os.lstat(tmp_path / 'new' / name).st_nlink == 1 and not (tmp_path / 'new' / name).is_symlink()


def test_harm_does_not_reach_the_set(server, tmp_path):
    server.files = {'first.tar': tar(('SET/images/0.jpg', b'0'), ('SET/../../../evil', b'evil'))}
    args = argparse.Namespace(root=str(tmp_path / 'set'), mirror='', archives='')
    with pytest.raises(UserError, match='member SET/../../../evil'):
        download.prepare(args, [archive(server.url + 'first.tar', server.files['first.tar'])], count, 'SET')
    assert os.listdir(tmp_path) == ['set'] and os.listdir(tmp_path / 'set') == [download.WORK]


# ---- Killed at any point

def prepare_until(last, *args):
    """prepare(*args), killed before change number `last` of the disk."""
    changes = 0

    def watch(event, details):
        nonlocal changes
        writes = event == 'open' and set('wax') & set(str(details[1]))
        if writes or event in ('os.rename', 'os.remove', 'os.rmdir', 'os.mkdir'):
            changes += 1
            if changes == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    prepare(*args)


def start(root, url, last=0):
    """prepare_until() in a process of its own."""
    process = multiprocessing.get_context('fork').Process(target=prepare_until, args=(last, root, url), daemon=True)
    process.start()
    return process


def test_killed_during_the_download(both, tmp_path):
    both.faults = ['stall']
    process = start(tmp_path, both.url)
    part = tmp_path / download.WORK / 'first.tar'
    while not part.exists() or part.stat().st_size == 0:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    size = part.stat().st_size
    assert 0 < size <= len(FIRST) // 2
    prepare(tmp_path, both.url)
    assert snapshot(tmp_path) == WHOLE and both.requests[1] == ('first.tar', 'bytes=%d-' % size)


def test_killed_at_any_point(both, tmp_path):
    """Before each change of the disk in turn; the second run completes the set and does not download twice."""
    for last in range(1, 1000):
        root, both.requests[:] = tmp_path / str(last), []
        process = start(root, both.url, last)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        in_place = {name: content for name, content in snapshot(root).items() if not name.startswith(download.WORK)}
        assert in_place.items() <= WHOLE.items()
        prepare(root, both.url)
        assert snapshot(root) == WHOLE and not (root / download.WORK).exists()
        assert len(both.requests) == 2
    assert last > 30


def test_needs_no_mxnet():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import yolo3.data.download; assert 'mxnet' not in sys.modules"
    subprocess.run([sys.executable, '-c', code, ROOT], check=True)
