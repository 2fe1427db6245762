"""One sample: image and boxes -> network input and boxes, from GluonCV's transforms."""
import numpy as np

from yolo3.runtime import mx
from gluoncv.data.transforms import bbox as boxes_transform
from gluoncv.data.transforms import image as image_transform
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultTrainTransform, YOLO3DefaultValTransform

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
AREA_OR_CUBIC = 9  # GluonCV's choice for validation: area interpolation to shrink, cubic to enlarge


def augment(image, label, size):
    """A training sample, drawn from the global generators of `random` and `numpy.random`.

    Colour distortion, expansion, constrained crop, resize and flip as GluonCV's YOLO3DefaultTrainTransform.
    image: (H, W, 3) uint8 NDArray, RGB. label: (M, 4 + k) with the box's corners in pixels first; M may be 0.
    Returns the normalized image, (3, size, size) float32 NDArray, and the label of the boxes that are left.
    """
    return YOLO3DefaultTrainTransform(size, size)(image, label)


def squeeze(image, label, size):
    """As `augment`, but only resized: nothing is left to chance (GluonCV's YOLO3DefaultValTransform)."""
    return YOLO3DefaultValTransform(size, size)(image, label)


def resize(image, size):
    """A validation sample: `image`, (H, W, 3) uint8 RGB, as a normalized (3, size, size) float32 NDArray."""
    if not isinstance(image, mx.nd.NDArray):
        image = mx.nd.array(image, dtype='uint8')
    image = image_transform.imresize(image, size, size, interp=AREA_OR_CUBIC)
    return mx.nd.image.normalize(mx.nd.image.to_tensor(image), mean=MEAN, std=STD)


def to_original(boxes, size, width, height):
    """Boxes (N, 4) in pixels of a `size` x `size` input, as pixels of the `width` x `height` image, clipped to it."""
    boxes = boxes_transform.resize(boxes, (size, size), (width, height))
    return np.clip(boxes, 0, [width, height, width, height])
