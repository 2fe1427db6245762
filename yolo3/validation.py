"""A network over images: detections in the original images' pixels, and a metric over a whole data set."""
import numpy as np

from yolo3.runtime import mx
from mxnet import gluon

from yolo3.augment import normalize
from yolo3.geometry import resize, to_original

NMS = {'nms_thresh': 0.45, 'nms_topk': 400}  # GluonCV's evaluation settings


def prepare(net):
    """Set `net` up for detection: GluonCV's NMS settings, traced anew without the training part."""
    net.set_nms(**NMS)
    net.hybridize()


def evaluate(net, batches, metric, size, devices):
    """The value of `metric` for `net` over `batches` of a `val_loader` made for `size`: see `yolo3.metrics`."""
    prepare(net)
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
    """Run `inputs`, (B, H, W, 3) uint8, split over `devices`; yields (ids, scores, boxes) of each image without padding."""
    devices = devices[:len(inputs)]  # an epoch's last batch may have fewer images than there are devices
    parts = [net(normalize(part)) for part in gluon.utils.split_and_load(inputs, devices, even_split=False)]
    for part in parts:
        for ids, scores, boxes in zip(*[output.asnumpy() for output in part]):
            real = ids[:, 0] >= 0
            yield ids[real, 0].astype(int), scores[real, 0], boxes[real]
