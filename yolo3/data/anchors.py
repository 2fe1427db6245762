"""Anchors: COCO's, those fitted to a data set by k-means (YOLOv2 section 2, YOLOv3 section 2.3), and each box's own."""
import logging

import numpy as np

from yolo3.boxes import iou
from yolo3.cli import MOST_PIXELS, UserError, comma_list
from yolo3.defaults import ANCHORS, PER_STRIDE, STRIDES

logger = logging.getLogger('yolo3')

RESTARTS = 5  # of k-means; the best result counts


def fit_anchors(extents, seed=0):
    """The nine anchors that fit boxes best, in the form of ANCHORS, the smallest first.

    extents: (n, 2) width and height of the boxes, in pixels of the input that the anchors are for. Raises UserError
    if too few of them differ.
    """
    extents = np.asarray(extents, float)
    count = PER_STRIDE * len(STRIDES)
    distinct = np.unique(extents.round(1), axis=0)
    if len(distinct) < count:
        raise UserError('--anchors auto needs boxes of at least %d different sizes, but the training set has %d: '
                        'leave --anchors out, or give 18 numbers' % (count, len(distinct)))
    generator = np.random.default_rng(seed)
    results = [_cluster(extents, _initial(distinct, count, generator)) for _ in range(RESTARTS)]
    best = max(results, key=lambda anchors: mean_iou(extents, anchors))
    best = best[best.prod(1).argsort()].round().clip(1).astype(int)
    return best.reshape(len(STRIDES), -1).tolist()


def _initial(extents, count, generator):
    """`count` boxes to start from: the less one overlaps those chosen before, the likelier it is (k-means++)."""
    anchors = extents[[generator.integers(len(extents))]]
    while len(anchors) < count:
        distance = (1 - shape_iou(extents, anchors).max(1)) ** 2
        anchors = np.vstack((anchors, extents[[generator.choice(len(extents), p=distance / distance.sum())]]))
    return anchors


def _cluster(extents, anchors):
    """Lloyd's algorithm with the median as the centre of a cluster, which outliers do not move."""
    members = None
    while True:
        last, members = members, shape_iou(extents, anchors).argmax(1)
        if last is not None and (members == last).all():
            return anchors
        anchors = np.array([np.median(extents[members == index], axis=0) if (members == index).any() else anchor
                            for index, anchor in enumerate(anchors)])


def shape_iou(extents, anchors):
    """The IoU (n, k) of boxes (n, 2) and anchors (k, 2), width and height in pixels, with a corner in common."""
    return iou(*[np.hstack((np.zeros_like(sides), sides)) for sides in (extents, anchors)])


def mean_iou(extents, anchors):
    """The mean over the boxes (n, 2) of the IoU with the best of the anchors (9, 2), or in the form of ANCHORS."""
    return float(shape_iou(extents, np.reshape(anchors, (-1, 2))).max(1).mean())


def assign(boxes, anchors, multi_anchor=1):
    """The anchors of boxes (n, 4), corners in pixels: the one of the most similar shape, and those like it.

    anchors: in the form of ANCHORS. multi_anchor: the IoU with a box's shape that makes an anchor another of its own.
    Returns four arrays, with an entry for each anchor of each box, the most similar ones at the end, in the order of
    the boxes: strides (k,), places 0, 1 or 2 (k,), the anchors themselves (k, 2), float32, and numbers of boxes (k,).
    """
    boxes = np.asarray(boxes, 'float32').reshape(-1, 4)
    # The coarsest stride first, as the network has it: of two equally good anchors the larger is taken.
    anchors = np.array(anchors[::-1], 'float32').reshape(-1, 2)
    overlaps = shape_iou(boxes[:, 2:] - boxes[:, :2], anchors)
    owners, chosen = np.nonzero(overlaps > multi_anchor)
    owners, chosen = np.append(owners, np.arange(len(boxes))), np.append(chosen, overlaps.argmax(1))
    layers, places = np.divmod(chosen, PER_STRIDE)
    return np.array(STRIDES[::-1])[layers], places, anchors[chosen], owners


def choose_anchors(flag, images, size, default):
    """The anchors that --anchors, `flag`, asks for, as ANCHORS: 'auto' fits them to the boxes of `images`.

    size: of the network's input, pixels. default: those for ''. Raises UserError.
    """
    if flag == 'auto':
        extents = images.extents(size)
        anchors = fit_anchors(extents)
        logger.info("--anchors auto: mean IoU with the training boxes %.3f, with COCO's anchors %.3f; %s",
                    mean_iou(extents, anchors), mean_iou(extents, ANCHORS), anchors)
        return anchors
    if not flag:
        return default
    try:
        numbers = [float(number) for number in comma_list(flag)]
    except ValueError:
        numbers = []
    if len(numbers) != 18 or not all(1 <= number <= MOST_PIXELS for number in numbers):
        raise UserError("--anchors %.200s: give 'auto', or 18 numbers from 1 to %d: width,height of nine "
                        'anchors, the smallest first' % (flag, MOST_PIXELS))
    return [numbers[start:start + 6] for start in (0, 6, 12)]
