"""A detector as a web service: a page for pictures and the webcam, and the JSON API behind it.

POST /detect?thresh=0.5, the body an image file, its Content-Type one of TYPES:
    {"width": 640, "height": 480, "milliseconds": 43.1, "detections": [{"class": "dog", "score": 0.93, "box": [...]}]}
the best first, boxes as xmin, ymin, xmax, ymax in the image's pixels. A refusal has its own status and
{"error": "..."}: 400 wrong thresh, 413 more than MOST_BYTES or MOST_PIXELS, 415 another type, 422 no such image or a
damaged one, 503 queued for MOST_SECONDS.

Images are processed one at a time, so that no number of requests takes more memory or time than these limits allow.
Clients that send slowly are cut off after REQUEST_SECONDS, or earlier if others need their connections: see Connection.
"""
import collections
import logging
import math
import os
import signal
import sys
import threading
import time

from yolo3.cli import Interrupted, UserError, fail
from yolo3.data.images import ImageFile
from yolo3.show.draw import colour

try:
    import waitress
    import waitress.channel
    import waitress.server
    from flask import Flask, abort, render_template, request
    from werkzeug.exceptions import HTTPException
except ImportError as missing:
    fail(UserError('--serve: Python has no module %s here: pip install -r requirements/deploy.txt' % missing.name))

FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')  # Pillow's names: it reads no other, whatever the type says; none runs code
TYPES = tuple('image/' + name.lower() for name in FORMATS)
MOST_BYTES = 16 * 2 ** 20
MOST_PIXELS = 25 * 10 ** 6
MOST_SECONDS = 10  # that a request may wait in the queue
IDLE_SECONDS = 30  # before a connection that sends nothing is closed
REQUEST_SECONDS = 60  # for a whole request, headers and body, to arrive
MOST_CONNECTIONS = 64  # at once
HEAD_START = 2 ** 16  # bytes that count as received when a request begins: a new one is not the slowest at once
# The server itself refuses from here on, in plain text. A smaller body is read, so that its sender gets JSON.
CUT_BYTES = 4 * MOST_BYTES


def make_app(find, name, classes, thresh):
    """The Flask application. find: (image (H, W, 3) uint8 RGB, lowest score) -> [{'class', 'score', 'box'}].

    name, classes: of the model, for the page. thresh: the lowest score, 0..1, unless a request has its own.
    """
    app = Flask(__name__, template_folder=os.path.dirname(os.path.abspath(__file__)), static_folder=None)
    app.json.sort_keys = app.json.ensure_ascii = False
    turn = threading.Lock()

    @app.get('/')
    def page():
        return render_template('serve.html', name=name, thresh=thresh, types=TYPES, formats=FORMATS,
                               most_bytes=MOST_BYTES, colours=[(name, colour(name)) for name in classes])

    @app.post('/detect')
    def detect():
        lowest = lowest_score()
        if request.mimetype not in TYPES:
            abort(415, 'Content-Type must be one of %s' % ', '.join(TYPES))
        if (request.content_length or 0) > MOST_BYTES:  # a body without its length is not read
            abort(413, 'more than %d bytes' % MOST_BYTES)
        content = request.get_data()
        if not turn.acquire(timeout=MOST_SECONDS):
            abort(503, 'server busy: queued for %g s' % MOST_SECONDS)
        try:
            start = time.perf_counter()
            image = decode(content)
            return {'width': image.shape[1], 'height': image.shape[0], 'detections': find(image, lowest),
                    'milliseconds': round(1000 * (time.perf_counter() - start), 1)}
        finally:
            turn.release()

    def lowest_score():
        try:
            lowest = float(request.args.get('thresh', thresh))
        except ValueError:
            lowest = -1
        return lowest if 0 <= lowest <= 1 else abort(400, 'thresh must be a number from 0 to 1')

    @app.errorhandler(HTTPException)
    def refuse(error):
        return {'error': error.description}, error.code

    return app


def decode(content):
    """The pixels of an image file's bytes, (H, W, 3) uint8 RGB; aborts with 413 or 422."""
    try:
        image = ImageFile('file', content=content, formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            abort(413, 'more than %d pixels' % MOST_PIXELS)
        return image.pixels()
    except UserError as error:
        abort(422, str(error))


class Connection(waitress.channel.HTTPChannel):
    """A connection of waitress, which knows limits for silence and size only.

    It is closed if a request takes longer than REQUEST_SECONDS to arrive. If there are MOST_CONNECTIONS, a new one
    closes the slowest that is still sending, of the address that has most of these.
    """

    def __init__(self, server, connection, address, *args, **kwargs):
        open_ones = [other for other in server.active_channels.values() if not other.will_close]
        sending = [other for other in open_ones if other.is_sending()]
        if sending and len(open_ones) >= MOST_CONNECTIONS:
            of_address = collections.Counter(other.addr[0] for other in sending)
            min(sending, key=lambda other: (-of_address[other.addr[0]], other.speed())).will_close = True
        self._begin()
        super().__init__(server, connection, address, *args, **kwargs)

    def _begin(self):
        """A request is expected from now on."""
        self._start, self._received = time.monotonic(), HEAD_START

    def is_sending(self):
        """Whether no whole request has arrived that is still to be answered."""
        return not self.requests and not self.total_outbufs_len and self._start < math.inf

    def speed(self):
        """Bytes a second, the head start included."""
        return self._received / (1 + time.monotonic() - self._start)

    def received(self, data):
        self._received += len(data)
        return super().received(data)

    def service(self):
        self._start = math.inf
        super().service()
        self._begin()

    def readable(self):
        """Called at least once a second."""
        self.will_close |= self.is_sending() and time.monotonic() - self._start > REQUEST_SECONDS
        return super().readable()


def make_server(app, host, port):
    """A server of waitress for the Flask application. Raises UserError if the address is not available."""
    waitress.server.BaseWSGIServer.channel_class = Connection
    try:
        return waitress.create_server(app, host=host, port=port, threads=4, max_request_body_size=CUT_BYTES,
                                      channel_timeout=IDLE_SECONDS, connection_limit=2 * MOST_CONNECTIONS, ident=None)
    except (OSError, ValueError) as error:
        raise UserError('--host %s --port %d: cannot listen on this address: %s' % (host, port, error))


def run(app, host, port):
    """Serve the application of `make_app` until Ctrl-C or SIGTERM. Raises UserError as `make_server`."""
    server = make_server(app, host, port)
    logging.basicConfig(format='%(message)s')
    logging.getLogger('waitress').setLevel(logging.INFO)
    server.print_listen('http://{}:{}  (Ctrl-C stops it)')
    signals = []

    def stop(signum, frame):
        signals.append(signum)
        sys.exit()  # ends the server's loop, which then returns
    for signum in signal.SIGINT, signal.SIGTERM:
        signal.signal(signum, stop)
    server.run()
    raise Interrupted(signals[0])
