"""Where to cut the scores: the threshold at which F1 is best, and precision and recall of each class there."""
from typing import NamedTuple

import numpy as np

from yolo3.metrics import VOCMetric

THRESHOLDS = np.linspace(0, 1, 1001)
BINS = 10  # of the calibration


class F1(NamedTuple):
    """Precision, recall and F1 by threshold; the arrays have a column for each of THRESHOLDS."""
    names: list  # of the classes that have objects
    precision: np.ndarray  # (classes, 1001); 0 if no detection scores enough
    recall: np.ndarray
    f1: np.ndarray
    best: int  # the column at which the mean over the classes is best; of several equally good, the middle one

    @property
    def threshold(self):
        """The score, 0..1, at which the mean F1 is best."""
        return round(float(THRESHOLDS[self.best]), 3)

    @property
    def mean(self):
        """The mean F1 of the classes for each threshold, (1001,)."""
        return self.f1.mean(axis=0)

    def table(self):
        """{class: {'precision', 'recall', 'f1'}} at the threshold."""
        return {name: {part: float(getattr(self, part)[row, self.best]) for part in ('precision', 'recall', 'f1')}
                for row, name in enumerate(self.names)}


def matched(metric):
    """See `VOCMetric.matched`: of the detections that any `metric` of `yolo3.metrics` was given."""
    voc = VOCMetric(metric.images, eleven_points=False)
    voc.detections = metric.detections
    return list(voc.matched())


def f1(metric):
    """The F1 of the detections that `metric` was given, at IoU 0.5; None if no class has objects."""
    names, rows = [], []
    for name, (objects, scores, matches) in zip(metric.images.classes, matched(metric)):
        if objects:
            taken = np.searchsorted(-scores, -THRESHOLDS, side='right')  # how many score so much or more
            right, wrong = [np.append(0, np.cumsum(matches == kind))[taken] for kind in (1, 0)]
            names.append(name)
            rows.append((right / np.maximum(right + wrong, 1), right / objects, 2 * right / (right + wrong + objects)))
    if not names:
        return None
    precision, recall, curves = np.array(rows).swapaxes(0, 1)
    mean = curves.mean(axis=0)
    best = np.flatnonzero(mean == mean.max())
    return F1(names, precision, recall, curves, int(best[len(best) // 2]))


def calibration(metric):
    """How often a score is right: for each tenth of 0..1 the mean score, the share that is right, and how many.

    (n, 3), without empty tenths. Detections of difficult objects do not count.
    """
    scores, matches = [np.concatenate(parts) for parts in list(zip(*matched(metric)))[1:]]
    scores, matches = scores[matches >= 0], matches[matches >= 0]
    numbers = np.minimum((scores * BINS).astype(int), BINS - 1)
    return np.array([(scores[numbers == number].mean(), matches[numbers == number].mean(), (numbers == number).sum())
                     for number in range(BINS) if (numbers == number).any()]).reshape(-1, 3)
