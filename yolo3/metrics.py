"""Mean average precision: PASCAL VOC 2007 (11 points), VOC 2010 (area under the curve) and COCO's 12 numbers.

A metric has reset(), update(index, ids, scores, boxes) for each image of its data set, boxes in the original image's
pixels, and get() -> {name: value}: the AP of each class under its name, then the summary; the last entry is the mean
that models are compared by. `images` is the data set, `detections` what update was given: a list of
(index, ids (n,), scores (n,), boxes (n, 4)).

A box includes both its ends, as VOC's and GluonCV's readers have it and so as the network learns it: it is
xmax - xmin + 1 pixels wide in VOC's overlaps, as in VOC's development kit, and in COCO's widths.
"""
import contextlib
import io
import logging
import math

import numpy as np
from pycocotools.cocoeval import COCOeval

from yolo3.boxes import iou

logger = logging.getLogger('yolo3')

COCO_NAMES = ('AP', 'AP50', 'AP75', 'APsmall', 'APmedium', 'APlarge',
              'AR1', 'AR10', 'AR100', 'ARsmall', 'ARmedium', 'ARlarge')
GLUONCV_COCO_FLOOR = 0.05
VOC_IOU = 0.5  # overlap from which a detection counts as right
BOTH_ENDS = np.array([0, 0, 1, 1])  # added to a box: its width is then xmax - xmin


def make_metric(name, images, gluoncv_size=None):
    """The metric `name`, 'voc07' | 'voc' | 'coco', for a data set of `yolo3.data.datasets`.

    gluoncv_size: if given, the numbers are those of GluonCV's eval_yolo.py at that input size, pixels: COCO without
    scores under 0.05, VOC with the boxes in pixels of the network's input, so that overlaps differ a little.
    """
    if name == 'coco':
        return COCOMetric(images, GLUONCV_COCO_FLOOR if gluoncv_size else 0)
    return VOCMetric(images, eleven_points=name == 'voc07', gluoncv_size=gluoncv_size)


def default_metric(dataset_name):
    """The usual metric of --dataset `dataset_name`: COCO's for COCO, else VOC07's."""
    return 'coco' if dataset_name == 'coco' else 'voc07'


def measure(metric, detections):
    """The values of `metric` for `detections`, an iterable of (index, ids, scores, boxes) over all images.

    An image that could not be read has ~index for its index: it is named and left out. Raises UserError if these are
    more than the data set allows.
    """
    metric.reset()
    bad = []
    for index, *found in detections:
        if index < 0:
            bad.append(metric.images.image_path(~index))
            logger.warning('skipped image, unreadable: %s', bad[-1])
            metric.images.require_few(len(bad), bad[0])
        else:
            metric.update(index, *found)
    return metric.get()


def headline(values):
    """The one number of a metric's values, as the original reports it: mAP from 0 to 1 for VOC, 0 to 100 for COCO."""
    return values['mAP'] if 'mAP' in values else 100 * values['AP']


def coco_results(images, detections):
    """A metric's `detections` in COCO's result format, for VOC data sets too: a list of dicts for JSON."""
    return [{'image_id': images.image_id(index), 'category_id': images.contiguous_id_to_json[id_],
             # GluonCV's reader subtracts one pixel from widths and heights; it is added back here.
             'bbox': [xmin, ymin, xmax - xmin + 1, ymax - ymin + 1], 'score': score}
            for index, ids, scores, boxes in detections
            for id_, score, (xmin, ymin, xmax, ymax) in zip(ids.tolist(), scores.tolist(), boxes.tolist())]


class Detections:
    """A metric without numbers, which keeps what `update` is given."""

    def __init__(self, images):
        self.images = images
        self.reset()

    def reset(self):
        self.detections = []

    def update(self, index, ids, scores, boxes):
        self.detections.append((index, ids, scores, boxes))

    def get(self):
        return {}


