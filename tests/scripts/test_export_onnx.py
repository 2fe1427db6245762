"""export_onnx.py: its files in ONNX Runtime, OpenVINO and OpenCV against MXNet, on the same input."""
import json

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

from conftest import slow
from yolo3.deploy import runtimes  # noqa: F401, it must come before openvino: see there
from yolo3.data.augment import normalize
from yolo3.data.anchors import ANCHORS
from yolo3.network import build
from yolo3.weights import save_detector
from yolo3.mxnet_setup import mx

import export_onnx

CLASSES = ['RBC', 'cell, white', '血小板']
OWN_ANCHORS = [[8, 9, 17, 33, 35, 20], [33, 65, 64, 40, 50, 110], [100, 80, 150, 190, 300, 310]]
SHAPES = (96, 96), (64, 160), (32, 32)


def detector(network='mobilenet0_25', classes=CLASSES, anchors=OWN_ANCHORS):
    """A network whose batch norm has something to fold, and the facts of its sidecar."""
    mx.random.seed(5)
    net = build(network, classes, anchors=anchors)
    generator = np.random.RandomState(5)
    for name, parameter in net.collect_params().items():
        low, high = {'gamma': (0.7, 1.3), 'a_var': (0.5, 1.5), 'beta': (-0.2, 0.2), '_mean': (-0.2, 0.2),
                     '_bias': (-0.5, 0.5)}.get(name[-5:], (0, 0))
        if high:
            parameter.set_data(mx.nd.array(generator.uniform(low, high, parameter.shape)))
    return net, {'network': network, 'classes': classes, 'dataset': 'voc', 'data_shape': 96, 'anchors': anchors}


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """The network, and {variant: path of its file}."""
    net, info = detector()
    folder = tmp_path_factory.mktemp('onnx')
    paths = {}
    for name, flags in {'plain': {}, 'nms': {'nms': True}, 'bytes': {'uint8_input': True},
                        'heads': {'only_heads': True}}.items():
        paths[name] = str(folder / (name + '.onnx'))
        onnx.save(export_onnx.export(net, info, **flags), paths[name])
    return net, paths


def pictures(shape, batch=1, seed=0):
    """Images (batch, H, W, 3) uint8 with something to see in them."""
    noise = np.random.RandomState(seed).randint(0, 256, (batch, 6, 8, 3)).astype('uint8')
    return np.stack([cv2.resize(image, shape[::-1]) for image in noise])


def inputs(images):
    return normalize(mx.nd.array(images, dtype='uint8'))


def optimized(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def raw_heads(net, x):
    """The three raw outputs by MXNet, the coarsest first."""
    routes, results = [], []
    for stage in net.stages:
        x = stage(x)
        routes.append(x)
    for number, (block, output) in enumerate(zip(net.yolo_blocks, net.yolo_outputs)):
        x, tip = block(x)
        results.append(output.prediction(tip).asnumpy())
        if number < 2:
            x = net.transitions[number](x).repeat(axis=-1, repeats=2).repeat(axis=-2, repeats=2)
            x = mx.nd.concat(x, routes[1 - number], dim=1)
    return results


def all_predictions(net, x, num_class=len(CLASSES)):
    """Boxes (B, N, 4) and scores (B, N, classes) by MXNet, in the file's order."""
    net.set_nms(-1)
    _, scores, boxes = [output.asnumpy() for output in net(x)]
    all_boxes, all_scores, start = [], [], 0
    for stride in 32, 16, 8:
        count = x.shape[2] // stride * (x.shape[3] // stride) * 3
        part = slice(start, start + count * num_class)
        all_scores.append(scores[:, part, 0].reshape(len(x), num_class, count).transpose(0, 2, 1))
        all_boxes.append(boxes[:, start:start + count])
        start += count * num_class
    return np.concatenate(all_boxes, 1), np.concatenate(all_scores, 1)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('batch', [1, 3])
def test_equal_to_mxnet(exported, shape, batch):
    net, paths = exported
    images = pictures(shape, batch)
    x = inputs(images)
    for mine, theirs in zip(optimized(paths['heads']).run(None, {'images': x.asnumpy()}), raw_heads(net, x)):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)
    true_boxes, true_scores = all_predictions(net, x)
    for name, feed in ('plain', x.asnumpy()), ('bytes', images):
        boxes, scores, classes = optimized(paths[name]).run(None, {'images': feed})
        np.testing.assert_allclose(boxes, true_boxes, atol=0.05)
        np.testing.assert_allclose(scores, true_scores, atol=1e-4)
        np.testing.assert_array_equal(classes, scores.argmax(-1))
    assert np.ptp(true_scores) > 0.1  # otherwise anything would pass


@pytest.mark.parametrize('shape', SHAPES)
def test_detections_are_gluoncvs(exported, shape):
    net, paths = exported
    session = optimized(paths['nms'])
    for seed in range(3):
        x = inputs(pictures(shape, seed=seed))
        net.set_nms(0.45, 400)
        true_ids, true_scores, true_boxes = [output.asnumpy()[0] for output in net(x)]
        real = true_ids[:, 0] >= 0
        boxes, scores, classes = session.run(None, {'images': x.asnumpy()})
        assert len(boxes) == real.sum() > 20
        np.testing.assert_array_equal(classes, true_ids[real, 0])
        np.testing.assert_allclose(scores, true_scores[real, 0], atol=1e-4)
        np.testing.assert_allclose(boxes, true_boxes[real], atol=0.05)


