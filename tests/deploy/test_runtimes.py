"""eval_yolo3.py and demo.py with .onnx files against the .params file, also without MXNet."""
import functools
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from yolo3.ahead import ahead
from yolo3.defaults import Suppression
from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS
from yolo3.data.datasets import open_val
from yolo3.deploy import runtimes
from yolo3.detect import MXNetDetector
from yolo3.metrics import Detections
from yolo3.mxnet_setup import mx
from yolo3.weights import load_detector, save_detector

from conftest import ROOT, slow
from test_export_onnx import detector, export_onnx, pictures

VARIANTS = {'plain': {}, 'nms': {'nms': True}, 'bytes': {'uint8_input': True},
            'bytes-nms': {'nms': True, 'uint8_input': True}, 'heads': {'only_heads': True}, 'fp16': {'fp16': True}}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """{'params' or the variant: path} of one network."""
    folder = tmp_path_factory.mktemp('files')
    net, info = detector(classes=['red', 'blue'])
    paths = {'params': str(folder / 'net.params')}
    save_detector(net, paths['params'], **info)
    for name, flags in VARIANTS.items():
        paths[name] = str(folder / (name + '.onnx'))
        onnx.save(export_onnx.export(net, info, **flags), paths[name])
    return paths


@pytest.fixture
def without_mxnet(run_process, tmp_path):
    """As `run_process`, but importing MXNet or GluonCV fails."""
    for name in 'mxnet', 'gluoncv':
        (tmp_path / 'without').mkdir(exist_ok=True)
        (tmp_path / 'without' / (name + '.py')).write_text('raise ImportError("not here")')
    return lambda *args: run_process(*args, cwd=tmp_path, env={'PYTHONPATH': str(tmp_path / 'without')})


def test_without_mxnet_it_cannot_be_imported(without_mxnet, files):
    assert 'not here' in without_mxnet('demo.py', '--params', files['params'], files['params']).stderr


@pytest.mark.parametrize('backend', runtimes.BACKENDS)
@pytest.mark.parametrize('variant', ['plain', slow('nms'), slow('bytes'), 'bytes-nms', 'fp16'])
def test_evaluation_prints_the_same(run, without_mxnet, files, squares, tmp_path, variant, backend):
    pytest.importorskip(backend)
    flags = ['--dataset-root', squares, '--val-splits', '2007_trainval', '-j', 1, '--gpus', '', '--json']
    expected = run('eval_yolo3.py', '--params', files['params'], *flags, tmp_path / 'params.json')
    command = without_mxnet if variant == 'plain' else run  # one will do
    done = command('eval_yolo3.py', '--params', files[variant], '--backend', backend, '--batch-size', 4, *flags,
                   tmp_path / 'onnx.json')
    assert done.returncode == expected.returncode == 0, done.stderr + expected.stderr
    values, true = [json.loads((tmp_path / name).read_text()) for name in ('onnx.json', 'params.json')]
    assert values['images'] == 22 and values['data_shape'] == 96
    assert values['values'] == pytest.approx(true['values'], abs=1e-3) and true['values']['mAP'] > 0


def test_report_detections_sizes_and_score_floor(run, without_mxnet, files, squares, tmp_path):
    flags = ['--dataset-root', squares, '--val-splits', '2007_test', '-j', 1, '--gpus', '', '--nms-score-floor', 0.3]
    commands = [(run, files['params'], tmp_path / 'theirs'), (without_mxnet, files['plain'], tmp_path / 'ours')]
    found, sizes = [], []
    for command, path, folder in commands:
        done = command('eval_yolo3.py', '--params', path, *flags, '--report', folder, '--detections',
                       str(folder) + '.json')
        assert done.returncode == 0, done.stderr
        assert {'report.html', 'confusion.png', 'curve_0.png', 'best_0.jpg'} <= {p.name for p in folder.iterdir()}
        with open(str(folder) + '.json') as file:
            found.append(json.load(file))
        done = run('eval_yolo3.py', '--params', path, *flags, '--data-shape', '64,96', '--gluoncv-compatible',
                   '--json', folder / 'sizes.json')
        assert done.returncode == 0, done.stderr
        sizes.append([entry['values'] for entry in json.loads((folder / 'sizes.json').read_text())['sizes']])
    assert len(found[0]) == len(found[1]) > 20
    theirs, ours = [np.array([[int(entry['image_id'][5:]), entry['category_id'], entry['score'], *entry['bbox']]
                              for entry in entries]) for entries in found]
    differences = np.abs(theirs[:, None] - ours).max(axis=2)  # nearly equal scores may have changed places
    assert sorted(differences.argmin(axis=1)) == list(range(len(ours))) and differences.min(axis=1).max() < 0.1
    assert theirs[:, 2].min() >= 0.3
    for one, other in zip(*sizes):
        assert one == pytest.approx(other, abs=1e-3)


