"""demo.py --serve: the API, what it refuses, and the page in a browser if there is one."""
import contextlib
import gc
import http.client
import io
import json
import os
import pathlib
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

pytest.importorskip('flask')
waitress = pytest.importorskip('waitress')

from flask import request
from conftest import ROOT, slow
from yolo3.deploy import serve

FOUND = [{'class': '狗 <b>', 'score': 0.9, 'box': [10.5, 20, 50, 90]},
         {'class': 'cat', 'score': 0.6, 'box': [0, 0, 9, 9]},
         {'class': 'dog', 'score': 0.2, 'box': [300, 200, 400, 300]}]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


def picture(width=120, height=80, extension='.png', **options):
    """A picture with something to see in it, as the content of a file."""
    noise = np.random.RandomState(0).randint(0, 256, (6, 8, 3)).astype('uint8')
    image, buffer = Image.fromarray(cv2.resize(noise, (width, height))), io.BytesIO()
    image.save(buffer, Image.registered_extensions()[extension], **options)
    return buffer.getvalue()


def flat(width, height, format_='PNG', **options):
    """A picture of one colour: many pixels in few bytes."""
    buffer = io.BytesIO()
    Image.new('L', (width, height)).save(buffer, format_, **options)
    return buffer.getvalue()


def claims(width, height):
    """A PNG that says it is `width` x `height` pixels and ends there."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))


def text_bomb():
    """A small PNG with a comment of 200 MB, compressed."""
    comments = PngImagePlugin.PngInfo()
    comments.add_text('Comment', 'a' * (200 * 2 ** 20), zip=True)
    return flat(8, 8, pnginfo=comments)


@pytest.fixture
def seen():
    """What the application under test was asked to detect: (image, lowest score)."""
    return []


@pytest.fixture
def app(seen):
    def find(image, thresh):
        seen.append((image, thresh))
        return FOUND
    return serve.make_app(find, 'cells & <b>.onnx', ['狗 <b>', 'cat', 'dog'], 0.5)


@pytest.fixture
def send(app):
    """send(content, type, query) -> the response."""
    client = app.test_client()
    return lambda content, type_='image/png', query='': client.post('/detect' + query, data=content, content_type=type_)


def test_detections_in_the_pictures_pixels(send, seen):
    answer = send(picture())
    assert answer.status_code == 200 and answer.mimetype == 'application/json'
    content = answer.get_json()
    assert content.pop('milliseconds') > 0
    assert content == {'width': 120, 'height': 80, 'detections': FOUND}
    (image, thresh), = seen
    assert thresh == 0.5
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(picture()))))
    assert send(picture(), query='?thresh=0.25').status_code == 200 and seen[1][1] == 0.25


@pytest.mark.parametrize('extension, type_', [('.jpg', 'image/jpeg'), ('.webp', 'image/webp'), ('.bmp', 'image/bmp'),
                                              ('.jpg', 'image/png; charset=x')])
def test_every_type(send, seen, extension, type_):
    assert send(picture(extension=extension), type_).status_code == 200
    assert np.abs(seen[0][0].astype(int) - np.asarray(Image.open(io.BytesIO(picture())))).mean() < 9


def test_a_turned_picture_is_upright(send, seen):
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = send(picture(extension='.jpg', exif=exif), 'image/jpeg').get_json()
    assert (answer['width'], answer['height']) == (80, 120) and seen[0][0].shape == (120, 80, 3)


REFUSED = {
    'empty': (b'', 'image/png', 422), 'text': (b'not an image', 'image/jpeg', 422),
    'truncated JPEG': (picture(800, 600, '.jpg')[:9000], 'image/jpeg', 422),
    'truncated PNG': (picture(800, 600)[:20000], 'image/png', 422),
    'truncated WebP': (picture(800, 600, '.webp')[:2000], 'image/webp', 422),
    'truncated BMP': (picture(800, 600, '.bmp')[:20000], 'image/bmp', 422),
    'header alone': (claims(64, 64), 'image/png', 422),
    'no pixels': (claims(0, 64), 'image/png', 422),
    'SVG': (SVG, 'image/svg+xml', 415), 'SVG by another name': (SVG, 'image/png', 422),
    'GIF by another name': (flat(9, 9, 'GIF'), 'image/png', 422),
    'TIFF by another name': (flat(9, 9, 'TIFF'), 'image/png', 422),
    'EPS by another name': (flat(9, 9, 'EPS'), 'image/jpeg', 422),
    'form': (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + picture() + b'\r\n--x--\r\n',
             'multipart/form-data; boundary=x', 415),
    'JSON': (b'{}', 'application/json', 415), 'no type': (picture(), None, 415),
    'too many bytes': (b'\0' * (serve.MOST_BYTES + 1), 'image/png', 413),
    'too many pixels': (flat(6000, 5000), 'image/png', 413),
    'too many pixels, JPEG': (flat(6000, 5000, 'JPEG'), 'image/jpeg', 413),
    'bomb': (flat(15000, 12000), 'image/png', 422),
    'claimed bomb': (claims(2 ** 31 - 1, 2 ** 31 - 1), 'image/png', 422)}


@pytest.mark.parametrize('name', REFUSED)
def test_hostile_uploads_are_refused(send, seen, name):
    content, type_, status = REFUSED[name]
    answer = send(content, type_)
    assert answer.status_code == status, answer.get_json()
    message = answer.get_json()['error']
    assert list(answer.get_json()) == ['error'] and '\n' not in message and len(message) < 300
    assert not seen
    assert send(picture()).status_code == 200  # the next one is served


def test_the_formats_of_messages_are_those_that_are_read(send, app):
    formats = 'JPEG, PNG, WEBP, BMP'
    assert send(b'not an image').get_json()['error'].endswith('damaged or none of ' + formats)
    page = app.test_client().get('/').get_data(as_text=True)
    assert 'accept="image/jpeg,image/png,image/webp,image/bmp"' in page and 'FORMATS = "%s"' % formats in page


def test_a_text_bomb_is_not_unpacked(send):
    bomb = text_bomb()
    tracemalloc.start()
    try:
        assert send(bomb).status_code in (200, 422)  # 200 if GluonCV has told Pillow to skip bad chunks
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_the_largest_image_and_body_that_are_taken(send):
    assert send(flat(5000, 5000)).status_code == 200
    content = picture()
    assert send(content + b'\0' * (serve.MOST_BYTES - len(content))).status_code == 200


@pytest.mark.parametrize('thresh', ['2', '-0.1', 'nan', 'x', ''])
def test_thresh_is_a_score(send, seen, thresh):
    answer = send(picture(), query='?thresh=' + thresh)
    assert answer.status_code == 400 and 'thresh' in answer.get_json()['error'] and not seen


def test_all_errors_are_json(app):
    client = app.test_client()
    for answer, status in (client.get('/detect'), 405), (client.get('/../demo.py'), 404), (client.post('/'), 405):
        assert answer.status_code == status and answer.get_json()['error']


def test_an_internal_error_is_not_shown_to_the_sender():
    app = serve.make_app(lambda image, thresh: 1 / 0, 'a', [], 0.5)
    client = app.test_client()
    for _ in range(2):  # and the queue goes on
        answer = client.post('/detect', data=picture(), content_type='image/png')
        assert answer.status_code == 500 and 'ZeroDivision' not in answer.get_json()['error']


def test_one_picture_at_a_time_and_none_waits_forever(monkeypatch):
    started, go_on = threading.Event(), threading.Event()

    def find(image, thresh):
        started.set()
        assert go_on.wait(60)
        return []
    app = serve.make_app(find, 'a', [], 0.5)
    answers = []

    def post():
        answers.append(app.test_client().post('/detect', data=picture(), content_type='image/png'))
    first = threading.Thread(target=post)
    first.start()
    assert started.wait(60)
    monkeypatch.setattr(serve, 'MOST_SECONDS', 0.05)
    post()
    assert answers[0].status_code == 503 and answers[0].get_json()['error'] == 'server busy: queued for 0.05 s'
    go_on.set()
    first.join()
    assert answers[1].status_code == 200


@pytest.fixture
def address(app):
    """(host, port) of the application, served by this process."""
    server = serve.make_server(app, '127.0.0.1', 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield '127.0.0.1', int(server.effective_port)
    server.trigger.pull_trigger(lambda: server.asyncore.close_all(server._map))  # which ends its loop
    thread.join(60)
    server.task_dispatcher.shutdown()


SLOW = b'POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n'


def slow_client(address):
    """A connection on which a request has begun and goes on as slowly as its user wants."""
    client = socket.create_connection(address)
    client.sendall(SLOW)
    client.setblocking(False)
    return client


def closed(client):
    """Whether the server has closed the connection of a slow client."""
    try:
        return not client.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_slow_clients_keep_nobody_out(address):
    clients, stopped = [slow_client(address) for _ in range(200)], threading.Event()

    def go_on():
        while not stopped.wait(0.2):
            for number, client in enumerate(clients):
                try:
                    client.send(b'x')
                except OSError:
                    client.close()
                    clients[number] = slow_client(address)
    thread = threading.Thread(target=go_on)
    thread.start()
    content, times = picture(600, 400), []  # of many reads
    try:
        for _ in range(10):
            start = time.monotonic()
            assert post('http://%s:%d' % address, content)[0] == 200
            times.append(time.monotonic() - start)
    finally:
        stopped.set()
        thread.join()
        for client in clients:
            client.close()
    assert max(times) < 1, times


def test_a_request_has_a_limited_time_and_an_answered_one_leaves_its_connection_open(address, monkeypatch):
    monkeypatch.setattr(serve, 'REQUEST_SECONDS', 1)
    slow, kept = slow_client(address), http.client.HTTPConnection(*address)
    for _ in range(4):
        kept.request('GET', '/')
        assert kept.getresponse().read()
        time.sleep(0.3)
        with contextlib.suppress(OSError):  # it may be closed by now
            slow.send(b'x')
    deadline = time.monotonic() + 30
    while not closed(slow):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    slow.close()
    kept.close()


def test_of_the_address_with_most_connections_the_slowest_makes_room(address, monkeypatch):
    monkeypatch.setattr(serve, 'MOST_CONNECTIONS', 3)
    monkeypatch.setattr(serve, 'HEAD_START', 0)
    with slow_client(address) as first, slow_client(address) as slowest, slow_client(address) as third:
        for client in first, third:
            client.sendall(b'X: ' + b'y' * 5000 + b'\r\n')
        time.sleep(0.3)
        with slow_client(address):
            time.sleep(0.5)
            assert [closed(client) for client in (first, slowest, third)] == [False, True, False]


def test_the_page_is_html_whatever_the_models_name(app):
    page = app.test_client().get('/').get_data(as_text=True)
    assert '<title>cells &amp; &lt;b&gt;.onnx</title>' in page and '<b>' not in page
    assert not re.search(r'(src|href)=.?(https?:)?//', page)  # nothing from elsewhere


# ---- as a user runs it

@pytest.fixture
def service(params):
    """(the process of demo.py --serve, its address)."""
    with subprocess.Popen([sys.executable, os.path.join(ROOT, 'demo.py'), '--params', params, '--gpus', '',
                           '--serve', '--port', '0', '--thresh', '0.2'], stderr=subprocess.PIPE, text=True) as process:
        yield process, re.match(r'http://127\.0\.0\.1:\d+', process.stderr.readline()).group()
        process.kill()


def post(address, content, type_='image/png'):
    """(status, content type, body) of a picture sent to a service."""
    sent = urllib.request.Request(address + '/detect', content, {'Content-Type': type_})
    try:
        with urllib.request.urlopen(sent, timeout=300) as answer:
            return answer.status, answer.headers['Content-Type'], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers['Content-Type'], error.read()


@pytest.mark.parametrize('signum', [signal.SIGINT, slow(signal.SIGTERM)])
def test_it_answers_like_demo_until_it_is_stopped(run, service, params, tmp_path, signum):
    process, address = service
    for _ in range(3):
        status, type_, body = post(address, picture())
        assert (status, type_) == (200, 'application/json')
    (tmp_path / 'a.png').write_bytes(picture())
    done = run('demo.py', '--params', params, '--gpus', '', 'a.png', '--thresh', 0.2, '--json', 'a.json', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected, = json.loads((tmp_path / 'a.json').read_text())
    assert json.loads(body)['detections'] == expected['detections'] and len(expected['detections']) > 3
    status, type_, body = post(address, b'\0' * (3 * serve.MOST_BYTES))
    assert (status, type_) == (413, 'application/json') and str(serve.MOST_BYTES) in json.loads(body)['error']
    with contextlib.suppress(urllib.error.URLError):  # cut off; not every client reads the reason
        assert post(address, b'\0' * serve.CUT_BYTES)[0] == 413
    assert post(address, picture())[0] == 200
    process.send_signal(signum)
    assert process.wait(60) == 128 + signum
    assert 'Traceback' not in process.stderr.read()


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # waitress does not close its socket
def test_an_address_that_is_not_available_is_one_line(run, params):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = str(taken.getsockname()[1])
        for flags in ['--port', port], ['--port', '99999'], ['--host', 'no.such.host.invalid']:
            done = run('demo.py', '--params', params, '--gpus', '', '--serve', *flags)
            assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and flags[1] in done.stderr
    gc.collect()  # the warnings come now


# What a user does, in the page itself: drops four files, of which two are refused, moves the slider, and so on.
USED = """
const reports = {}, saved = {}, posts = performance.getEntriesByType.bind(performance, "resource");
const pixel = (x, y) => [...canvas.getContext("2d").getImageData(
    x * canvas.width / image.width, y * canvas.width / image.width, 1, 1).data].slice(0, 3);
