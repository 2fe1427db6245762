"""The data sets to train and to evaluate on.

A program that has imported MXNet gets instances of gluoncv.data.VOCDetection and COCODetection. One that has not, such
as an exported network's, gets the same images and labels, and neither MXNet nor GluonCV is imported.
"""
import functools
import gc
import glob
import os
import sys

import numpy as np

from yolo3.boxes import resize
from yolo3.cli import UserError
from yolo3.data.coco import TRAIN_SPLITS, VAL_SPLITS, COCOImages, found_splits, usual_split
from yolo3.data.images import BadImage
from yolo3.data.voc import OWN_SPLITS, VOCImages, own_splits, usual_classes
from yolo3.data.yolo import YOLOImages, find_description
from yolo3.defaults import ROOT

VOC_ROOT = os.path.join(ROOT, 'voc')
COCO_ROOT = os.path.join(ROOT, 'coco')
# The usual folder, and the splits to train and to validate on; of COCO's the first that is there.
USUAL = {'voc': (VOC_ROOT, ['2007_trainval', '2012_trainval'], ['2007_test']),
         'coco': (COCO_ROOT, TRAIN_SPLITS, VAL_SPLITS),
         'yolo': ('', ['train'], ['val'])}


def uncollected(read):
    """Let `read` run without Python's garbage collection: it makes millions of objects, and none of them garbage."""
    @functools.wraps(read)
    def quickly(*args, **kwargs):
        collecting = gc.isenabled()
        gc.disable()
        try:
            return read(*args, **kwargs)
        finally:
            if collecting:
                gc.enable()
    return quickly


@uncollected
def open_train(dataset, root=None, classes=None, splits=None, skip_empty=False, on_bad_image=None):
    """The 'voc', 'coco' or 'yolo' data set to train on; the defaults are in USUAL. Raises UserError.

    splits: see VOCImages, COCOImages and YOLOImages. skip_empty: leave out images without boxes. on_bad_image: see
    LabelledImages.
    """
    more = {'skip_crowd_only': True} if dataset == 'coco' else {}
    return _form(dataset)(*_usual(dataset, root, splits, 0, classes), skip_empty, on_bad_image=on_bad_image, **more)


@uncollected
def open_val(dataset, root=None, classes=None, splits=None, on_bad_image=None):
    """The data set to evaluate on, with all its images; otherwise as `open_train`. Raises UserError."""
    return _form(dataset)(*_usual(dataset, root, splits, 1, classes), on_bad_image=on_bad_image)


def form_of(root):
    """The form, 'voc', 'coco' or 'yolo', of the data set at `root`. Raises UserError if it has none of them."""
    if find_description(root):
        return 'yolo'
    if found_splits(root):
        return 'coco'
    if any(glob.glob(os.path.join(glob.escape(os.path.expanduser(root)), name)) for name in ('VOC*', 'ImageSets')):
        return 'voc'
    raise UserError('%s: not a data set in VOC, COCO or YOLO form: convert it first with scripts/convert_dataset.py'
                    % root)


def val_sample(images, index, size):
    """One image of a data set, as it is evaluated: resized to (size, size, 3) uint8, RGB; and (index, width, height) of
    the original, in pixels. Raises BadImage."""
    pixels = images.image_file(index).pixels()
    return resize(pixels, size), (index, pixels.shape[1], pixels.shape[0])


def val_sample_or_black(images, index, size):
    """As `val_sample`, but if the image is unreadable and `on_bad_image` allows it, a black one, whose index is ~index.

    `metrics.measure` names such an image and leaves it out.
    """
    try:
        return val_sample(images, index, size)
    except BadImage:
        if images.on_bad_image in (None, 'stop'):
            raise
        return np.zeros((size, size, 3), 'uint8'), (~index, *map(int, images.size(index)))


def _usual(dataset, root, splits, side, classes):
    """root, splits and classes to open; without `classes` None for those that the data set itself names.

    side: 0 for training, 1 for validation.
    """
    usual_root, *usual_splits = USUAL[dataset]
    root, usual_splits = root or usual_root, usual_splits[side]
    if dataset == 'coco':
        usual_splits = [usual_split(root, usual_splits)]
    if dataset == 'voc':
        classes = classes or usual_classes(root)
        own = own_splits(root)
        usual_splits = [name for name in OWN_SPLITS[side] if name in own][:1] or usual_splits
    return root, splits or usual_splits, classes


def _form(dataset):
    """The Python class of data sets in the form `dataset`."""
    if 'mxnet' in sys.modules:
        from yolo3.data.gluon import COCODetection, VOCDetection, YOLODetection
        return {'voc': VOCDetection, 'coco': COCODetection, 'yolo': YOLODetection}[dataset]
    return {'voc': VOCImages, 'coco': COCOImages, 'yolo': YOLOImages}[dataset]