@pytest.mark.parametrize('settings', [
    Suppression(score_floor=0.3), Suppression(thresh=0.1), Suppression(thresh=1, kept=300, topk=1200),
    Suppression(vote=True), Suppression(vote=True, kept=7)], ids=str)
def test_the_settings_of_nms_mean_the_same(files, settings):
    image, = pictures((96, 96))
    theirs, = MXNetDetector(*load_detector(files['params']), [mx.cpu()], settings).detect([image], 96)
    ours, = runtimes.ONNXDetector(files['plain'], settings=settings).detect([image], 96)
    assert len(ours[0]) == len(theirs[0]) > 3
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('script, flags', [
    ('eval_yolo3.py', ['--nms-score-floor', 0.3]), ('demo.py', ['--nms-thresh', 0.3]),
    ('demo.py', ['--max-detections', 300]), ('demo.py', ['--vote']), ('eval_yolo3.py', ['--vote'])])
def test_a_file_with_nms_inside_keeps_its_settings(run, files, squares, tmp_path, script, flags):
    inputs = [squares / 'VOC2007/JPEGImages', '--out-dir', tmp_path] if script == 'demo.py' else [
        '--dataset-root', squares, '--val-splits', '2007_test']
    done = run(script, '--params', files['nms'], *inputs, *flags)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert flags[0] in done.stderr and 'without --nms' in done.stderr


def test_a_file_with_nms_inside_shows_chosen_classes(run, files, squares, tmp_path):
    done = run('demo.py', '--params', files['nms'], squares / 'VOC2007/JPEGImages', '--out-dir', tmp_path,
               '--thresh', 0, '--only', 'blue', '--max-detections', 3)
    rows = [line.split('\t') for line in done.stdout.splitlines()]
    images = [row[0] for row in rows]
    assert done.returncode == 0 and {row[1] for row in rows} == {'blue'}
    assert max(map(images.count, images)) == 3


@pytest.mark.slow
def test_coco_evaluation(run, without_mxnet, data, tmp_path):
    net, info = detector(classes=['person', 'car'])
    save_detector(net, str(tmp_path / 'net.params'), **dict(info, dataset='coco'))
    onnx.save(export_onnx.export(net, dict(info, dataset='coco')), str(tmp_path / 'net.onnx'))
    results = []
    for command, name in (run, 'net.params'), (without_mxnet, 'net.onnx'):
        done = command('eval_yolo3.py', '--params', tmp_path / name, '--dataset-root', data + '/coco-mini', '--gpus',
                       '', '-j', 1, '--json', tmp_path / 'numbers.json')
        assert done.returncode == 0, done.stderr
        results.append(json.loads((tmp_path / 'numbers.json').read_text())['values'])
    assert results[1] == pytest.approx(results[0], abs=1e-3, nan_ok=True) and len(results[0]) == 14


@pytest.mark.parametrize('backend', runtimes.BACKENDS)
@pytest.mark.parametrize('variant', ['plain', slow('nms'), slow('bytes')])
def test_demo_finds_the_same(run, without_mxnet, files, tmp_path, variant, backend):
    pytest.importorskip(backend)
    cv2.imwrite(str(tmp_path / 'wide.png'), pictures((120, 300))[0])
    cv2.imwrite(str(tmp_path / 'small.png'), pictures((40, 30))[0])
    flags = [tmp_path / 'wide.png', tmp_path / 'small.png', '--thresh', 0.3, '--data-shape', 64, '--json']
    expected = run('demo.py', '--params', files['params'], '--gpus', '', *flags, 'params.json', cwd=tmp_path)
    command = without_mxnet if variant == 'plain' else functools.partial(run, cwd=tmp_path)
    done = command('demo.py', '--params', files[variant], '--backend', backend, *flags, 'onnx.json')
    assert done.returncode == expected.returncode == 0, done.stderr + expected.stderr
    found, true = [json.loads((tmp_path / name).read_text()) for name in ('onnx.json', 'params.json')]
    for mine, theirs in zip(found, true):
        assert len(mine['detections']) == len(theirs['detections']) > 3
        for one, other in zip(mine['detections'], theirs['detections']):
            assert one['class'] == other['class'] and one['score'] == pytest.approx(other['score'], abs=2e-4)
            assert one['box'] == pytest.approx(other['box'], abs=0.1)


