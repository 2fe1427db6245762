"""Between an image and the network's input: resized in, boxes back out, normalisation; NMS settings. Needs no MXNet."""
import cv2
import numpy as np

# Of ImageNet's pixels, RGB, after division by 255.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Non-maximum suppression as GluonCV evaluates: the IoU within a class, how many boxes of all classes take part, how
# many are left at most, and the score from which on a box takes part.
NMS_THRESH, NMS_TOPK, NMS_KEPT = 0.45, 400, 100
SCORE_FLOOR = 0.01


def resize(image, size):
    """A validation sample: `image`, (H, W, 3) uint8 RGB, as (size, size, 3).

    GluonCV's interpolation 9: cubic to enlarge, area to shrink, else linear.
    """
    height, width = image.shape[:2]
    interpolation = (cv2.INTER_CUBIC if max(height, width) < size else
                     cv2.INTER_AREA if min(height, width) > size else cv2.INTER_LINEAR)
    return cv2.resize(image, (size, size), interpolation=interpolation)


def to_original(boxes, size, width, height):
    """Boxes (N, 4) in pixels of a `size` x `size` input, as pixels of the `width` x `height` image, clipped to it."""
    sides = np.array([width, height] * 2)
    return np.clip(boxes * (sides / size), 0, sides)


def iou(first, second):
    """The IoU (n, m) of boxes (n, 4) and (m, 4), corners; a box is xmax - xmin wide."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    overlap = (np.minimum(first[:, None, 2:], second[None, :, 2:]) - corner).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return overlap / (areas[0][:, None] + areas[1] - overlap)
