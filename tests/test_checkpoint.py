"""Checkpoints: whole or not at all, without pickle, and what does not fit is said."""
import dataclasses
import os
import zipfile

import numpy as np
import pytest

from yolo3.mxnet_setup import mx
from steps import flags, sgd
from yolo3 import checkpoint, network
from yolo3.cli import RunError, UserError
from yolo3.distributed.group import ONE_PROCESS
from yolo3.data.anchors import ANCHORS
from yolo3.log import LOSSES

STATE = checkpoint.State(epoch=1, batch=7, losses=None, best_map=-1.0, anchors=ANCHORS,
                         classes=['a', 'b'], data={'training': '1', 'validation': '2'}, flags={'epochs': 2},
                         history=[dict({name: 1.5 for name in LOSSES}, epoch=0, lr=1e-3)])


def run(classes=('a', 'b'), devices=(mx.cpu(),), **others):
    net = network.build('mobilenet0_25', list(classes))
    net.collect_params().reset_ctx(list(devices))
    args = flags(devices)
    vars(args).update(others)
    return net, sgd(net, args)


def step(net, trainer, devices=(mx.cpu(),), seed=1):
    generator = np.random.RandomState(seed)
    with mx.autograd.record():
        outputs = [net(mx.nd.array(generator.uniform(size=(1, 3, 64, 64)), ctx=device),
                       mx.nd.zeros((1, 1, 4), ctx=device), *[mx.nd.ones((1, 252, width), ctx=device)
                                                           for width in (1, 2, 2, 2, 2)]) for device in devices]
        mx.autograd.backward([sum(output) for output in outputs])
    trainer.step(len(devices))


def momenta(trainer):
    return {(index, number): array.asnumpy() for index, arrays in trainer._updaters[0].states.items()
            for number, array in enumerate(checkpoint.as_tuple(arrays))}


@pytest.mark.parametrize('optimizer, arrays', [('sgd', 1), ('adam', 2)])
def test_weights_momentum_and_state_come_back(tmp_path, optimizer, arrays):
    path = str(tmp_path / 'run.npz')
    net, trainer = run(optimizer=optimizer)
    step(net, trainer)
    state = dataclasses.replace(STATE, epoch=3, best_map=0.5, losses=[1., 2., 3., 4., 5],
                                updates=checkpoint.update_counts(trainer))
    checkpoint.save(path, net, trainer, state)
    again, other_trainer = run(optimizer=optimizer)
    assert checkpoint.load(path, again, other_trainer) == state
    assert set(state.updates) == {0, 1}  # running statistics are not updated
    checkpoint.set_update_counts(other_trainer, state.updates)  # as Run does
    assert len(momenta(trainer)) > 100 * arrays and any(value.any() for value in momenta(trainer).values())
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


@pytest.fixture(scope='module')
def trained():
    """A network and its trainer, for tests that do not ask what the weights are."""
    return run()


def saved_twice(tmp_path, trained, keep=2):
    """A run with checkpoints of batch 7 and, newest, of batch 9; and what its weights were at 7."""
    path = str(tmp_path / 'run.npz')
    net, trainer = trained
    checkpoint.save(path, net, trainer, STATE, keep)
    weights = {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}
    step(net, trainer)
    checkpoint.save(path, net, trainer, dataclasses.replace(STATE, batch=9), keep)
    return path, net, trainer, weights


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, trained, caplog):
    path, net, trainer, weights = saved_twice(tmp_path, trained)
    with open(path, 'r+b') as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b'damage')
    assert checkpoint.load(path, net, trainer, 2) == STATE
    for name, parameter in net._collect_params_with_prefix().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), weights[name])
    told, = [record.getMessage() for record in caplog.records]
    assert path in told and '.damaged' in told
    assert sorted(os.listdir(tmp_path)) == ['run.1.npz', 'run.npz.damaged']


@pytest.mark.parametrize('keep', [1, 2, 3])
def test_the_last_are_kept(tmp_path, trained, keep):
    path, net, trainer, _ = saved_twice(tmp_path, trained, keep)
    for batch in 11, 13:
        checkpoint.save(path, net, trainer, dataclasses.replace(STATE, batch=batch), keep)
    assert sorted(os.listdir(tmp_path)) == sorted(['run.npz', 'run.1.npz', 'run.2.npz'][:keep])
    batches = []
    for name in checkpoint.existing(path, keep):
        batches.append(checkpoint.load(name, net, trainer, 1).batch)
    assert batches == [13, 11, 9][:keep]


@pytest.mark.parametrize('fails', [1, 2])
def test_stopped_in_a_rename_one_is_there(tmp_path, trained, monkeypatch, fails):
    path, net, trainer, _ = saved_twice(tmp_path, trained)
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == fails:
            raise OSError('stopped')
        real(source, target)
    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(OSError):
        checkpoint.save(path, net, trainer, dataclasses.replace(STATE, batch=11))
    assert checkpoint.load(path, net, trainer).batch == 9


