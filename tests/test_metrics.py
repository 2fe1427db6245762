"""Metrics against hand-computed cases and against pycocotools called directly."""
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo3.datasets import open_val
from yolo3.metrics import COCO_NAMES, headline, make_metric


class Boxes:
    """A data set of labels only: two classes, three images."""
    classes = ('cat', 'dog')

    def label(self, index):
        return np.array([[[10., 10, 50, 50, 0, 0], [60, 60, 90, 90, 0, 0]],
                         [[10, 10, 50, 50, 0, 1]],  # difficult
                         [[0, 0, 20, 20, 0, 0]]][index])


def value(name, updates):
    metric = make_metric(name, Boxes())
    metric.reset()
    for index, found in enumerate(updates):
        found = np.array(found, dtype=float).reshape(-1, 6)
        metric.update(index, found[:, 0].astype(int), found[:, 1], found[:, 2:])
    return metric.get()


def test_voc_by_hand():
    # By score: right, wrong (a second one on the same object), difficult (does not count), right; one is missed.
    found = [[[0, 0.9, 10, 10, 50, 50], [0, 0.8, 12, 12, 50, 50]], [[0, 0.7, 10, 10, 50, 50]],
             [[0, 0.6, 1, 1, 20, 20]]]
    # precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3
    area = value('voc', found)
    assert area['cat'] == pytest.approx(1 / 3 + 2 / 3 * 1 / 3)
    assert math.isnan(area['dog']) and area['mAP'] == area['cat'] == headline(area)
    eleven = value('voc07', found)  # recalls 0, .1, .2, .3 at precision 1; .4, .5, .6 at 2/3
    assert eleven['cat'] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_voc_without_detections_and_with_a_class_that_has_no_objects():
    assert value('voc07', [[], [], []])['mAP'] == 0
    assert math.isnan(value('voc07', [[[1, 0.9, 0, 0, 9, 9]], [], []])['dog'])


@pytest.fixture(scope='module')
def coco_mini(data):
    return open_val('coco', data + '/coco-mini')


def test_labels_as_detections_are_perfect(coco_mini):
    metric = make_metric('coco', coco_mini)
    for index in range(len(coco_mini)):
        label = coco_mini.label(index)
        metric.update(index, label[:, 4].astype(int), np.full(len(label), 0.01), label[:, :4])
    values = metric.get()
    assert values['AP'] == pytest.approx(1, abs=5e-4) and values['AP50'] == pytest.approx(1, abs=5e-4)
    assert headline(values) == 100 * values['AP']


def test_coco_equals_pycocotools(coco_mini, data, tmp_path):
    # Disturbed labels with random scores, far below GluonCV's threshold of 0.05 too, and wrong classes among them.
    generator = np.random.RandomState(0)
    metric = make_metric('coco', coco_mini)
    results = []
    for index in range(len(coco_mini)):
        label = coco_mini.label(index)
        boxes = np.round(label[:, :4] + generator.normal(0, 6, (len(label), 4)), 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        ids = np.where(generator.uniform(size=len(label)) < 0.2, generator.randint(0, 80, len(label)),
                       label[:, 4]).astype(int)
        scores = np.round(generator.uniform(0, 1, len(label)) ** 3, 4)
        metric.update(index, ids, scores, boxes)
        results += [{'image_id': int(coco_mini.image_id(index)), 'score': float(score),
                     'category_id': int(coco_mini.contiguous_id_to_json[id_]),
                     'bbox': [float(x), float(y), float(xmax - x + 1), float(ymax - y + 1)]}
                    for id_, score, (x, y, xmax, ymax) in zip(ids, scores, boxes)]
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(results))
    truth = COCO(data + '/coco-mini/annotations/instances_val2017.json')
    evaluation = COCOeval(truth, truth.loadRes(str(path)), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = metric.get()
    assert 0.05 < values['AP'] < 0.9
    np.testing.assert_allclose([values[name] for name in COCO_NAMES], evaluation.stats, rtol=0, atol=1e-9)
    classes = [values[name] for name in coco_mini.classes if not math.isnan(values.get(name, math.nan))]
    assert np.mean(classes) == pytest.approx(values['AP'], abs=1e-6)


def test_coco_without_detections(coco_mini):
    metric = make_metric('coco', coco_mini)
    assert metric.get()['AP'] == 0
