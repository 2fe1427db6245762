"""benchmark.py: what its runtimes run is the same network; an epoch of ours is measured."""
import argparse
import os
import sys

import numpy as np
import pytest

onnx = pytest.importorskip('onnx')

from yolo3 import deploy  # noqa: F401, before openvino: see there
from yolo3.cli import UserError
from yolo3.runtime import mx

from test_export_onnx import ROOT, detector, export_onnx, inputs, pictures, raw_heads

sys.path.insert(0, os.path.join(ROOT, 'scripts'))
import benchmark
from benchmarks import epoch, infer


def test_each_runtime_runs_the_same_network(tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('openvino')
    net, info = detector()
    args = argparse.Namespace(int8='')
    assert set(infer.write_files(args, net, info, str(tmp_path))) == {
        'mxnet, stock', 'mxnet, ours', 'onnxruntime', 'openvino float32', 'openvino'}
    x = inputs(pictures((96, 96)))
    expected = raw_heads(net, x)
    for name, forward in (('onnxruntime', infer.onnxruntime_forward),
                          ('openvino float32', infer.openvino_forward)):
        found = forward(argparse.Namespace(only=name, folder=str(tmp_path)))(x.asnumpy())()
        for number, true in enumerate(expected):
            np.testing.assert_allclose(found[number], true, atol=1e-3)
    infer.mxnet_forward(argparse.Namespace(only='mxnet, ours', folder=str(tmp_path)))(x.asnumpy())()
    mx.nd.waitall()


def test_an_int8_file_of_another_network_is_refused(tmp_path):
    net, info = detector()
    onnx.save(export_onnx.export(net, dict(info, classes=['a', 'b', 'c'])), str(tmp_path / 'other.onnx'))
    for name in 'other.onnx', 'gone.onnx':
        with pytest.raises(UserError, match=name):
            infer.write_files(argparse.Namespace(int8=str(tmp_path / name)), net, info, str(tmp_path))


def test_the_table_has_a_line_a_row(capsys):
    benchmark.print_table([{'size': 320, 'runtime': 'a', 'ms': 12.345678}, {'size': 608, 'runtime': 'bcd', 'ms': None}])
    assert capsys.readouterr().out.splitlines() == ['size  runtime  ms', '320   a        12.35', '608   bcd']


def test_an_epoch_of_ours_is_measured(squares):
    args = argparse.Namespace(dataset='voc', dataset_root=str(squares), classes='red,blue', train_splits='2007_trainval',
                              backbone_params='', sizes=[64], batch_size=7, epochs=1)
    assert epoch.our_epochs(args)['seconds an epoch'] > 0
