"""Weights of GluonCV's zoo by name: from a store on 127.0.0.1, whatever goes wrong with it, and then from the cache."""
import hashlib
import http.server
import io
import os
import shutil
import threading
import zipfile

import cv2
import numpy as np
import pytest

from conftest import zoo as gluoncv_zoo
from yolo3.mxnet_setup import gluoncv, mx
from gluoncv.model_zoo import model_store

from yolo3 import network, weights, zoo
from yolo3.cli import UserError

NAME = 'yolo3_mobilenet1.0_coco'


class Store(http.server.SimpleHTTPRequestHandler):
    """A model store on 127.0.0.1."""

    def log_message(self, *args):
        pass


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder served as GluonCV's model store; the cache is empty."""
    folder = tmp_path / 'served' / 'gluon' / 'models'
    folder.mkdir(parents=True)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), lambda *args: Store(
        *args, directory=str(tmp_path / 'served')))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('MXNET_GLUON_REPO', 'http://127.0.0.1:%d/' % server.server_port)
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'cache'))
    yield folder
    server.shutdown()
    server.server_close()


def saved(net, folder):
    """The file of random weights of `net`, and its SHA-1."""
    net.initialize()
    net(mx.nd.zeros((1, 3, 64, 64)))
    path = folder / 'weights.params'
    net.save_parameters(str(path))
    return str(path), hashlib.sha1(path.read_bytes()).hexdigest()


def test_backbone_is_downloaded(store, tmp_path, monkeypatch):
    net = gluoncv.model_zoo.get_model('mobilenet0.25')
    path, digest = saved(net, tmp_path)
    monkeypatch.setitem(model_store._model_sha1, 'mobilenet0.25', digest)
    name = 'mobilenet0.25-' + digest[:8]
    with zipfile.ZipFile(str(store / (name + '.zip')), 'w') as archive:
        archive.write(path, name + '.params')
    detector = network.build('mobilenet0_25', ['a'], backbone_params=zoo.backbone_file('mobilenet0_25'))
    np.testing.assert_array_equal(detector.stages[0][0].weight.data().asnumpy(),
                                  net.features[0].weight.data().asnumpy())
    shutil.rmtree(str(store))  # from the cache the second time
    network.build('mobilenet0_25', ['a'], backbone_params=zoo.backbone_file('mobilenet0_25'))


def test_backbone_that_the_store_lacks(store):
    with pytest.raises(UserError) as error:
        network.build('mobilenet0_25', ['a'], backbone_params=zoo.backbone_file('mobilenet0_25'))
    assert '--backbone-params' in str(error.value) and '--no-pretrained-base' in str(error.value)


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv('MXNET_GLUON_REPO', 'http://127.0.0.1:9/')
    monkeypatch.setenv('MXNET_HOME', str(tmp_path))
    with pytest.raises(UserError) as error:
        zoo.backbone_file('mobilenet1_0')
    assert '--backbone-params' in str(error.value) and '--no-pretrained-base' in str(error.value)


def test_a_name_look_up_that_hangs(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(zoo.requests, 'head', lambda *args, **more: never.wait())
    monkeypatch.setattr(zoo, 'PROBE_SECONDS', 0.01)
    assert not zoo.answers('http://example.invalid/')
    never.set()


@pytest.fixture
def published(store, tmp_path, monkeypatch):
    """publish(change) puts NAME into the store, the bytes of its archive changed; it is a small network here."""
    monkeypatch.setitem(zoo.DETECTORS, NAME, dict(zoo.DETECTORS[NAME], network='mobilenet0_25'))
    net = gluoncv_zoo('mobilenet0.25', zoo.CLASSES['coco'])
    path, digest = saved(net, tmp_path)
    monkeypatch.setitem(model_store._model_sha1, NAME, digest)

    def publish(change=lambda archive: archive, content=None):
        name, archive = '%s-%s' % (NAME, digest[:8]), io.BytesIO()
        with zipfile.ZipFile(archive, 'w') as file:
            file.writestr(name + '.params', content) if content else file.write(path, name + '.params')
        (store / (name + '.zip')).write_bytes(change(archive.getvalue()))
    publish.net, publish.digest = net, digest
    return publish


def test_a_detector_by_name(published, store, run, tmp_path):
    published()
    net, info = weights.load_detector(NAME)
    assert info['classes'][0] == 'person' and info['dataset'] == 'coco' and len(info['classes']) == 80
    picture = mx.nd.random.uniform(shape=(1, 3, 64, 64))
    for mine, theirs in zip(net(picture), published.net(picture)):
        np.testing.assert_array_equal(mine.asnumpy(), theirs.asnumpy())
    with pytest.raises(UserError, match='--classes'):
        weights.load_detector(NAME, classes=['dog'])
    shutil.rmtree(str(store))  # from the cache from now on
    other, kept = weights.transfer(NAME, ['cat', 'unicorn'], 'mobilenet0_25')
    assert kept == ['cat'] and weights.anchors_of_file(NAME) == zoo.ANCHORS
    cv2.imwrite(str(tmp_path / 'street.png'), np.zeros((64, 64, 3), 'uint8'))
    result = run('demo.py', 'street.png', '--gpus', '', '--data-shape', 64, cwd=tmp_path)
    assert result.returncode == 0 and os.path.exists(str(tmp_path / 'detections' / 'street.png')), result.stderr


@pytest.mark.parametrize('change, content', [
    (lambda archive: archive[:len(archive) // 2], None), (lambda archive: b'', None), (lambda archive: b'no zip', None),
    (lambda archive: archive, b'other weights')], ids=['cut', 'empty', 'no zip', 'another file'])
def test_a_damaged_download_is_named_and_tried_again(published, change, content):
    published(change, content)
    for _ in range(2):
        with pytest.raises(UserError) as error:
            weights.load_detector(NAME)
        for words in '127.0.0.1', '--mirror', '%s-%s.params' % (NAME, published.digest[:8]), published.digest:
            assert words in str(error.value)
    published()
    assert weights.load_detector(NAME)


def test_a_connection_that_closes_early_is_named(published, monkeypatch):
    published()
    monkeypatch.setattr(Store, 'copyfile', lambda self, source, output: output.write(source.read(10 ** 5)))
    with pytest.raises(UserError, match='could not be downloaded'):
        weights.load_detector(NAME)


def test_a_download_that_stalls_is_named(published, monkeypatch):
    published()
    going = threading.Event()

    def stall(self, source, output):
        output.write(source.read(10 ** 5))
        going.wait()
    monkeypatch.setattr(Store, 'copyfile', stall)
    monkeypatch.setattr(zoo, 'STALL_SECONDS', 0.2)
    with pytest.raises(UserError, match='could not be downloaded.*timed out'):
        weights.load_detector(NAME)
    going.set()


def test_a_store_that_has_not_the_file_or_is_gone(store, run, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((64, 64, 3), 'uint8'))
    for flags, words in ((), 'could not be downloaded'), (('--mirror', 'http://127.0.0.1:9/'), 'cannot reach http'), (
            ('--mirror', 'ftp://x'), '--mirror'):
        result = run('demo.py', 'a.png', '--gpus', '', *flags, cwd=tmp_path)
        assert result.returncode == 2 and words in result.stderr.splitlines()[-1], result.stderr
