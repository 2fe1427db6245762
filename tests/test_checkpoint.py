"""Checkpoints: whole or not at all, without pickle, and what does not fit is said."""
import argparse
import zipfile

import numpy as np
import pytest

from yolo3.runtime import mx
import train_yolo3_mobilenet as training
from yolo3 import checkpoint, network
from yolo3.cli import UserError
from yolo3.progress import LOSSES

STATE = {'epoch': 1, 'batch': 7, 'losses': None, 'best_map': -1.0, 'settings': {'--seed': 1},
         'history': [dict({name: 1.5 for name in LOSSES}, epoch=0, lr=1e-3)]}


def run(classes=('a', 'b'), devices=(mx.cpu(),), momentum=0.9):
    net = network.build('mobilenet0_25', list(classes))
    net.collect_params().reset_ctx(list(devices))
    return net, training.build_trainer(argparse.Namespace(no_wd=False, lr=1e-3, momentum=momentum, wd=5e-4, amp=False, accumulate=1),
                                       net)


def step(net, trainer, devices=(mx.cpu(),), seed=1):
    generator = np.random.RandomState(seed)
    with mx.autograd.record():
        outputs = [net(mx.nd.array(generator.uniform(size=(1, 3, 64, 64)), ctx=device),
                       mx.nd.zeros((1, 1, 4), ctx=device), *[mx.nd.ones((1, 252, width), ctx=device)
                                                           for width in (1, 2, 2, 2, 2)]) for device in devices]
        mx.autograd.backward([sum(output) for output in outputs])
    trainer.step(len(devices))


def momenta(trainer):
    return {index: array.asnumpy() for index, array in trainer._updaters[0].states.items() if array is not None}


def test_weights_momentum_and_state_come_back(tmp_path):
    path = str(tmp_path / 'run.npz')
    net, trainer = run()
    step(net, trainer)
    state = dict(STATE, epoch=3, best_map=0.5, losses=[1., 2., 3., 4., 5])
    checkpoint.save(path, net, trainer, state)
    again, other_trainer = run()
    assert checkpoint.load(path, again, other_trainer) == state
    assert len(momenta(trainer)) > 100 and any(value.any() for value in momenta(trainer).values())
    for index, value in momenta(trainer).items():
        np.testing.assert_array_equal(momenta(other_trainer)[index], value)
    for net_, trainer_ in (net, trainer), (again, other_trainer):
        step(net_, trainer_, seed=2)
    for mine, other in zip(net.collect_params().values(), again.collect_params().values()):
        np.testing.assert_array_equal(mine.data().asnumpy(), other.data().asnumpy())


def test_momentum_reaches_every_device(tmp_path):
    path, devices = str(tmp_path / 'run.npz'), [mx.cpu(0), mx.cpu(1)]
    net, trainer = run(devices=devices)
    step(net, trainer, devices)
    checkpoint.save(path, net, trainer, STATE)
    net, trainer = run(devices=devices)
    checkpoint.load(path, net, trainer)
    for device, updater in zip(devices, trainer._updaters):
        assert all(array.context == device for array in updater.states.values())
    step(net, trainer, devices)


def test_running_statistics_of_each_device_come_back(tmp_path):
    path, devices = str(tmp_path / 'run.npz'), [mx.cpu(0), mx.cpu(1)]
    net, trainer = run(devices=devices)
    for seed in 1, 2:  # the trainer's first step gives all devices the first one's
        step(net, trainer, devices, seed)
    checkpoint.save(path, net, trainer, STATE)
    again, trainer = run(devices=devices)
    checkpoint.load(path, again, trainer)
    for device in devices:
        for mine, other in zip(net.collect_params().values(), again.collect_params().values()):
            np.testing.assert_array_equal(mine.data(device).asnumpy(), other.data(device).asnumpy())
    mean, = net.collect_params('.*mobilenet.*_batchnorm0_running_mean').values()
    assert (mean.data(devices[0]) != mean.data(devices[1])).asnumpy().any()


def test_no_momentum(tmp_path):
    path = str(tmp_path / 'run.npz')
    net, trainer = run(momentum=0)
    step(net, trainer)
    checkpoint.save(path, net, trainer, STATE)
    assert checkpoint.load(path, *run(momentum=0)) == STATE


def test_damage_is_noticed(tmp_path):
    path = tmp_path / 'run.npz'
    net, trainer = run()
    checkpoint.save(str(path), net, trainer, STATE)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in whole[:len(whole) // 2], b'', b'hello', bytes(flipped):
        path.write_bytes(content)
        with pytest.raises(UserError, match='run.npz'):
            checkpoint.load(str(path), net, trainer)


def test_pickles_are_refused(tmp_path):
    path = str(tmp_path / 'run.npz')
    np.savez(path, state=np.array([print], dtype=object))
    with pytest.raises(UserError, match='run.npz'):
        checkpoint.load(path, *run())
    net, trainer = run()
    step(net, trainer)
    checkpoint.save(path, net, trainer, STATE)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            assert np.lib.format.read_magic(archive.open(name)) == (1, 0)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_other_classes_are_refused(tmp_path):
    path = str(tmp_path / 'run.npz')
    checkpoint.save(path, *run(), STATE)
    with pytest.raises(UserError, match='--classes'):
        checkpoint.load(path, *run(classes=('a', 'b', 'c')))


def test_running_statistics_are_one_for_all_devices():
    net, _ = run(devices=[mx.cpu(0), mx.cpu(1)])
    mean, = net.collect_params('.*mobilenet.*_batchnorm0_running_mean').values()
    mean.data(mx.cpu(0))[:] = 1
    mean.data(mx.cpu(1))[:] = 3
    checkpoint.average_running_statistics(net)
    assert (mean.data(mx.cpu(0)).asnumpy() == 2).all() and (mean.data(mx.cpu(1)).asnumpy() == 2).all()
