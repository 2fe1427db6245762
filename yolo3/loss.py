"""YOLOv3's four losses from a network's raw outputs and the sparse targets of a batch.

They equal those of GluonCV's YOLOV3TargetMerger and YOLOV3Loss, which compute classes and boxes for all predictions and
then multiply nearly all of that by 0. Here they are computed for the predictions that have an object.
"""
import math

from yolo3.mxnet_setup import gluoncv
from mxnet import autograd

from yolo3.data.targets import COLUMNS
from yolo3.network import BoundedOutput, bounded_exp

CIOU_WEIGHT = 2.5  # as in PaddleDetection's PP-YOLO: boxes then weigh about as much as with l2l1
IGNORED_IOU = 0.7  # a prediction that overlaps an object more is not background, even if it is not the object's own
MOST_SMOOTHING = 1 / 40
TINY = 1e-6  # against divisions by 0


def set_loss(net, loss):
    """Have GluonCV's YOLOV3 `net`, while it records, return the losses that the DetectionLoss `loss` makes.

    `net` then takes the images (B, 3, H, W), and the boxes and targets of a Batch; and, to learn from a teacher, what
    it predicts for them: see Teacher.
    """
    net.__class__ = _Losing
    for output in net.yolo_outputs:
        output.__class__ = _RawOutput
    net._loss = loss


class _RawOutput(BoundedOutput):
    """While it records, it gives its raw predictions (B, n, 5 + num_class) in one piece, and their boxes (B, n, 4).

    GluonCV's cuts them in four and makes scores that no loss takes.
    """

    def hybrid_forward(self, F, x, anchors, offsets):
        """As YOLOOutputV3's."""
        if not autograd.is_recording():
            return super().hybrid_forward(F, x, anchors, offsets)
        raw = self.prediction(x)
        sides = F.stop_gradient(raw.slice_axis(axis=1, begin=0, end=1))
        offsets = F.slice_like(offsets, sides, axes=(2, 3)).reshape((1, -1, 1, 2))
        raw = raw.reshape((0, 0, -1)).transpose((0, 2, 1)).reshape((0, -1, self._num_anchors, self._num_pred))
        centers = F.broadcast_add(F.sigmoid(raw.slice_axis(axis=3, begin=0, end=2)), offsets) * self._stride
        halves = F.broadcast_mul(bounded_exp(F, raw.slice_axis(axis=3, begin=2, end=4)), anchors) / 2
        boxes = F.concat(centers - halves, centers + halves, dim=3)
        return raw.reshape((0, -3, 0)), boxes.reshape((0, -3, 0))


class _Losing(gluoncv.model_zoo.yolo.yolo3.YOLOV3):
    """While it records, it goes straight to the losses.

    GluonCV's repeats maps twice to double them, fits sizes that are equal, and multiplies maps by 0 for their shape.
    """

    def hybrid_forward(self, F, x, *args):
        """As YOLOV3's, but the sides of the images x must be multiples of 32."""
        if not autograd.is_recording():
            return super().hybrid_forward(F, x, *args)
        routes, outputs = [], []
        for stage in self.stages:
            x = stage(x)
            routes.append(x)
        for number, (block, output) in enumerate(zip(self.yolo_blocks, self.yolo_outputs)):
            if number:
                x = F.UpSampling(self.transitions[number - 1](x), scale=2, sample_type='nearest')
                x = F.concat(x, routes[-1 - number], dim=1)
            x, tip = block(x)
            outputs.append(output(tip))
        raw, boxes = [F.concat(*parts, dim=1) for parts in zip(*outputs)]
        return self._loss(raw, boxes, *args)