def test_sizes_do_not_overflow(tmp_path):
    net, info = detector()
    for output in net.yolo_outputs:
        bias = output.prediction.bias.data()
        bias.reshape((3, -1))[:, 2:4] = 200
        output.prediction.bias.set_data(bias)
    path = str(tmp_path / 'large.onnx')
    onnx.save(export_onnx.export(net, info), path)
    x = inputs(pictures((64, 64)))
    boxes = optimized(path).run(None, {'images': x.asnumpy()})[0]
    assert np.isfinite(boxes).all() and np.abs(boxes).min() > 1e8
    np.testing.assert_allclose(boxes, all_predictions(net, x)[0], rtol=1e-5)


def test_only_the_400_best_of_all_classes_take_part(tmp_path):
    net, info = detector(anchors=[[60, 70, 80, 60, 75, 75]] * 3)  # boxes that lie over each other
    path = str(tmp_path / 'net.onnx')
    onnx.save(export_onnx.export(net, info, nms=True), path)
    x = inputs(pictures((160, 160)))
    counts = []
    for most in 400, -1:
        net.set_nms(0.45, most)
        counts.append(int((net(x)[0].asnumpy() >= 0).sum()))
    assert counts[0] < min(100, counts[1])
    assert len(optimized(path).run(None, {'images': x.asnumpy()})[0]) == counts[0]


def test_no_detection_is_an_empty_list(tmp_path):
    net, info = detector()
    for output in net.yolo_outputs:
        bias = output.prediction.bias
        bias.set_data(bias.data() - 50)
    path = str(tmp_path / 'blind.onnx')
    onnx.save(export_onnx.export(net, info, nms=True), path)
    boxes, scores, classes = optimized(path).run(None, {'images': inputs(pictures((64, 64))).asnumpy()})
    assert boxes.shape == (0, 4) and scores.shape == classes.shape == (0,)


def test_openvino(exported):
    openvino = pytest.importorskip('openvino')
    net, paths = exported
    images = pictures((64, 160), 2)
    x = inputs(images)
    true_boxes, true_scores = all_predictions(net, x)
    core = openvino.Core()
    for name, feed in ('plain', x.asnumpy()), ('bytes', images):
        compiled = core.compile_model(core.read_model(paths[name]), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
        result = compiled({'images': feed})
        np.testing.assert_allclose(result['boxes'], true_boxes, atol=0.05)
        np.testing.assert_allclose(result['scores'], true_scores, atol=1e-4)
    feed = {'images': x.asnumpy()[:1]}
    compiled = core.compile_model(core.read_model(paths['nms']), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    result = compiled(feed)
    for name, theirs in zip(('boxes', 'scores', 'classes'), optimized(paths['nms']).run(None, feed)):
        np.testing.assert_allclose(result[name], theirs, atol=1e-3)


def test_opencv_reads_the_heads(exported):
    net, paths = exported
    reader = cv2.dnn.readNetFromONNX(paths['heads'])
    for shape in SHAPES[:2]:  # OpenCV 4.11 reads beyond the image in depthwise convolutions of a single row or column
        x = inputs(pictures(shape))
        reader.setInput(x.asnumpy())
        for mine, theirs in zip(reader.forward(['head_32', 'head_16', 'head_8']), raw_heads(net, x)):
            np.testing.assert_allclose(mine, theirs, atol=1e-3)


@pytest.mark.parametrize('network', ['mobilenet1_0', slow('mobilenet0_75'), slow('mobilenet0_5')])
def test_every_width(network, tmp_path):
    net, info = detector(network, ['one'], ANCHORS)
    path = str(tmp_path / 'net.onnx')
    onnx.save(export_onnx.export(net, info), path)
    x = inputs(pictures((64, 64)))
    boxes, scores, _ = optimized(path).run(None, {'images': x.asnumpy()})
    true_boxes, true_scores = all_predictions(net, x, 1)
    np.testing.assert_allclose(scores, true_scores, atol=1e-4)
    np.testing.assert_allclose(boxes, true_boxes, rtol=1e-4, atol=0.05)


def test_the_file_alone_says_how_to_use_it(run_process, tmp_path):
    net, info = detector()
    path = str(tmp_path / 'cells.params')
    info['threshold'] = 0.42
    save_detector(net, path, **info)
    done = run_process('scripts/export_onnx.py', '--params', path)
    assert done.returncode == 0, done.stderr
    model = onnx.load(str(tmp_path / 'cells.onnx'))
    onnx.checker.check_model(model, full_check=True)
    assert not {node.op_type for node in model.graph.node} & {'BatchNormalization', 'Pad'}
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told == dict(info, strides=[8, 16, 32], mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert not [value for value in model.graph.input if value.name != 'images']


@pytest.mark.parametrize('flags,said', [
    (['--params', 'none.params'], 'none.params'), (['--params', 'x.params', '--nms', '--heads'], '--nms'),
    (['--params', 'x.params', '--output', 'no/such/folder.onnx'], '--output'), ([], '--params'),
    (['--params', 'x.params', '--output', 'x.params'], '--output'), (['--params', 'x.params'], '--output x.onnx')])
def test_mistakes_end_in_one_line(run, tmp_path, flags, said):
    (tmp_path / 'x.onnx').symlink_to('x.params')  # the default of --output
    (tmp_path / 'x.params').write_text('')
    done = run('scripts/export_onnx.py', *flags, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and said in done.stderr
