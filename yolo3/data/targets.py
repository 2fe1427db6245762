"""Ground-truth boxes -> the YOLOv3 training targets that do not depend on the prediction: sparse, then dense.

Replaces GluonCV's YOLOV3PrefetchTargetGenerator, which indexes past its grid for a centre on the right or bottom edge,
cannot take an image without boxes, and fills megabytes of zeros in the worker. Here a worker sends one row an object,
and the device makes the arrays.
"""
import numpy as np

from yolo3.mxnet_setup import mx

from yolo3.data.anchors import PER_STRIDE, STRIDES, assign

LAYERS = STRIDES[::-1]  # the network's order of its outputs: the coarsest first

BACKGROUND = np.array([[0, 0, 0, 0, 0, 0, 0, -1]], 'float32')  # the row of an image without objects: changes nothing


def sparse_targets(boxes, ids, ratios, size, anchors):
    """The targets of one image of `size` x `size` pixels, for those of its predictions that have an object.

    There are N predictions, the sum of (size / stride)^2 * 3 over the strides 32, 16 and 8, in this order.
    boxes: (M, 4) corners in pixels; ids: (M,) classes; ratios: (M,) mixup ratios, 1 without mixup. M may be 0.
    anchors: in the form of ANCHORS in `anchors`. A box belongs to the one anchor of all nine that its shape overlaps
    most, in the cell of its centre (YOLOv3 section 2.1); if two boxes meet there, the later one counts.
    Returns (max(1, objects), 8) float32: the number of the prediction, 0..N-1; the centre x and y, in cells from the
    corner of its cell; the logs of width and height over the anchor's; the weight, 2 minus the share of the image that
    the box covers; objectness, which is the mixup ratio; class. Without objects: BACKGROUND.
    """
    if not len(boxes):
        return BACKGROUND
    boxes = np.asarray(boxes, 'float32')
    strides, slots, anchors = assign(boxes, anchors)

    starts, start = {}, 0  # the number of the first prediction of each stride
    for stride in LAYERS:
        starts[stride] = start
        start += (size // stride) ** 2 * PER_STRIDE
    grid = size // strides
    extents = boxes[:, 2:] - boxes[:, :2]
    middles = (boxes[:, :2] + extents / 2).astype('float64')
    extents = extents.astype('float64')
    places = middles / size * grid[:, None]
    cells = places.astype(int).clip(0, grid[:, None] - 1)
    numbers = [starts[stride] for stride in strides] + (cells[:, 1] * grid + cells[:, 0]) * PER_STRIDE + slots
    rows = np.column_stack((numbers, places - cells, np.log(np.maximum(extents, 1) / anchors),
                            2 - extents.prod(-1) / size / size, ratios, ids)).astype('float32')
    _, last = np.unique(numbers[::-1], return_index=True)
    return rows[::-1][last]


class DenseTargets(mx.gluon.HybridBlock):
    """On the device: the sparse targets of a batch -> the five arrays that GluonCV's YOLOV3 takes.

    Input: the images (B, H, W, 3), of which only the shape counts; rows (B, M, 8) of `sparse_targets`, padded by
    repeating an image's own. Output, float32: objectness (B, N, 1), 0 without an object; centers (B, N, 2);
    scales (B, N, 2); weights (B, N, 2); classes (B, N, num_class), one-hot with an object, else -1.
    """

    def __init__(self, num_class):
        super().__init__()
        self._num_class = num_class

    def hybrid_forward(self, F, images, rows):
        # A symbol does not know its shape. An image has as many channels as a cell has anchors, so every stride-th
        # pixel of it, for each stride, is an array with one value a prediction, in the predictions' order.
        all_ = (None,) * 4
        grids = [F.slice(images, begin=all_, end=all_, step=(1, stride, stride, 1)).reshape((0, -1))
                 for stride in LAYERS]
        zeros = F.zeros_like(F.cast(F.concat(*grids, dim=1), 'float32'))
        # The number of each image's first prediction, counted over the whole batch.
        firsts = F.contrib.arange_like(zeros).slice_axis(axis=1, begin=0, end=1)
        numbers = F.broadcast_add(rows.slice_axis(axis=2, begin=0, end=1).reshape((0, -1)), firsts).reshape((-1,))
        rows = rows.reshape((-3, 0))
        ids = rows.slice_axis(axis=1, begin=7, end=8)
        one_hot = F.broadcast_sub(F.one_hot(ids.reshape((-1,)), self._num_class), ids < 0)  # BACKGROUND is -1

        def dense(background, values, width):
            old = F.broadcast_axis(background.reshape((-1, 1)), axis=1, size=width)
            return F.reshape_like(F.contrib.index_copy(old, numbers, values), zeros, lhs_begin=0, lhs_end=1,
                                  rhs_begin=0, rhs_end=2)
        boxes = dense(zeros, rows.slice_axis(axis=1, begin=1, end=7), 6)
        return (boxes.slice_axis(axis=2, begin=5, end=6), boxes.slice_axis(axis=2, begin=0, end=2),
                boxes.slice_axis(axis=2, begin=2, end=4), boxes.slice_axis(axis=2, begin=4, end=5).tile((1, 1, 2)),
                dense(zeros - 1, one_hot, self._num_class))