const asked = () => posts().filter(entry => entry.name.includes("/detect")).map(entry => entry.name.split("?")[1]);
const rows = () => [...list.children].map(entry => entry.textContent);
const report = name => reports[name] = {count: $("count").textContent, rows: rows(), edge: pixel(45, 90),
    inside: pixel(30, 75), classes: $("classes").innerText, strip: $("strip").innerText, asked: asked()};
const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const until = async done => { while (!done()) await new Promise(go => setTimeout(go, 20)); };
const measure = async blob => (({width, height}) => [blob.type, width, height])(await createImageBitmap(blob));
save = async (blob, name) =>
  saved[name] = blob.type.startsWith("image") ? await measure(blob) : JSON.parse(await blob.text());
const check = async () => window.axe &&
  reports.violations.push(...(await axe.run()).violations.map(one => one.id + ": " + one.nodes[0].html));

async function use() {
  reports.empty = !$("drop").hidden && canvas.hidden && $("save-picture").disabled && $("save-json").disabled;
  reports.invited = $("drop").innerText;
  reports.violations = [];
  await check();
  const blob = await (await fetch("/picture")).blob(), dropped = new DataTransfer();
  const small = make("canvas");
  [small.width, small.height] = [60, 45];
  dropped.items.add(new File([blob], "blood.cells.jpg", {type: blob.type}));
  dropped.items.add(new File([blob.slice(0, 900)], "<i>broken.jpg", {type: blob.type}));
  dropped.items.add(new File([await new Promise(done => small.toBlob(done))], "small.png", {type: "image/png"}));
  dropped.items.add(new File(["GIF89a"], "a.gif", {type: "image/gif"}));
  document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: dropped}));
  await until(() => pictures.length === 4 && !pictures.some(isWaiting) && image);
  reports.said = $("status").outerHTML;
  report("dropped");
  await check();
  list.focus();
  press("ArrowDown");  // to the cat, so that the other box is pale
  reports.marked = [...list.children].map(entry => entry.ariaSelected).join();
  reports.pale = pixel(45, 90);
  await check();
  list.blur();
  reports.after = pixel(45, 90);
  list.firstChild.dispatchEvent(new MouseEvent("mousemove", {bubbles: true}));
  reports.hovered = list.getAttribute("aria-activedescendant") === list.firstChild.id;
  list.dispatchEvent(new MouseEvent("mouseleave"));
  reports.left = list.querySelectorAll("[aria-selected=true]").length;
  reports.others = {};
  for (const {name} of pictures.slice(1)) {
    press("ArrowRight");
    await until(() => shown.name === name);
    const text = $("drop").innerText, height = $("drop").clientHeight;
    reports.others[name] = {text, height, size: [canvas.clientWidth, canvas.width]};
    await check();
  }
  pictures[0].button.focus();
  pictures[0].button.click();
  await until(() => shown === pictures[0]);
  press("ArrowRight");
  await until(() => shown === pictures[1]);
  reports.focused = document.activeElement === pictures[1].button;
  press("ArrowLeft");
  await until(() => shown === pictures[0]);
  $("thresh").value = 0.7;
  $("thresh").dispatchEvent(new Event("input"));
  report("higher");
  $("thresh").value = 0.1;
  $("thresh").dispatchEvent(new Event("input"));
  report("lower");
  boxes.get("狗 <b>").click();
  report("filtered");
  $("save-picture").click();
  $("save-json").click();
  await until(() => Object.keys(saved).length === 2);
  reports.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  return {...reports, saved};
}
use().catch(error => String(error.stack)).then(
  result => fetch("/report", {method: "POST", body: JSON.stringify(result)}));