def test_batches_hold_each_image_once(squares):
    images = open_val('voc', str(squares), ['red', 'blue'])
    for batch_size, lengths in (1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (64, [5]):
        parts = list(runtimes.batches(images, 64, batch_size, 2))
        assert [len(part[0]) for part in parts] == lengths
        assert np.concatenate([part[1] for part in parts]).tolist() == [[index, 128, 96] for index in range(5)]
        assert parts[0][0].shape[1:] == (64, 64, 3)


@pytest.mark.parametrize('name, content', [
    ('gone.onnx', None), ('junk.onnx', b'junk'), ('empty.onnx', b''), ('foreign.onnx', 'foreign')])
@pytest.mark.parametrize('backend', runtimes.BACKENDS)
def test_other_files_are_named(tmp_path, name, content, backend):
    pytest.importorskip(backend)
    path = str(tmp_path / name)
    if content == 'foreign':
        value = onnx.helper.make_tensor_value_info('images', 1, [1])
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph(
            [onnx.helper.make_node('Identity', ['images'], ['boxes'])], 'g', [value],
            [onnx.helper.make_tensor_value_info('boxes', 1, [1])]), ir_version=8,
            opset_imports=[onnx.helper.make_opsetid('', 13)]), path)
    elif content is not None:
        with open(path, 'wb') as file:
            file.write(content)
    with pytest.raises(UserError, match=name):
        runtimes.ONNXDetector(path, backend)


GOOD = {'network': 'mobilenet0_25', 'classes': ['a', 'b'], 'dataset': 'voc', 'data_shape': 64, 'anchors': ANCHORS,
        'mean': [0.5, 0.5, 0.5], 'std': [0.2, 0.2, 0.2]}


@pytest.mark.parametrize('key, text', [
    (key, text) for key in GOOD for text in (None, '', '{', 'null', '[]', '{}', '-1', 'true', '1e999', '[' * 10 ** 5)
] + [('classes', '"abc"'), ('classes', '["a", "A"]'), ('classes', '["a", 1]'), ('classes', '[" "]'),
     ('data_shape', '65'), ('data_shape', '"64"'), ('data_shape', '64.0'), ('anchors', '[[1, 2]]'), ('mean', '[0, 0]'),
     ('mean', '[0, 0, NaN]'), ('std', '[0, 1, 1]'), ('std', '["1", 1, 1]'), ('std', '[1e-30, 1, 1]')])
def test_metadata_is_checked_as_sidecars_are(key, text):
    texts = {name: json.dumps(value) for name, value in GOOD.items()}
    assert runtimes.facts(texts.__getitem__) == GOOD
    assert runtimes.facts(dict(texts, threshold='0.4').__getitem__) == dict(GOOD, threshold=0.4)
    texts[key] = text
    if text is None:
        del texts[key]
    with pytest.raises(ValueError, match='"%s"' % key):
        runtimes.facts(texts.__getitem__)


def test_more_scores_than_classes_are_named(files, tmp_path):
    for variant, words in ('plain', 'has scores of 2 classes, but names 1'), ('nms', 'finds more classes'):
        model = onnx.load(files[variant])
        next(entry for entry in model.metadata_props if entry.key == 'classes').value = '["red"]'
        onnx.save(model, str(tmp_path / 'one.onnx'))
        with pytest.raises(UserError, match='one.onnx ' + words):
            detector = runtimes.ONNXDetector(str(tmp_path / 'one.onnx'))
            for seed in range(20):
                detector.detect([np.random.RandomState(seed).randint(0, 256, (64, 64, 3), 'uint8')], 64)


def test_heads_are_not_enough(files):
    with pytest.raises(UserError, match='--heads'):
        runtimes.ONNXDetector(files['heads'])


@pytest.mark.parametrize('script', ['eval_yolo3.py', 'demo.py'])
def test_flags_that_do_not_go_together(run, files, script):
    for flags, said in ((['--params', files['params'], '--backend', 'openvino'], '--backend'),
                        (['--params', files['plain'], '--gpus', '0'], '--gpus'),
                        (['--params', files['plain'], '--backend', 'tensorrt'], '--backend')):
        done = run(script, *flags, *([files['plain']] if script == 'demo.py' else []))
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and said in done.stderr


