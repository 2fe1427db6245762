"""Between an image and the network's input and back: resizing, normalisation, NMS, IoU, boxes in the original's pixels.

Needs no MXNet.
"""
from yolo3.defaults import NMS, VOTING_IOU
from yolo3.system import check_opencv

check_opencv()  # before its first import: a broken OpenCV ends here, in one line
import cv2  # noqa: E402, see above
import numpy as np  # noqa: E402, see above

# Of ImageNet's pixels, RGB, after division by 255.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


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


def edges(box, width, height):
    """Left, top, right, bottom of a box, which includes both its ends, in an image of `width` x `height` pixels.

    At least one pixel of the image lies between them.
    """
    xmin, ymin, xmax, ymax = box
    left, top = min(max(xmin, 0), width - 1), min(max(ymin, 0), height - 1)
    return left, top, max(min(xmax + 1, width), left + 1), max(min(ymax + 1, height), top + 1)


def iou(first, second):
    """The IoU (..., n, m) of boxes (..., n, 4) and (..., m, 4), corners; a box is xmax - xmin wide."""
    # Coordinate by coordinate: NumPy takes twice as long if the last axis, its innermost loop, is as short as 2.
    left, top, right, bottom = [first[..., :, None, axis] for axis in range(4)]
    xmin, ymin, xmax, ymax = [second[..., None, :, axis] for axis in range(4)]
    overlap = (np.maximum(np.minimum(right, xmax) - np.maximum(left, xmin), 0)
               * np.maximum(np.minimum(bottom, ymax) - np.maximum(top, ymin), 0))
    return overlap / ((right - left) * (bottom - top) + (xmax - xmin) * (ymax - ymin) - overlap)


def nms(boxes, scores, settings=NMS):
    """Non-maximum suppression as in GluonCV's YOLOV3 over all predictions of an image, (N, 4) and (N, classes).

    Returns as `suppress`.
    """
    places = np.flatnonzero(scores > settings.score_floor)  # np.nonzero of two dimensions takes four times as long
    chosen = scores.ravel()[places]
    best = highest(chosen, settings.topk)
    numbers, ids = np.divmod(places[best], scores.shape[1])
    return suppress(ids, chosen[best], boxes[numbers], settings)


def highest(scores, count):
    """Where the `count` highest of the `scores` (N,) are, falling; of equal ones the first."""
    if len(scores) > count:  # sort no more than needed
        places = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
        return places[np.argsort(-scores[places], kind='stable')][:count]
    return np.argsort(-scores, kind='stable')


def suppress(ids, scores, boxes, settings):
    """Non-maximum suppression over boxes (N, 4) of an image, their classes `ids` (N,) and `scores` (N,), however low.

    Returns (ids (n,), scores (n,), boxes (n, 4)), the best score first.
    """
    best = highest(scores, settings.topk)
    ids, scores, boxes = ids[best], scores[best], boxes[best]
    corners_and_sides = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2])).astype(float)
    kept = []
    for id_ in np.unique(ids):
        mine = np.flatnonzero(ids == id_)
        chosen = cv2.dnn.NMSBoxes(corners_and_sides[mine].tolist(), scores[mine].tolist(), 0, settings.thresh)
        kept.extend(mine[chosen])
    kept = np.sort(np.array(kept, int))[:settings.kept]
    remaining = vote(ids, scores, boxes, kept) if settings.vote else boxes[kept]
    return ids[kept], scores[kept], remaining


def vote(ids, scores, boxes, kept):
    """Box voting (Gidaris and Komodakis 2015): each box that NMS left, at its mean with those that show its object.

    These are boxes of its class that it overlaps by VOTING_IOU or more; the better their scores, the more they count.
    ids (N,), scores (N,), boxes (N, 4): of all that took part; kept (n,): which are left. Returns boxes (n, 4).
    """
    with np.errstate(invalid='ignore'):  # boxes without area, which have no IoU
        weights = (iou(boxes[kept], boxes) >= VOTING_IOU) * (ids[kept, None] == ids) * scores
    weights[np.arange(len(kept)), kept] = scores[kept]  # its own vote, even without area
    return weights @ boxes / weights.sum(axis=1, keepdims=True)
