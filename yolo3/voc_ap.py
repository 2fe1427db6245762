"""PASCAL VOC's average precision: numbers and interface of GluonCV's metrics, but without MXNet."""
import numpy as np

from yolo3.boxes import iou


class VOCMApMetric:
    """AP as the area under the curve of precision over recall (VOC 2010 on), for each of `class_names` and their mean.

    A detection is right where it overlaps an object of its class by `iou_thresh` or more that none before it did.
    """

    def __init__(self, iou_thresh, class_names):
        self._iou_thresh = iou_thresh
        self._names = list(class_names)
        self.reset()

    def reset(self):
        """Forget all images."""
        count = len(self._names)
        self._objects = np.zeros(count, int)
        self._scores, self._matches = [[] for _ in range(count)], [[] for _ in range(count)]

    def update(self, boxes, ids, scores, true_boxes, true_ids, difficult):
        """Take in images: detections (B, N, 4), (B, N), (B, N), objects (B, M, 4), (B, M), (B, M).

        Boxes are corners in pixels, both ends included, as in VOC's own kit.
        """
        for boxes, ids, scores, true_boxes, true_ids, difficult in zip(boxes, ids, scores, true_boxes, true_ids,
                                                                       difficult):
            boxes, true_boxes = [np.asarray(sides, float) + [0, 0, 1, 1] for sides in (boxes, true_boxes)]
            for number in np.unique(np.concatenate((ids, true_ids)).astype(int)):
                mine, true = np.flatnonzero(ids == number), true_ids == number
                mine = mine[scores[mine].argsort()[::-1]]
                self._objects[number] += (difficult[true] == 0).sum()
                self._scores[number].extend(scores[mine])
                self._matches[number].extend(self._match(boxes[mine], true_boxes[true], difficult[true]))

    def _match(self, boxes, true_boxes, difficult):
        """1 right, 0 wrong, -1 does not count (a difficult object), for each of the boxes, the best first."""
        if not len(true_boxes):
            return [0] * len(boxes)
        overlaps, taken, matches = iou(boxes, true_boxes), set(), []
        for nearest, overlap in zip(overlaps.argmax(1), overlaps.max(1)):
            if overlap < self._iou_thresh:
                matches.append(0)
            elif difficult[nearest]:
                matches.append(-1)
            else:
                matches.append(int(nearest not in taken))
                taken.add(nearest)
        return matches

    def recall_precision(self):
        """For each class its recall and precision, arrays over the detections by falling score; recall None without
        objects."""
        for objects, scores, matches in zip(self._objects, self._scores, self._matches):
            matches = np.array(matches, int)[np.array(scores).argsort()[::-1]]
            right, wrong = (matches == 1).cumsum(), (matches == 0).cumsum()
            yield right / objects if objects else None, right / np.maximum(right + wrong, 1)

    def get(self):
        """(names, values): the AP of each class, nan without objects, and 'mAP', the mean of those that have any."""
        values = [float('nan') if recall is None else self._average(recall, precision)
                  for recall, precision in self.recall_precision()]
        present = [value for value in values if value == value]
        return self._names + ['mAP'], values + [float(np.mean(present)) if present else float('nan')]

    def _average(self, recall, precision):
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((np.diff(recall, prepend=0) * envelope).sum())


class VOC07MApMetric(VOCMApMetric):
    """As VOCMApMetric, but AP is the mean precision at 11 recalls (VOC 2007)."""

    def _average(self, recall, precision):
        return float(np.mean([precision[recall >= least].max(initial=0) for least in np.arange(0, 1.1, 0.1)]))
