"""Targets equal GluonCV's generator, and hold where that one breaks."""
import numpy as np
import pytest

from yolo3.mxnet_setup import mx
from gluoncv.model_zoo.yolo.yolo_target import YOLOV3PrefetchTargetGenerator

from benchmarks.stock_pipeline import dense_targets
from yolo3.data.voc import VOCImages
from yolo3.data.anchors import ANCHORS
from yolo3.network import build
from yolo3.data.targets import BACKGROUND, sparse_targets


@pytest.fixture(scope='module')
def stock():
    """stock(boxes, ids, ratios, size) -> the five arrays of GluonCV's generator for three classes."""
    nets = {}

    def targets(boxes, ids, ratios, size, anchors=ANCHORS):
        if str(anchors) not in nets:
            nets[str(anchors)] = build('mobilenet0_25', ['a', 'b', 'c'], anchors=anchors)
        net = nets[str(anchors)]
        image = mx.nd.zeros((1, 3, size, size))
        with mx.autograd.train_mode():
            _, of_net, offsets, features, _, _, _, _ = net(image)
        arrays = [mx.nd.array(np.asarray(array, 'float32')[None]) for array in
                  (boxes, np.reshape(ids, (-1, 1)), np.reshape(ratios, (-1, 1)))]
        return [array.asnumpy()[0] for array in
                YOLOV3PrefetchTargetGenerator(3)(image, features, of_net, offsets, *arrays)]
    return targets


def make_targets(boxes, ids, ratios, size, anchors=ANCHORS):
    return [array[0] for array in dense_targets(sparse_targets(boxes, ids, ratios, size, anchors)[None], size, 3)]


def assert_equal(boxes, ids, ratios, size, stock, anchors=ANCHORS):
    ours, theirs = [make(boxes, ids, ratios, size, anchors) for make in (make_targets, stock)]
    for name, mine, other in zip(('objectness', 'centers', 'scales', 'weights', 'classes'), ours, theirs):
        assert mine.shape == other.shape and mine.dtype == other.dtype, name
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(ours[4], theirs[4])
    np.testing.assert_array_equal(ours[0] > 0, theirs[0] > 0)


def random_boxes(generator, count, size):
    corner = generator.uniform(0, size - 2, (count, 2))
    extent = np.minimum(generator.uniform(0, 1, (count, 2)) ** 3 * size + 0.5, size - corner - 0.01)
    return np.hstack((corner, corner + extent)).astype('float32')


@pytest.mark.parametrize('count,size', [(1, 64), (5, 320), (12, 416), (500, 320)])
def test_random_boxes_equal_gluoncv(stock, count, size):
    generator = np.random.RandomState(count)
    boxes = random_boxes(generator, count, size)
    assert_equal(boxes, generator.randint(0, 3, count), generator.uniform(0.01, 1, count), size, stock)


def test_other_anchors_equal_gluoncv(stock):
    generator = np.random.RandomState(0)
    anchors = [[5, 9, 14, 8, 20, 22], [28, 60, 40, 41, 77, 30], [60, 90, 130, 120, 250, 300]]
    assert_equal(random_boxes(generator, 40, 320), generator.randint(0, 3, 40), np.ones(40), 320, stock, anchors)


def test_real_boxes_equal_gluoncv(stock, data):
    images = VOCImages(data + '/bccd', ['2007_test'], ['rbc', 'wbc', 'platelets'])
    for index in range(0, len(images), 12):
        label = images.label(index) * [0.65, 416 / 480, 0.65, 416 / 480, 1, 1]
        assert_equal(label[:, :4], label[:, 4], np.ones(len(label)), 416, stock)


def test_later_object_wins_its_cell(stock):
    boxes = [[10, 10, 40, 44], [11, 11, 41, 43]]
    assert_equal(boxes, [0, 2], [0.3, 0.7], 64, stock)
    objectness, _, _, _, classes = make_targets(boxes, [0, 2], [0.3, 0.7], 64)
    index = objectness.argmax()
    assert (objectness > 0).sum() == 1 and objectness[index] == np.float32(0.7)
    assert classes[index].tolist() == [0, 0, 1]


def test_centre_on_the_edge_stays_in_the_last_cell():
    # GluonCV's generator indexes past the grid for these.
    for box, index in ([63.5, 63.5, 64.5, 64.5], 3 * (4 + 16 + 63)), ([64, 64, 64, 64], 3 * 3):
        objectness, centers, scales, weights, classes = make_targets([box], [1], [1], 64)
        assert np.flatnonzero(objectness).tolist() == [index] and centers[index].tolist() == [1, 1]
        assert np.isfinite(scales).all() and weights[index, 0] > 1.99


def test_no_objects_are_all_negative():
    objectness, centers, scales, weights, classes = make_targets(np.zeros((0, 4)), [], [], 96)
    assert len(objectness) == 3 * (9 + 36 + 144)
    assert not objectness.any() and not weights.any() and (classes == -1).all()


def test_an_object_teaches_all_anchors_like_it():
    size, box = 416, [100, 100, 160, 160]
    rows = sparse_targets([box], [2], [0.5], size, ANCHORS, multi_anchor=0.4)
    # The anchors of stride 16, in the cell (8, 8); the numbers of stride 32 come before.
    first = 3 * (13 ** 2 + 8 * 26 + 8)
    assert rows[:, 0].tolist() == [first, first + 1, first + 2] and (rows[:, 5:] == rows[0, 5:]).all()
    np.testing.assert_allclose(rows[:, 3:5], np.log(60 / np.reshape(ANCHORS[1], (3, 2))), rtol=1e-6)
    assert rows[0, 6:].tolist() == [0.5, 2, *box]
    np.testing.assert_array_equal(rows[1:2], sparse_targets([box], [2], [0.5], size, ANCHORS))


def test_an_objects_best_anchor_is_its_own():
    # Both have their centre in one cell, and each would have the other's best anchor as another of its own.
    boxes = [[100, 100, 162, 145], [101, 63, 160, 182]]
    for order in (0, 1), (1, 0):
        rows = sparse_targets([boxes[place] for place in order], order, [1, 1], 416, ANCHORS, multi_anchor=0.2)
        for place in 0, 1:
            row, = rows[(rows[:, 8:] == boxes[place]).all(axis=1) & (np.abs(rows[:, 3:5]).max(axis=1) < 1e-6)]
            assert row[7] == place


def test_sparse_targets_are_one_row_an_object():
    assert sparse_targets(np.zeros((0, 4)), [], [], 64, ANCHORS) is BACKGROUND
    rows = sparse_targets([[10, 10, 40, 44], [11, 11, 41, 43], [0, 0, 9, 9]], [0, 2, 1], [0.3, 0.7, 1], 64, ANCHORS)
    assert rows.dtype == np.float32 and rows.shape == (2, 12) and len(set(rows[:, 0])) == 2
