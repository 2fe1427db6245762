"""export_onnx.py --fp16: half the size and the same detections, also with the scales that trained networks have."""
import os

import numpy as np
import pytest

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from yolo3.cli import UserError

from test_export_onnx import SHAPES, detector, export_onnx, inputs, optimized, pictures


def scale(norm, depthwise, channel, before, after):
    """Multiply a channel's values after `norm` by `before`, and those weights of `depthwise`, the next, by `after`."""
    for parameter in norm.gamma, norm.beta:
        values = parameter.data()
        values[channel] *= before
        parameter.set_data(values)
    values = depthwise.weight.data()
    values[channel] *= after
    depthwise.weight.set_data(values)


@pytest.fixture
def files(tmp_path):
    """files(net, info, flags) -> the paths of the float32 and of the float16 file."""
    def export(net, info, **flags):
        paths = [str(tmp_path / name) for name in ('net.onnx', 'half.onnx')]
        for path, fp16 in zip(paths, (False, True)):
            onnx.save(export_onnx.export(net, info, fp16=fp16, **flags), path)
        return paths
    return export


@pytest.mark.parametrize('flags', [{}, {'uint8_input': True}])
def test_half_the_size_and_the_same_outputs(files, flags):
    paths = files(*detector(), **flags)
    assert os.path.getsize(paths[1]) < 0.51 * os.path.getsize(paths[0])
    models = [onnx.load(path) for path in paths]
    for part in 'input', 'output':
        assert len({str(list(getattr(model.graph, part))) for model in models}) == 1
    for shape in SHAPES[:2]:
        images = pictures(shape, 2)
        feed = {'images': images if 'uint8_input' in flags else inputs(images).asnumpy()}
        true, found = [optimized(path).run(None, feed) for path in paths]
        assert 0 < np.abs(true[0] - found[0]).max() < 0.5  # pixels
        np.testing.assert_allclose(found[1], true[1], atol=0.01)


def test_channels_of_uneven_scales_keep_their_digits(files):
    net, info = detector()
    norm, depthwise = net.stages[0][1], net.stages[0][3]
    scale(norm, depthwise, 0, 2.0 ** -20, 2.0 ** 20)  # tiny values, brought back to size
    norm.beta.data()[1] = -100  # a dead channel, and weights that nothing ever held back
    scale(norm, depthwise, 1, 1, 2.0 ** 19)
    x = inputs(pictures((96, 96))).asnumpy()
    true, found = [optimized(path).run(None, {'images': x}) for path in files(net, info, only_heads=True)]
    for mine, theirs in zip(found, true):
        np.testing.assert_allclose(mine, theirs, atol=0.01)


def test_weights_that_are_too_large_are_named(files):
    net, info = detector()
    scale(net.stages[0][-2], net.stages[1][0], 0, 1, 2.0 ** 20)  # the values before it have two users
    with pytest.raises(UserError, match='^--fp16: stages.1.0.weight goes beyond 65504'):
        files(net, info)


def test_a_name_of_its_own(tmp_path):
    path = str(tmp_path / 'net')
    for flags, name in ([], '.onnx'), (['--fp16'], '_fp16.onnx'):
        assert export_onnx.parse_args(['--params', path + '.params', *flags]).output == path + name
