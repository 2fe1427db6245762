"""A network over images: detections in the original images' pixels, and a metric over a whole data set."""
import io

import numpy as np

from yolo3.mxnet_setup import mx
from mxnet import gluon

from yolo3.data.augment import normalize
from yolo3.boxes import NMS_THRESH, NMS_TOPK, SCORE_FLOOR, resize, to_original
from yolo3.distributed.group import ONE_PROCESS


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


def evaluate(net, batches, metric, size, devices, ranks=ONE_PROCESS, score_floor=SCORE_FLOOR):
    """The value of `metric` for `net` over `batches` of a `val_loader` made for `size`: see `yolo3.metrics`.

    With several ranks each has batches of its own, and the value is at rank 0; None at the others.
    """
    net = prepare(net, score_floor)
    detections = []
    for batch in batches:
        for (index, width, height), found in zip(batch.originals.asnumpy(), forward(net, batch.images, devices)):
            ids, scores, boxes = found
            detections.append((int(index), ids, scores, to_original(boxes, size, width, height)))
    shares = ranks.gather(packed(detections))
    if shares is None:
        return None
    metric.reset()
    for detection in sorted(sum(map(unpacked, shares), []), key=lambda detection: detection[0]):
        metric.update(*detection)
    return metric.get()


def packed(detections):
    """Some images' detections, (index, ids, scores, boxes) each, as bytes."""
    content = io.BytesIO()
    indices = np.array([index for index, *_ in detections], int)
    np.savez(content, indices=indices, counts=np.array([len(ids) for _, ids, *_ in detections], int),
             **{name: np.concatenate([detection[place] for detection in detections]) if detections else np.empty(0)
                for place, name in enumerate(('ids', 'scores', 'boxes'), 1)})
    return content.getvalue()


def unpacked(content):
    """The list that `packed` was given."""
    arrays = np.load(io.BytesIO(content), allow_pickle=False)
    ends = np.cumsum(arrays['counts'])[:-1]
    return list(zip(arrays['indices'].tolist(), *[np.split(arrays[name], ends) for name in ('ids', 'scores', 'boxes')]))


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