def test_the_checksum_covers_what_the_zip_checks_do_not(tmp_path, trained):
    path, net, trainer, _ = saved_twice(tmp_path, trained)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    name = next(name for name in arrays if name.startswith('weight'))
    arrays[name] = arrays[name] + 1  # a whole zip, but not what was saved
    np.savez(path, **arrays)
    with pytest.raises(UserError, match='checksum'):
        checkpoint.load(path, net, trainer, 1)


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path, trained):
    path, net, trainer, _ = saved_twice(tmp_path, trained)
    list(net.collect_params().values())[3].data()[:] = float('nan')
    with pytest.raises(RunError, match='finite'):
        checkpoint.save(path, net, trainer, STATE)
    assert checkpoint.load(path, net, trainer).batch == 9 and len(os.listdir(tmp_path)) == 2


def test_a_checkpoint_of_an_older_form_says_how_to_go_on(tmp_path):
    path = str(tmp_path / 'run_last.npz')
    arrays = {'state': np.frombuffer(b'{"epoch": 3, "settings": {}}', 'uint8')}
    np.savez(path, checksum=checkpoint.checksum(arrays), **arrays)
    with pytest.raises(UserError, match='--resume .*run_best.params --start-epoch 3'):
        checkpoint.load(path, None, None)
    assert os.listdir(tmp_path) == ['run_last.npz']


@pytest.mark.parametrize('epoch, kept', [(1, True), (2, False)])
def test_only_an_unfinished_training_is_set_aside(tmp_path, trained, epoch, kept):
    prefix = str(tmp_path / 'run[1]')
    for _ in range(2):
        for end in '_best.params', '_best.json', '_0001_0.5.params':
            (tmp_path / ('run[1]' + end)).write_text(end, encoding='utf-8')
        for _ in range(2):
            checkpoint.save(prefix + '_last.npz', *trained, dataclasses.replace(STATE, epoch=epoch))
        checkpoint.set_aside(prefix)
    moved = {'run[1]_earlier%d%s' % (number, end) for number in (1, 2)
             for end in ('_last.npz', '_last.1.npz', '_best.params', '_best.json')}
    assert {name for name in os.listdir(tmp_path) if 'earlier' in name} == (moved if kept else set())
    assert not kept or checkpoint.load(prefix + '_earlier1_last.npz', *trained).epoch == 1


def test_a_bomb_is_not_inflated(tmp_path, trained):
    path = str(tmp_path / 'run.npz')
    np.savez_compressed(path, checksum=np.zeros(10 ** 8, 'uint8'))
    assert os.path.getsize(path) < 10 ** 6
    with pytest.raises(UserError, match='declares more than it holds'):
        checkpoint.load(path, *trained)


@pytest.mark.parametrize('change', [{'epoch': -1}, {'epoch': 'x'}, {'batch': 1.5}, {'losses': [1]}, {'history': [{}]},
                                    {'history': 3}, {'flags': []}, {'best_map': None}, {'epoch': True}, {'data': {}},
                                    {'updates': [-1]}, {'seconds': '1'},
                                    {'anchors': [[1, 2]]}, {'classes': ['a', 'a']}, {'classes': 'ab'}])
def test_a_state_of_something_else_is_refused(tmp_path, trained, change):
    path = str(tmp_path / 'run.npz')
    checkpoint.save(path, *trained, dataclasses.replace(STATE, **change))
    with pytest.raises(UserError, match='run.npz'):
        checkpoint.load(path, *trained)


def test_pickles_are_refused(tmp_path, trained):
    path = str(tmp_path / 'run.npz')
    np.savez(path, state=np.array([print], dtype=object))
    with pytest.raises(UserError, match='run.npz'):
        checkpoint.load(path, *trained)
    net, trainer = trained
    step(net, trainer)
    checkpoint.save(path, net, trainer, STATE)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            assert np.lib.format.read_magic(archive.open(name)) == (1, 0)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_other_classes_are_refused(tmp_path, trained):
    path = str(tmp_path / 'run.npz')
    checkpoint.save(path, *trained, STATE)
    with pytest.raises(UserError, match='--classes'):
        checkpoint.load(path, *run(classes=('a', 'b', 'c')))


def test_running_statistics_are_one_for_all_devices():
    net, _ = run(devices=[mx.cpu(0), mx.cpu(1)])
    mean, = net.collect_params('.*mobilenet.*_batchnorm0_running_mean').values()
    mean.data(mx.cpu(0))[:] = 1
    mean.data(mx.cpu(1))[:] = 3
    network.average_running_statistics(net, ONE_PROCESS)
    assert (mean.data(mx.cpu(0)).asnumpy() == 2).all() and (mean.data(mx.cpu(1)).asnumpy() == 2).all()
