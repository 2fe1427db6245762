"""A network over images: detections in the original images' pixels, and a metric over a whole data set."""
import numpy as np

from yolo3.runtime import mx
from mxnet import gluon

from yolo3.augment import normalize
from yolo3.geometry import NMS_THRESH, NMS_TOPK, SCORE_FLOOR, resize, to_original


def prepare(net, score_floor=SCORE_FLOOR):
    """Set `net` up for detection: GluonCV's NMS settings, traced anew without the training part.

    Returns what is to be called: `net` itself, or around it its NMS with another `score_floor`, 0..1: boxes that score
    less neither come out nor suppress others.
    """
    net.set_nms(NMS_THRESH, NMS_TOPK)
    if score_floor != SCORE_FLOOR:  # GluonCV's network has that fixed within it
        net = OuterNMS(net, score_floor)
    net.hybridize()
    return net


class OuterNMS(gluon.HybridBlock):
    """GluonCV's detector `net` with the NMS that `net` is set to, but another score floor; (ids, scores, boxes)."""

    def __init__(self, net, score_floor):
        super().__init__()
        self._settings = {'overlap_thresh': net.nms_thresh, 'topk': net.nms_topk, 'valid_thresh': score_floor}
        self._most = net.post_nms
        net.set_nms(nms_thresh=-1)  # none within
        self.net = net

    def hybrid_forward(self, F, x):
        found = F.contrib.box_nms(F.concat(*self.net(x), dim=2), id_index=0, score_index=1, coord_start=2,
                                  **self._settings)
        found = found.slice_axis(axis=1, begin=0, end=self._most)
        return [found.slice_axis(axis=2, begin=begin, end=end) for begin, end in ((0, 1), (1, 2), (2, 6))]


def evaluate(net, batches, metric, size, devices, score_floor=SCORE_FLOOR):
    """The value of `metric` for `net` over `batches` of a `val_loader` made for `size`: see `yolo3.metrics`."""
    net = prepare(net, score_floor)
    metric.reset()
    for images, facts in batches:
        facts = facts.asnumpy()
        for (index, width, height), found in zip(facts, forward(net, images, devices)):
            ids, scores, boxes = found
            metric.update(int(index), ids, scores, to_original(boxes, size, width, height))
    return metric.get()


def detect(net, images, size, devices):
    """Detections in `images`, a list of (H, W, 3) uint8 RGB arrays, by a `net` that `prepare` has set up.

    Returns for each image (ids (n,), scores (n,), boxes (n, 4)): boxes are corners in the image's own pixels,
    clipped to it; the best score comes first.
    """
    inputs = mx.nd.array(np.stack([resize(image, size) for image in images]), dtype='uint8')
    return [(ids, scores, to_original(boxes, size, image.shape[1], image.shape[0]))
            for image, (ids, scores, boxes) in zip(images, forward(net, inputs, devices))]


def forward(net, inputs, devices):
    """Run `inputs`, (B, H, W, 3) uint8, split over `devices`; yields each image's (ids, scores, boxes), no padding."""
    devices = devices[:len(inputs)]  # an epoch's last batch may have fewer images than there are devices
    parts = [net(normalize(part)) for part in gluon.utils.split_and_load(inputs, devices, even_split=False)]
    for part in parts:
        for ids, scores, boxes in zip(*[output.asnumpy() for output in part]):
            real = ids[:, 0] >= 0
            yield ids[real, 0].astype(int), scores[real, 0], boxes[real]
