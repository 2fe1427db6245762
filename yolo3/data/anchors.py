"""Anchors: COCO's, and those fitted to a data set by k-means over its boxes (YOLOv2 section 2, YOLOv3 section 2.3)."""
import logging

import numpy as np

from yolo3.cli import UserError, comma_list

logger = logging.getLogger('yolo3')

# YOLOv3 section 2.3: k-means clusters of COCO's boxes, pixels (width, height) at 416, three a stride.
ANCHORS = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
STRIDES = [8, 16, 32]
PER_STRIDE = 3
RESTARTS = 5


def fit_anchors(extents, seed=0):
    """The nine anchors that fit boxes best, as ANCHORS: three a stride, the smallest first.

    extents: (n, 2) width and height of boxes in pixels at the input size that the anchors are for. Raises UserError
    where there are too few different ones.
    """
    extents = np.asarray(extents, float)
    count = PER_STRIDE * len(STRIDES)
    distinct = np.unique(extents.round(1), axis=0)
    if len(distinct) < count:
        raise UserError('--anchors auto needs boxes of at least %d different sizes, the training set has %d: '
                        'leave it out, or give 18 numbers' % (count, len(distinct)))
    generator = np.random.default_rng(seed)
    tries = [_cluster(extents, _spread(distinct, count, generator)) for _ in range(RESTARTS)]
    best = max(tries, key=lambda anchors: mean_iou(extents, anchors))
    best = best[best.prod(1).argsort()].round().clip(1).astype(int)
    return best.reshape(len(STRIDES), -1).tolist()


def _spread(extents, count, generator):
    """Boxes to start from, each the likelier the less it is like those before (k-means++)."""
    anchors = extents[[generator.integers(len(extents))]]
    while len(anchors) < count:
        distance = (1 - iou(extents, anchors).max(1)) ** 2
        anchors = np.vstack((anchors, extents[[generator.choice(len(extents), p=distance / distance.sum())]]))
    return anchors


def _cluster(extents, anchors):
    """Lloyd's algorithm; the middle of a cluster is its median, which an outlier does not move."""
    members = None
    while True:
        last, members = members, iou(extents, anchors).argmax(1)
        if last is not None and (members == last).all():
            return anchors
        anchors = np.array([np.median(extents[members == index], axis=0) if (members == index).any() else anchor
                            for index, anchor in enumerate(anchors)])


def iou(extents, anchors):
    """The IoU (n, k) of boxes (n, 2) and anchors (k, 2), width and height in pixels, laid over each other's centre."""
    extents, anchors = np.asarray(extents), np.asarray(anchors).reshape(-1, 2)
    overlap = np.minimum(extents[:, None], anchors).prod(-1)
    return overlap / (extents.prod(-1)[:, None] + anchors.prod(-1) - overlap)


def mean_iou(extents, anchors):
    """The mean over the boxes of the IoU with the best anchor."""
    return float(iou(extents, anchors).max(1).mean())


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
        numbers = [int(number) for number in comma_list(flag)]
    except ValueError:
        numbers = []
    if len(numbers) != 18 or min(numbers) < 1:
        raise UserError("--anchors %s: give 'auto', or 18 positive numbers: width,height of nine anchors, the smallest "
                        'first' % flag)
    return [numbers[start:start + 6] for start in (0, 6, 12)]
