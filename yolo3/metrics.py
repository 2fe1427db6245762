"""Mean average precision: PASCAL VOC 2007 (11 points), VOC 2010 (area under the curve) and COCO's 12 numbers.

A metric has reset(), update(index, ids, scores, boxes) for each image of its data set, boxes in the original image's
pixels, and get() -> a dict of names and values: a class's AP under its name, then the summary; the last entry is the
mean that models are compared by.
"""
import contextlib
import io

import numpy as np

from pycocotools.cocoeval import COCOeval

from yolo3.voc_ap import VOC07MApMetric, VOCMApMetric

COCO_NAMES = ('AP', 'AP50', 'AP75', 'APsmall', 'APmedium', 'APlarge',
              'AR1', 'AR10', 'AR100', 'ARsmall', 'ARmedium', 'ARlarge')


def make_metric(name, dataset):
    """The metric `name`, 'voc07' | 'voc' | 'coco', for a data set of `yolo3.datasets`."""
    return COCOMetric(dataset) if name == 'coco' else VOCMetric(dataset, eleven_points=name == 'voc07')


def default_metric(dataset_name):
    """The metric usual for --dataset `dataset_name`: 'voc' -> 'voc07', 'coco' -> 'coco'."""
    return {'voc': 'voc07', 'coco': 'coco'}[dataset_name]


def headline(values):
    """The one number of a metric's values, as the original counts it: mAP from 0 to 1 for VOC, 0 to 100 for COCO."""
    return values['mAP'] if 'mAP' in values else 100 * values['AP']


class VOCMetric:
    """VOC's AP for each class at IoU 0.5, objects marked difficult left out, and 'mAP', all from 0 to 1; by GluonCV.

    A class without objects has AP nan and does not count in mAP. COCO labels have no difficult column: none is.
    """

    def __init__(self, dataset, eleven_points):
        self._dataset = dataset
        self._metric = (VOC07MApMetric if eleven_points else VOCMApMetric)(0.5, list(dataset.classes))

    def reset(self):
        self._metric.reset()

    def update(self, index, ids, scores, boxes):
        label = self._dataset.label(index)
        difficult = label[:, 5] if label.shape[1] > 5 else np.zeros(len(label))
        self._metric.update(boxes[None], ids[None], scores[None], label[None, :, :4], label[None, :, 4],
                            difficult[None])

    def get(self):
        names, values = self._metric.get()
        return {name: float(value) for name, value in zip(names, values)}


class COCOMetric:
    """COCO's AP of each class and its 12 numbers, all from 0 to 1, by pycocotools; every score counts."""

    def __init__(self, dataset):
        self._dataset = dataset
        self.reset()

    def reset(self):
        self._results = []

    def update(self, index, ids, scores, boxes):
        image = self._dataset.image_id(index)
        for id_, score, (xmin, ymin, xmax, ymax) in zip(ids, scores, boxes.tolist()):
            if id_ in self._dataset.contiguous_id_to_json:
                # GluonCV's reader takes one pixel off widths and heights; it is given back here.
                self._results.append({'image_id': image, 'category_id': self._dataset.contiguous_id_to_json[id_],
                                      'bbox': [xmin, ymin, xmax - xmin + 1, ymax - ymin + 1], 'score': float(score)})

    def get(self):
        truth = self._dataset.coco
        with contextlib.redirect_stdout(io.StringIO()):
            if self._results:
                found = truth.loadRes(self._results)
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
