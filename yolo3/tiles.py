"""Large pictures: a detector over overlapping windows of the network's size, and over the whole; merged by NMS."""
import math

import numpy as np

from yolo3.boxes import suppress

OVERLAP = 0.25  # of a window's side, at least, that neighbours share
EDGE = 0.02  # of a window's side: a box that comes so near an inner edge is taken for a part of an object
BATCH = 16  # windows that the network sees at once


class Tiled:
    """`detector`, of `yolo3.detector`, with a `detect` that looks at windows of an image as well as at all of it.

    nms: a Suppression of `yolo3.boxes`, as for each window; but all that the windows show takes part in the merge,
    and any number remain.
    """

    def __init__(self, detector, nms):
        self.info, self.streams = detector.info, detector.streams
        self._detector, self._nms = detector, nms

    def detect(self, images, size):
        """See `yolo3.detector`."""
        return [self._detect(image, size) for image in images]

    def _detect(self, image, size):
        """Detections in one image: as `yolo3.boxes.suppress`."""
        height, width = image.shape[:2]
        found = self._detector.detect([image], size)  # what is larger than a window is whole only here
        places = [] if max(height, width) <= size else [(left, top) for top in starts(height, size)
                                                        for left in starts(width, size)]
        for start in range(0, len(places), BATCH):
            some = places[start:start + BATCH]
            windows = [image[top:top + size, left:left + size] for left, top in some]
            found += [moved(detections, place, window.shape, (width, height)) for place, window, detections in
                      zip(some, windows, self._detector.detect(windows, size))]
        ids, scores, boxes = map(np.concatenate, zip(*found))
        return suppress(ids, scores, boxes, self._nms._replace(topk=len(ids), kept=len(ids)))


def starts(side, size):
    """Where windows of `size` pixels start that cover `side` pixels, evenly spread: a list of whole numbers."""
    count = 1 + max(0, math.ceil((side - size) / (size * (1 - OVERLAP))))
    return np.linspace(0, max(0, side - size), count).round().astype(int).tolist()


def moved(detections, place, shape, whole):
    """A window's detections in the pixels of the image, without those that its inner edges seem to cut.

    What is cut lies whole in a neighbour or, if it is larger than their overlap, in the whole image. place: the left
    and top of the window; shape: (rows, columns, 3) of its pixels; whole: (width, height) of the image.
    """
    ids, scores, boxes = detections
    low, high = np.array(place), np.array(place) + shape[1::-1]
    near = EDGE * max(shape)
    cut = (boxes[:, :2] < near) & (low > 0) | (boxes[:, 2:] > high - low - near) & (high < whole)
    kept = ~cut.any(axis=1)
    return ids[kept], scores[kept], boxes[kept] + np.tile(low, 2)