</script>"""


@pytest.mark.slow
def test_the_page_in_a_browser(app, address, browser, data, tmp_path):
    """With YOLO3_AXE, the path of axe-core's axe.min.js (npm), the page's accessibility is checked too."""
    path = data + '/bccd/VOC2007/JPEGImages/BloodImage_00007.jpg'
    reports = queue.Queue()

    @app.get('/picture')
    def real_picture():
        with open(path, 'rb') as file:
            return file.read(), {'Content-Type': 'image/jpeg'}

    @app.get('/used')
    def used():
        page = app.test_client().get('/').get_data(as_text=True)
        axe = os.environ.get('YOLO3_AXE')
        return page.replace('</script>', (pathlib.Path(axe).read_text(encoding='utf-8') if axe else '') + USED)

    @app.post('/report')
    def report():
        reports.put(json.loads(request.get_data()))
        return {}
    process = subprocess.Popen([browser, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
                                '--disable-background-networking', '--disable-component-update', '--disable-sync',
                                '--no-first-run', '--remote-debugging-port=0', '--window-size=375,800',
                                '--force-device-scale-factor=2',
                                '--user-data-dir=%s' % tmp_path, 'http://%s:%d/used' % address],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = reports.get(timeout=200)
    finally:
        process.terminate()
        process.wait()
    assert isinstance(found, dict), found
    assert found['empty'] and found['overflow'] == 0 and not found['violations']
    assert 'class="error"' in found['said'] and '4 pictures, 2 failed' in found['said']
    formats = ', '.join(serve.FORMATS)
    assert found['invited'].split('\n')[0] == 'Drop pictures here' and formats in found['invited']
    broken, small, gif = [found['others'][name] for name in ('<i>broken.jpg', 'small.png', 'a.gif')]
    for other, text in (broken, '<i>broken.jpg could not be processed\ncannot read image'), (gif, 'none of ' + formats):
        assert text in other['text'] and other['text'].endswith(formats) and other['height'] > 250
    assert small['size'] == [180, 360]  # three times as large, and sharp on this screen
    assert found['marked'] == 'false,true' and found['hovered'] and not found['left'] and found['focused']
    dropped, higher, lower, filtered = [found[name] for name in ('dropped', 'higher', 'lower', 'filtered')]
    assert dropped['count'] == '2 detections' and dropped['rows'] == ['狗 <b> 0.90', 'cat 0.60']
    assert '2 found' in dropped['strip'] and 'failed' in dropped['strip']
    assert higher['count'] == '1 detection' and 'cat' not in str(higher['rows']) + higher['classes']
    assert lower['count'] == '3 detections' and 'dog 0.20' in lower['rows'] and lower['classes'].count('1') == 3
    assert filtered['count'] == '2 detections' and '狗' not in str(filtered['rows']) and '狗' in filtered['classes']
    assert filtered['asked'] == 3 * ['thresh=0']  # once for each picture but the GIF, and never again
    true = np.asarray(Image.open(path)).astype(int)
    for state, is_drawn in (dropped, True), (higher, True), (lower, True), (filtered, False):
        assert np.abs(state['inside'] - true[75, 30]).max() < 12  # the picture
        assert (np.abs(state['edge'] - true[90, 45]).max() > 40) == is_drawn  # the box
    bold, pale = [np.abs(np.subtract(found[name], true[90, 45])).max() for name in ('after', 'pale')]
    assert 0 < pale < 0.8 * bold
    assert found['saved'] == {'blood.cells_detections.jpeg': ['image/jpeg', 640, 480], 'detections.json': [
        {'file': 'blood.cells.jpg', 'width': 640, 'height': 480, 'detections': FOUND[1:]},
        {'file': 'small.png', 'width': 60, 'height': 45, 'detections': FOUND[1:]}]}
