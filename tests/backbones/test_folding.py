"""The converted network computes what the source does, and batch norm's measured statistics are those it meets."""
import gluoncv
import mxnet as mx
import numpy as np
import pytest

from sources import function, keras_arrays, paddle_arrays, random_network, timm_arrays
from yolo3 import network
from yolo3.backbones.folding import convert, measure
from yolo3.backbones.naming import SCALINGS, Scaling, recognise
from yolo3.boxes import MEAN, STD
from yolo3.data.augment import normalize

FORMS = {'timm': (timm_arrays, (.5,) * 3, (.5,) * 3, 1e-5), 'Keras': (keras_arrays, (.5,) * 3, (.5,) * 3, 1e-3),
         'Paddle': (paddle_arrays, MEAN, STD, 1e-5)}


def photographs(size, count=2, seed=0):
    """Smooth pixels (count, size, size, 3), uint8."""
    generator = np.random.RandomState(seed)
    coarse = generator.uniform(0, 255, (count, size // 8, size // 8, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype('uint8')


def inputs(pixels):
    return normalize(mx.nd.array(pixels, dtype='uint8'))


def folded(network):
    """The Source with batch norm folded in, as TFLite has it, that computes what the layers of `network` do."""
    source = recognise(keras_arrays(network))
    layers = []
    for layer in source.layers:
        scale = layer.gamma / np.sqrt(layer.variance + source.epsilon)
        ones = np.ones_like(scale)
        layers.append(layer._replace(weight=layer.weight * scale[:, None, None, None], gamma=ones,
                                     beta=layer.beta - layer.mean * scale, mean=0 * ones, variance=ones - 1e-5))
    return source._replace(layers=layers, folded=True, epsilon=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_the_function_is_the_same(form):
    arrays, mean, std, epsilon = FORMS[form]
    weights = random_network()
    pixels = photographs(64)
    expected = function(weights, pixels, mean, std, epsilon)[1]
    net, name = convert(recognise(arrays(weights)))
    assert name == 'mobilenet0_25'
    np.testing.assert_allclose(net(inputs(pixels)).asnumpy(), expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize('mean, std', [((128 / 255,) * 3, (128 / 255,) * 3), ((0, 0, 0), (1 / 255,) * 3)])
def test_any_scaling_folds_in(mean, std):
    weights, pixels = random_network(), photographs(32)
    expected = function(weights, pixels, mean, std, 1e-5)[1]
    net, _ = convert(recognise(timm_arrays(weights))._replace(scaling=Scaling(mean, std)))
    np.testing.assert_allclose(net(inputs(pixels)).asnumpy(), expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))


def test_under_tensorflows_padding_the_features_are_those_of_a_picture_moved_by_31_pixels():
    weights, pixels = random_network(), photographs(416, 1)
    outputs, _ = function(weights, pixels, (.5,) * 3, (.5,) * 3, 1e-3, padding=(0, 1))
    net, _ = convert(recognise(keras_arrays(weights)))
    features = inputs(np.roll(pixels, (-31, -31), (1, 2)))
    for layer in list(net.features)[:-2]:
        features = layer(features)
    inside = (..., slice(5, 7), slice(5, 7))  # where the border is out of sight
    np.testing.assert_allclose(features.asnumpy()[inside], np.maximum(outputs[-1], 0)[inside], rtol=1e-3,
                               atol=1e-3 * outputs[-1].max())


def test_measuring_a_folded_source_of_gluoncvs_own_conventions_changes_nothing():
    pixels = photographs(64)
    source = folded(random_network())._replace(relu6=False, same=False, scaling=SCALINGS['imagenet'])
    net, _ = convert(source)
    before = net(inputs(pixels)).asnumpy()
    measure(net, source, [inputs(pixels[:1]), inputs(pixels[1:])])
    np.testing.assert_allclose(net(inputs(pixels)).asnumpy(), before, rtol=1e-3, atol=1e-3 * np.ptp(before))
    with mx.autograd.train_mode():  # normalises by the pictures themselves: what a training's first step computes
        np.testing.assert_allclose(net(inputs(pixels)).asnumpy(), before, rtol=1e-3, atol=1e-3 * np.ptp(before))


def test_a_folded_source_gets_the_mean_and_deviation_of_its_own_layers():
    weights, pixels = random_network(), photographs(64)
    outputs, _ = function(weights, pixels, (.5,) * 3, (.5,) * 3, 1e-3, padding=(0, 1))
    source = folded(weights)._replace(relu6=False)
    net, _ = convert(source)
    measure(net, source, [inputs(pixels)])
    for number, output in enumerate(outputs[:12]):  # deeper, rounding adds up
        norm = net.features[3 * number + 1]
        np.testing.assert_allclose(norm.beta.data().asnumpy(), output.mean(axis=(0, 2, 3)), atol=1e-3)
        np.testing.assert_allclose(norm.gamma.data().asnumpy(), output.std(axis=(0, 2, 3)), rtol=2e-2, atol=5e-3)


@pytest.mark.parametrize('make', [lambda weights: folded(weights), lambda weights: recognise(timm_arrays(weights))])
def test_measured_statistics_are_those_that_training_meets(make):
    pixels = photographs(96)
    source = make(random_network())
    net, _ = convert(source)
    measure(net, source, [inputs(pixels[:1]), inputs(pixels[1:])])
    expected = net(inputs(pixels)).asnumpy()
    with mx.autograd.train_mode():
        np.testing.assert_allclose(net(inputs(pixels)).asnumpy(), expected, rtol=1e-3, atol=1e-3 * np.ptp(expected))


@pytest.mark.parametrize('classes', [1000, 1001, 10])
def test_the_background_is_left_out_and_other_classes_become_zeros(classes):
    weights = random_network(classes=classes)
    net, _ = convert(recognise(timm_arrays(weights)))
    expected = np.zeros((1000, 256)) if classes == 10 else weights[1][0][classes - 1000:]
    np.testing.assert_array_equal(net.output.weight.data().asnumpy(), expected)


@pytest.mark.parametrize('width, name', [(0.25, 'mobilenet0_25'), (1, 'mobilenet1_0')])
def test_the_detector_is_built_from_it(width, name, tmp_path):
    weights = random_network(width)
    net, found = convert(recognise(paddle_arrays(weights)))
    path = str(tmp_path / 'net.params')
    net.save_parameters(path)
    detector = network.build(found, ['a'], backbone_params=path)
    again = gluoncv.model_zoo.mobilenet.get_mobilenet(width)
    again.load_parameters(path)
    assert found == name
    np.testing.assert_array_equal(detector.stages[0][0].weight.data().asnumpy(), weights[0][0]['weight'])


@pytest.mark.parametrize('change, said', [
    (lambda arrays: arrays.update({'blocks.3.2.conv_pw.weight': np.zeros((128, 99, 1, 1))}), r'features\.48\.weight'),
    (lambda arrays: arrays['bn1.weight'].fill(np.nan), r'features\.1\.gamma is not finite'),
    (lambda arrays: arrays['bn1.running_var'].fill(-1), r'features\.1\.running_var is not finite, or a variance'),
    (lambda arrays: arrays.update({'conv_stem.weight': np.zeros((40, 3, 3, 3))}), r'width 1\.25: GluonCV has 1, 0')])
def test_what_does_not_fit_is_refused(change, said):
    arrays = timm_arrays(random_network())
    change(arrays)
    with pytest.raises(ValueError, match=said):
        convert(recognise(arrays))
