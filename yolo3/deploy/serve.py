"""A detector as a web service: a page for pictures and the webcam, and the JSON API behind it.

POST /detect?thresh=0.5, the body an image file, its Content-Type one of TYPES:
    {"width": 640, "height": 480, "milliseconds": 43.1, "detections": [{"class": "dog", "score": 0.93, "box": [...]}]}
the best first, boxes as xmin, ymin, xmax, ymax in the image's pixels. A refusal has its own status and
{"error": "..."}: 400 wrong thresh, 413 more than MOST_BYTES or MOST_PIXELS, 415 another type, 422 no such image or a
damaged one, 503 queued for MOST_SECONDS.

Images are processed one at a time, so that no number of requests takes more memory or time than these limits allow.
"""
import logging
import os
import signal
import sys
import threading
import time

from yolo3.cli import Interrupted, UserError, fail
from yolo3.data.images import ImageFile

try:
    import waitress
    from flask import Flask, abort, render_template, request
    from werkzeug.exceptions import HTTPException
except ImportError as missing:
    fail(UserError('--serve: Python has no module %s here: pip install -r requirements/deploy.txt' % missing.name))

TYPES = ('image/jpeg', 'image/png', 'image/webp', 'image/bmp')
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')  # Pillow's names: it reads no other, whatever the type says; none runs code
MOST_BYTES = 16 * 2 ** 20
MOST_PIXELS = 25 * 10 ** 6
MOST_SECONDS = 10  # that a request may wait in the queue
IDLE_SECONDS = 30  # before a connection that sends nothing is closed
# The server itself refuses from here on, in plain text. A smaller body is read, so that its sender gets JSON.
CUT_BYTES = 4 * MOST_BYTES


def make_app(find, name, thresh):
    """The Flask application. find: (image (H, W, 3) uint8 RGB, lowest score) -> [{'class', 'score', 'box'}].

    name: of the model, for the page. thresh: the lowest score, 0..1, unless a request has its own.
    """
    app = Flask(__name__, template_folder=os.path.dirname(os.path.abspath(__file__)), static_folder=None)
    app.json.sort_keys = app.json.ensure_ascii = False
    turn = threading.Lock()

    @app.get('/')
    def page():
        return render_template('serve.html', name=name, thresh=thresh, types=','.join(TYPES), most_bytes=MOST_BYTES)

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
        image = ImageFile('sent', content=content, formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            abort(413, 'more than %d pixels' % MOST_PIXELS)
        return image.pixels()
    except UserError as error:
        abort(422, str(error))


def run(find, name, thresh, host, port):
    """Serve until Ctrl-C or SIGTERM; see `make_app`. Raises UserError if the address is not available."""
    try:
        server = waitress.create_server(make_app(find, name, thresh), host=host, port=port, threads=4,
                                        max_request_body_size=CUT_BYTES, channel_timeout=IDLE_SECONDS, ident=None)
    except (OSError, ValueError) as error:
        raise UserError('--host %s --port %d: cannot listen on this address: %s' % (host, port, error))
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
