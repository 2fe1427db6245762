"""convert_backbone.py: a file in, GluonCV's file out, measured and checked on pictures; mistakes end in one line."""
import os
import pickle

import cv2
import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.mobilenet import get_mobilenet

import convert_backbone
from sources import paddle_arrays, random_network, timm_arrays, write_torch
from yolo3.backbones.naming import SCALINGS, recognise
from yolo3.backbones.readers import READERS
from yolo3.data.augment import normalize
from yolo3.network import build

NETWORK = random_network()


@pytest.fixture
def source(tmp_path):
    """A .pdparams file of mobilenet0_25."""
    path = tmp_path / 'ssld.pdparams'
    path.write_bytes(pickle.dumps(paddle_arrays(NETWORK), 4))
    return str(path)


@pytest.fixture
def photographs(tmp_path):
    """A folder of three pictures of several sizes."""
    generator = np.random.RandomState(0)
    (tmp_path / 'pictures').mkdir()
    for number, shape in enumerate([(300, 400), (20, 30), (256, 240)]):
        cv2.imwrite(str(tmp_path / 'pictures' / ('%d.png' % number)), generator.randint(0, 256, shape + (3,)))
    return str(tmp_path / 'pictures')


def classes_of(path, pictures):
    """The class of each of the pictures by the network of the .params file at `path`."""
    net = get_mobilenet(0.25)
    net.load_parameters(path)
    return net(normalize(mx.nd.array(np.stack(pictures), dtype='uint8'))).argmax(axis=1).asnumpy().astype(int).tolist()


def test_the_result_is_the_backbone_of_a_detector(run, source, tmp_path):
    done = run('scripts/convert_backbone.py', source, '--output', tmp_path / 'net.params')
    assert done.returncode == 0, done.stderr
    assert done.stdout == '%s: weights from Paddle, for --network mobilenet0_25\n' % (tmp_path / 'net.params')
    net = build('mobilenet0_25', ['a'], backbone_params=str(tmp_path / 'net.params'))
    np.testing.assert_array_equal(net.stages[0][0].weight.data().asnumpy(), NETWORK[0][0]['weight'])
    assert sorted(os.listdir(str(tmp_path))) == ['net.params', 'ssld.pdparams']


def test_the_classes_of_pictures_are_printed_and_counted(run, source, photographs, tmp_path):
    path = str(tmp_path / 'net.params')
    flags = source, '--output', path, '--images', photographs
    first = run('scripts/convert_backbone.py', *flags)
    names = sorted(os.listdir(photographs))
    found = classes_of(path, [convert_backbone.load_picture(os.path.join(photographs, name)) for name in names])
    assert first.stdout.splitlines()[1:] == ['%s: class %d' % pair for pair in zip(names, found)]
    for name, folder in zip(names, (found[0], found[1], found[2] + 1)):
        os.makedirs(os.path.join(photographs, str(folder)), exist_ok=True)
        os.rename(os.path.join(photographs, name), os.path.join(photographs, str(folder), name))
    again = run('scripts/convert_backbone.py', *flags)
    assert 'top-1: 2 of 3 pictures are in the folder of their class (66.7 %)' in again.stdout


def test_pictures_change_the_statistics_of_a_network_with_other_conventions_only(run, source, photographs, tmp_path):
    write_torch(str(tmp_path / 'timm.pth'), timm_arrays(NETWORK))
    means = {}
    for name in source, str(tmp_path / 'timm.pth'):
        for flags in [], ['--images', photographs], ['--scaling', 'imagenet']:
            done = run('scripts/convert_backbone.py', name, '--output', tmp_path / 'net.params', *flags)
            assert done.returncode == 0, done.stderr
            arrays = mx.nd.load(str(tmp_path / 'net.params'))
            means[name, len(flags) and flags[0]] = arrays['features.1.running_mean'].asnumpy()
    mine, theirs = NETWORK[0][0]['mean'], means[str(tmp_path / 'timm.pth'), 0]
    assert all((means[source, key] == mine).all() for key in (0, '--images', '--scaling'))
    assert (means[str(tmp_path / 'timm.pth'), '--scaling'] == mine).all()
    assert (theirs != mine).any() and (means[str(tmp_path / 'timm.pth'), '--images'] != theirs).any()


def test_a_last_layer_of_other_classes_is_said_to_be_left_out(run, photographs, tmp_path):
    (tmp_path / 'net.pdparams').write_bytes(pickle.dumps(paddle_arrays(random_network(classes=7))))
    done = run('scripts/convert_backbone.py', tmp_path / 'net.pdparams', '--output', tmp_path / 'net.params',
               '--images', photographs)
    assert done.returncode == 0 and 'zeros there: not checked' in done.stdout


@pytest.mark.parametrize('flags, said', [
    (['gone.pth', '--output', 'a.params'], 'gone.pth: No such file'),
    (['net.onnx', '--output', 'a.params'], 'net.onnx: its name ends in none of .safetensors, .h5'),
    (['hostile.pdparams', '--output', 'a.params'], 'hostile.pdparams: it names builtins.print'),
    (['wide.pdparams', '--output', 'a.params'], 'wide.pdparams: it is a MobileNetV1 of width 1.25'),
    (['wide.pdparams', '--output', 'wide.pdparams'], '--output wide.pdparams'),
    (['wide.pdparams', '--output', 'a.npz'], '--output a.npz: name a .params file'),
    (['wide.pdparams', '--output', 'no/a.params'], '--output no/a.params'),
    (['wide.pdparams', '--output', 'a.params', '--images', 'gone'], '--images gone: No such file'),
    (['wide.pdparams', '--output', 'a.params', '--images', '.'], '--images .: no pictures')])
def test_mistakes_end_in_one_line(run, tmp_path, flags, said):
    arrays = dict(paddle_arrays(NETWORK), **{'conv1._conv.weight': np.zeros((40, 3, 3, 3), 'float32')})
    (tmp_path / 'wide.pdparams').write_bytes(pickle.dumps(arrays, 4))
    (tmp_path / 'hostile.pdparams').write_bytes(pickle.dumps(print, 4))
    done = run('scripts/convert_backbone.py', *flags, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and said in done.stderr
    assert sorted(os.listdir(str(tmp_path))) == ['hostile.pdparams', 'wide.pdparams']


def test_tflite_without_pictures_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(convert_backbone, 'read', lambda path: recognise(timm_arrays(NETWORK))._replace(folded=True))
    done = run('scripts/convert_backbone.py', 'net.tflite', '--output', 'a.params', cwd=tmp_path)
    assert done.returncode == 2 and 'net.tflite has batch norm folded in: ' in done.stderr and '--images' in done.stderr


def test_the_flags_know_all_kinds_of_files_and_scalings(run):
    flags = ' '.join(run('scripts/convert_backbone.py', '--help').stdout.split())
    assert ', '.join(READERS) in flags and '{%s}' % ','.join(SCALINGS) in flags
