"""Between an image and the network's input and back: resizing, normalisation, NMS, IoU, boxes in the original's pixels.

Needs no MXNet.
"""
from yolo3.system import check_opencv

check_opencv()  # before its first import: a broken OpenCV ends here, in one line
import cv2  # noqa: E402, see above
import numpy as np  # noqa: E402, see above

# Of ImageNet's pixels, RGB, after division by 255.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Non-maximum suppression as GluonCV evaluates: the IoU above which a box of the same class suppresses another, how many
# boxes of all classes take part, how many remain at most, and the score above which a box takes part.
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
    """The IoU (..., n, m) of boxes (..., n, 4) and (..., m, 4), corners; a box is xmax - xmin wide."""
    first, second = first[..., :, None, :], second[..., None, :, :]
    corner = np.maximum(first[..., :2], second[..., :2])
    overlap = (np.minimum(first[..., 2:], second[..., 2:]) - corner).clip(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return overlap / (areas[0] + areas[1] - overlap)


def nms(boxes, scores, score_floor=SCORE_FLOOR):
    """Non-maximum suppression as in GluonCV's YOLOV3 over all predictions of an image, (N, 4) and (N, classes).

    Returns (ids (n,), scores (n,), boxes (n, 4)), the best score first.
    """
    numbers, ids = np.nonzero(scores > score_floor)
    scores = scores[numbers, ids]
    best = np.argsort(-scores, kind='stable')[:NMS_TOPK]
    boxes, scores, ids = boxes[numbers[best]], scores[best], ids[best]
    corners_and_sides = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2])).astype(float)
    kept = []
    for id_ in np.unique(ids):
        mine = np.flatnonzero(ids == id_)
        kept.extend(mine[cv2.dnn.NMSBoxes(corners_and_sides[mine].tolist(), scores[mine].tolist(), 0, NMS_THRESH)])
    kept = np.sort(np.array(kept, int))[:NMS_KEPT]
    return ids[kept], scores[kept], boxes[kept]
