"""benchmark.py: all runtimes run the same network, and the benchmarks of training and scaling run."""
import argparse
import importlib.util
import json
import os
import sys

import numpy as np
import pytest

onnx = pytest.importorskip('onnx')

from yolo3.deploy import runtimes  # noqa: F401, it must be imported before openvino
from yolo3.atomic import write_json
from yolo3.cli import UserError
from yolo3.mxnet_setup import mx

from test_export_onnx import detector, export_onnx, inputs, pictures, raw_heads

import benchmark
from benchmarks import all as every, epoch, infer, measure, runtimes as networks, scale, start, training
from yolo3.data.datasets import open_train
from yolo3.weights import save_detector


def test_each_runtime_runs_the_same_network(tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('openvino')
    net, info = detector()
    args = argparse.Namespace(int8='')
    assert set(networks.write_files(args, net, info, str(tmp_path))) == {
        'mxnet, stock', 'mxnet, ours', 'onnxruntime', 'openvino float32', 'openvino'}
    x = inputs(pictures((96, 96)))
    expected = raw_heads(net, x)
    for name, forward in (('onnxruntime', networks.onnxruntime_forward),
                          ('openvino float32', networks.openvino_forward)):
        found = forward(argparse.Namespace(only=name, folder=str(tmp_path)))(x.asnumpy())()
        for number, true in enumerate(expected):
            np.testing.assert_allclose(found[number], true, atol=1e-3)
    networks.mxnet_forward(argparse.Namespace(only='mxnet, ours', folder=str(tmp_path)))(x.asnumpy())()
    mx.nd.waitall()


@pytest.mark.parametrize('name', ['MXNet', 'ONNX Runtime', 'OpenVINO'])
def test_demo_video_and_evaluation_are_measured(tmp_path, monkeypatch, name):
    if not importlib.util.find_spec(infer.RUNS[name]):
        pytest.skip('no module ' + infer.RUNS[name])
    monkeypatch.setattr(infer, 'PICTURES', 6)
    net, info = detector()
    save_detector(net, str(tmp_path / 'some.params'), **info)
    args = benchmark.parse_args(['infer', '--params', str(tmp_path / 'some.params'), '--data-shape', '64', '--only',
                                 name, '--folder', str(tmp_path)])
    infer.write_files(args, str(tmp_path))
    found = infer.figures(args)
    assert len(found) >= 5 and all(value > 0 for value in found.values())
    assert {'0.jpg', 'clip_2.mp4'} <= set(os.listdir(str(tmp_path)))  # drawn


def test_a_runtime_that_is_not_here_is_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name == 'mxnet')
    args = argparse.Namespace(int8='')
    assert [name for name in infer.RUNS if infer.is_here(name, args)] == ['MXNet']
    assert 'left out: OpenVINO, which needs the module openvino' in capsys.readouterr().err


def test_an_int8_file_of_another_network_is_refused(tmp_path):
    net, info = detector()
    onnx.save(export_onnx.export(net, dict(info, classes=['a', 'b', 'c'])), str(tmp_path / 'other.onnx'))
    os.mkfifo(str(tmp_path / 'fifo.onnx'))
    for name in 'other.onnx', 'gone.onnx', 'fifo.onnx':
        with pytest.raises(UserError, match=name):
            networks.write_files(argparse.Namespace(int8=str(tmp_path / name)), net, info, str(tmp_path))


def test_the_table_has_a_line_a_row(capsys):
    benchmark.print_table([{'size': 320, 'runtime': 'a', 'ms': 12.345678}, {'size': 608, 'runtime': 'bcd', 'ms': None}])
    assert capsys.readouterr().out.splitlines() == ['size  runtime  ms', '320   a        12.35', '608   bcd']


def test_an_epoch_of_ours_is_measured(squares):
    args = argparse.Namespace(dataset='voc', dataset_root=str(squares), classes='red,blue', backbone_params='',
                              train_splits='2007_trainval', sizes=[64], batch_size=7, epochs=1)
    assert epoch.our_epochs(args)['seconds an epoch'] > 0