@pytest.mark.parametrize('backend', runtimes.BACKENDS)
@pytest.mark.parametrize('variant', ['plain', 'bytes-nms'])
def test_images_side_by_side_give_the_same(files, monkeypatch, backend, variant):
    pytest.importorskip(backend)
    monkeypatch.setattr(runtimes, 'threads', lambda: 2)
    images = pictures((96, 96), 9)
    alone, both = [runtimes.ONNXDetector(files[variant], backend, at_once=count) for count in (1, 2)]
    assert (alone.streams, both.streams) == (1, 2)
    true = alone.detect(images, 96)
    originals = [(number, 96, 96) for number in range(9)]
    seen = Detections(None)
    both.evaluate([(images[:4], originals[:4]), (images[4:], originals[4:])], seen, 96)
    assert [index for index, *_ in seen.detections] == list(range(9))
    threaded = ahead(lambda image: both.detect([image], 96)[0], images, 2)
    for expected, (_, *evaluated), detected in zip(true, seen.detections, threaded):
        assert len(expected[0]) > 3
        for part, *others in zip(expected, evaluated, detected):
            for other in others:
                np.testing.assert_allclose(other, part, atol=1e-4)


@pytest.mark.parametrize('gpus', [None, '0'])
def test_a_gpu_that_does_not_start(files, gpus, monkeypatch):
    import onnxruntime
    monkeypatch.setattr(onnxruntime, 'get_available_providers',
                        lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider'])
    monkeypatch.setattr(runtimes, 'gpus_found', lambda: [(9, 0)])
    with pytest.warns(UserWarning, match='CUDAExecutionProvider'):  # ONNX Runtime's: this one has no CUDA
        if gpus is None:
            detector = runtimes.ONNXDetector(files['plain'], gpus=gpus, at_once=99)
            assert (detector.runs_on, detector.streams) == ("ONNX Runtime's CPUExecutionProvider", 1)
        else:
            with pytest.raises(UserError, match='--gpus 0: ONNX Runtime could not start CUDAExecutionProvider'):
                runtimes.ONNXDetector(files['plain'], gpus=gpus)


def test_what_runs_is_named(run, files, monkeypatch):
    pytest.importorskip('openvino')
    flags = ['--params', files['plain'], '--backend', 'openvino', '--only', 'green', files['params']]
    for device, lines in ('CPU', []), ('AUTO', [files['plain'] + " runs on OpenVINO's AUTO on CPU"]):
        monkeypatch.setattr(runtimes.accelerators, 'openvino_device', lambda gpus, available: device)
        done = run('demo.py', *flags)
        assert done.returncode == 2 and done.stderr.splitlines()[:-1] == lines and '--only' in done.stderr


def test_openvino_auto_finds_the_same(files, monkeypatch):
    pytest.importorskip('openvino')
    images = pictures((96, 96), 2)
    true = runtimes.ONNXDetector(files['plain'], 'openvino')
    monkeypatch.setattr(runtimes.accelerators, 'openvino_device', lambda gpus, available: 'AUTO')
    mine = runtimes.ONNXDetector(files['plain'], 'openvino', None)
    assert (true.runs_on, mine.runs_on) == ('', "OpenVINO's AUTO on CPU")
    for found, expected in zip(mine.forward(images), true.forward(images)):
        for part, other in zip(found, expected):
            np.testing.assert_allclose(part, other, atol=1e-3)


def test_a_missing_runtime_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(UserError, match='openvino.*requirements/deploy'):
        runtimes.ONNXDetector(files['plain'], 'openvino')


def test_openvino_sends_no_telemetry():
    pytest.importorskip('openvino')
    code = ('import yolo3.deploy.runtimes; import openvino, sys; '
            'sys.exit(any("openvino_telemetry." in name for name in sys.modules))')
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


TWO_THREADS = """
import sys, threading
import numpy as np
from yolo3.deploy.runtimes import Exported
file = Exported(sys.argv[1], 'openvino', '', at_once=99)
sys.setswitchinterval(1e-6)
images = file.prepare(np.zeros((1, 32, 32, 3), 'uint8'))
going = False

def wait():
    while not going:
        pass
    file.run(images, ['boxes'])

thread = threading.Thread(target=wait, daemon=True)
thread.start()
going = True
file.run(images, ['boxes'])
thread.join()
"""


@pytest.mark.slow
def test_two_threads_may_be_openvinos_first(files):
    for _ in range(8):  # without the remedy each hung once in seven times
        subprocess.run([sys.executable, '-c', TWO_THREADS, files['bytes']], check=True, timeout=20, cwd=ROOT)