class VOCMetric(Detections):
    """VOC's AP of each class at IoU 0.5, without objects marked difficult, and their mean 'mAP', all from 0 to 1.

    A detection is right if it overlaps an object of its class by 0.5 or more that no better detection has taken. A
    class without objects has AP nan and does not count in mAP. The numbers equal GluonCV's VOC metrics, which need
    MXNet.
    """

    def __init__(self, images, eleven_points, gluoncv_size=None):
        super().__init__(images)
        self._average = eleven_point_average if eleven_points else area_under_curve
        self._size = gluoncv_size

    def get(self):
        values = [math.nan if recall is None else self._average(recall, precision)
                  for recall, precision in self.curves()]
        present = [value for value in values if not math.isnan(value)]
        return dict(zip(self.images.classes, values), mAP=float(np.mean(present)) if present else math.nan)

    def curves(self):
        """The (recall, precision) of each class: arrays over its detections by falling score; recall None if the class
        has no objects."""
        return [recall_precision(objects, matches) for objects, _, matches in self.matched()]

    def matched(self):
        """Of each class: its number of objects, and the scores of its detections, falling, and their matches (see
        `match`)."""
        classes = range(len(self.images.classes))
        objects, found = [0 for _ in classes], [[] for _ in classes]
        for (index, ids, scores, boxes), order in zip(self.detections, self._distinct_scores()):
            label, difficult = self.images.label(index), self.images.difficult(index)
            boxes, true_boxes = self._in_pixels(index, boxes, label[:, :4])
            for class_ in np.unique(np.concatenate((ids, label[:, 4])).astype(int)):
                mine, true = np.flatnonzero(ids == class_), label[:, 4] == class_
                mine = mine[order[mine].argsort()[::-1]]
                objects[class_] += (~difficult[true]).sum()
                found[class_] += zip(order[mine], scores[mine], match(boxes[mine], true_boxes[true], difficult[true]))
        for count, rows in zip(objects, found):
            order, scores, matches = np.array(rows, float).reshape(-1, 3).T
            best_first = order.argsort()[::-1]
            yield count, scores[best_first], matches[best_first]

    def _in_pixels(self, index, boxes, true_boxes):
        """Detections and objects of an image, in the original's pixels or, as GluonCV has them, the input's."""
        boxes = boxes.astype(float)
        if self._size:
            image = self.images.image_file(index)
            scales = self._size / np.array([image.width, image.height] * 2)
            boxes, true_boxes = boxes * scales, true_boxes * scales
        return boxes + BOTH_ENDS, true_boxes + BOTH_ENDS

    def _distinct_scores(self):
        """The scores of each image; for VOC's own numbers replaced by distinct ones in the same order, ties by place.

        The sort, as in GluonCV, leaves the order of equal scores to chance, and with it the AP; VOC's development kit
        keeps their order.
        """
        if self._size:
            return [found[2] for found in self.detections]
        scores = np.concatenate([np.empty(0)] + [found[2] for found in self.detections])
        distinct = np.empty(len(scores))
        distinct[np.argsort(-scores, kind='stable')] = np.arange(len(scores), 0, -1)
        return np.split(distinct, np.cumsum([len(found[2]) for found in self.detections])[:-1])


def match(boxes, true_boxes, difficult):
    """For each box of a class in an image, the best first: 1 right, 0 wrong, -1 on a difficult object, not counted."""
    if not len(true_boxes):
        return [0] * len(boxes)
    overlaps, taken, matches = iou(boxes, true_boxes), set(), []
    for nearest, overlap in zip(overlaps.argmax(1), overlaps.max(1)):
        if overlap < VOC_IOU:
            matches.append(0)
        elif difficult[nearest]:
            matches.append(-1)
        else:
            matches.append(int(nearest not in taken))
            taken.add(nearest)
    return matches


def recall_precision(objects, matches):
    """Recall and precision of a class with so many `objects`, over its detections by falling score."""
    right, wrong = (matches == 1).cumsum(), (matches == 0).cumsum()
    return right / objects if objects else None, right / np.maximum(right + wrong, 1)


def area_under_curve(recall, precision):
    """AP from VOC 2010 on: the area under precision, made to fall with recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * envelope).sum())


def eleven_point_average(recall, precision):
    """AP of VOC 2007: the mean over the recalls 0, 0.1, ... 1 of the best precision at that recall or more."""
    return float(np.mean([precision[recall >= least].max(initial=0) for least in np.arange(0, 1.1, 0.1)]))


class COCOMetric(Detections):
    """COCO's AP of each class and its 12 numbers, all from 0 to 1, by pycocotools; scores under `floor` are dropped.

    Objects marked difficult, as VOC's form has them, do not count, nor does a detection of one.
    """

    def __init__(self, images, floor=0):
        super().__init__(images)
        self._floor = floor

    def get(self):
        truth = self.images.coco
        results = [found for found in coco_results(self.images, self.detections) if found['score'] >= self._floor]
        with contextlib.redirect_stdout(io.StringIO()):
            if results:
                found = truth.loadRes(results)
            else:  # loadRes refuses an empty list
                found = type(truth)()
                found.dataset = dict(truth.dataset, annotations=[])
                found.createIndex()
            evaluation = _Evaluation(truth, found, 'bbox')
            evaluation.params.imgIds = sorted(self.images.image_id(index) for index, *_ in self.detections)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        values = {}
        for id_, name in enumerate(self.images.classes):
            category = evaluation.params.catIds.index(self.images.contiguous_id_to_json[id_])
            precision = evaluation.eval['precision'][:, :, category, 0, 2]
            values[name] = float(precision[precision > -1].mean()) if (precision > -1).any() else math.nan
        values.update(zip(COCO_NAMES[1:], evaluation.stats[1:].tolist()))
        values['AP'] = float(evaluation.stats[0])
        return values


class _Evaluation(COCOeval):
    """Ignores the objects that are marked difficult; pycocotools itself knows crowd regions only."""

    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for item in objects:
                item['ignore'] = item['ignore'] or item['difficult']
