"""Images by http:// address, from a server on 127.0.0.1: what arrives, redirects, and limits of size and time."""
import http.server
import socket
import threading
import time
import urllib.parse

import pytest

from yolo3.cli import UserError
from yolo3.show import fetch

BODY = bytes(range(256)) * 300


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each path as its name says."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.asked.append(self.path)
        getattr(self, path.split('/')[1].split('.')[0] or 'good', self.good)()

    def reply(self, body=BODY, status=200, headers=(), length=None):
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.send_header('Content-Length', str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def good(self):
        self.reply()

    def missing(self):
        self.reply(b'', 404)

    def moved(self):
        self.reply(b'', 302, [('Location', '/hop')])

    def hop(self):
        self.reply(b'', 301, [('Location', 'http://127.0.0.1:%d/good.jpg' % self.server.server_port)])

    def loop(self):
        self.reply(b'', 302, [('Location', '/loop?' + self.path)])

    def ftp(self):
        self.reply(b'', 302, [('Location', 'ftp://127.0.0.1/a.jpg')])

    def file(self):
        self.reply(b'', 302, [('Location', 'file:///etc/passwd')])

    def chunks(self, size=1000):
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        for start in range(0, len(BODY), size):
            block = BODY[start:start + size]
            self.wfile.write(b'%x\r\n%s\r\n' % (len(block), block))
        self.wfile.write(b'0\r\n\r\n')

    def short(self):
        self.reply(BODY[:1000], length=len(BODY))
        self.close_connection = True

    def announced(self):
        self.reply(b'x', length=10 ** 12)

    def silent(self):
        self.server.stopped.wait(20)

    def trickle(self):
        self.send_response(200)
        self.end_headers()
        while not self.server.stopped.wait(0.05):
            self.wfile.write(b'x')

    def headers_trickle(self):
        self.wfile.write(b'HTTP/1.1 200 OK\r\nX: ')
        while not self.server.stopped.wait(0.05):
            self.wfile.write(b'x')

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):  # the client has gone
        pass


@pytest.fixture(scope='module')
def server():
    """A server; `at(path)` is the address of a path."""
    server = Server(('127.0.0.1', 0), Handler)
    server.stopped, server.asked = threading.Event(), []
    server.at = lambda path: 'http://127.0.0.1:%d/%s' % (server.server_port, path)
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')


@pytest.mark.parametrize('path', ['good.jpg', '', 'moved', 'chunks', 'good.jpg#part', 'GOOD?a=1,b&c=%20d'])
def test_all_of_it_arrives(server, path):
    assert fetch.fetch(server.at(path)) == BODY
    assert fetch.fetch(server.at(path).replace('http', 'HTTP', 1)) == BODY


def test_an_address_with_other_letters_is_asked_for_as_browsers_do(server):
    assert fetch.fetch(server.at('good/狗 %20.jpg?x=é')) == BODY
    assert server.asked[-1] == '/good/%E7%8B%97%20%20.jpg?x=%C3%A9'


@pytest.mark.parametrize('path, why', [
    ('missing', 'HTTP 404 Not Found'), ('loop', 'HTTP 302 .*infinite loop'), ('ftp', 'unknown url type: ftp'),
    ('file', 'HTTP 302'), ('short', 'closed early'), ('announced', 'more than 67108864 bytes')])
def test_what_does_not_arrive_is_named_in_one_line(server, path, why):
    with pytest.raises(UserError, match='cannot read image %s: .*(%s)' % (server.at(path), why)) as refusal:
        fetch.fetch(server.at(path))
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize('path', ['good', 'chunks'])
def test_the_size_is_bounded_whatever_is_announced(server, monkeypatch, path):
    monkeypatch.setattr(fetch, 'MOST_BYTES', len(BODY))
    assert fetch.fetch(server.at(path)) == BODY
    monkeypatch.setattr(fetch, 'MOST_BYTES', len(BODY) - 1)
    with pytest.raises(UserError, match='more than %d bytes' % (len(BODY) - 1)):
        fetch.fetch(server.at(path))


@pytest.mark.parametrize('path', ['silent', 'trickle', 'headers_trickle'])
def test_the_time_is_bounded_however_slowly_it_comes(server, monkeypatch, path):
    monkeypatch.setattr(fetch, 'MOST_SECONDS', 0.3)
    start = time.monotonic()
    with pytest.raises(UserError, match=r'not received within 0\.3 s|timed out'):
        fetch.fetch(server.at(path))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize('address', ['http://', 'http://:80/', 'https://[::1/a.jpg', 'http://127.0.0.1:port/a.jpg',
                                     'http://user:word@127.0.0.1/a.jpg', 'http://127.0.0.1:99999/a', 'http://a b/'])
def test_nonsense_is_refused(address):
    with pytest.raises(UserError, match='cannot read image http') as refusal:
        fetch.fetch(address)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_closed_port_is_named():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        with pytest.raises(UserError, match='Connection refused'):
            fetch.fetch('http://127.0.0.1:%d/a.jpg' % free.getsockname()[1])
