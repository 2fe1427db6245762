"""Weights interchange with GluonCV's zoo, pass to other classes, are downloaded, and every misfit is named."""
import contextlib
import json
import os
import resource

import numpy as np
import pytest

from conftest import slow, zoo
from yolo3 import network, sidecar, weights
from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS
from yolo3.mxnet_setup import mx
from yolo3.zoo import CLASSES


def randomize(net):
    """Weights, batch norm statistics included, that are nobody's defaults."""
    for name, parameter in net.collect_params().items():
        if parameter.grad_req != 'null' or 'running' in name:
            low, high = (0.5, 1.5) if 'gamma' in name or 'var' in name else (-0.05, 0.05)
            parameter.initialize(mx.init.Constant(0), force_reinit=True)
            parameter.set_data(mx.nd.random.uniform(low, high, shape=parameter.shape))


VOC, COCO = CLASSES['voc'], CLASSES['coco']


@pytest.mark.parametrize('ours, classes', [
    ('mobilenet1_0', VOC), ('mobilenet0_25', COCO), ('mobilenet0_25', ['a', 'b', 'c']),
    slow('mobilenet1_0', COCO), slow('mobilenet1_0', ['a', 'b', 'c']), slow('mobilenet0_25', VOC)],
    ids=lambda value: value if isinstance(value, str) else len(value))
def test_weights_interchange_with_the_zoo(ours, classes, picture, tmp_path):
    theirs = zoo(ours.replace('_', '.'), classes)
    theirs.initialize()
    theirs(picture)
    randomize(theirs)
    theirs.save_parameters(str(tmp_path / 'zoo.params'))
    net, info = weights.load_detector(str(tmp_path / 'zoo.params'), ours, classes=classes)
    weights.save_detector(net, str(tmp_path / 'ours.params'), **info)
    back = zoo(ours.replace('_', '.'), classes)
    back.load_parameters(str(tmp_path / 'ours.params'))
    for mine, other, again in zip(net(picture), theirs(picture), back(picture)):
        assert np.isfinite(other.asnumpy()).all()
        np.testing.assert_array_equal(mine.asnumpy(), other.asnumpy())
        np.testing.assert_array_equal(again.asnumpy(), other.asnumpy())
    assert len(np.unique(other.asnumpy())) > 10


@pytest.fixture
def detector(tmp_path):
    """The path of a saved detector of 'Cat' and 'dog'."""
    path = str(tmp_path / 'pets.params')
    net = network.build('mobilenet0_25', ['Cat', 'dog'])
    randomize(net)
    weights.save_detector(net, path, network='mobilenet0_25', classes=['Cat', 'dog'], data_shape=320, dataset='voc')
    return path


def test_transfer_keeps_the_rows_of_classes_by_name(detector):
    net, kept = weights.transfer(detector, ['DOG', 'mouse', 'cow'], 'mobilenet0_25')
    assert kept == ['DOG'] and list(net.classes) == ['DOG', 'mouse', 'cow']
    old, _ = weights.load_detector(detector)
    for before, after in zip(old.yolo_outputs, net.yolo_outputs):
        before = before.prediction.weight.data().asnumpy().reshape(3, 7, -1)
        after = after.prediction.weight.data().asnumpy().reshape(3, 8, -1)
        np.testing.assert_array_equal(after[:, 5], before[:, 6])  # dog
        np.testing.assert_array_equal(after[:, :5], before[:, :5])  # box and objectness
        assert (after[:, 6:] != before[:, 5:6]).all()
    np.testing.assert_array_equal(net.stages[0][0].weight.data().asnumpy(),
                                  old.stages[0][0].weight.data().asnumpy())
    assert net._target_generator._num_class == 3


