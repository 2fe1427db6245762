"""Training: any number of devices gives one result, a resumed run is the run, logs and files are the original's."""
import argparse
import functools
import csv
import json
import os
import re
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from conftest import ROOT, learned, slow
from steps import blocks, flags, sgd, steps
from yolo3.mxnet_setup import mx
from gluoncv.utils import LRScheduler, LRSequential
from mxnet.gluon.nn import BatchNorm

import train_yolo3_mobilenet as training
from yolo3 import checkpoint, network, weights
from yolo3.cli import UserError
from yolo3.data.gluon import VOCDetection
from yolo3.data.loader import train_loader
from yolo3.data.sampler import TrainSampler, mixup_partner
from yolo3.data.anchors import ANCHORS, choose_anchors
from yolo3.distributed.group import ONE_PROCESS
from yolo3.loss import DetectionLoss, set_loss
from yolo3.system import has_bfloat16

TINY = ('--network', 'mobilenet0.25', '--dataset', 'voc', '--classes', 'red,blue', '--train-splits', '2007_trainval',
        '--val-splits', '2007_test', '--gpus', '', '--no-pretrained-base', '--batch-size', '4', '-j', '1',
        '--data-shape', '64', '--min-shape', '64', '--max-shape', '96', '--lr-mode', 'cosine', '--log-interval', '2')
# What can be changed about learning.
LEVERS = ('--box-loss', 'ciou', '--multi-anchor', '0.4', '--objectness-prior', '0.01', '--ema', '0.9',
          '--mosaic', '0.5', '--no-flip', '--lr-final', '0.1', '--optimizer', 'adam', '--freeze', '1')
SCRIPT = 'train_yolo3_mobilenet.py'


