"""Ground-truth boxes of one image -> the YOLOv3 training targets that do not depend on the prediction.

Stands in for GluonCV's YOLOV3PrefetchTargetGenerator, which indexes past its grid row for a centre on the right or
bottom edge and cannot take an image without boxes.
"""
import numpy as np

from yolo3.network import ANCHORS, STRIDES

# The network's order: the coarsest stride first.
_STRIDES = STRIDES[::-1]
_ANCHORS = np.array(ANCHORS[::-1], dtype='float32').reshape(-1, 2)
_PER_CELL = len(_ANCHORS) // len(_STRIDES)


def make_targets(boxes, ids, ratios, size, num_class):
    """Targets of one image of `size` x `size` pixels, for its N = sum of (size / stride)^2 * 3 predictions.

    boxes: (M, 4) corners in pixels; ids: (M,) classes; ratios: (M,) mixup ratios, 1 without mixup. M may be 0. A box
    goes to the one anchor of all nine that its shape overlaps most, in the cell of its centre (YOLOv3 section 2.1);
    of two that meet in one place the later wins.
    Returns float32 arrays: objectness (N, 1), the mixup ratio or 0; centers (N, 2), in cells; scales (N, 2), log of
    the size over the anchor's; weights (N, 2), 2 minus the box's share of the image; classes (N, num_class), one-hot
    where there is an object, else -1.
    """
    grids = [size // stride for stride in _STRIDES]
    starts = np.cumsum([0] + [grid * grid * _PER_CELL for grid in grids])
    objectness = np.zeros((starts[-1], 1), 'float32')
    centers, scales, weights = (np.zeros((starts[-1], 2), 'float32') for _ in range(3))
    classes = np.full((starts[-1], num_class), -1, 'float32')

    boxes = np.asarray(boxes, 'float32').reshape(-1, 4)
    extents = boxes[:, 2:] - boxes[:, :2]
    middles = (boxes[:, :2] + extents / 2).astype('float64')
    overlap = np.minimum(extents[:, None], _ANCHORS).prod(-1)
    iou = overlap / (extents.prod(-1)[:, None] + _ANCHORS.prod(-1) - overlap)
    for middle, extent, anchor, id_, ratio in zip(middles, extents.astype('float64'), iou.argmax(1), ids, ratios):
        layer, slot = divmod(anchor, _PER_CELL)
        grid = grids[layer]
        place = middle / size * grid
        x, y = np.clip(place.astype(int), 0, grid - 1)
        index = starts[layer] + (y * grid + x) * _PER_CELL + slot
        objectness[index] = ratio
        centers[index] = place - (x, y)
        scales[index] = np.log(np.maximum(extent, 1) / _ANCHORS[anchor])
        weights[index] = 2 - extent.prod() / size / size
        classes[index] = 0
        classes[index, int(id_)] = 1
    return objectness, centers, scales, weights, classes
