"""A network of MXNet over images: NMS settings, detections in the original images' pixels, a metric over a data set."""
import functools
import io
import itertools
import logging

import numpy as np

from yolo3.mxnet_setup import gluoncv, mx
from mxnet import gluon

from yolo3.boxes import resize, to_original
from yolo3.data.augment import normalize
from yolo3.data.loader import start_workers, val_loader
from yolo3.defaults import NMS, VOTING_IOU
from yolo3.distributed.group import ONE_PROCESS
from yolo3.log import advancing, bar
from yolo3.metrics import measure

logger = logging.getLogger('yolo3')


class MXNetDetector:
    """The detector in a .params file on `devices`, behind the interface of `yolo3.detector`.

    info: dict, as `weights.load_detector` returns it. nms: a Suppression of `yolo3.boxes`.
    """

    streams = 1  # MXNet is not thread-safe

    def __init__(self, net, info, devices, nms=NMS):
        self.info = info
        self._loaded, self._devices, self._nms = net, devices, nms

    @functools.cached_property
    def _net(self):
        """The network, which moves to its devices at its first use: by then `loaders` has forked the workers."""
        self._loaded.collect_params().reset_ctx(self._devices)
        return prepare(self._loaded, self._nms)

    def loaders(self, images, sizes, batch_size, num_workers):
        """See `yolo3.detector`. Processes cannot be forked once a GPU is in use: call it first, for all sizes."""
        on_gpu = self._devices[0].device_type == 'gpu'
        loaders = [val_loader(images, size, batch_size, pin_memory=on_gpu) for size in sizes]
        start_workers(num_workers, *loaders)
        return loaders

    def detect(self, images, size):
        """See `yolo3.detector`."""
        return detect(self._net, images, size, self._devices)

    def evaluate(self, batches, metric, size):
        """See `yolo3.detector`."""
        return measure(metric, detections(self._net, batches, size, self._devices))


def prepare(net, nms=NMS):
    """Set `net` up for detection with the settings `nms`, traced anew without the training part.

    Returns the network to call: `net` itself or, for settings other than GluonCV's, their NMS around it.
    """
    net.set_nms(nms.thresh, nms.topk, nms.kept)
    if nms != NMS:  # in GluonCV's network the score floor is fixed, and no fewer boxes may go in than are kept
        net = OuterNMS(net, nms)
    net.hybridize()
    return net


class OuterNMS(gluon.HybridBlock):
    """GluonCV's detector `net` with NMS of any settings `nms`: (ids, scores, boxes)."""

    def __init__(self, net, nms):
        super().__init__()
        self._nms = nms
        self._iou = gluoncv.nn.bbox.BBoxBatchIOU()
        net.set_nms(nms_thresh=-1)  # no NMS inside
        self.net = net

    def hybrid_forward(self, F, x):
        raw = F.concat(*self.net(x), dim=2)
        ids, scores, boxes = self._best(F, raw, self._nms.thresh, self._nms.kept)
        if self._nms.vote:
            boxes = self._voted(F, ids, boxes, *self._best(F, raw, 1, self._nms.topk))
        return [ids, scores, boxes]

    def _best(self, F, raw, thresh, count):
        """The `count` best boxes of `raw` after NMS with the IoU `thresh`: their ids, scores and corners."""
        found = F.contrib.box_nms(raw, overlap_thresh=thresh, topk=self._nms.topk, valid_thresh=self._nms.score_floor,
                                  id_index=0, score_index=1, coord_start=2)
        found = F.slice(found, begin=(None, 0), end=(None, count))
        return [found.slice_axis(axis=2, begin=begin, end=end) for begin, end in ((0, 1), (1, 2), (2, 6))]

    def _voted(self, F, ids, boxes, all_ids, all_scores, all_boxes):
        """See `boxes.vote`; ids and boxes are those that NMS left. Padding has -1 for ids and scores."""
        weights = (self._iou(boxes, all_boxes) >= VOTING_IOU) * F.broadcast_mul(
            F.broadcast_equal(ids, all_ids.transpose((0, 2, 1))), F.relu(all_scores).transpose((0, 2, 1)))
        total = weights.sum(axis=2, keepdims=True)
        # A box without area has no vote, not even its own: it stays.
        return boxes + F.broadcast_div(F.batch_dot(weights, all_boxes) - F.broadcast_mul(total, boxes),
                                       F.maximum(total, self._nms.score_floor + 1e-9))