@pytest.mark.slow
def test_scale_has_a_row_for_each_backend(monkeypatch):
    monkeypatch.setattr(scale, 'PROCESSES', (2,))
    rows = scale.figures(benchmark.parse_args(['scale', '--batch-size', '3', '--data-shape', '32', '--rounds', '1']))
    assert [(row['backend'], row['processes']) for row in rows] == [('device', 1), ('dist_sync_device', 2)] + (
        [('horovod', 2)] if importlib.util.find_spec('horovod') else [])
    for row in rows:
        assert row['ms a step'] > 0 and row['ms without exchange'] > 0
        assert row['MB of gradients a step'] == pytest.approx(24.3 * 4, rel=0.02)  # 24.3 million weights


def test_scale_refuses_a_batch_that_leaves_a_process_without_images():
    with pytest.raises(UserError, match='4 processes'):
        scale.figures(benchmark.parse_args(['scale', '--batch-size', '3']))


def test_a_batch_larger_than_the_training_set_is_refused(squares):
    args = benchmark.parse_args(['loader', '--dataset', 'voc', '--dataset-root', str(squares), '--classes', 'red,blue',
                                 '--train-splits', '2007_trainval', '--batch-size', '23'])
    with pytest.raises(UserError, match='^--batch-size 23 is larger'):
        training.dataset(args)


def test_a_process_that_fails_is_not_reported_twice(capfd):
    args = argparse.Namespace(rounds=1, command=[sys.executable, '-c', 'import sys; sys.exit("why")'])
    with pytest.raises(SystemExit) as end:
        measure.by_turns(args, ['ours'])
    assert end.value.code == 1 and capfd.readouterr().err == 'why\n'


@pytest.mark.parametrize('flags', [['--rounds', '0'], ['--epochs', '0'], ['--min-shape', '352', '--max-shape', '320']])
def test_a_wrong_flag_is_refused(run, flags):
    done = run('scripts/benchmark.py', 'loader', *flags)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and flags[0] in done.stderr


def test_the_data_of_the_start_can_be_trained_on(tmp_path):
    root = start.write(str(tmp_path / 'coco'), 12)
    images = open_train('coco', root, splits=['train'], on_bad_image='stop')
    assert len(images) == 12 and images[11][0].shape == (start.HEIGHT, start.WIDTH, 3)
    assert sum(len(images.label(index)) for index in range(12)) > 50


def test_the_ratios_of_all_stand_beside_those_of_the_release(tmp_path, monkeypatch):
    release = tmp_path / 'release.json'
    release.write_text(json.dumps([{'benchmark': 'step', 'ratio': 'ours / stock', 'now': 2.0}]))
    monkeypatch.setattr(every, 'RELEASE', str(release))
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        found = {'step': {'images/s: ours': 9.0, 'ours / stock': 3.0}, 'infer': [
            {'runtime': 'mxnet', 'batch': 8, 'ms': 1.5, 'demo / network': 1.25}]}.get(command[2], {})
        write_json(command[-1], found)
        return argparse.Namespace(returncode=0)
    monkeypatch.setattr(every.subprocess, 'run', run)
    args = benchmark.parse_args(['all', '--quick', '--dataset-root', 'data', '--json', str(tmp_path / 'now.json')])
    assert args.rounds == 1
    assert every.figures(args) == [
        {'benchmark': 'step', 'ratio': 'ours / stock', 'now': 3.0, 'release': 2.0, 'moved, %': pytest.approx(50)},
        {'benchmark': 'infer', 'ratio': 'mxnet, 8: demo / network', 'now': 1.25, 'release': None, 'moved, %': None}]
    assert [command[2] for command in commands] == list(every.QUICK)
    assert all(command[3:6] == ['--quick', '--dataset-root', 'data'] for command in commands)


def test_the_kept_ratios_of_the_release_can_be_compared():
    with open(every.RELEASE) as file:
        assert all(row['now'] > 0 for row in json.load(file))


def test_all_ends_as_a_benchmark_that_fails(capfd):
    args = benchmark.parse_args(['all', '--dataset-root', 'no-such-folder'])
    with pytest.raises(SystemExit) as end:
        every.measured(args, 'loader')
    assert end.value.code == 2 and 'no-such-folder' in capfd.readouterr().err
