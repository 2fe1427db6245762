"""F1, its best threshold and the calibration, against counting anew at each threshold, and by hand."""
import numpy as np
import pytest

from yolo3.f1 import BINS, THRESHOLDS, calibration, f1
from yolo3.metrics import make_metric, measure
from test_metrics import Labels, random_detections, random_labels


def measured(dataset, detections):
    metric = make_metric('voc07', dataset)
    measure(metric, detections)
    return metric


def one(found):
    """The metric of one image with a cat and, marked difficult, another; `found`: (score, box)."""
    labels = [np.array([[10., 10, 50, 50, 0, 0], [60, 60, 90, 90, 0, 1]])]
    return measured(Labels(['cat'], labels), [(0, np.zeros(len(found), int), np.array([score for score, _ in found]),
                                               np.array([box for _, box in found], float).reshape(-1, 4))])


CAT, DIFFICULT, NOTHING = (10, 10, 50, 50), (60, 60, 90, 90), (0, 70, 20, 90)


def test_by_hand():
    found = f1(one([(0.8, CAT), (0.6, NOTHING), (0.7, DIFFICULT)]))
    # From 0 to 0.6 one right, one wrong: F1 2/3; above 0.6 to 0.8 it is 1, best in the middle; above 0.8 it is 0.
    np.testing.assert_allclose(found.f1[0, [0, 600, 601, 800, 801]], [2 / 3, 2 / 3, 1, 1, 0])
    np.testing.assert_allclose(found.precision[0, [0, 601, 801]], [1 / 2, 1, 0])
    assert found.threshold == pytest.approx(0.7, abs=0.002)
    assert found.table() == {'cat': {'precision': 1, 'recall': 1, 'f1': 1}}


def test_each_threshold_is_that_of_the_detections_that_score_so_much():
    for seed in range(10):
        generator = np.random.RandomState(seed)
        dataset = random_labels(generator)
        detections = random_detections(dataset, generator)
        found = f1(measured(dataset, detections))
        for column in (0, 250, 500, 501, 875, 1000):
            kept = [(index, ids[scores >= THRESHOLDS[column]], scores[scores >= THRESHOLDS[column]],
                     boxes[scores >= THRESHOLDS[column]]) for index, ids, scores, boxes in detections]
            curves = dict(zip(dataset.classes, measured(dataset, kept).curves()))
            for row, name in enumerate(found.names):
                recall, precision = [part[-1] if len(part) else 0 for part in curves[name]]
                assert found.recall[row, column] == pytest.approx(recall)
                assert found.precision[row, column] == pytest.approx(precision)
                assert found.f1[row, column] == pytest.approx(
                    2 * recall * precision / (recall + precision) if recall else 0)
        assert set(found.names) == {dataset.classes[int(row[4])] for index in range(len(dataset))
                                    for row in dataset.label(index) if not row[5]}


def test_calibration_by_hand():
    bins = calibration(one([(0.81, CAT), (0.89, NOTHING), (0.7, DIFFICULT), (1, NOTHING), (0.05, NOTHING)]))
    np.testing.assert_allclose(bins, [[0.05, 0, 1], [0.85, 0.5, 2], [1, 0, 1]])
    assert len(bins) < BINS


def test_nothing():
    assert f1(measured(Labels(['cat'], [np.empty((0, 6))]), [])) is None
    assert calibration(one([])).shape == (0, 3)
    assert f1(one([])).f1.max() == 0
