"""YOLOv3's four losses from a network's raw outputs and the sparse targets of a batch.

They equal those of GluonCV's YOLOV3TargetMerger and YOLOV3Loss, which compute classes and boxes for all predictions and
then multiply nearly all of that by 0. Here they are computed for the predictions that have an object.
"""
from yolo3.mxnet_setup import gluoncv

from yolo3.data.targets import COLUMNS

IGNORED_IOU = 0.7  # a prediction that overlaps an object more is not background, even if it is not the object's own
MOST_SMOOTHING = 1 / 40


def set_loss(net, loss):
    """Have GluonCV's YOLOV3 `net`, while it records, return the losses that the DetectionLoss `loss` makes.

    `net` then takes the images (B, 3, H, W), and the boxes and targets of a Batch.
    """
    net._target_generator = _Unchanged(len(net.classes), IGNORED_IOU)
    net._loss = loss


class _Unchanged(gluoncv.model_zoo.yolo.yolo_target.YOLOV3TargetMerger):
    """In place of GluonCV's: leaves the targets as they are."""

    def hybrid_forward(self, F, *arrays):
        return list(arrays)


class DetectionLoss(gluoncv.loss.YOLOV3Loss):
    """The losses of objectness, centres, sizes and classes, each (B,), summed over an image's predictions.

    num_class: how many classes there are. label_smooth: whether to smooth the class labels.
    """

    def __init__(self, num_class, label_smooth=False):
        super().__init__()
        self._iou = gluoncv.nn.bbox.BBoxBatchIOU()
        self._num_class = num_class
        self._smoothing = min(1 / num_class, MOST_SMOOTHING) if label_smooth else 0

    def hybrid_forward(self, F, objectness, centers, scales, classes, found, boxes, rows):
        """What GluonCV's network gives: objectness (B, N, 1), centers and scales (B, N, 2) and classes
        (B, N, num_class), before sigmoid and exp; found (B, N, 4), the boxes that follow. boxes, rows: see Batch.
        """
        numbers, true_centers, true_scales, weights, ratios, ids = [
            rows.slice_axis(axis=2, begin=begin, end=end) for begin, end in COLUMNS]
        # Rows that are repeated to pad the array count once in all.
        share = ratios / F.broadcast_equal(numbers, numbers.transpose((0, 2, 1))).sum(axis=2, keepdims=True)
        objectness, found = [F.cast(array, 'float32') for array in (objectness, F.stop_gradient(found))]  # for --amp
        # The number of each image's first prediction, counted over the whole batch.
        firsts = F.contrib.arange_like(objectness).slice_axis(axis=1, begin=0, end=1)
        numbers = F.broadcast_add(numbers, firsts).reshape((0, -1))

        def own(predictions):
            return F.cast(F.take(predictions.reshape((-3, 0)), numbers), 'float32')
        ratio = F.reshape_like(F.contrib.index_copy(F.zeros_like(objectness).reshape((-1, 1)), numbers.reshape((-1,)),
                                                    ratios.reshape((-1, 1))), objectness)
        overlap = self._iou(found, boxes).max(axis=2, keepdims=True)
        counted = F.stop_gradient(F.where(ratio > 0, ratio, overlap <= IGNORED_IOU))
        labels = F.one_hot(ids.reshape((0, -1)), self._num_class, 1 - self._smoothing, self._smoothing)
        losses = (cross_entropy(F, objectness, ratio > 0) * counted,
                  F.broadcast_mul(cross_entropy(F, own(centers), true_centers), weights * share),
                  F.broadcast_mul(F.abs(own(scales) - true_scales), weights * share),
                  F.broadcast_mul(cross_entropy(F, own(classes), labels), share))
        return [loss.sum(axis=(1, 2)) for loss in losses]


def cross_entropy(F, logits, labels):
    """The binary cross-entropy of sigmoid(logits) with `labels`, 0..1, one by one."""
    return F.relu(logits) - logits * labels + F.Activation(-F.abs(logits), act_type='softrelu')
