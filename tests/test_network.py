"""The network is GluonCV's at every width, and box sizes that overflow leave its gradients finite."""
import os

import gluoncv
import numpy as np
import pytest

import steps
from conftest import slow
from train_yolo3_mobilenet import train_step
from yolo3 import network, sidecar, weights
from yolo3.cli import UserError
from yolo3.data.augment import normalize
from yolo3.data.anchors import ANCHORS
from yolo3.data.gluon import VOCDetection
from yolo3.data.loader import train_loader
from yolo3.data.sampler import TrainSampler
from yolo3.distributed.group import ONE_PROCESS
from yolo3.mxnet_setup import mx
from yolo3.data.targets import sparse_targets
from yolo3.loss import DetectionLoss, set_loss


@pytest.mark.parametrize('width', [slow(width) if scale in (0.75, 0.5) else width
                                   for width, scale in network.WIDTHS.items()])
def test_widths(width, picture, tmp_path):
    net = network.build(width, ['a'])
    path = str(tmp_path / 'net.params')
    weights.save_detector(net, path, network=width, classes=['a'], data_shape=96, dataset='voc')
    again, info = weights.load_detector(path)
    assert info['network'] == width and info['classes'] == ['a']
    for mine, other in zip(net(picture), again(picture)):
        np.testing.assert_array_equal(mine.asnumpy(), other.asnumpy())
    assert net.stages[0][0].weight.shape[0] == int(32 * network.WIDTHS[width])


@pytest.mark.parametrize('name', ['mobilenet1.0', 'mobilenet1_0', 'MobileNet1.0'])
def test_spellings(name):
    assert sidecar.network_name(name) == 'mobilenet1_0'


def test_a_backbone_that_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(str(tmp_path / 'fifo'))
    with pytest.raises(UserError, match='--backbone-params .*not a regular file'):
        network.build('mobilenet0_25', ['a'], backbone_params=str(tmp_path / 'fifo'))


def test_backbone_weights_are_loaded(data):
    path = data + '/mobilenet1.0-imagenet.params'
    whole = gluoncv.model_zoo.get_model('mobilenet1.0')
    whole.load_parameters(path)
    net = network.build('mobilenet1_0', ['a'], backbone_params=path)
    picture = mx.nd.random.uniform(shape=(1, 3, 64, 64))
    features = picture
    for stage in net.stages:
        features = stage(features)
    expected = picture
    for layer in list(whole.features)[:-2]:
        expected = layer(expected)
    np.testing.assert_array_equal(features.asnumpy(), expected.asnumpy())


def test_sizes_that_overflow_leave_the_gradients_finite():
    # Far from any object nothing holds the logarithm of a box's size; GluonCV's layer turns 100 into a NaN everywhere.
    net = network.build('mobilenet0_25', ['a'])
    for output in net.yolo_outputs:
        bias = output.prediction.bias.data()
        bias.reshape((3, -1))[:, 2:4] = 100  # of the three anchors of a cell
    set_loss(net, DetectionLoss(1))
    net.hybridize()
    images = mx.nd.ones((1, 64, 64, 3), dtype='uint8')
    rows = mx.nd.array(sparse_targets([[10, 10, 40, 40]], [0], [1], 64, ANCHORS)[None])
    with mx.autograd.record():
        total = sum(net(normalize(images), mx.nd.array([[[10, 10, 40, 40]]]), rows))
    total.backward()
    for name, parameter in net.collect_params().items():
        if parameter.grad_req != 'null':
            assert np.isfinite(parameter.grad().asnumpy()).all(), name


@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_frozen_backbone_learns_once_it_is_thawed(squares, accumulate):
    net = network.build('mobilenet0_25', ['red', 'blue'])
    args = steps.flags(accumulate=accumulate)
    set_loss(net, DetectionLoss(2))
    trainer = steps.sgd(net, args)
    images = VOCDetection(str(squares), ['2007_trainval'], ['red', 'blue'])
    batch = next(iter(train_loader(images, TrainSampler(len(images), 4, [64], 1, 4))))

    def changed(frozen):
        """The names of the weights and statistics that a step changes."""
        network.freeze(net, frozen)
        before = steps.weights_of(net)
        train_step(net, batch, trainer, args, ONE_PROCESS)
        return {name for name, array in steps.weights_of(net).items() if (array != before[name]).any()}
    head = {name for name in steps.weights_of(net) if not name.startswith('stages.') and '.anchors' not in name
            and '.offsets' not in name}
    assert changed(True) == changed(True) == head
    assert changed(False) > head
    assert {name for name in steps.weights_of(net) if 'running' in name} <= changed(False)
    assert changed(True) == head
