"""Ground-truth boxes -> the YOLOv3 training targets that do not depend on the prediction, one row an object.

Replaces GluonCV's YOLOV3PrefetchTargetGenerator, which indexes past its grid for a centre on the right or bottom edge,
cannot take an image without boxes, and fills megabytes of zeros in the worker.
"""
import numpy as np

from yolo3.data.anchors import PER_STRIDE, STRIDES, assign

LAYERS = STRIDES[::-1]  # the network's order of its outputs: the coarsest first

# Of a row: the number of the prediction, centre, logs of width and height, weight, objectness, class, corners.
COLUMNS = (0, 1), (1, 3), (3, 5), (5, 6), (6, 7), (7, 8), (8, 12)
BACKGROUND = np.array([[0] * 7 + [-1] + [0] * 4], 'float32')  # the row of an image without objects: changes nothing


def sparse_targets(boxes, ids, ratios, size, anchors, multi_anchor=1):
    """The targets of one image of `size` x `size` pixels, for those of its predictions that have an object.

    There are N predictions, the sum of (size / stride)^2 * 3 over the strides 32, 16 and 8, in this order.
    boxes: (M, 4) corners in pixels; ids: (M,) classes; ratios: (M,) mixup ratios, 1 without mixup,
    times the boxes' scores. M may be 0.
    anchors: in the form of ANCHORS in `anchors`. A box belongs to the one anchor of all nine that its shape overlaps
    most, in the cell of its centre (YOLOv3 section 2.1), and to those that it overlaps more than `multi_anchor`, an
    IoU. If two boxes meet there, the one that has its best anchor counts, else the later one.
    Returns (K, 12) float32, K >= 1: the number of the prediction, 0..N-1; the centre x and y, in cells from the corner
    of its cell; the logs of width and height over the anchor's; the weight, 2 minus the share of the image that the box
    covers; objectness, which is the ratio; class; the box. Without objects: BACKGROUND.
    """
    if not len(boxes):
        return BACKGROUND
    strides, slots, anchors, owners = assign(boxes, anchors, multi_anchor)
    boxes, ids, ratios = [np.asarray(array, 'float32')[owners] for array in (boxes, ids, ratios)]

    starts, start = {}, 0  # the number of the first prediction of each stride
    for stride in LAYERS:
        starts[stride] = start
        start += (size // stride) ** 2 * PER_STRIDE
    grid = size // strides
    extents = boxes[:, 2:] - boxes[:, :2]
    middles = (boxes[:, :2] + extents / 2).astype('float64')
    extents = extents.astype('float64')
    places = middles / size * grid[:, None]
    cells = np.minimum(np.maximum(places.astype(int), 0), grid[:, None] - 1)
    numbers = [starts[stride] for stride in strides] + (cells[:, 1] * grid + cells[:, 0]) * PER_STRIDE + slots
    rows = np.empty((len(boxes), 12), 'float32')
    rows[:, 0], rows[:, 1:3], rows[:, 3:5] = numbers, places - cells, np.log(np.maximum(extents, 1) / anchors)
    rows[:, 5], rows[:, 6], rows[:, 7], rows[:, 8:] = 2 - extents.prod(-1) / size / size, ratios, ids, boxes
    _, last = np.unique(numbers[::-1], return_index=True)
    return rows[::-1][last]
