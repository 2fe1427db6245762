"""Boxes of segmentations: pycocotools' own for RLE, COCO's rule for polygons, and what is refused."""
import numpy as np
import pytest
from pycocotools import mask

from yolo3.data.labelled import UNCERTAIN
from yolo3.data.segmentation import box_of


def runs(pixels):
    """The uncompressed RLE of a mask: down the columns, beginning with the pixels not set."""
    flat, counts, value = pixels.flatten(order='F').tolist(), [0], 0
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {'counts': counts, 'size': list(pixels.shape)}


@pytest.mark.parametrize('seed', range(30))
def test_the_box_of_an_rle_is_that_of_pycocotools(seed):
    random = np.random.RandomState(seed)
    pixels = np.zeros(random.randint(1, 60, 2), 'uint8')
    for _ in range(random.randint(1, 4)):
        y, x = [random.randint(side) for side in pixels.shape]
        pixels[y:y + random.randint(1, 40), x:x + random.randint(1, 40)] = 1
    compressed = mask.encode(np.asfortranarray(pixels))
    text = dict(compressed, counts=compressed['counts'].decode())
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    assert box_of(runs(pixels)) == box_of(text) == mask.toBbox(compressed).tolist() == [
        columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]


def test_the_box_of_polygons_spans_all_of_them():
    assert box_of([[10, 20, 40, 20, 25, 60.5], [5.5, 30, 6, 31, 7, 32]]) == [5.5, 20, 34.5, 40.5]


@pytest.mark.parametrize('segmentation', [
    [], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [['a'] * 6], [[True] * 6], [[float('nan')] * 6], [3], 'abc', 7,
    [[[1]] * 6], {}, {'counts': [4], 'size': [2, 2]}, {'counts': [1, 2], 'size': [2, 2]},
    {'counts': '', 'size': [2, 2]}, {'counts': [5, -1], 'size': [2, 2]}, {'counts': 'z' * 20, 'size': [9, 9]},
    {'counts': '\x01', 'size': [1, 1]},
    {'counts': [0, 4], 'size': 4}, {'counts': [0, 4], 'size': [4]}, {'counts': [0, 0], 'size': [0, 0]},
    {'counts': None, 'size': [2, 2]}, {'counts': [0, 10 ** 30], 'size': [10 ** 15, 10 ** 15]}], ids=str)
def test_a_segmentation_without_a_box_is_refused(segmentation):
    with pytest.raises(UNCERTAIN):
        box_of(segmentation)
