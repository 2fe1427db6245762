"""Mean average precision: PASCAL VOC 2007 (11 points), VOC 2010 (area under the curve) and COCO's 12 numbers.

A metric has reset(), update(index, ids, scores, boxes) for each image of its data set, boxes in the original image's
pixels, and get() -> a dict of names and values: a class's AP under its name, then the summary; the last entry is the
mean that models are compared by. What it was given is kept in `detections`, a list of such (index, ids, scores, boxes).

Boxes have both ends included, as VOC's and GluonCV's readers have them and so as the network learns them: a box is
xmax - xmin + 1 pixels wide in VOC's overlaps, as in VOC's development kit, and in COCO's widths.
"""
import contextlib
import io

import numpy as np

from pycocotools.cocoeval import COCOeval

from yolo3.voc_ap import VOC07MApMetric, VOCMApMetric

COCO_NAMES = ('AP', 'AP50', 'AP75', 'APsmall', 'APmedium', 'APlarge',
              'AR1', 'AR10', 'AR100', 'ARsmall', 'ARmedium', 'ARlarge')
GLUONCV_COCO_FLOOR = 0.05


def make_metric(name, dataset, gluoncv_size=None):
    """The metric `name`, 'voc07' | 'voc' | 'coco', for a data set of `yolo3.data.datasets`.

    gluoncv_size: where given, the numbers are those of GluonCV's eval_yolo.py at that input size, pixels: COCO without
    scores under 0.05, VOC with the boxes in pixels of the network's input, so that overlaps differ a little.
    """
    if name == 'coco':
        return COCOMetric(dataset, GLUONCV_COCO_FLOOR if gluoncv_size else 0)
    return VOCMetric(dataset, eleven_points=name == 'voc07', gluoncv_size=gluoncv_size)


def default_metric(dataset_name):
    """The metric usual for --dataset `dataset_name`: 'voc' -> 'voc07', 'coco' -> 'coco'."""
    return {'voc': 'voc07', 'coco': 'coco'}[dataset_name]


def headline(values):
    """The one number of a metric's values, as the original counts it: mAP from 0 to 1 for VOC, 0 to 100 for COCO."""
    return values['mAP'] if 'mAP' in values else 100 * values['AP']


def coco_results(dataset, detections):
    """A metric's `detections` in COCO's result format, also those of a VOC data set: a list of dicts for JSON."""
    return [{'image_id': dataset.image_id(index), 'category_id': dataset.contiguous_id_to_json[id_],
             # GluonCV's reader takes one pixel off widths and heights; it is given back here.
             'bbox': [xmin, ymin, xmax - xmin + 1, ymax - ymin + 1], 'score': score}
            for index, ids, scores, boxes in detections
            for id_, score, (xmin, ymin, xmax, ymax) in zip(ids.tolist(), scores.tolist(), boxes.tolist())]


class VOCMetric:
    """VOC's AP for each class at IoU 0.5, objects marked difficult left out, and 'mAP', all from 0 to 1.

    A class without objects has AP nan and does not count in mAP. COCO labels have no difficult column: none is.
    """

    def __init__(self, dataset, eleven_points, gluoncv_size=None):
        self._dataset = dataset
        self._size = gluoncv_size
        self._metric = (VOC07MApMetric if eleven_points else VOCMApMetric)(0.5, list(dataset.classes))
        self.reset()

    def reset(self):
        self.detections = []

    def update(self, index, ids, scores, boxes):
        self.detections.append((index, ids, scores, boxes))

    def get(self):
        self._match()
        names, values = self._metric.get()
        return {name: float(value) for name, value in zip(names, values)}

    def curves(self):
        """Each class's (recall, precision), arrays over its detections by falling score; recall None without objects.
        """
        self._match()
        return list(self._metric.recall_precision())

    def _match(self):
        """Give the metric within all detections."""
        self._metric.reset()
        for (index, ids, scores, boxes), ranks in zip(self.detections, self._ranks()):
            label = self._dataset.label(index)
            difficult = label[:, 5] if label.shape[1] > 5 else np.zeros(len(label))
            boxes, truth = boxes.astype(float), label[:, :4]
            if self._size:
                image = self._dataset.image_file(index)
                scales = self._size / np.array([image.width, image.height] * 2)
                boxes, truth = boxes * scales, truth * scales
            self._metric.update(boxes[None], ids[None], (scores if self._size else ranks)[None],
                                truth[None], label[None, :, 4], difficult[None])

    def _ranks(self):
        """For each image its scores replaced by distinct numbers in the same order, equal ones by place.

        The metric's sort, as GluonCV's, leaves the order of equal scores, and with it the AP, to chance; VOC's kit
        keeps theirs.
        """
        scores = np.concatenate([np.empty(0)] + [found[2] for found in self.detections])
        ranks = np.empty(len(scores))
        ranks[np.argsort(-scores, kind='stable')] = np.arange(len(scores), 0, -1)
        return np.split(ranks, np.cumsum([len(found[2]) for found in self.detections])[:-1])


class COCOMetric:
    """COCO's AP of each class and its 12 numbers, all from 0 to 1, by pycocotools; scores under `floor` are dropped."""

    def __init__(self, dataset, floor=0):
        self._dataset = dataset
        self._floor = floor
        self.reset()

    def reset(self):
        self.detections = []

    def update(self, index, ids, scores, boxes):
        kept = scores >= self._floor
        self.detections.append((index, ids[kept], scores[kept], boxes[kept]))

    def get(self):
        truth = self._dataset.coco
        results = coco_results(self._dataset, self.detections)
        with contextlib.redirect_stdout(io.StringIO()):
            if results:
                found = truth.loadRes(results)
            else:
                found = type(truth)()
                found.dataset = dict(truth.dataset, annotations=[])
                found.createIndex()
            evaluation = COCOeval(truth, found, 'bbox')
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        values = {}
        for id_, name in enumerate(self._dataset.classes):
            if id_ in self._dataset.contiguous_id_to_json:
                category = evaluation.params.catIds.index(self._dataset.contiguous_id_to_json[id_])
                precision = evaluation.eval['precision'][:, :, category, 0, 2]
                values[name] = float(precision[precision > -1].mean()) if (precision > -1).any() else float('nan')
        values.update(zip(COCO_NAMES[1:], evaluation.stats[1:].tolist()))
        values['AP'] = float(evaluation.stats[0])
        return values
