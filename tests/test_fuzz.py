"""The readers of untrusted files, fuzzed: whatever the bytes, they return valid data or raise a UserError.

YOLO3_TEST_FUZZ=N draws N random examples for each reader; without it, the same 60 in every run.
"""
import json
import os
import string

import cv2
import numpy as np
import pytest

pytest.importorskip('hypothesis', reason='pip install -r requirements/dev.txt')
from hypothesis import HealthCheck, given, settings, strategies as st

from test_bad_input import FACTS, GOOD_COCO, GOOD_XML
from yolo3 import checkpoint, network, sidecar
from yolo3.cli import UserError
from yolo3.data.datasets import open_train
from yolo3.data.labelled import UNCERTAIN
from yolo3.data.segmentation import box_of

EXAMPLES = os.environ.get('YOLO3_TEST_FUZZ')
fuzzed = settings(max_examples=int(EXAMPLES or 60), derandomize=not EXAMPLES, database=None, deadline=None,
                  suppress_health_check=list(HealthCheck))

words = st.sampled_from(['', 'a', '-1', '0', '1e999', 'nan', '../x', '\x00', '64', '狗', ' ', '9' * 400])
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=5),
                      lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
                      max_leaves=8)


@st.composite
def mutated_bytes(draw, good):
    """`good` with a few cuts, repetitions and other bytes."""
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


def json_like(good):
    """The bytes of `good`, with changes to its values or to its bytes, or of any other value."""
    return (mutated_json(good) | mutated_bytes(json.dumps(good).encode()) |
            values.map(lambda value: json.dumps(value).encode()))


def accepted(read):
    """What `read` returns, or None if it raises a UserError. Any other error fails the test."""
    try:
        return read()
    except UserError as error:
        assert str(error)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A VOC set and a COCO set of one image each, without annotations, and weights without a sidecar."""
    root = tmp_path_factory.mktemp('fuzz')
    for name in 'VOC2007/JPEGImages', 'VOC2007/Annotations', 'VOC2007/ImageSets/Main', 'annotations':
        (root / name).mkdir(parents=True)
    for name in 'VOC2007/JPEGImages/one.jpg', 'one.jpg':
        cv2.imwrite(str(root / name), np.zeros((48, 64, 3), 'uint8'))
    (root / 'VOC2007/ImageSets/Main/trainval.txt').write_text('one\n')
    (root / 'a.params').write_bytes(b'')
    return root


tags = st.sampled_from(
    ['annotation', 'object', 'name', 'bndbox', 'xmin', 'ymax', 'size', 'width', 'filename', 'difficult'])
trees = st.recursive(words, lambda inner: st.tuples(tags, st.lists(inner, max_size=4)), max_leaves=12)


def xml(tree):
    """The text of a tree of (tag, children) and words."""
    if isinstance(tree, str):
        return ''.join(letter for letter in tree if letter in string.printable)
    return '<%s>%s</%s>' % (tree[0], ''.join(map(xml, tree[1])), tree[0])


@fuzzed
@given(content=mutated_bytes(GOOD_XML.encode()) | st.binary() |
       trees.map(lambda tree: GOOD_XML.replace('</object>', '</object>' + xml(tree)).encode()) |
       trees.map(lambda tree: ('<annotation>%s</annotation>' % xml(tree)).encode()))
def test_voc_annotations(folder, content):
    (folder / 'VOC2007/Annotations/one.xml').write_bytes(content)
    dataset = accepted(lambda: open_train('voc', str(folder), ['a'], ['2007_trainval'], on_bad_image='stop'))
    assert dataset is None or np.isfinite(dataset.label(0)).all()


@fuzzed
@given(content=json_like(GOOD_COCO))
def test_coco_annotations(folder, content):
    (folder / 'annotations/all.json').write_bytes(content)
    dataset = accepted(lambda: open_train('coco', str(folder), splits=['all'], on_bad_image='stop'))
    assert dataset is None or np.isfinite(dataset.label(0)).all()


GOOD_YAML = b'path: .\ntrain: [images, list.txt]\nval: images\nnames: {0: a, 1: "b c"}\nkpt_shape:\n'
GOOD_ROWS = b'0 0.5 0.5 0.25 0.25\n1.0 0.1 0.1 0.9 0.1 0.5 0.9\n'


@fuzzed
@given(description=mutated_bytes(GOOD_YAML) | st.just(GOOD_YAML), labels=mutated_bytes(GOOD_ROWS) | st.binary())
def test_yolo_descriptions_and_labels(folder, description, labels):
    (folder / 'data.yaml').write_bytes(description)
    for name, content in ('one.txt', labels), ('list.txt', b'one.jpg\n'):
        (folder / name).write_bytes(content)
    (folder / 'images').mkdir(exist_ok=True)
    dataset = accepted(lambda: open_train('yolo', str(folder), on_bad_image='stop'))
    assert dataset is None or np.isfinite(dataset.label(0)).all()


@fuzzed
@given(segmentation=values | st.lists(st.lists(st.floats() | st.integers(), max_size=9), max_size=3) |
       st.fixed_dictionaries({'size': st.lists(st.integers(-1, 9), max_size=3),
                              'counts': st.lists(st.integers(-1, 40), max_size=6) | st.text('0123RSxz`o', max_size=9)}))
def test_segmentations(segmentation):
    try:
        assert np.isfinite(box_of(segmentation)).all() and len(box_of(segmentation)) == 4
    except UNCERTAIN:  # COCO's reader turns these into a UserError
        pass


@fuzzed
@given(content=json_like(FACTS))
def test_sidecars(folder, content):
    (folder / 'a.json').write_bytes(content)
    info = accepted(lambda: sidecar.read_sidecar(str(folder / 'a.params')))
    assert info is None or (info['network'] in network.WIDTHS and info['data_shape'] % 32 == 0 and
                            np.isfinite(np.array(info['anchors'], float)).all())


@pytest.fixture(scope='module')
def good_checkpoint(folder):
    arrays = {'weight/0/a': np.ones((3, 2), 'float32'), 'state': np.frombuffer(b'{"epoch": 1}', 'uint8')}
    np.savez(folder / 'good.npz', checksum=checkpoint.checksum(arrays), **arrays)
    return (folder / 'good.npz').read_bytes()


@fuzzed
@given(data=st.data())
def test_damaged_checkpoints(folder, good_checkpoint, data):
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
    except (ValueError, LookupError, TypeError, AttributeError):  # load() turns these into a UserError
        pass
