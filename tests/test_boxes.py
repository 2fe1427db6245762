"""Resizing and its way back, IoU and NMS, against GluonCV's, MXNet's and by hand."""
import numpy as np
import pytest

from yolo3.boxes import highest, iou, nms, resize, suppress, to_original
from yolo3.defaults import NMS, Suppression
from yolo3.mxnet_setup import mx
from gluoncv.data.transforms.image import imresize
from gluoncv.utils.bbox import bbox_iou


def test_resize_equals_gluoncv():
    for shape in (60, 90), (300, 200), (60, 200):
        image = np.random.RandomState(0).randint(0, 256, shape + (3,)).astype('uint8')
        expected = imresize(mx.nd.array(image, dtype='uint8'), 128, 128, interp=9).asnumpy().astype(int)
        # MXNet brings its own OpenCV: here and there a level of 255 apart.
        assert np.abs(resize(image, 128) - expected).max() <= 1


def test_to_original_scales_and_clips():
    boxes = np.array([[0., 0, 208, 416], [-20, 100, 500, 200]])
    expected = [[0, 0, 320, 480], [0, 480 * 100 / 416, 640, 480 * 200 / 416]]
    np.testing.assert_allclose(to_original(boxes, 416, 640, 480), expected)


def test_iou_equals_gluoncv():
    generator = np.random.RandomState(0)
    first, second = [np.hstack((corner, corner + generator.uniform(1, 60, corner.shape)))
                     for corner in (generator.uniform(-20, 80, (count, 2)) for count in (30, 20))]
    np.testing.assert_allclose(iou(first, second), bbox_iou(first, second), atol=1e-12)
    one_by_one = iou(first[:20, None], second[:, None])
    np.testing.assert_array_equal(one_by_one[:, 0, 0], iou(first, second).diagonal())
    assert iou(first[:0], second).shape == (0, 20)


@pytest.mark.parametrize('count', [1, 5, 199, 200, 400])
def test_the_highest_scores_are_those_of_a_stable_sort(count):
    scores = (np.random.RandomState(0).randint(0, 9, 200) / 9).astype('float32')  # many are equal
    np.testing.assert_array_equal(highest(scores, count), np.argsort(-scores, kind='stable')[:count])
    assert highest(scores[:0], count).shape == (0,)


@pytest.mark.parametrize('seed, settings', [
    *[(seed, NMS) for seed in range(5)], (5, Suppression(thresh=0)), (6, Suppression(thresh=1)),
    (7, Suppression(score_floor=0.7)), (8, Suppression(kept=7)), (9, Suppression(thresh=0.9, topk=1200, kept=1000))])
def test_nms_is_mxnets(seed, settings):
    generator = np.random.RandomState(seed)
    corner = generator.uniform(-20, 80, (300, 2))
    boxes = np.hstack((corner, corner + generator.uniform(5, 60, (300, 2)))).astype('float32')
    scores = (generator.uniform(0, 1, (300, 4)) ** 3).astype('float32')
    rows = [np.hstack((np.full((300, 1), id_), scores[:, [id_]], boxes)) for id_ in range(4)]
    expected = mx.nd.contrib.box_nms(mx.nd.array(np.vstack(rows)), overlap_thresh=settings.thresh,
                                     valid_thresh=settings.score_floor, topk=settings.topk, id_index=0, score_index=1,
                                     coord_start=2).asnumpy()[:settings.kept]
    expected = expected[expected[:, 0] >= 0]
    ids, values, kept = nms(boxes, scores, settings)
    np.testing.assert_array_equal(ids, expected[:, 0])
    np.testing.assert_array_equal(values, expected[:, 1])
    np.testing.assert_array_equal(kept, expected[:, 2:])
    best = scores.argmax(axis=1)  # a class each
    only = np.where(np.arange(4) == best[:, None], scores, 0)
    for ours, theirs in zip(suppress(best, scores.max(axis=1), boxes, settings._replace(score_floor=0)),
                            nms(boxes, only, settings._replace(score_floor=0))):
        np.testing.assert_array_equal(ours, theirs)
    assert nms(boxes, scores * 0, settings)[2].shape == (0, 4)


VOTERS = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [0, 0, 10, 20], [0, 0, 10, 21], [40, 0, 50, 10], [70, 70, 70, 90]])
VOTES = np.array([0, 0, 0, 0, 0, 0]), np.array([0.6, 0.2, 0.4, 0.3, 0.5, 0.1])
WHERE = [[2 * 0.2 / 1.2, 0, 10 + 2 * 0.2 / 1.2, 10 + 10 * 0.4 / 1.2], [40, 0, 50, 10], [70, 70, 70, 90]]


def test_boxes_move_to_where_those_around_them_vote():
    # Of the boxes around the best one the last overlaps it by 10 / 21, and another class has no vote.
    ids, scores, boxes = suppress(*VOTES, VOTERS, Suppression(thresh=0.4, vote=True))
    np.testing.assert_array_equal(scores, [0.6, 0.5, 0.1])
    np.testing.assert_allclose(boxes, WHERE)
    alone = suppress(np.array([0, 1, 1, 1, 0, 0]), VOTES[1], VOTERS, Suppression(thresh=0.4, vote=True))
    np.testing.assert_array_equal(alone[2][alone[0] == 0], VOTERS[[0, 4, 5]])
    none = suppress(*(part[:0] for part in (*VOTES, VOTERS)), Suppression(vote=True))
    assert none[2].shape == (0, 4)
