"""The data sets to train and to evaluate on.

A program that has imported MXNet gets instances of gluoncv.data.VOCDetection and COCODetection. One that has not, such
as an exported network's, gets the same images and labels, and neither MXNet nor GluonCV is imported.
"""
import os
import sys

import numpy as np

from yolo3.boxes import resize
from yolo3.data.coco import COCOImages
from yolo3.data.images import BadImage
from yolo3.data.voc import VOC_CLASSES, VOCImages

ROOT = os.path.join('~', '.mxnet', 'datasets')
VOC_ROOT = os.path.join(ROOT, 'voc')
COCO_ROOT = os.path.join(ROOT, 'coco')


def open_train(dataset, root=None, classes=None, splits=None, skip_empty=False, on_bad_image=None):
    """The 'voc' or 'coco' data set to train on; the defaults are those of VOC07+12 and COCO 2017. Raises UserError.

    splits: see VOCImages and COCOImages. skip_empty: leave out images without boxes. on_bad_image: see LabelledImages.
    """
    voc, coco = _classes()
    if dataset == 'voc':
        return voc(root or VOC_ROOT, splits or ['2007_trainval', '2012_trainval'], classes or VOC_CLASSES, skip_empty,
                   on_bad_image)
    return coco(root or COCO_ROOT, splits or ['instances_train2017'], classes, skip_empty, skip_crowd_only=True,
                on_bad_image=on_bad_image)


def open_val(dataset, root=None, classes=None, splits=None, on_bad_image=None):
    """The 'voc' or 'coco' data set to evaluate on, with all its images; otherwise as `open_train`. Raises UserError."""
    voc, coco = _classes()
    if dataset == 'voc':
        return voc(root or VOC_ROOT, splits or ['2007_test'], classes or VOC_CLASSES, on_bad_image=on_bad_image)
    return coco(root or COCO_ROOT, splits or ['instances_val2017'], classes, on_bad_image=on_bad_image)


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


def _classes():
    """The classes of VOC and of COCO data sets."""
    if 'mxnet' in sys.modules:
        from yolo3.data.gluon import COCODetection, VOCDetection
        return VOCDetection, COCODetection
    return VOCImages, COCOImages
