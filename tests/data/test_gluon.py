"""The data sets are GluonCV's own: equal to what its readers give, and taken by its transforms, mixup and loader."""
import itertools
import os
import random
import subprocess
import sys

import gluoncv
import numpy as np
import pytest
from gluoncv.data.batchify import Pad, Stack, Tuple
from gluoncv.data.dataloader import RandomTransformDataLoader
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultTrainTransform, YOLO3DefaultValTransform

from conftest import ROOT
from yolo3.data.datasets import open_train, open_val
from yolo3.network import build
from yolo3.mxnet_setup import mx
from small_sets import box, coco, voc

CELLS = 'rbc', 'wbc', 'platelets'


class Cells(gluoncv.data.VOCDetection):
    """GluonCV's reader with BCCD's classes, which it wants in lower case."""
    CLASSES = CELLS


@pytest.fixture(scope='module')
def pairs(data):
    """{kind: (our training set, GluonCV's)} of real data that both read, images without objects left out."""
    bccd, mini = os.path.join(data, 'bccd'), os.path.join(data, 'coco-mini')
    return {'voc': (open_train('voc', bccd, ['RBC', 'wbc', 'Platelets'], ['2007_trainval']),
                    Cells(bccd, [(2007, 'trainval')])),
            'coco': (open_train('coco', mini, skip_empty=True),
                     gluoncv.data.COCODetection(mini, ['instances_train2017'], use_crowd=False))}


@pytest.fixture(scope='module')
def transform(pairs):
    """transform(kind, size, mixup) -> GluonCV's training transform with targets, for the classes of that set."""
    nets = {kind: build('mobilenet0_25', ours.classes) for kind, (ours, _) in pairs.items()}
    return lambda kind, size, mixup=False: YOLO3DefaultTrainTransform(size, size, nets[kind], mixup=mixup)


def seed(number):
    np.random.seed(number)
    random.seed(number)
    mx.random.seed(number)


def assert_same(ours, theirs):
    """Two samples or batches are equal: same random numbers, same arrays."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        mine, other = [part.asnumpy() if isinstance(part, mx.nd.NDArray) else part for part in (mine, other)]
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


def test_bccd_is_as_gluoncv_reads_it(data):
    root = os.path.join(data, 'bccd')
    for split, ours in (('trainval', open_train('voc', root, ['RBC', 'wbc', 'Platelets'], ['2007_trainval'])),
                        ('test', open_val('voc', root, ['RBC', 'wbc', 'Platelets']))):
        theirs = Cells(root, [(2007, split)])
        assert len(ours) == len(theirs) and ours.classes == ('RBC', 'wbc', 'Platelets')
        for i in range(len(ours)):
            np.testing.assert_array_equal(ours.label(i), theirs._label_cache[i])
        assert ours.image_path(3) == theirs._image_path.format(*theirs._items[3])
        assert_same(ours[3], theirs[3])


def test_voc_photographs_are_as_gluoncv_reads_them(data):
    root = os.path.join(data, 'voc-animals')
    theirs = gluoncv.data.VOCDetection(root, [(2007, 'test')])
    ours = open_val('voc', root)
    assert ours.classes == theirs.classes and len(ours) == len(theirs) == 800
    for index, label in enumerate(theirs._label_cache):
        np.testing.assert_array_equal(ours.label(index), label)
    assert_same(ours[5], theirs[5])


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_what_gluoncvs_tools_ask_of_a_set(pairs, kind):
    ours, theirs = pairs[kind]
    assert isinstance(ours, getattr(gluoncv.data, {'voc': 'VOCDetection', 'coco': 'COCODetection'}[kind]))
    assert isinstance(ours, mx.gluon.data.Dataset) and len(ours) == len(theirs)
    assert ours.num_class == theirs.num_class == len(ours.classes) and ours.CLASSES == ours.classes
    assert [name.lower() for name in ours.classes] == list(theirs.classes)
    assert str(ours) == {'voc': 'VOCDetection(2007_trainval)', 'coco': 'COCODetection(instances_train2017)'}[kind]
    assert len(ours.get_im_aspect_ratio()) == len(ours)
    if kind == 'coco':
        assert ours.get_im_aspect_ratio() == theirs.get_im_aspect_ratio()
    for index in range(0, len(ours), 20):
        assert isinstance(ours[index][0], mx.nd.NDArray)
        assert_same(ours[index], theirs[index])


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_gluoncvs_training_transform(pairs, transform, kind):
    function, samples = transform(kind, 416), []
    for images in pairs[kind]:
        seed(1)
        samples.append(images.transform(function)[3])
    assert_same(*samples)
    image, objectness, _, _, _, classes, boxes = samples[0]
    assert image.shape == (3, 416, 416) and objectness.shape == (10647, 1) and objectness.sum().asscalar() > 0
    assert classes.shape == (10647, len(pairs[kind][0].classes)) and len(boxes) > 0


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_gluoncvs_validation_transform(pairs, kind):
    ours, theirs = [images.transform(YOLO3DefaultValTransform(416, 416)) for images in pairs[kind]]
    assert ours[2][0].shape == (3, 416, 416)
    for index in 2, 7:
        assert_same(ours[index], theirs[index])


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_gluoncvs_mixup_and_loader_of_random_sizes(pairs, transform, kind):
    functions = [transform(kind, size, mixup=True) for size in (64, 96)]
    runs = []
    for images in pairs[kind]:
        seed(3)
        mixed = gluoncv.data.MixupDetection(images)
        mixed.set_mixup(np.random.beta, 1.5, 1.5)
        loader = RandomTransformDataLoader(
            functions, mixed, batch_size=2, interval=1, shuffle=True, last_batch='rollover',
            batchify_fn=Tuple(*[Stack() for _ in range(6)], Pad(axis=0, pad_val=-1)), num_workers=0)
        runs.append([[array.asnumpy() for array in batch] for batch in itertools.islice(loader, 4)])
        assert len(loader) == len(images) // 2
    for ours, theirs in zip(*runs):
        assert_same(ours, theirs)
    assert {batch[0].shape[2] for batch in runs[0]} == {64, 96}
    objectness = np.concatenate([batch[1].ravel() for batch in runs[0]])
    assert ((0 < objectness) & (objectness < 1)).mean() > 0.9 * (objectness > 0).mean()  # really mixed


def test_without_mxnet_the_same_sets_are_read_and_it_is_not_imported(tmp_path):
    roots = voc(tmp_path / 'voc', {'a': [('cat', 1, 1, 9, 9)]}), coco(tmp_path / 'coco', {1: 'a.jpg'}, [box(1)])
    code = '''
import sys
from yolo3.data.datasets import open_train, open_val, val_sample
for opened in open_train, open_val:
    for images in (opened('voc', sys.argv[1], ['cat'], ['2007_train']),
                   opened('coco', sys.argv[2], None, ['instances_train'])):
        pixels, facts = val_sample(images, 0, 32)
        print(type(images).__name__, images.digest(), type(images[0][0]).__name__, pixels.shape, facts)
assert not {'mxnet', 'gluoncv'} & set(sys.modules)
'''
    lines = subprocess.run([sys.executable, '-c', code, *roots], cwd=ROOT, check=True, stdout=subprocess.PIPE,
                           text=True).stdout.splitlines()
    digests = [open_val('voc', roots[0], ['cat'], ['2007_train']).digest(),
               open_val('coco', roots[1], None, ['instances_train']).digest()]
    assert lines == ['%s %s ndarray (32, 32, 3) (0, 100, 80)' % pair
                     for pair in zip(('VOCImages', 'COCOImages'), digests)] * 2
