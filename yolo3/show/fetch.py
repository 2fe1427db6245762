"""The bytes of an http:// or https:// address, bounded in size and time."""
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from yolo3.cli import UserError

MOST_BYTES = 64 * 2 ** 20
MOST_SECONDS = 30  # for all of it to arrive, redirects included
BLOCK = 2 ** 16
# Not urllib's own set, which follows a redirect to ftp:// too.
HANDLERS = (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
            urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler,
            urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler)


def fetch(address):
    """The bytes of an http:// or https:// address, after redirects. Raises UserError.

    A thread does it: no timeout of urllib's covers the look-up of the name, or a server that sends byte after byte.
    """
    answers, deadline = queue.Queue(), time.monotonic() + MOST_SECONDS
    threading.Thread(target=lambda: answers.put(_answer(address, deadline)), daemon=True).start()
    try:
        answer = answers.get(timeout=MOST_SECONDS)
    except queue.Empty:
        answer = UserError('not received within %g s' % MOST_SECONDS)
    if isinstance(answer, Exception):
        raise UserError('cannot read image %s: %s' % (address, ' '.join(str(answer).split())))
    return answer


def _answer(address, deadline):
    """The bytes of an address, or an Exception that says why there are none; no later than soon after the deadline."""
    opener = urllib.request.OpenerDirector()
    for handler in HANDLERS:
        opener.add_handler(handler())
    try:
        parts = urllib.parse.urlsplit(address)
        quoted = parts._replace(**{name: urllib.parse.quote(getattr(parts, name), safe="%/:=&?~+!$,;'@()*[]")
                                   for name in ('path', 'query')}, fragment='')
        request = urllib.request.Request(quoted.geturl(), headers={'User-Agent': 'yolo3-demo'})
        with opener.open(request, timeout=MOST_SECONDS) as response:
            return _body(response, deadline)
    except urllib.error.HTTPError as error:
        return UserError('HTTP %d %s' % (error.code, error.reason))
    except Exception as error:  # http.client, ssl and the look-up of names raise errors of every kind
        reason = getattr(error, 'reason', error)
        return UserError(getattr(reason, 'strerror', None) or str(reason) or type(reason).__name__)


def _body(response, deadline):
    """The body of a response. Raises UserError if it is too long, late, or cut short."""
    text = response.headers.get('Content-Length', '')
    announced = int(text) if text.isdigit() else None
    if (announced or 0) > MOST_BYTES:
        raise UserError('more than %d bytes' % MOST_BYTES)
    body = bytearray()
    while time.monotonic() < deadline:
        block = response.read1(BLOCK)
        body += block
        if len(body) > MOST_BYTES:
            raise UserError('more than %d bytes' % MOST_BYTES)
        if not block:
            if announced not in (None, len(body)):
                raise UserError('the connection closed early')
            return bytes(body)
    raise UserError('not received within %g s' % MOST_SECONDS)