def forward(net, inputs, devices):
    """Run `inputs`, (B, H, W, 3) uint8, split over `devices`; yields (ids, scores, boxes) of each image, no padding."""
    devices = devices[:len(inputs)]  # the last batch may have fewer images than there are devices
    parts = [net(normalize(part)) for part in gluon.utils.split_and_load(inputs, devices, even_split=False)]
    for part in parts:
        for ids, scores, boxes in zip(*[output.asnumpy() for output in part]):
            real = ids[:, 0] >= 0
            yield ids[real, 0].astype(int), scores[real, 0], boxes[real]


def detect(net, images, size, devices):
    """Detections in `images`, a list of (H, W, 3) uint8 RGB arrays, by a `net` that `prepare` has set up.

    Returns for each image (ids (n,), scores (n,), boxes (n, 4)), the best score first: boxes are corners in the image's
    own pixels, clipped to it.
    """
    inputs = mx.nd.array(np.stack([resize(image, size) for image in images]), dtype='uint8')
    return [(ids, scores, to_original(boxes, size, image.shape[1], image.shape[0]))
            for image, (ids, scores, boxes) in zip(images, forward(net, inputs, devices))]


def detections(net, batches, size, devices):
    """Yield (index, ids, scores, boxes) of each image of `batches`, of a `val_loader` made for `size`; as `detect`."""
    for batch in batches:
        for original, (ids, scores, boxes) in zip(batch.originals.asnumpy(), forward(net, batch.images, devices)):
            index, width, height = original
            yield int(index), ids, scores, to_original(boxes, size, width, height)


def evaluate(net, batches, metric, size, devices, group=ONE_PROCESS):
    """The values of `metric` (see `yolo3.metrics`) for a `net` in training over `batches` of a `val_loader`.

    size: the input size, pixels, of `batches`. Each process of `group` has batches of its own; the values are returned
    at rank 0, None at the others.
    """
    shares = group.gather(pack(list(detections(prepare(net), batches, size, devices))))
    if shares is None:
        return None
    found = itertools.chain.from_iterable(map(unpack, shares))
    return measure(metric, sorted(found, key=lambda image: max(image[0], ~image[0])))


def validate(net, loader, metric, epoch, args, group):
    """`evaluate` for a training with the flags `args`: with a progress bar, logged in the original's format.

    Returns {} unless this process is rank 0. Afterwards `net` computes its losses again.
    """
    with bar(len(loader.images), 'validation', rank=group.rank) as progress:
        batches = group.watch(advancing(progress, loader, group.size))
        values = evaluate(net, batches, metric, args.data_shape, args.devices, group)
    net.hybridize()  # traced anew, with the losses
    if group.rank:
        return {}
    logger.info('[Epoch %d] Validation: \n%s', epoch, '\n'.join('%s=%s' % pair for pair in values.items()))
    return values


def pack(found):
    """The detections of some images, a list of (index, ids, scores, boxes), as bytes."""
    content = io.BytesIO()
    np.savez(content, indices=np.array([index for index, *_ in found], int),
             counts=np.array([len(ids) for _, ids, *_ in found], int),
             **{name: np.concatenate([image[place] for image in found]) if found else np.empty(0)
                for place, name in enumerate(('ids', 'scores', 'boxes'), 1)})
    return content.getvalue()


def unpack(content):
    """The list that `pack` was given."""
    arrays = np.load(io.BytesIO(content), allow_pickle=False)
    ends = np.cumsum(arrays['counts'])[:-1]
    return list(zip(arrays['indices'].tolist(), *[np.split(arrays[name], ends) for name in ('ids', 'scores', 'boxes')]))
