"""quantize_onnx.py: smaller, close to the float file, and the layers that matter most kept float."""
import os

import numpy as np
import pytest

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

from yolo3.boxes import iou
from yolo3.cli import UserError
from yolo3.data.datasets import open_train, val_sample
from yolo3.defaults import BACKENDS
from yolo3.deploy.runtimes import ONNXDetector
from yolo3.mxnet_setup import mx

from test_export_onnx import detector, export_onnx

import quantize_onnx


@pytest.fixture(scope='module')
def quantized(squares, tmp_path_factory):
    """{variant: (float file, INT8 file)} of one network."""
    folder = tmp_path_factory.mktemp('quantized')
    net, info = detector(classes=['red', 'blue'])
    paths = {}
    for name, flags in {'plain': {}, 'bytes-nms': {'nms': True, 'uint8_input': True}}.items():
        paths[name] = str(folder / (name + '.onnx')), str(folder / (name + '_int8.onnx'))
        onnx.save(export_onnx.export(net, info, **flags), paths[name][0])
        quantize_onnx.main(['--params', paths[name][0], '--dataset-root', str(squares), '--train-splits',
                            '2007_trainval', '--images', '12'])
    return paths


def pictures(squares):
    images = open_train('voc', str(squares), ['red', 'blue'], ['2007_test'])
    return np.stack([val_sample(images, index, 96)[0] for index in range(len(images))])


@pytest.mark.slow
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('variant', ['plain', 'bytes-nms'])
def test_close_to_the_float_file(quantized, squares, variant, backend):
    pytest.importorskip(backend)
    paths = quantized[variant]
    assert os.path.getsize(paths[1]) < 0.33 * os.path.getsize(paths[0])  # much of a small network is not weights
    images = pictures(squares)
    true, found = [ONNXDetector(path, backend) for path in paths]
    assert true.info == found.info
    for (ids, scores, boxes), (true_ids, true_scores, true_boxes) in zip(found.forward(images), true.forward(images)):
        overlaps = iou(true_boxes[:20], boxes) * (true_ids[:20, None] == ids)
        assert np.median(overlaps.max(1)) > 0.9
        assert np.median(np.abs(scores[overlaps.argmax(1)] - true_scores[:20])) < 0.05


@pytest.mark.slow
def test_weights_are_int8_per_channel_except_the_layers_kept_float(quantized):
    model = onnx.load(quantized['plain'][1])
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    int8, floats = 0, 0
    for node in model.graph.node:
        if node.op_type == 'Conv' and node.input[1] in constants:
            floats += 1
        elif node.op_type == 'Conv':
            weight, scale = [constants[name] for name in makers[node.input[1]].input[:2]]
            assert weight.dtype == np.int8 and scale.shape == (len(weight),)
            int8 += 1
    assert int8 + floats == 50 and int8 > 25
    users = {node.op_type for node in model.graph.node for name in node.input
             if name in makers and makers[name].op_type == 'DequantizeLinear'}
    assert not users - set(quantize_onnx.OPERATORS) - {'Transpose'}  # the decoding, which this begins, is float


@pytest.mark.slow
def test_the_sensitive_layer_is_found_and_kept_float(squares, tmp_path):
    net, info = detector(classes=['red', 'blue'])
    # One channel is a hundred times the others: with one range for all, INT8 has no steps left for the others.
    layer = net.stages[0][3]
    norm = net.stages[0][4]
    assert type(layer).__name__ == 'Conv2D' and type(norm).__name__ == 'BatchNorm'
    # By NumPy: MXNet's own assignment to a part of a weight that oneDNN has reordered once ended in a SIGFPE.
    changed = norm.gamma, norm.beta, net.stages[0][6].weight
    gamma, beta, following = values = [parameter.data().asnumpy() for parameter in changed]
    gamma[0] = beta[0] = 300
    following[:, 0] /= 300
    for parameter, value in zip(changed, values):
        parameter.set_data(mx.nd.array(value))
    path = str(tmp_path / 'net.onnx')
    onnx.save(export_onnx.export(net, info), path)
    inputs = ONNXDetector(path).prepare(pictures(squares))
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    found = quantize_onnx.sensitivities(model, quantize_onnx.calibrate(path, inputs), inputs)
    # The activation after the layer and the input of the next are one tensor: both see it.
    assert set(list(found)[:2]) == {'stages.0.3', 'stages.0.6'}
    assert 'stages.0.3' in quantize_onnx.choose_float(model, found)


@pytest.mark.slow
def test_the_budget_is_kept(quantized):
    model = onnx.load(quantized['plain'][0])
    parts = quantize_onnx.layers(model)
    total = sum(size for _, size in parts.values())
    left = quantize_onnx.choose_float(model, dict.fromkeys(parts, 1.))
    added = 3 * sum(parts[name][1] for name in left)
    assert left and added <= 0.01 * 4 * total
    assert quantize_onnx.choose_float(model, dict.fromkeys(parts, 0.001)) == []


@pytest.mark.parametrize('scores', [0, np.nan, np.inf])
def test_a_network_that_finds_nothing_is_refused(scores, monkeypatch):
    true = np.zeros((1, 4, 4)), np.full((1, 4, 2), scores)
    monkeypatch.setattr(quantize_onnx, 'predictions', lambda model, inputs: true)
    with pytest.raises(UserError, match='^--params'):
        quantize_onnx.sensitivities(onnx.ModelProto(), {}, [])


def test_a_float16_file_is_refused(tmp_path):
    path = str(tmp_path / 'half.onnx')
    onnx.save(export_onnx.export(*detector(), fp16=True), path)
    with pytest.raises(UserError, match='half.onnx: .* without --fp16'):
        quantize_onnx.main(['--params', path])


@pytest.mark.parametrize('flags, said', [
    (['--params', 'net.params'], 'export_onnx.py'), (['--params', 'gone.onnx'], 'gone.onnx'),
    (['--params', 'gone.onnx', '--images', '0'], '--images'),
    (['--params', 'a.onnx', '--output', 'a.onnx'], '--output'),
    (['--params', 'a.onnx', '--output', 'no/such.onnx'], '--output')])
def test_mistakes_end_in_one_line(run, tmp_path, flags, said):
    done = run('scripts/quantize_onnx.py', *flags, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and said in done.stderr
