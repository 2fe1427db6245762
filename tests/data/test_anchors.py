"""Anchors fit the boxes they are made for better than COCO's do, reproducibly; each box goes to the anchor like it."""
import numpy as np
import pytest

from yolo3.data.anchors import ANCHORS, assign, choose_anchors, fit_anchors, mean_iou, shape_iou
from yolo3.cli import UserError


def test_iou_of_hand_computed_boxes():
    np.testing.assert_allclose(shape_iou([[10, 10], [20, 5]], [[10, 10], [5, 5], [10, 20]]),
                               [[1, 0.25, 0.5], [50 / 150, 0.25, 50 / 250]])
    assert mean_iou([[10, 10], [20, 5]], [[10, 10], [5, 5]]) == pytest.approx((1 + 1 / 3) / 2)


def test_clusters_are_found():
    generator = np.random.default_rng(1)
    centres = np.array([[10, 14], [25, 20], [30, 60], [64, 30], [70, 70], [100, 60], [90, 150], [200, 120], [300, 320]])
    extents = np.repeat(centres, 60, axis=0) * generator.uniform(0.95, 1.05, (540, 2))
    anchors = fit_anchors(extents)
    assert np.shape(anchors) == (3, 6) and anchors == fit_anchors(extents)
    found = np.array(anchors).reshape(-1, 2)
    assert (np.diff(found.prod(1)) > 0).all()
    assert shape_iou(centres, found).max(1).min() > 0.9


def test_better_than_cocos_on_other_boxes():
    extents = np.random.default_rng(2).lognormal(3, 0.4, (500, 2))
    assert mean_iou(extents, fit_anchors(extents)) > mean_iou(extents, ANCHORS) + 0.1


def test_boxes_go_to_the_anchor_of_their_shape():
    shapes = np.array([[10, 13], [33, 23], [62, 45], [116, 90], [373, 326], [1, 2]])
    corners = [[7, 9]] * len(shapes)
    strides, places, anchors, owners = assign(np.hstack((corners, corners + shapes)), ANCHORS)
    assert strides.tolist() == [8, 8, 16, 32, 32, 8] and places.tolist() == [0, 2, 1, 0, 2, 0]
    assert anchors.tolist() == shapes[:-1].tolist() + [[10, 13]] and owners.tolist() == list(range(len(shapes)))
    assert [len(part) for part in assign(np.zeros((0, 4)), ANCHORS)] == [0, 0, 0, 0]


def test_anchors_of_a_similar_shape_are_a_boxs_too():
    boxes = np.array([[0, 0, 59, 119], [0, 0, 10, 13], [0, 0, 60, 60]])
    strides, places, anchors, owners = assign(boxes, ANCHORS, 0.4)
    assert np.column_stack((owners, strides, places)).tolist() == [
        [0, 32, 0], [0, 16, 2], [1, 8, 0], [2, 16, 0], [2, 16, 1], [2, 16, 2],
        [0, 16, 2], [1, 8, 0], [2, 16, 1]]
    for multi_anchor in 0, 0.3, 0.6, 1:
        owners = assign(boxes, ANCHORS, multi_anchor)[3]
        assert len(owners) == 3 + (shape_iou(boxes[:, 2:], np.reshape(ANCHORS, (-1, 2))) > multi_anchor).sum()


def test_too_few_boxes_are_an_error():
    with pytest.raises(UserError, match='--anchors auto'):
        fit_anchors([[10, 20]] * 100)


@pytest.mark.parametrize('flag', ['1', ','.join(['x'] * 18), ','.join(['0'] * 18), ','.join(['8193'] * 18),
                                  ','.join(['9' * 5000] * 18), ','.join(['nan'] * 18), ','.join(['1'] * 19)])
def test_anchors_that_are_none_are_refused(flag):
    with pytest.raises(UserError, match='--anchors .*18 numbers from 1 to 8192') as caught:
        choose_anchors(flag, None, 416, ANCHORS)
    assert len(str(caught.value)) < 500


def test_anchors_may_be_given_as_fractions():
    assert choose_anchors(','.join(['1.5'] * 17 + ['2']), None, 416, ANCHORS) == [[1.5] * 6, [1.5] * 6, [1.5] * 5 + [2]]
