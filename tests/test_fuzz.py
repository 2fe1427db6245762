"""Readers of files by strangers, fuzzed: they give what they promise or a UserError, whatever the bytes.

YOLO3_TEST_FUZZ=N draws N examples for each reader.
"""
import json
import os
import string

import cv2
import numpy as np
import pytest

pytest.importorskip('hypothesis', reason='pip install -r requirements/dev.txt')
from hypothesis import HealthCheck, given, settings, strategies as st

from conftest import ANNOTATION, OBJECT
from test_bad_input import FACTS, GOOD_COCO, GOOD_XML
from yolo3 import checkpoint, network, weights
from yolo3.cli import UserError
from yolo3.data.datasets import open_train

EXAMPLES = int(os.environ.get('YOLO3_TEST_FUZZ', 60))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck),
    derandomize=EXAMPLES == 60,
                  database=None)

words = st.sampled_from(['', 'a', '-1', '0', '1e999', 'nan', '../x', '\x00', '64', '狗', ' ', '9' * 400])
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=5),
                      lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
                      max_leaves=8)


@st.composite
def mutated_bytes(draw, good):
    """`good` with a few cuts, repeats and other bytes."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        content[start:start + draw(st.integers(0, 20))] = draw(st.binary(max_size=8) | st.just(bytes(content[:40])))
    return bytes(content)


@st.composite
def mutated_json(draw, good):
    """`good` with a few values replaced or removed, at any depth."""
    content = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        place, parent, key = content, None, None
        while isinstance(place, (dict, list)) and place and draw(st.integers(0, 3)):
            parent, key = place, draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            place = parent[key]
        if parent is None:
            content = draw(values)
            break
        if draw(st.booleans()):
            parent[key] = draw(values)
        else:
            del parent[key]
    return json.dumps(content).encode()


def only_user_errors(read):
    try:
        return read()
    except UserError as error:
        assert str(error)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A VOC set and a COCO set of one image, a sidecar's and a checkpoint's place."""
    root = tmp_path_factory.mktemp('fuzz')
    for name in 'VOC2007/JPEGImages', 'VOC2007/Annotations', 'VOC2007/ImageSets/Main', 'annotations':
        (root / name).mkdir(parents=True)
    for name in 'VOC2007/JPEGImages/one.jpg', 'one.jpg':
        cv2.imwrite(str(root / name), np.zeros((48, 64, 3), 'uint8'))
    (root / 'VOC2007/ImageSets/Main/trainval.txt').write_text('one\n')
    (root / 'a.params').write_bytes(b'')
    return root


tags = st.sampled_from(['annotation', 'object', 'name', 'bndbox', 'xmin', 'ymax', 'size', 'width', 'filename',
    'difficult'])
trees = st.recursive(words, lambda inner: st.tuples(tags, st.lists(inner, max_size=4)), max_leaves=12)


def xml(tree):
    """The text of a tree of (tag, children) and words."""
    if isinstance(tree, str):
        return ''.join(letter for letter in tree if letter in string.printable)
    return '<%s>%s</%s>' % (tree[0], ''.join(map(xml, tree[1])), tree[0])


@fuzzed
@given(content=mutated_bytes((ANNOTATION % ('one', 64, 48, OBJECT % ('a', 1, 1, 20, 20))).encode()) | st.binary() |
       trees.map(lambda tree: GOOD_XML.replace('</object>', '</object>' + xml(tree)).encode()) |
       trees.map(lambda tree: ('<annotation>%s</annotation>' % xml(tree)).encode()))
def test_xml(folder, content):
    (folder / 'VOC2007/Annotations/one.xml').write_bytes(content)
    dataset = only_user_errors(lambda: open_train('voc', str(folder), ['a'], ['2007_trainval'], on_bad_image='stop'))
    assert dataset is None or np.isfinite(dataset.label(0)).all()


@fuzzed
@given(content=mutated_json(GOOD_COCO) | mutated_bytes(json.dumps(GOOD_COCO).encode()) | values.map(
    lambda value: json.dumps(value).encode()))
def test_coco_json(folder, content):
    (folder / 'annotations/all.json').write_bytes(content)
    dataset = only_user_errors(lambda: open_train('coco', str(folder), splits=['all'], on_bad_image='stop'))
    assert dataset is None or np.isfinite(dataset.label(0)).all()


@fuzzed
@given(content=mutated_json(FACTS) | mutated_bytes(json.dumps(FACTS).encode()) | values.map(
    lambda value: json.dumps(value).encode()))
def test_sidecars(folder, content):
    (folder / 'a.json').write_bytes(content)
    info = only_user_errors(lambda: weights.read_sidecar(str(folder / 'a.params')))
    assert info is None or (info['network'] in network.WIDTHS and info['data_shape'] % 32 == 0 and
                            np.isfinite(np.array(info['anchors'], float)).all())


@pytest.fixture(scope='module')
def good_checkpoint(folder):
    arrays = {'weight/0/a': np.ones((3, 2), 'float32'), 'state': np.frombuffer(b'{"epoch": 1}', 'uint8')}
    np.savez(folder / 'good.npz', checksum=checkpoint.checksum(arrays), **arrays)
    return (folder / 'good.npz').read_bytes()


@fuzzed
@given(data=st.data())
def test_checkpoints(folder, good_checkpoint, data):
    path = folder / 'run.npz'
    path.write_bytes(data.draw(mutated_bytes(good_checkpoint)))
    with pytest.raises(UserError, match='run.npz'):
        checkpoint.load(str(path), None, None)


@fuzzed
@given(state=mutated_json({'epoch': 1, 'batch': 3, 'losses': None, 'best_map': 0.5, 'settings': {}, 'history': []}))
def test_states_of_checkpoints(folder, state):
    arrays = {'state': np.frombuffer(state, 'uint8')}
    np.savez(folder / 'state.npz', checksum=checkpoint.checksum(arrays), **arrays)
    try:
        checked = checkpoint.checked(json.loads(state.decode()))
        assert checked['epoch'] >= 0 and checked['batch'] >= 0
    except (ValueError, LookupError, TypeError, AttributeError):  # what `load` turns into a UserError
        pass
