"""The average is the exact one, on every device and in a checkpoint, and leaves the weights alone."""
import argparse

import numpy as np
import pytest

from yolo3.mxnet_setup import mx
from mxnet import gluon

from steps import flags, sgd, weights_of
from yolo3 import checkpoint, detect, network
from yolo3.data.anchors import ANCHORS
from yolo3.distributed.group import ONE_PROCESS
from yolo3.ema import Ema

DEVICES = mx.cpu(0), mx.cpu(1)


def averaging(decay=0.9, averaged=0, devices=DEVICES):
    """An Ema of a network of random weights."""
    args = argparse.Namespace(network='mobilenet0_25', ema=decay, devices=list(devices))
    state = argparse.Namespace(classes=['a', 'b'], anchors=ANCHORS, averaged=averaged)
    net = network.build(args.network, state.classes, state.anchors)
    net.collect_params().reset_ctx(args.devices)
    return Ema(args, state, net)


def change(net, number):
    """Give `net` other weights on all devices, and other running statistics on each; returns all, {name: arrays}."""
    generator = np.random.RandomState(number)
    values = {}
    for name, parameter in net._collect_params_with_prefix().items():
        if not isinstance(parameter, gluon.Constant):
            value = generator.normal(size=parameter.shape)
            values[name] = [np.float32(value + device * ('running' in name)) for device in range(2)]
            for array, each in zip(parameter.list_data(), values[name]):
                array[:] = each
    return values


@pytest.mark.parametrize('decay', [0.9, 0.25])
def test_the_average_is_adams(decay):
    ema = averaging(decay)
    expected, total = {}, 0
    for step in range(4):
        values = change(ema.net, step)
        ema.update()
        total = decay * total + (1 - decay)
        for name, arrays in values.items():
            expected[name] = [decay * mean + (1 - decay) * array.astype('float64')
                              for mean, array in zip(expected.get(name, [0, 0]), arrays)]
        for name, parameter in ema.average._collect_params_with_prefix().items():
            if name in expected:
                for array, mean in zip(parameter.list_data(), expected[name]):
                    np.testing.assert_allclose(array.asnumpy(), mean / total, rtol=1e-5, atol=1e-6, err_msg=name)
    assert total == pytest.approx(1 - decay ** 4) and ema.steps == 4 and len(expected) > 200
    for name, array in weights_of(ema.net).items():  # which are the last ones, as before
        if name in values:
            np.testing.assert_array_equal(array, values[name][0])
        else:
            np.testing.assert_array_equal(array, weights_of(ema.average)[name])


def test_without_decay_there_is_no_average():
    ema = averaging(0, averaged=7)
    before = weights_of(ema.net)
    ema.update()
    assert ema.result is ema.net and ema.average is None and ema.parameters == [] and ema.steps == 0
    assert all((array == before[name]).all() for name, array in weights_of(ema.net).items())


def test_validation_does_not_disturb_the_average(picture):
    # Inference may leave weights in a layout of oneDNN.
    results = []
    for validated in False, True:
        ema = averaging()
        for step in range(3):
            change(ema.net, step)
            ema.update()
            if validated:
                detect.prepare(ema.result)(picture)[0].wait_to_read()
        results.append(weights_of(ema.average))
    for name in results[0]:
        np.testing.assert_array_equal(*[result[name] for result in results], err_msg=name)


def test_devices_share_their_statistics():
    ema = averaging()
    change(ema.net, 0)
    ema.update()
    ema.unify(ONE_PROCESS)
    for net in ema.net, ema.average:
        first, second = [parameter.list_data() for name, parameter in net.collect_params().items()
                         if 'running_mean' in name][5]
        assert (first == second).asnumpy().all()
    for name, array in weights_of(ema.average).items():
        np.testing.assert_array_equal(array, weights_of(ema.net)[name])  # of one step


def test_the_average_goes_on_from_a_checkpoint(tmp_path):
    path = str(tmp_path / 'run.npz')
    results = []
    for stop in 5, 2:  # a run of 5 steps, and one that stops after 2
        ema = averaging()
        for step in range(5):
            if step == stop:
                args = flags(DEVICES)
                state = checkpoint.State(0, 2, None, -1.0, [], ANCHORS, ['a', 'b'], {'training': '', 'validation': ''},
                                         {}, ema.steps)
                checkpoint.save(path, ema.net, sgd(ema.net, args), state, average=ema.average)
                ema = averaging(averaged=checkpoint.newest(path)[-1].averaged)
                checkpoint.load(path, ema.net, sgd(ema.net, args), average=ema.average)
            change(ema.net, step)
            ema.update()
        results.append([[array.asnumpy() for array in parameter.list_data()]
                        for parameter in ema.average._collect_params_with_prefix().values()])
    assert ema.steps == 5
    for whole, continued in zip(*results):
        np.testing.assert_array_equal(whole, continued)


def test_a_checkpoint_without_an_average_starts_one(tmp_path):
    path = str(tmp_path / 'run.npz')
    plain, ema = averaging(0), averaging()
    trainers = [sgd(each.net, flags(DEVICES)) for each in (plain, ema)]
    state = checkpoint.State(0, 2, None, -1.0, [], ANCHORS, ['a', 'b'], {'training': '', 'validation': ''}, {})
    checkpoint.save(path, plain.net, trainers[0], state)
    assert checkpoint.load(path, ema.net, trainers[1], average=ema.average).averaged == 0
    ema.update()
    for name, array in weights_of(ema.average).items():
        np.testing.assert_array_equal(array, weights_of(plain.net)[name])
