"""The boxes of COCO's segmentations: polygons and run-length encodings (RLE)."""
import numpy as np

from yolo3.data.labelled import MOST, numbers, whole_number


def box_of(segmentation):
    """[x, y, width, height] in pixels around a list of polygons or an RLE. Raises one of UNCERTAIN."""
    if isinstance(segmentation, dict):
        return _around_runs(segmentation['counts'], *map(whole_number, segmentation['size']))
    points = np.array(numbers(sum(map(_polygon, segmentation), []))).reshape(-1, 2)
    return [*points.min(axis=0).tolist(), *(points.max(axis=0) - points.min(axis=0)).tolist()]


def _polygon(coordinates):
    """The list x1, y1, x2, ... of a polygon."""
    if not isinstance(coordinates, list) or len(coordinates) < 6 or len(coordinates) % 2:
        raise ValueError('no polygon')
    return coordinates


def _around_runs(counts, height, width):
    """The box around the pixels that an RLE sets, which counts down the columns: pixels not set, set, not set, ..."""
    counts = _decoded(counts) if isinstance(counts, str) else list(map(whole_number, counts))
    if min(counts) < 0 or sum(counts) != height * width:
        raise ValueError('runs of another size')
    ends = np.cumsum(counts)
    starts, lasts = (ends - counts)[1::2], ends[1::2] - 1
    starts, lasts = starts[lasts >= starts], lasts[lasts >= starts]
    left, right = starts.min() // height, lasts.max() // height
    within = starts // height == lasts // height  # a run that goes on in the next column reaches top and bottom
    top = np.where(within, starts % height, 0).min()
    bottom = np.where(within, lasts % height, height - 1).max()
    return [float(value) for value in (left, top, right - left + 1, bottom - top + 1)]


def _decoded(text):
    """The counts in a compressed RLE: five bits a character, the lowest first. From the fourth on a count is the
    difference to the last but one (rleFrString of pycocotools)."""
    counts, value, shift = [], 0, 0
    for code in (ord(letter) - 48 for letter in text):
        if not 0 <= code < 64 or shift > 60:
            raise ValueError('no compressed runs')
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if abs(counts[-1]) > MOST:
            raise ValueError('no compressed runs')
        value, shift = 0, 0
    return counts
