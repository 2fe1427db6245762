"""Losses, log lines, and what is said of images and batches that could not be used."""
import argparse
import io
import logging
import shutil

import numpy as np
import pytest

from yolo3 import log
from yolo3.cli import UserError
from yolo3.data.datasets import open_train
from yolo3.data.loader import start_workers, train_loader
from yolo3.data.sampler import TrainSampler
from yolo3.distributed.group import ONE_PROCESS
from yolo3.mxnet_setup import mx


def test_loss_means_are_per_image_over_batches():
    meter = log.LossMeter()
    meter.update(np.array([9, 3, 15, 3, 3]))
    meter.update(np.array([3, 1, 1, 1, 1]))
    assert meter.means() == {'ObjLoss': 3, 'BoxCenterLoss': 1, 'BoxScaleLoss': 4, 'ClassLoss': 1}
    assert meter.totals() == [12, 4, 16, 4, 4]
    again = log.LossMeter(meter.totals())
    again.update(np.array([2, 2, 2, 2, 1]))
    assert again.means()['ObjLoss'] == 2.8
    assert str(meter) == ('ObjLoss=3.000, BoxCenterLoss=1.000, BoxScaleLoss=4.000, ' 'ClassLoss=1.000')


def test_a_batch_with_a_loss_that_is_not_finite_is_only_counted():
    meter = log.LossMeter()
    assert meter.update(np.ones(5)) and not meter.update(np.array([1, float('nan'), 1, 1, 1]))
    assert meter.totals() == [1, 1, 1, 1, 1] and meter.bad_batches == 1


def test_log_goes_to_file_and_stderr_once(tmp_path, capsys):
    path = tmp_path / 'deep' / 'run_train.log'
    for _ in range(2):
        log.start_log(str(path))
        log.logger.info('hello %d', 1)
    assert path.read_text() == 'hello 1\nhello 1\n' and capsys.readouterr().err == 'hello 1\nhello 1\n'


def test_a_name_that_is_not_utf8_is_escaped_in_the_file(tmp_path, monkeypatch):
    log.start_log(str(tmp_path / 'run_train.log'))
    monkeypatch.setattr(log.sys, 'stderr', io.StringIO())
    log.logger.info('数 \udcff')
    assert (tmp_path / 'run_train.log').read_text(encoding='utf-8') == '数 \\udcff\n'


def test_other_ranks_only_warn(tmp_path, capsys):
    log.start_log(str(tmp_path / 'run_train.log'), rank=3)
    log.logger.info('quiet')
    log.logger.warning('loud')
    assert capsys.readouterr().err == 'rank 3: loud\n' and not list(tmp_path.iterdir())


class Batches(list):
    """Stands in for a loader."""
    name = str


def test_a_clock_that_stands_still_is_no_division_by_zero(monkeypatch, caplog):
    monkeypatch.setattr(log.time, 'perf_counter', lambda: 7.0)
    monkeypatch.setattr(log.logger, 'propagate', True)
    caplog.set_level(logging.INFO, 'yolo3')
    batch = argparse.Namespace(unreadable=mx.nd.array([[-1]]), mixup_ratios=mx.nd.ones(1), samples=[])
    run = argparse.Namespace(group=ONE_PROCESS, epoch=0, batches_in_epoch=1, batch_in_epoch=0, meter=log.LossMeter())
    training_log = log.TrainingLog(argparse.Namespace(batch_size=1, mixup=False, mosaic=0, log_interval=1), None, run)
    for step in training_log.watch(Batches([batch])):
        training_log.update(step, np.ones((4, 1)), np.ones(5), 0.1)
    assert any('Speed' in record.getMessage() for record in caplog.records)


def logged(images, sampler, workers, caplog):
    """The warnings of two epochs over `images`, without training."""
    run = argparse.Namespace(group=ONE_PROCESS, epoch=0, batches_in_epoch=2, batch_in_epoch=0, meter=log.LossMeter())
    args = argparse.Namespace(batch_size=11, mixup=False, mosaic=0, log_interval=0)
    loader = train_loader(images, sampler)
    start_workers(workers, loader)
    with log.TrainingLog(args, images, run) as training_log:
        for _ in range(2):
            for batch in training_log.watch(loader):
                training_log.update(batch, np.ones((4, 11)), np.array([1, 1, 1, 1, 11]), 0.1)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_an_unreadable_image_is_named_once_and_too_many_end_the_training(squares, tmp_path, caplog):
    shutil.copytree(squares, tmp_path / 'squares')
    images = open_train('voc', str(tmp_path / 'squares'), ['red', 'blue'], ['2007_trainval'], on_bad_image='skip')
    with open(images.image_path(3), 'wb'):
        pass
    sampler = TrainSampler(len(images), 11, [64], seed=1)
    assert logged(images, sampler, 1, caplog) == ['skipped image, unreadable: ' + images.image_path(3)]
    images.on_bad_image = ''  # one of 22 is more than 1%
    with pytest.raises(UserError, match=r'1 of 22 images are bad.*trainval_03.*--on-bad-image skip'):
        logged(images, sampler, 0, caplog)