class DetectionLoss(gluoncv.loss.YOLOV3Loss):
    """The losses of objectness, centres, sizes and classes, each (B,), summed over an image's predictions.

    num_class: how many classes there are. label_smooth: whether to smooth the class labels. box_loss: 'l2l1' is
    GluonCV's, cross-entropy of the centres and L1 of the logs of the sizes; 'ciou' is that of Zheng et al. 2020
    (Distance-IoU Loss), the distance of the centres and the rest.
    """

    def __init__(self, num_class, label_smooth=False, box_loss='l2l1'):
        super().__init__()
        self._box_loss = box_loss
        self._iou = gluoncv.nn.bbox.BBoxBatchIOU()
        self._num_class = num_class
        self._smoothing = min(1 / num_class, MOST_SMOOTHING) if label_smooth else 0

    def hybrid_forward(self, F, raw, found, boxes, targets, *taught):
        """raw (B, N, 5 + num_class): the network's predictions, in a Teacher's form; found (B, N, 4): their boxes.

        boxes, targets: see Batch. taught: nothing, or what a Teacher predicts; each loss then has its term of
        `distillation` added.
        """
        numbers, true_centers, true_scales, weights, ratios, ids, true_boxes = [
            targets.slice_axis(axis=2, begin=begin, end=end) for begin, end in COLUMNS]
        # Rows that are repeated to pad the array count once in all.
        share = ratios / F.broadcast_equal(numbers, numbers.transpose((0, 2, 1))).sum(axis=2, keepdims=True)
        objectness = F.cast(raw.slice_axis(axis=2, begin=4, end=5), 'float32')  # half precision with --amp
        # The number of each image's first prediction, counted over the whole batch.
        firsts = F.contrib.arange_like(objectness).slice_axis(axis=1, begin=0, end=1)
        numbers = F.broadcast_add(numbers, firsts).reshape((0, -1))

        def own(predictions):
            return F.cast(F.take(predictions.reshape((-3, 0)), numbers), 'float32')
        centers, scales, _, classes = parts(own(raw))
        ratio = F.reshape_like(F.contrib.index_copy(F.zeros_like(objectness).reshape((-1, 1)), numbers.reshape((-1,)),
                                                    ratios.reshape((-1, 1))), objectness)
        overlap = self._iou(F.cast(F.stop_gradient(found), 'float32'), boxes).max(axis=2, keepdims=True)
        counted = F.stop_gradient(F.where(ratio > 0, ratio, overlap <= IGNORED_IOU))
        labels = F.one_hot(ids.reshape((0, -1)), self._num_class, 1 - self._smoothing, self._smoothing)
        if self._box_loss == 'ciou':
            center_loss, scale_loss = [CIOU_WEIGHT * term for term in ciou(F, own(found), true_boxes)]
        else:
            center_loss, scale_loss = cross_entropy(F, centers, true_centers), F.abs(scales - true_scales)
        losses = (cross_entropy(F, objectness, ratio > 0) * counted,
                  F.broadcast_mul(center_loss, weights * share),
                  F.broadcast_mul(scale_loss, weights * share),
                  F.broadcast_mul(cross_entropy(F, classes, labels), share))
        losses = [loss.sum(axis=(1, 2)) for loss in losses]
        for each in taught:
            terms = distillation(F, F.cast(raw, 'float32'), each)
            losses = [loss + term.sum(axis=(1, 2)) for loss, term in zip(losses, terms)]
        return losses


def parts(raw):
    """The centres, sizes, objectness and classes of predictions (B, N, 5 + num_class)."""
    return [raw.slice_axis(axis=2, begin=begin, end=end) for begin, end in ((0, 2), (2, 4), (4, 5), (5, None))]


def cross_entropy(F, logits, labels):
    """The binary cross-entropy of sigmoid(logits) with `labels`, 0..1, one by one."""
    return F.relu(logits) - logits * labels + F.Activation(-F.abs(logits), act_type='softrelu')


def distillation(F, raw, taught):
    """Four losses that teach the predictions what a teacher predicts: as the ground truth's, of every prediction.

    raw: see DetectionLoss.hybrid_forward; taught (B, N, 5 + num_class): see Teacher. Objectness is to be the
    teacher's; all else is weighted by the teacher's objectness, so that its background, nearly all of its predictions,
    teaches only that (Mehta and Ozturk 2018, Object detection at 200 frames per second). They are terms as in
    PaddleDetection's DistillYOLOv3Loss, except that objectness there is to be 1 or 0, whichever is nearer to the
    teacher's: as a probability it says more, and a student equal to its teacher learns nothing.
    The scale: sums over an image, like the ground truth's losses, which they are added to with a weight of 1. So a
    prediction's objectness has two judges of equal weight; and as the teacher's objectness adds up to about the number
    of objects (2.4 for 1.9 where measured), boxes and classes weigh about as much as by the ground truth.
    (PaddleDetection adds 1000 times the mean over each stride: 2.0, 0.5 and 0.1 times the sum for strides 32, 16 and 8
    at 416 pixels, and for classes that divided by their number.)
    """
    centers, scales, objectness, classes = parts(raw)
    true_centers, true_scales, true_objectness, true_classes = parts(taught)
    weight = F.sigmoid(true_objectness)
    return (cross_entropy(F, objectness, weight),
            F.broadcast_mul(cross_entropy(F, centers, F.sigmoid(true_centers)), weight),
            F.broadcast_mul(F.abs(scales - true_scales), weight),
            F.broadcast_mul(cross_entropy(F, classes, F.sigmoid(true_classes)), weight))


def ciou(F, found, boxes):
    """Two terms whose sum is 1 - CIoU of boxes (B, K, 4), corners in pixels: distance of the centres, and the rest.

    (B, K, 1) each. Where a box has no area they are finite, as are their gradients.
    """
    left, top, right, bottom = F.split(found, 4, axis=2)
    true_left, true_top, true_right, true_bottom = F.split(boxes, 4, axis=2)
    width, height, true_width, true_height = right - left, bottom - top, true_right - true_left, true_bottom - true_top
    shared = (F.relu(F.minimum(right, true_right) - F.maximum(left, true_left))
              * F.relu(F.minimum(bottom, true_bottom) - F.maximum(top, true_top)))
    iou = shared / (width * height + true_width * true_height - shared + TINY)
    diagonal = ((F.maximum(right, true_right) - F.minimum(left, true_left)) ** 2
                + (F.maximum(bottom, true_bottom) - F.minimum(top, true_top)) ** 2)
    distance = ((left + right - true_left - true_right) ** 2 + (top + bottom - true_top - true_bottom) ** 2) / 4
    shape = 4 / math.pi ** 2 * (F.arctan(true_width / (true_height + TINY)) - F.arctan(width / (height + TINY))) ** 2
    weight = F.stop_gradient(shape / (1 - iou + shape + TINY))
    return distance / (diagonal + TINY), 1 - iou + weight * shape
