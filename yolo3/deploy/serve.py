"""A detector as a service: a page that takes pictures or the webcam, and the JSON API behind it.

POST /detect?thresh=0.5, the body an image file, its Content-Type one of TYPES:
    {"width": 640, "height": 480, "milliseconds": 43.1, "detections": [{"class": "dog", "score": 0.93, "box": [...]}]}
the best first, boxes as xmin, ymin, xmax, ymax in the image's pixels. What is refused has a status of its own and
{"error": "..."}: 400 thresh, 413 more than MOST_BYTES or MOST_PIXELS, 415 another type, 422 no such image or a damaged
one, 503 others were before it for MOST_SECONDS.

Images are looked at one after the other, so that no number of requests takes more memory or time than these limits say.
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
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')  # Pillow's names of them, whatever the type says; none of them runs programs
MOST_BYTES = 16 * 2 ** 20
MOST_PIXELS = 25 * 10 ** 6
MOST_SECONDS = 10  # that a request waits for its turn
IDLE_SECONDS = 30  # after which a connection that sends nothing is closed
# The server itself refuses this much, in plain text. Between the two a body is read, so that its sender gets an answer.
CUT_BYTES = 4 * MOST_BYTES


def make_app(look, name, thresh):
    """The Flask application. look: (image (H, W, 3) uint8 RGB, least score) -> detections, see `demo.py`.

    name: of the model, for the page. thresh: the score from which on detections are given, unless a request says.
    """
    app = Flask(__name__, template_folder=os.path.dirname(os.path.abspath(__file__)), static_folder=None)
    app.json.sort_keys = app.json.ensure_ascii = False
    turn = threading.Lock()

    @app.get('/')
    def page():
        return render_template('serve.html', name=name, thresh=thresh, types=','.join(TYPES), most_bytes=MOST_BYTES)

    @app.post('/detect')
    def detect():
        least = least_score()
        if request.mimetype not in TYPES:
            abort(415, 'Content-Type must be one of %s' % ', '.join(TYPES))
        if (request.content_length or 0) > MOST_BYTES:  # without one nothing is read
            abort(413, 'more than %d bytes' % MOST_BYTES)
        content = request.get_data()
        if not turn.acquire(timeout=MOST_SECONDS):
            abort(503, 'busy: others were before this for %d seconds' % MOST_SECONDS)
        try:
            start = time.perf_counter()
            image = decode(content)
            return {'width': image.shape[1], 'height': image.shape[0], 'detections': look(image, least),
                    'milliseconds': round(1000 * (time.perf_counter() - start), 1)}
        finally:
            turn.release()

    def least_score():
        try:
            least = float(request.args.get('thresh', thresh))
        except ValueError:
            least = -1
        return least if 0 <= least <= 1 else abort(400, 'thresh must be a number from 0 to 1')

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


def run(look, name, thresh, host, port):
    """Serve until Ctrl-C or SIGTERM, the rest as `make_app`. Raises UserError where the address is not to be had."""
    try:
        server = waitress.create_server(make_app(look, name, thresh), host=host, port=port, threads=4,
                                        max_request_body_size=CUT_BYTES, channel_timeout=IDLE_SECONDS, ident=None)
    except (OSError, ValueError) as error:
        raise UserError('--host %s --port %d: cannot listen there: %s' % (host, port, error))
    logging.basicConfig(format='%(message)s')
    logging.getLogger('waitress').setLevel(logging.INFO)
    server.print_listen('http://{}:{}  (Ctrl-C ends it)')
    signals = []

    def stop(signum, frame):
        signals.append(signum)
        sys.exit()  # of the server's loop, which then returns
    for signum in signal.SIGINT, signal.SIGTERM:
        signal.signal(signum, stop)
    server.run()
    raise Interrupted(signals[0])