def saved(path):
    return {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.fixture(scope='module')
def straight(squares, tmp_path_factory):
    """The folder of a run of 3 epochs on the squares, with mixup in the first 2."""
    folder = tmp_path_factory.mktemp('straight')
    result = subprocess.run([sys.executable, os.path.join(ROOT, SCRIPT), '--dataset-root', str(squares), *TINY,
                             '--epochs', '3', '--mixup', '--no-mixup-epochs', '1', '--save-interval', '1', *LEVERS,
                             '--save-prefix', str(folder) + '/', '--tensorboard', str(folder / 'board')],
                            stderr=subprocess.PIPE, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def stopped(flags, words, signum):
    """The exit code of a training that is sent a signal once its log has a line with these words."""
    with subprocess.Popen([sys.executable, os.path.join(ROOT, SCRIPT), *map(str, flags)], stderr=subprocess.PIPE,
                          text=True) as process:
        next(line for line in process.stderr if words in line)
        process.send_signal(signum)
        process.stderr.read()
        return process.wait(60)


def test_files_are_the_originals_with_sidecars(straight):
    prefix = 'yolo3_mobilenet0_25_voc'
    names = set(os.listdir(straight))
    assert {prefix + end for end in ('_best.params', '_best.json', '_best_map.log', '_train.log', '_curves.png',
                                     '_history.csv', '_last.npz')} <= names
    for epoch in range(3):
        params, = [name for name in names if re.match(r'%s_%04d_\d\.\d{4}\.params$' % (prefix, epoch), name)]
        sidecar = json.loads((straight / params.replace('.params', '.json')).read_text())
        assert sidecar['network'] == 'mobilenet0_25' and sidecar['classes'] == ['red', 'blue']
        assert sidecar['data_shape'] == 64 and sidecar['dataset'] == 'voc' and sidecar['epoch'] == epoch
        assert params.endswith('%.4f.params' % sidecar['metrics']['mAP']) and 0 <= sidecar['threshold'] <= 1
    assert not [name for name in names if 'tmp' in name]
    assert re.match(r'^\d{4}:\t\d\.\d{4}$', (straight / (prefix + '_best_map.log')).read_text().splitlines()[0])
    assert os.listdir(straight / 'board')


def test_log_reads_like_the_originals(straight):
    log = (straight / 'yolo3_mobilenet0_25_voc_train.log').read_text()
    losses = r'ObjLoss=\d+\.\d{3}, BoxCenterLoss=\d+\.\d{3}, BoxScaleLoss=\d+\.\d{3}, ClassLoss=\d+\.\d{3}$'
    batches = re.findall(r'^\[Epoch (\d+)\]\[Batch (\d+)\], LR: \d\.\d\dE[+-]\d\d, Speed: \d+\.\d{3} samples/sec, '
                         + losses, log, re.M)
    assert batches[:4] == [('0', '1'), ('0', '3'), ('1', '1'), ('1', '3')]
    assert len(re.findall(r'^\[Epoch \d+\] Training cost: \d+\.\d{3}, ' + losses, log, re.M)) == 3
    assert len(re.findall(r'^\[Epoch \d+\] Validation: \nred=\S+\nblue=\S+\nmAP=[\d.]+$', log, re.M)) == 3
    mixed = re.findall(r'Mixed samples: (\d+) of (\d+)', log)
    assert [count == seen for count, seen in mixed] == [True, True, False]
    assert mixed[2][0] == '0'


def test_resumed_run_is_the_straight_run(straight, squares, run, tmp_path):
    flags = ('--dataset-root', squares, *TINY, '--mixup', '--no-mixup-epochs', '1', '--save-interval', '1',
             '--save-prefix', str(tmp_path) + '/', '--resume', 'auto', '--epochs', '3', *LEVERS)
    assert stopped(flags, '[Epoch 1][Batch 1]', signal.SIGTERM) == 143  # in the last epoch with mixup
    result = run(SCRIPT, *flags)
    assert result.returncode == 0, result.stderr
    assert re.search(r'Resume .* at epoch 1, batch [2-5]', result.stderr)
    last = [name for name in os.listdir(straight) if '_0002_' in name and name.endswith('.params')][0]
    assert_same(saved(tmp_path / last), saved(straight / last))
    ours, theirs = [learned(folder / 'yolo3_mobilenet0_25_voc_last.npz') for folder in (tmp_path, straight)]
    assert_same(ours, theirs)


@pytest.mark.slow
@pytest.mark.skipif(not has_bfloat16(), reason='the processor has no bfloat16')
def test_resumed_run_in_bfloat16_is_the_straight_run(squares, run_process, tmp_path):
    flags = ('--dataset-root', squares, *TINY, '--epochs', '2', '--amp', '--resume', 'auto', '--save-prefix')
    straight, resumed = tmp_path / 'straight', tmp_path / 'resumed'
    assert stopped((*flags, str(resumed) + '/'), '[Epoch 1][Batch 1]', signal.SIGTERM) == 143
    for folder in straight, resumed:
        result = run_process(SCRIPT, *flags, str(folder) + '/')
        assert result.returncode == 0, result.stderr
    assert 'at epoch 1, batch' in result.stderr
    ours, theirs = [learned(folder / 'yolo3_mobilenet0_25_voc_last.npz') for folder in (resumed, straight)]
    assert_same(ours, theirs)


def test_a_training_ends_when_its_patience_does(squares, run, tmp_path):
    flags = ('--dataset-root', squares, *TINY, '--epochs', '5', '--lr', '0', '--save-prefix', str(tmp_path) + '/')
    for epochs, more in (3, ['--patience', '2']), (3, ['--patience', '2', '--resume', 'auto']), (
            4, ['--patience', '3', '--resume', 'auto']):
        result = run(SCRIPT, *flags, *more)
        assert result.returncode == 0, result.stderr
        assert 'has not improved for %d validations' % (epochs - 1) in result.stderr
        with open(tmp_path / 'yolo3_mobilenet0_25_voc_history.csv') as file:
            assert [row['epoch'] for row in csv.DictReader(file)] == list('0123')[:epochs]


def test_resume_refuses_another_run(straight, squares, run):
    result = run(SCRIPT, '--dataset-root', squares, *TINY, '--epochs', '5', '--save-prefix', str(straight) + '/',
                 '--resume', 'auto', '--seed', '1')
    assert result.returncode == 2 and '--seed' in result.stderr.splitlines()[-1]


def test_resume_from_weights_only(straight, squares, run, tmp_path):
    best = straight / 'yolo3_mobilenet0_25_voc_best.params'
    result = run(SCRIPT, '--dataset-root', squares, *TINY, '--save-prefix', str(tmp_path) + '/', '--resume', best,
                 '--start-epoch', '2', '--epochs', '3', '--lr', '0')
    assert result.returncode == 0, result.stderr
    assert 'Start training from [Epoch 2]' in result.stderr
    ours, theirs = saved(tmp_path / best.name), saved(best)
    for name in ours:
        if 'running' not in name:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_eval_gives_the_numbers_of_training(straight, squares, run, tmp_path):
    for params in sorted(straight.glob('*_best.params')):
        result = run('eval_yolo3.py', '--params', params, '--dataset-root', squares, '--val-splits', '2007_test',
                     '--gpus', '', '-j', '0', '--batch-size', '2', '--json', tmp_path / 'eval.json')
        assert result.returncode == 0, result.stderr
        assert json.loads((tmp_path / 'eval.json').read_text())['values'] == json.loads(
            params.with_suffix('.json').read_text())['metrics']


def args(**changes):
    values = dict(lr=0.1, warmup_lr=0.01, warmup_epochs=2, lr_mode='step', lr_decay=0.1, lr_decay_epoch=[6, 8],
                  lr_final=0, epochs=10)
    return argparse.Namespace(**dict(values, **changes))


@pytest.mark.parametrize('mode', ['step', 'linear', 'poly', 'cosine'])
def test_learning_rate_follows_gluoncv(mode):
    batches = 1000
    stock = LRSequential([
        LRScheduler('linear', base_lr=0.01, target_lr=0.1, nepochs=2, iters_per_epoch=batches),
        # LRSequential counts decay epochs from the end of the warmup, so GluonCV's script takes the warmup off them.
        LRScheduler(mode, base_lr=0.1, nepochs=8, iters_per_epoch=batches, step_epoch=[4, 6], step_factor=0.1,
                    power=2)])
    for batch in range(0, 10 * batches, 7):
        assert training.learning_rate(args(lr_mode=mode), batch / batches) == pytest.approx(stock(batch), abs=2e-4)


def test_a_constant_learning_rate():
    assert [training.learning_rate(args(lr_mode='constant'), epoch) for epoch in (0, 2, 9)] == [0.01, 0.1, 0.1]


def test_cosine_ends_at_its_share_of_the_learning_rate():
    rates = [training.learning_rate(args(lr_mode='cosine', lr_final=0.05), epoch) for epoch in (2, 6, 10)]
    np.testing.assert_allclose(rates, [0.1, 0.0525, 0.005])


def test_decay_epochs_are_absolute():
    rates = [training.learning_rate(args(warmup_epochs=4), epoch) for epoch in range(10)]
    np.testing.assert_allclose(rates, [0.01, 0.0325, 0.055, 0.0775, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def cpus(count):
    """What stands in for as many GPUs."""
    return [mx.cpu(number) for number in range(count)]


@pytest.fixture(scope='module')
def one_device(squares):
    """one_device(batch_size) -> the weights before and after steps() on one device."""
    return functools.lru_cache(None)(lambda batch_size: steps(squares, flags(), batch_size))


@pytest.mark.parametrize('batch_size, count', [(8, 2), (7, 4), slow(8, 4), slow(7, 2)])
def test_any_number_of_devices_gives_the_same_weights(squares, one_device, batch_size, count):
    before, one = one_device(batch_size)
    moved = np.sqrt(sum(((one[name] - before[name]) ** 2).sum() for name in one))
    size = np.sqrt(sum((value ** 2).sum() for name, value in one.items() if 'offset' not in name))
    _, many = steps(squares, flags(cpus(count)), batch_size)
    apart = np.sqrt(sum(((one[name] - many[name]) ** 2).sum() for name in one))
    print('relative difference %.1e, moved %.1e' % (apart / size, moved / size))
    assert apart < 1e-5 * size and moved > 1e-3 * size


@pytest.mark.parametrize('devices, parts', [(1, 3), (2, 2), slow(1, 2)])
def test_a_batch_in_parts_gives_the_same_weights(squares, one_device, devices, parts):
    before, whole = one_device(8)
    _, split = steps(squares, flags(cpus(devices), parts), 8)
    size = np.sqrt(sum((value ** 2).sum() for name, value in whole.items() if 'offset' not in name))
    apart, moved = [np.sqrt(sum(((whole[name] - other[name]) ** 2).sum() for name in whole)) for other in (split,
        before)]
    print('%d parts: relative difference %.1e' % (parts, apart / size))
    assert apart < 1e-5 * size and moved > 1e-3 * size


def state_of(net, trainer):
    momentum = {'momentum %d' % index: array.asnumpy() for index, array in trainer._updaters[0].states.items()}
    return dict({'%s on %s' % (name, device): parameter.data(device).asnumpy() for device in trainer._contexts
                 for name, parameter in net._collect_params_with_prefix().items()}, **momentum)


@pytest.mark.parametrize('device_count, accumulate', [(2, 1), (1, 2), slow(1, 1)])
def test_a_batch_without_a_finite_loss_changes_nothing(squares, device_count, accumulate):
    images = VOCDetection(str(squares), ['2007_trainval'], ['red', 'blue'])
    batches = list(train_loader(images, TrainSampler(len(images), 4, [64], seed=1, samples_per_epoch=12)))
    args, states = flags(cpus(device_count), accumulate), []
    for bad in False, True:
        mx.random.seed(3)
        net = network.build('mobilenet0_25', ['red', 'blue'])
        set_loss(net, DetectionLoss(2))
        net.collect_params().reset_ctx(args.devices)
        net.hybridize()
        trainer = sgd(net, args)
        for number, batch in enumerate(batches):
            if bad and number == 1:
                broken = batch.targets.copy()
                broken[3, 0, 1:3] = [float('nan'), float('inf')]  # where the last image's first box is to be found
                before = state_of(net, trainer)
                losses, totals = training.train_step(net, batch._replace(targets=broken), trainer, args, ONE_PROCESS)
                assert losses.shape == (4, 4) and np.isfinite(losses).all(axis=0).tolist() == [True] * 3 + [False]
                assert not np.isfinite(totals).all()
                assert_same(state_of(net, trainer), before)
            _, totals = training.train_step(net, batch, trainer, args, ONE_PROCESS)
            assert np.isfinite(totals).all()
        states.append(state_of(net, trainer))
    assert_same(*states)


def train_with_bad_losses(run, squares, folder, bad):
    """Train an epoch of 5 batches in which the losses of those numbers are not finite, with an average of weights."""
    real, calls = training.train_step, []

    def train_step(net, batch, *rest):
        calls.append(len(calls))
        if calls[-1] in bad:
            rows = batch.targets.asnumpy()
            rows[rows[:, :, 7] >= 0, 1:3] = np.nan  # the objects' centres
            batch = batch._replace(targets=mx.nd.array(rows))
        return real(net, batch, *rest)
    with mock.patch.object(training, 'train_step', train_step):
        return run(SCRIPT, '--dataset-root', squares, *TINY, '-j', 0, '--mixup', '--no-mixup-epochs', 0, '--epochs', 1,
                   '--ema', 0.5, '--save-prefix', '%s/' % folder)


def test_bad_batches_are_named_and_survived(squares, run, tmp_path):
    result = train_with_bad_losses(run, squares, tmp_path, [1, 3])
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if 'not finite' in line]
    assert len(lines) == 2 and '[Batch 1]' in lines[0] and '[Batch 3]' in lines[1]
    sampler = TrainSampler(22, 4, [64, 96], seed=233)
    for line, number in zip(lines, (1, 3)):
        for spec in sampler.batch(number, mixup=True):
            partner = mixup_partner(spec, np.random.default_rng(spec.seed), 22)[1]
            has_objects = spec.index % 3 or partner % 3  # only these have a centre to spoil
            assert bool(has_objects) == ('trainval_%02d.jpg mixed with' % spec.index in line)
    for name, array in saved(tmp_path / 'yolo3_mobilenet0_25_voc_0000_0.0000.params').items():
        assert np.isfinite(array).all(), name
    assert checkpoint.newest(str(tmp_path / 'yolo3_mobilenet0_25_voc_last.npz'))[-1].averaged == 3


def test_too_many_bad_batches_end_the_training(squares, run, tmp_path, monkeypatch):
    monkeypatch.setattr('yolo3.run.MOST_BAD_BATCHES', 2)
    result = train_with_bad_losses(run, squares, tmp_path, [0, 1, 2])
    assert result.returncode == 1
    assert re.search('epoch 0 had 3 batches with a loss that is not finite.*--lr', result.stderr.splitlines()[-1])
    result = run(SCRIPT, '--dataset-root', squares, *TINY, '--epochs', 1, '--save-prefix', '%s/' % tmp_path, '--resume',
                 'auto')
    assert result.returncode == 0 and 'at epoch 0, batch 3' in result.stderr, result.stderr


def test_an_epoch_that_trained_nothing_leaves_no_weights_and_is_tried_again(squares, run, tmp_path):
    result = train_with_bad_losses(run, squares, tmp_path, range(5))
    assert result.returncode == 1 and 'epoch 0 has trained nothing' in result.stderr
    assert not list(tmp_path.glob('*.params'))
    assert checkpoint.newest(str(tmp_path / 'yolo3_mobilenet0_25_voc_last.npz'))[-1].batch == 0


def test_no_wd_spares_biases_and_batch_norm():
    net = network.build('mobilenet0_25', ['a'])
    sgd(net, flags(no_wd=True))
    for name, parameter in net.collect_params().items():
        assert parameter.wd_mult == (0 if re.search('beta|gamma|bias', name) else 1), name


def built(*arguments, classes=('a', 'b'), devices=1, anchors=ANCHORS):
    """What `build_network` makes with these flags, on as many devices."""
    args = training.parse_args(['--network', 'mobilenet0_25', '--no-pretrained-base', *arguments])
    args.devices = cpus(devices)
    return training.build_network(args, argparse.Namespace(classes=list(classes), anchors=anchors))


def test_syncbn_on_the_cpu_falls_back(caplog):
    net = built('--syncbn', devices=2)
    assert 'plain batch norm' in caplog.text
    assert not [block for block in blocks(net) if 'SyncBatchNorm' in type(block).__name__]


def test_syncbn_shares_statistics_over_gpus():
    net = network.build('mobilenet0_25', ['a'], sync_devices=4)
    sync = [block for block in blocks(net) if 'SyncBatchNorm' in type(block).__name__]
    assert len(sync) > 40 and all(block._kwargs['ndev'] == 4 for block in sync)
    assert not [block for block in blocks(net) if type(block) is BatchNorm]


def test_label_smoothing_reaches_the_loss():
    assert built('--label-smooth')._loss._smoothing == 1 / 40 and built()._loss._smoothing == 0


def test_box_loss_and_objectness_prior_reach_the_network():
    net = built('--box-loss', 'ciou', '--objectness-prior', '0.01')
    assert net._loss._box_loss == 'ciou' and built()._loss._box_loss == 'l2l1'
    for output in net.yolo_outputs:
        bias = output.prediction.bias.data().asnumpy().reshape(3, 7)
        np.testing.assert_allclose(1 / (1 + np.exp(-bias[:, 4])), 0.01, rtol=1e-5)
        assert not bias[:, [0, 1, 2, 3, 5, 6]].any()


def test_the_originals_commands_parse():
    voc = ('--network mobilenet1_0 --dataset voc --gpus 0,1,2,3,4,5,6,7 --batch-size 64 -j 16 --log-interval 100 '
           '--lr-decay-epoch 160,180 --epochs 200 --syncbn --warmup-epochs 4')
    coco = ('--network mobilenet1_0 --dataset coco --gpus 0,1,2,3,4,5,6,7 --batch-size 64 -j 32 --log-interval 100 '
            '--lr-decay-epoch 220,250 --epochs 280 --syncbn --warmup-epochs 2 --mixup --no-mixup-epochs 20 '
            '--label-smooth --no-wd')
    assert training.parse_args(voc.split()).sizes == list(range(320, 609, 32))
    args = training.parse_args(coco.split())
    assert args.lr_decay_epoch == [220, 250] and args.mixup and args.label_smooth and args.no_wd
    assert args.prefix == 'yolo3_mobilenet1_0_coco'


def test_the_spellings_of_gluoncv_and_the_original_parse():
    args = training.parse_args('--dataset VOC --network mobilenet1.0 --lr-mode linear'.split())
    assert (args.dataset, args.network, args.prefix) == ('voc', 'mobilenet1_0', 'yolo3_mobilenet1_0_voc')


def test_out_of_memory_names_size_batch_and_remedy(squares, tmp_path, run, monkeypatch):
    def full(*args):
        raise mx.base.MXNetError('Check failed: err == cudaSuccess (2 vs. 0) : cudaMalloc failed: out of memory')
    monkeypatch.setattr(training, 'train_step', full)
    result = run(SCRIPT, '--dataset-root', squares, *TINY, '-j', 0, '--save-prefix', '%s/' % tmp_path, '--accumulate',
                 2)
    assert result.returncode == 1
    assert '--batch-size 4 at inputs up to 96 pixels: --accumulate 4' in result.stderr.splitlines()[-1]


class Boxes:
    """A training set whose boxes are of nine sizes."""

    def extents(self, size):
        return [[width, height] for width in (10, 50, 200) for height in (12, 60, 240)] * 3


def test_anchors_by_hand_by_fit_and_from_the_start(caplog, tmp_path):
    caplog.set_level('INFO')

    def chosen(flag, start=''):
        return choose_anchors(flag, Boxes(), 416, weights.anchors_of_file(start))
    assert chosen('') == ANCHORS
    numbers = list(range(1, 19))
    assert chosen(','.join(map(str, numbers))) == [numbers[:6], numbers[6:12], numbers[12:]]
    fitted = chosen('auto')
    assert sorted(np.reshape(fitted, (-1, 2)).tolist()) == sorted(Boxes().extents(416)[:9])
    assert "1.000, with COCO's" in caplog.text
    net = network.build('mobilenet0_25', ['red', 'blue'], anchors=fitted)
    path = str(tmp_path / 'a.params')
    weights.save_detector(net, path, network='mobilenet0_25', classes=['red', 'blue'], dataset='voc', data_shape=64,
                          anchors=network.anchors_of(net))
    assert network.anchors_of(weights.load_detector(path)[0]) == fitted == chosen('', path)
    for anchors in fitted, ANCHORS:
        other = built('--pretrained', path, '--anchors', 'auto', classes=['blue', 'green'], anchors=anchors)
        assert network.anchors_of(other) == anchors


@pytest.mark.parametrize('flag', ['1,2,3', '0' + ',1' * 17, 'x'])
def test_wrong_anchors_are_named(flag):
    with pytest.raises(UserError, match='--anchors'):
        choose_anchors(flag, Boxes(), 416, ANCHORS)


@pytest.mark.parametrize('flags', [
    ['--data-shape', '400'], ['--min-shape', '352', '--max-shape', '320'], ['--batch-size', '0'], ['--epochs', '0'],
    ['--network', 'resnet'], ['--lr-decay-epoch', 'a,b'], ['--lr-mode', 'exponential'], ['--batch-size', 'x'],
    ['--nope'], ['--keep', '0'], ['--accumulate', '0'], ['--checkpoint-batches', '-1'], ['--seed', '-1'],
    ['--on-bad-image', 'ignore'], ['--start-epoch', '-1'], ['--num-samples', '0'], ['--start-epoch', '200'],
    ['--warmup-epochs', '201'], ['--lr-decay-epoch', '-1,2'], ['--momentum', '1.5'], ['--lr-decay', '10'],
    ['--lr-decay-period', '-1'], ['--resume', 'a.params', '--pretrained', 'b.params'], ['--seed', str(2 ** 31)],
    ['-j', '10000'], ['--keep', '1' + '0' * 21],
    ['--box-loss', 'l2'], ['--multi-anchor', '1.5'], ['--multi-anchor', 'x'], ['--objectness-prior', '1'],
    ['--objectness-prior', '-0.1'], ['--objectness-prior', '0.01', '--pretrained', 'x'],
    ['--objectness-prior', '0.01', '--resume', 'x'], ['--ema', '1'], ['--ema', 'x'], ['--mosaic', '-1'],
    ['--freeze', 'head'], ['--freeze', '-1'], ['--patience', '-1'],
    ['--lr-final', '1.1'], ['--lr-final', '0.1'], ['--optimizer', 'rmsprop'],
    ['--backbone-params', 'a.params', '--no-pretrained-base'], ['--backbone-params', 'a.params', '--pretrained', 'b'],
    ['--momentum', '1', '--optimizer', 'adam']])
def test_wrong_flags_are_named(flags):
    with pytest.raises(UserError) as error:
        training.parse_args(flags)
    assert flags[0] in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('flags, said', [
    ((), ''), (('--epochs', '160'), 'never decays'), (('--epochs', '161'), ''),
    (('--lr-mode', 'cosine', '--epochs', '2'), ''),
    (('--mixup', '--no-mixup-epochs', '200'), '--mixup mixes nothing'), (('--mixup', '--no-mixup-epochs', '199'), '')])
def test_flags_without_effect_are_said(flags, said, caplog):
    training.warn_of_no_effect(training.parse_args(list(flags)))
    assert said in caplog.text and bool(said) == bool(caplog.text)


@pytest.mark.parametrize('flags,named', [
    (['--gpus', '0'], '--gpus 0'),
    (['--dataset-root', '/nowhere'], '/nowhere'),
    (['--classes', 'dog,cat'], '--classes'),
    (['--train-splits', '2007_nothing'], 'nothing'),
    (['--batch-size', '100'], '--batch-size'),
    (['--save-prefix', os.path.join(ROOT, 'README.md', 'x')], '--save-prefix'),
    (['--resume', 'nowhere.params'], 'nowhere.params'),
    (['--pretrained', 'nowhere.params'], 'nowhere.params'),
    (['--resume', os.path.join(ROOT, 'README.md')], 'README.md'),
    (['--backbone-params', os.path.join(ROOT, 'README.md')], 'README.md'),
    (['--backbone-params', os.path.join(ROOT, 'README.md'), '--resume', 'auto'], 'README.md')])  # nothing to resume
def test_mistakes_end_in_one_line(flags, named, squares, run, tmp_path):
    tiny = [flag for flag in TINY if flag != '--no-pretrained-base' or '--backbone-params' not in flags]
    result = run(SCRIPT, '--dataset-root', squares, *tiny, *flags, '--epochs', '1', cwd=str(tmp_path))
    assert result.returncode == 2
    assert named in result.stderr.splitlines()[-1] and 'error' in result.stderr.splitlines()[-1]
    assert 'Traceback' not in result.stderr


def test_fewer_images_a_batch_than_devices(monkeypatch):
    monkeypatch.setattr('yolo3.devices.contexts', lambda *args: cpus(8))
    with pytest.raises(UserError, match='--batch-size 4 is smaller than the 8 devices'):
        training.main(['--batch-size', '4'])


@pytest.mark.slow
def test_sigint_during_validation_keeps_the_epoch(squares, run, tmp_path):
    flags = ('--dataset-root', squares, *TINY, '--save-prefix', str(tmp_path) + '/', '--epochs', '1')
    assert stopped(flags, 'Training cost', signal.SIGINT) == 130
    result = run(SCRIPT, *flags, '--resume', 'auto')
    assert result.returncode == 0, result.stderr
    assert 'Validation' in result.stderr and '[Batch' not in result.stderr
