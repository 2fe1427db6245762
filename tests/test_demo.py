"""demo.py as a user runs it: the files it takes, the files it writes, boxes in the original image's pixels."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import demo
from conftest import ROOT
from yolo3.cli import UserError
from yolo3.network import build
from yolo3.show.annotate import OutputFolder
from yolo3.weights import load_detector, save_detector
from yolo3.mxnet_setup import gluoncv, mx

CLASSES = ['RBC', 'cell, white', '血小板']
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@pytest.fixture(scope='module')
def params(tmp_path_factory):
    """A detector with random weights and its sidecar; 64 x 64 input."""
    mx.random.seed(8)
    net = build('mobilenet0_25', CLASSES)
    path = str(tmp_path_factory.mktemp('weights') / 'cells.params')
    save_detector(net, path, network='mobilenet0_25', classes=CLASSES, data_shape=64, dataset='voc')
    return path


def picture(seed, width=80, height=60):
    """An image (height, width, 3) uint8 with something to see in it."""
    noise = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return str(path)


def expected(params, path, size, thresh):
    """The detections in the image file `path` by Pillow, NumPy and GluonCV: [(class, score, box)], best first."""
    net, info = load_detector(params)
    net.set_nms(0.45, 400)
    rgb = np.asarray(Image.open(path).convert('RGB'))
    resized = gluoncv.data.transforms.image.imresize(mx.nd.array(rgb, dtype='uint8'), size, size, interp=9).asnumpy()
    inputs = ((resized.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
    ids, scores, boxes = [output[0].asnumpy() for output in net(mx.nd.array(inputs))]
    height, width = rgb.shape[:2]
    found = []
    for number, score, (xmin, ymin, xmax, ymax) in zip(ids[:, 0], scores[:, 0], boxes):
        if number >= 0 and score >= thresh:
            box = [xmin * width / size, ymin * height / size, xmax * width / size, ymax * height / size]
            found.append((CLASSES[int(number)], score,
                          [min(max(0, value), side) for value, side in zip(box, (width, height) * 2)]))
    return found


def lines_of(stderr):
    """What remains of stderr without the progress bars."""
    lines = [line.strip() for line in stderr.replace('\r', '\n').replace('\x1b[A', '\n').splitlines()]
    return [line for line in lines if line and not re.search(r'(/s|s/\w+)\]$', line)]


def test_boxes_are_in_the_original_pixels(run, params, tmp_path):
    path = save(tmp_path / 'wide.png', picture(1, 300, 120))
    done = run('demo.py', '--params', params, path, '--thresh', 0.6, '--json', 'found.json', '--data-shape', 96,
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record, = json.loads((tmp_path / 'found.json').read_text(encoding='utf-8'))
    assert record['file'] == path and (record['width'], record['height']) == (300, 120)
    assert record['picture'] == os.path.join('detections', 'wide.png')
    truth = expected(params, path, 96, 0.6)
    assert len(truth) > 3 and len(record['detections']) == len(truth)
    for detection, (name, score, box) in zip(record['detections'], truth):
        assert detection['class'] == name and detection['score'] == pytest.approx(score, abs=2e-4)
        assert detection['box'] == pytest.approx(box, abs=0.02)
    assert max(box[2] for _, _, box in truth) > 120  # otherwise mixing up width and height would not show
    drawn = cv2.imread(str(tmp_path / 'detections' / 'wide.png'))
    untouched = (drawn == cv2.imread(path)).all(axis=2).mean()
    assert drawn.shape == (120, 300, 3) and 0.2 < untouched < 1

    printed = [line.split('\t') for line in done.stdout.splitlines()]
    assert [(file, name) for file, name, _, _ in printed] == [(path, name) for name, _, _ in truth]
    for (_, _, score, box), (_, true_score, true_box) in zip(printed, truth):
        assert float(score) == pytest.approx(true_score, abs=1e-3)
        assert [float(value) for value in box.split()] == pytest.approx(true_box, abs=0.1)


def test_threshold_of_the_sidecar(run, params, tmp_path):
    path, net = save(tmp_path / 'wide.png', picture(1, 300, 120)), tmp_path / 'net.params'
    shutil.copy(params, net)
    facts = json.loads(Path(params).with_suffix('.json').read_text())

    def found(facts, thresh):
        net.with_suffix('.json').write_text(json.dumps(facts))
        done = run('demo.py', '--params', net, path, '--thresh', thresh, '--out-dir', tmp_path)
        return done.returncode, done.stdout, done.stderr
    auto = found(dict(facts, threshold=0.6), 'auto')
    assert auto[:2] == found(facts, 0.6)[:2] and auto[0] == 0 and auto[1]
    code, _, error = found(facts, 'auto')
    assert code == 2 and error.count('\n') == 1 and '--thresh auto' in error
    code, _, error = found(dict(facts, threshold=2), 'auto')
    assert code == 2 and error.count('\n') == 1 and '"threshold" is not a number from 0 to 1' in error


def test_classes_count_and_tiles(run, params, tmp_path):
    path = save(tmp_path / 'wide.png', picture(1, 160, 120))

    def found(*flags):
        done = run('demo.py', '--params', params, path, '--thresh', 0, '--out-dir', tmp_path, *flags)
        assert done.returncode == 0, done.stderr
        return [line.split('\t')[1:3] for line in done.stdout.splitlines()]
    plain, many = found(), found('--max-detections', 150)
    assert len(plain) == 100 and len(many) == 150 and many[:100] == plain
    only, others = found('--only', 'rbc'), [entry for entry in plain if entry[0] == 'RBC']
    assert only[:len(others)] == others != [] and {name for name, _ in only} == {'RBC'}
    assert len(only) > len(others)  # the other classes have taken no places
    assert found('--only', 'rbc', '--max-detections', 3) == only[:3]
    assert len(found('--nms-thresh', 0)) < len(plain)
    tiled = found('--tiles')
    assert len(tiled) > 150 and max(float(score) for _, score in tiled) >= float(plain[0][1])
    done = run('demo.py', '--params', params, path, '--only', 'RBC,cat', '--out-dir', tmp_path / 'none')
    assert done.returncode == 2 and done.stderr.startswith('demo.py: error: --only cat: ') and not done.stdout


def test_every_kind_of_input_in_one_run(run_process, params, tmp_path):
    folder, other = tmp_path / 'a folder', tmp_path / 'other'
    save(folder / 'one.jpg', picture(1))
    save(folder / 'TWO.PNG', cv2.cvtColor(picture(2), cv2.COLOR_BGR2GRAY))
    save(folder / 'three.png', np.dstack([picture(3), np.full((60, 80), 9, np.uint8)]))
    save(folder / 'four.png', picture(4).astype(np.uint16) * 257)
    (folder / 'notes.txt').write_text('not an image')
    (folder / 'broken.jpg').write_bytes(b'no image either')
    save(other / 'one.jpg', picture(5))
    save(other / 'five.bmp', picture(6))
    turned = other / 'turned.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(picture(7)).save(str(turned), exif=exif)
    comma = save(tmp_path / 'a,b.jpg', picture(8))
    out = tmp_path / 'out'
    before = sorted(tmp_path.rglob('*'))
    done = run_process('demo.py', folder, '--params', params, '--out-dir', out, str(other / '*.jpg'), '--thresh', 0.4,
                       comma, '--json', tmp_path / 'found.json', '%s,%s' % (other / 'five.bmp', other / 'one.jpg'),
                       cwd=tmp_path, env={'PYTHONIOENCODING': 'ascii'})
    assert done.returncode == 2
    errors = [line for line in lines_of(done.stderr) if 'error' in line]
    assert len(errors) == 1 and errors[0].startswith('demo.py: error: cannot read image %s' % (folder / 'broken.jpg'))
    records = json.loads((tmp_path / 'found.json').read_text(encoding='utf-8'))
    assert [os.path.relpath(record['file'], str(tmp_path)) for record in records] == [
        'a folder/TWO.PNG', 'a folder/four.png', 'a folder/one.jpg', 'a folder/three.png', 'other/one.jpg',
        'other/turned.jpg', 'a,b.jpg', 'other/five.bmp']
    assert [os.path.basename(record['picture']) for record in records] == [
        'TWO.PNG', 'four.png', 'one.jpg', 'three.png', 'one_2.jpg', 'turned.jpg', 'a,b.jpg', 'five.jpg']
    for record in records:
        size = (60, 80) if 'turned' in record['file'] else (80, 60)
        assert (record['width'], record['height']) == size
        assert cv2.imread(record['picture']).shape == (size[1], size[0], 3)
        for detection in record['detections']:
            assert detection['score'] >= 0.4 and detection['class'] in CLASSES
            xmin, ymin, xmax, ymax = detection['box']
            assert 0 <= xmin <= xmax <= size[0] and 0 <= ymin <= ymax <= size[1]
    assert len(done.stdout.splitlines()) == sum(len(record['detections']) for record in records) > 0
    assert '\\u8840\\u5c0f\\u677f' in done.stdout  # a terminal without Chinese does not stop it
    made = {os.path.relpath(str(path), str(tmp_path)) for path in tmp_path.rglob('*') if path not in before}
    assert made == {'found.json', 'out'} | {os.path.join('out', os.path.basename(r['picture'])) for r in records}


def test_originals_are_not_overwritten_in_their_own_folder(run, params, tmp_path):
    save(tmp_path / 'cells.jpg', picture(1))
    (tmp_path / 'link').symlink_to(tmp_path, target_is_directory=True)
    content = (tmp_path / 'cells.jpg').read_bytes()
    done = run('demo.py', '--pretrained', params, '--network', 'mobilenet0.25', '--images',
               tmp_path / 'link' / 'cells.jpg', '--gpus', '', '--out-dir', tmp_path, '--thresh', 0.4)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'cells.jpg').read_bytes() == content
    assert cv2.imread(str(tmp_path / 'cells_2.jpg')).shape == (60, 80, 3)
    assert len(os.listdir(str(tmp_path))) == 3


def test_a_video_gives_a_video(run, params, tmp_path):
    path = str(tmp_path / 'my clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 12.5, (96, 64))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no Motion JPEG')
    for i in range(7):
        writer.write(picture(i, 96, 64))
    writer.release()
    (tmp_path / 'broken.mp4').write_bytes(b'x' * 2000)
    done = run('demo.py', '--params', params, tmp_path, '--thresh', 0.65, '--out-dir', tmp_path / 'out', '--json',
               tmp_path / 'found.json')
    assert done.returncode == 2
    errors = [line for line in lines_of(done.stderr) if 'drawn' not in line]
    assert len(errors) == 1 and errors[0].startswith('demo.py: error: cannot read video %s' % (tmp_path / 'broken.mp4'))
    assert '/7' in done.stderr  # the progress bar of the frames
    assert 'moov' not in done.stderr  # FFmpeg's own words
    records = json.loads((tmp_path / 'found.json').read_text(encoding='utf-8'))
    assert [record['frame'] for record in records] == list(range(7))
    assert {(record['file'], record['width'], record['height']) for record in records} == {(path, 96, 64)}
    drawn, original = cv2.VideoCapture(records[0]['picture']), cv2.VideoCapture(path)
    assert os.path.splitext(os.path.basename(records[0]['picture']))[0] == 'my clip'
    assert drawn.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    for record in records:
        after, before = drawn.read()[1], original.read()[1]
        assert after.shape == (64, 96, 3)
        change = np.abs(after.astype(int) - before)  # small by MPEG-4, large where a box or a label is
        assert record['detections'] and (change > 64).mean() > 0.01 and np.median(change) < 20
    assert not drawn.read()[0]
    assert '%s:6\t' % path in done.stdout


def test_an_image_from_stdin_and_one_that_does_not_arrive(run, params, tmp_path):
    path = save(tmp_path / 'in.png', picture(1))
    before, first = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(first, 0)
    try:
        done = run('demo.py', '--params', params, '-', 'http://127.0.0.1:1/a.jpg', '--thresh', 0.4, '--json',
                   'found.json', cwd=tmp_path, env={'no_proxy': '127.0.0.1'})
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(first)
    assert done.returncode == 2
    error, = [line for line in lines_of(done.stderr) if 'error' in line]
    assert error.startswith('demo.py: error: cannot read image http://127.0.0.1:1/a.jpg: ')
    record, = json.loads((tmp_path / 'found.json').read_text(encoding='utf-8'))
    assert record['file'] == '-' and record['picture'] == os.path.join('detections', 'stdin.jpg')
    assert record['detections'] and done.stdout.startswith('-\t')
    assert cv2.imread(str(tmp_path / 'detections' / 'stdin.jpg')).shape == (60, 80, 3)


@pytest.mark.parametrize('arguments,said', [
    (['nowhere.jpg'], 'no such image, video or folder: nowhere.jpg'),
    (['empty'], 'no images in empty'),
    ([], 'name the images'),
    (['cells.jpg', '--params', 'none.params'], 'none.params'),
    (['cells.jpg', '--thresh', '50'], '--thresh: 50'),
    (['cells.jpg', '--data-shape', '100'], '--data-shape: 100'),
    (['cells.jpg', '--json', 'no/such/folder.json'], '--json'),
    (['cells.jpg', '--json', 'empty'], '--json'),
    (['cells.jpg', '--json', 'cells.jpg'], '--json'),
    (['empty/../cells.jpg', '--json', 'cells.jpg'], '--json'),
    (['cells.jpg', '--port', '65536'], '--port'),
    (['cells.jpg', '--out-dir', 'cells.jpg'], '--out-dir'),
    (['cells.jpg', '--dataset', 'imagenet'], '--dataset'),
])
def test_user_errors(params, tmp_path, monkeypatch, arguments, said):
    save(tmp_path / 'cells.jpg', picture(1))
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        demo.main(['--params', params] + arguments)
    assert sorted(os.listdir(str(tmp_path))) == ['cells.jpg', 'empty']


@pytest.mark.parametrize('threads', [1, 2])
def test_an_image_that_cannot_be_looked_at_stops_no_other(tmp_path, capsys, threads):
    paths = [save(tmp_path / 'in' / ('%d.png' % number), picture(number, 80 + number)) for number in range(9)]
    Path(paths[2]).write_bytes(b'')

    def detect(image):
        if image.shape[1] == 85:
            raise UserError('85 is too wide')
        return [{'class': CLASSES[0], 'score': 0.9, 'box': [1, 2, image.shape[1] - 9, 40]}]
    (tmp_path / 'out').mkdir()
    records, failed = demo.annotate_files(paths, detect, OutputFolder(str(tmp_path / 'out'), paths), [], threads)
    left = [paths[number] for number in (0, 1, 3, 4, 6, 7, 8)]
    assert failed and [record['file'] for record in records] == left
    for record in records:
        assert record['width'] == cv2.imread(record['picture']).shape[1] == record['detections'][0]['box'][2] + 9
    printed = capsys.readouterr()
    assert [line.split('\t')[0] for line in printed.out.splitlines()] == left
    errors = [line for line in lines_of(printed.err) if 'error' in line]
    assert len(errors) == 2 and '2.png' in errors[0] and '85 is too wide' in errors[1]


@pytest.mark.parametrize('flags, paths, count', [
    ([], ['a.jpg'] * 3, 3), ([], ['a.mp4'], sys.maxsize), (['--source', '0'], [], 1), (['--serve'], [], 1),
    (['--source', 'rtsp://a/b.mp4'], [], 1), (['--source', __file__], [], sys.maxsize)])
def test_what_is_live_does_not_wait_for_the_next(flags, paths, count):
    assert demo.at_once(demo.parse_args(flags), paths) == count


def test_no_name_is_used_twice(tmp_path):
    folder = OutputFolder(str(tmp_path), [str(tmp_path / 'a_2.jpg')])
    names = [folder.name(path, '.jpg') for path in ('x/a.bmp', 'y/a.jpg', 'a.b.png', 'z/a.jpg')]
    assert [os.path.basename(name) for name in names] == ['a.jpg', 'a_3.jpg', 'a.b.jpg', 'a_4.jpg']


def test_only_an_earlier_runs_files_are_replaced(tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'folder.jpg').mkdir()
    (tmp_path / 'out' / 'link.jpg').symlink_to('old.jpg')
    for name in 'a.jpg', 'a_2.jpg', 'out/old.jpg', 'out/taken.jpg':
        (tmp_path / name).write_bytes(b'')

    def names(folder, *sources):
        folder = OutputFolder(str(folder), [str(tmp_path / 'a.jpg'), ''])
        return [os.path.basename(folder.name(source, '.jpg')) for source in sources]
    assert names(tmp_path, 'a.png', 'b.png') == ['a_3.jpg', 'b.jpg']  # beside an input there may be other originals
    assert names(tmp_path / 'out', 'a.jpg', 'old.jpg', 'old.png', 'folder.jpg', 'link.jpg') == [
        'a.jpg', 'old.jpg', 'old_2.jpg', 'folder_2.jpg', 'link_2.jpg']


@pytest.mark.slow
def test_interrupted_video_can_be_played(params, tmp_path):
    path = str(tmp_path / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 25, (96, 64))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no Motion JPEG')
    for i in range(600):
        writer.write(picture(i % 9, 96, 64))
    writer.release()
    process = subprocess.Popen([sys.executable, '-u', os.path.join(ROOT, 'demo.py'), '--params', params, path,
                                '--thresh', '0.4', '--out-dir', str(tmp_path)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               # A background job of a shell script, which this may be, ignores SIGINT.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while b':20\t' not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    drawn = cv2.VideoCapture(str(tmp_path / 'clip.mp4'))
    assert 20 <= drawn.get(cv2.CAP_PROP_FRAME_COUNT) < 600 and drawn.read()[0]