def test_transfer_to_the_same_classes_changes_nothing(detector):
    net, kept = weights.transfer(detector, ['cat', 'dog'], 'mobilenet0_25')
    assert kept == ['cat', 'dog']
    old, _ = weights.load_detector(detector)
    for mine, other in zip(net(mx.nd.ones((1, 3, 64, 64))), old(mx.nd.ones((1, 3, 64, 64)))):
        np.testing.assert_array_equal(mine.asnumpy(), other.asnumpy())


def change_sidecar(path, **changes):
    name = sidecar.sidecar_path(path)
    with open(name) as file:
        content = json.load(file)
    with open(name, 'w') as file:
        json.dump(dict(content, **changes), file)


@pytest.mark.parametrize('changes', [{'classes': []}, {'classes': 'ab'}, {'classes': [1]}, {'network': 'resnet'},
                                     {'data_shape': 100}, {'data_shape': '320'}, {'dataset': 'x'}, {'dataset': []},
                                     {'network': None}])
def test_wrong_sidecar(detector, changes):
    change_sidecar(detector, **changes)
    with pytest.raises(UserError, match='pets.json'):
        weights.load_detector(detector)


def test_files_that_do_not_fit(detector, tmp_path):
    with open(detector, 'rb') as file:
        cut = file.read(100000)
    for name, content in ('empty', b''), ('text', b'hello' * 100), ('cut', cut):
        path = tmp_path / (name + '.params')
        path.write_bytes(content)
        with pytest.raises(UserError, match=name + '.params') as error:
            weights.load_detector(str(path), 'mobilenet0_25', classes=['a', 'b'])
        assert '\n' not in str(error.value) and 'Traceback' not in str(error.value)
    change_sidecar(detector, classes=['a', 'b', 'c'])
    with pytest.raises(UserError, match='detects 2 classes, not the 3'):
        weights.load_detector(detector)
    os.remove(sidecar.sidecar_path(detector))
    with pytest.raises(UserError, match='--classes'):
        weights.load_detector(detector)
    with pytest.raises(UserError, match='--network'):
        weights.load_detector(detector, classes=['a', 'b'])
    with pytest.raises(UserError, match='no such .params'):
        weights.load_detector(str(tmp_path / 'none.params'))


def test_a_sidecar_never_stands_beside_other_weights(tmp_path, monkeypatch):
    path = str(tmp_path / 'a.params')
    nets = [network.build('mobilenet0_25', ['a']) for _ in range(2)]
    facts = [dict(network='mobilenet0_25', classes=['a'], anchors=ANCHORS, data_shape=64, dataset='voc', epoch=epoch)
             for epoch in range(2)]

    def first_weight(net):
        return net.yolo_outputs[0].prediction.weight.data().asnumpy()
    for stop in range(1, 12):
        weights.save_detector(nets[0], path, **facts[0])
        calls = []

        def stopping(real):
            def call(*args, **kwargs):
                calls.append(real)
                if len(calls) >= stop:
                    raise KeyboardInterrupt  # from here on nothing is done, as after a kill
                return real(*args, **kwargs)
            return call
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            for name in 'replace', 'remove', 'fsync':
                patch.setattr(os, name, stopping(getattr(os, name)))
            weights.save_detector(nets[1], path, **facts[1])
        info = sidecar.read_sidecar(path)
        loaded = mx.nd.load(path)['yolo_outputs.0.prediction.weight'].asnumpy()
        owner = [np.array_equal(loaded, first_weight(net)) for net in nets].index(True)
        assert info is None or info['epoch'] == owner
    assert len(calls) < stop and info['epoch'] == 1  # the last was not stopped


def test_a_full_disk_keeps_both_files(tmp_path):
    path = str(tmp_path / 'a.params')
    net = network.build('mobilenet0_25', ['a'])
    facts = dict(network='mobilenet0_25', classes=['a'], anchors=ANCHORS, data_shape=64, dataset='voc', epoch=1)
    weights.save_detector(net, path, **facts)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in 100, 10 ** 6, len(before['a.params']) - 100:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
            with pytest.raises(OSError):
                weights.save_detector(net, path, **dict(facts, epoch=2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
