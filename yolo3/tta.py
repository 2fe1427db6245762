"""Test-time augmentation: each image at three sizes, as it is and mirrored; what is found is merged by NMS."""
import itertools

import numpy as np

from yolo3 import log
from yolo3.boxes import suppress
from yolo3.defaults import STRIDES
from yolo3.metrics import Detections

SCALES = 0.8, 1.2  # of the input size, beside the plain one
STRIDE = max(STRIDES)  # pixels: what an input's sides are multiples of


class Mirrored:
    """The data set `images` with its images mirrored, but not its labels."""

    def __init__(self, images):
        self._images = images

    def __getattr__(self, name):
        return getattr(self._images, name)

    def __len__(self):
        return len(self._images)

    def image_file(self, index):
        """As the data set's: an object with `pixels`. Raises BadImage."""
        return _MirroredFile(self._images.image_file(index))


class _MirroredFile:
    def __init__(self, file):
        self._file = file

    def pixels(self):
        return np.ascontiguousarray(self._file.pixels()[:, ::-1])


class Views:
    """The views of a data set's `images` besides the plain one of `size` x `size` pixels.

    detector: see `yolo3.detector`; to be made before it is used, as its `loaders`. nms: a Suppression of
    `yolo3.boxes`, for the merge.
    """

    def __init__(self, detector, images, size, batch_size, num_workers, nms):
        self._detector, self._images, self._nms = detector, images, nms
        self._mirrored = Mirrored(images)
        scaled = [max(STRIDE, int(round(size * scale / STRIDE)) * STRIDE) for scale in SCALES]
        self._loaders = [view for source, sizes in ((images, scaled), (self._mirrored, [size] + scaled))
                         for view in zip(itertools.repeat(source), sizes,
                                         detector.loaders(source, sizes, batch_size, num_workers))]

    def merge(self, found):
        """`found`, (index, ids, scores, boxes) of each plain image, with what the other views show, after NMS."""
        found = {index: [detections] for index, *detections in found}
        with log.bar(len(self._images) * len(self._loaders), 'other views') as bar:
            for source, size, batches in self._loaders:
                seen = Detections(source)
                self._detector.evaluate(log.advancing(bar, batches), seen, size)
                for index, ids, scores, boxes in seen.detections:
                    if source is self._mirrored:
                        width = source.size(index)[0]
                        boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), axis=1)
                    found[index].append((ids, scores, boxes))
        return [(index, *suppress(*map(np.concatenate, zip(*views)), self._nms)) for index, views in found.items()]
