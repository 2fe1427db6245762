"""Tiles: windows that cover every image, and each object found once, however large, wherever windows cut it."""
import cv2
import numpy as np
import pytest

from yolo3 import tiles
from yolo3.defaults import NMS
from yolo3.tiles import OVERLAP, Tiled

SIZE = 64
SMALLEST = 8  # pixels of an input that an object must have to be found


class Oracle:
    """A detector of white patches, also of their parts, that misses what is small in its input, as a network does."""

    info, streams = {'classes': ['patch']}, 1

    def __init__(self):
        self.seen = []

    def detect(self, images, size):
        self.seen += [image.shape[:2] for image in images]
        return [self._detect(image, size / np.array(image.shape[1::-1])) for image in images]

    def _detect(self, image, scale):
        parts = cv2.connectedComponentsWithStats(np.ascontiguousarray(image[..., 0]))[2][1:]
        boxes = np.array([[x, y, x + width, y + height] for x, y, width, height, _ in parts if
                          min(np.multiply((width, height), scale)) >= SMALLEST], float).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        return np.zeros(len(boxes), int), (sides.prod(axis=1) / 1e5).astype('float32'), boxes


def picture(width, height, boxes):
    image = np.zeros((height, width, 3), 'uint8')
    for xmin, ymin, xmax, ymax in boxes:
        image[ymin:ymax, xmin:xmax] = 255
    return image


@pytest.mark.parametrize('side', [1, 63, 64, 65, 112, 113, 200, 1000, 4001])
def test_windows_cover_a_side_and_overlap(side):
    starts = tiles.starts(side, SIZE)
    assert starts[0] == 0 and (side <= SIZE) == (len(starts) == 1)
    if side > SIZE:
        assert starts[-1] == side - SIZE
        assert 0 < np.diff(starts).max() <= SIZE * (1 - OVERLAP) + 1
        assert len(starts) - 2 < (side - SIZE) / (SIZE * (1 - OVERLAP))  # and no more of them than needed


def test_each_object_is_found_once_wherever_it_lies():
    # Objects of 12 pixels, less than windows overlap by, at every place against the windows' edges.
    whole = Oracle()
    for first in range(0, 24, 5):
        boxes = [(x, y, x + 12, y + 12) for x in range(first, 400 - 12, 27) for y in range(first // 2, 300 - 12, 31)]
        image = picture(400, 300, boxes)
        (ids, scores, found), = Tiled(Oracle(), NMS).detect([image], SIZE)
        assert sorted(map(tuple, found.tolist())) == sorted(boxes) and set(ids) == {0}
        assert (np.diff(scores) <= 0).all()
        assert not len(whole.detect([image], SIZE)[0][0])


def test_what_is_larger_than_a_window_is_found_once_too():
    boxes = [(20, 30, 320, 200), (350, 250, 362, 262)]
    (_, _, found), = Tiled(Oracle(), NMS).detect([picture(400, 300, boxes)], SIZE)
    assert found.tolist() == [list(box) for box in boxes]


def test_objects_at_the_images_own_edge_stay():
    boxes = [(0, 0, 12, 12), (388, 0, 400, 12), (0, 288, 12, 300), (388, 288, 400, 300)]
    (_, _, found), = Tiled(Oracle(), NMS).detect([picture(400, 300, boxes)], SIZE)
    assert sorted(map(tuple, found.tolist())) == sorted(boxes)


def test_a_picture_no_larger_than_a_window_is_looked_at_once():
    for shape in (SIZE, SIZE), (30, 50):
        oracle = Oracle()
        (_, _, found), = Tiled(oracle, NMS).detect([picture(*shape[::-1], [(5, 5, 25, 25)])], SIZE)
        assert oracle.seen == [shape] and found.tolist() == [[5, 5, 25, 25]]


def test_a_narrow_picture_and_one_without_objects():
    oracle = Oracle()
    narrow, empty = Tiled(oracle, NMS).detect([picture(300, 20, [(290, 4, 300, 16)]), picture(100, 100, [])], SIZE)
    assert narrow[2].tolist() == [[290, 4, 300, 16]] and empty[2].shape == (0, 4)
    assert oracle.seen[:2] == [(20, 300), (20, SIZE)]


def test_more_boxes_remain_than_gluoncvs_nms_keeps():
    boxes = [(x, y, x + 12, y + 12) for x in range(1, 600, 20) for y in range(1, 600, 20)]
    (ids, _, _), = Tiled(Oracle(), NMS).detect([picture(620, 620, boxes)], SIZE)
    assert len(ids) == len(boxes) == 900
