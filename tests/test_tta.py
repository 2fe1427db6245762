"""Test-time augmentation: mirrored views fit the images as they are, merged into one box for each object."""
import json

import numpy as np

from yolo3 import tta
from yolo3.data.datasets import open_val
from yolo3.defaults import NMS
from yolo3.metrics import make_metric


class Oracle:
    """A detector that finds, as a class each, the red and the blue square of an image by their colours."""

    def loaders(self, images, sizes, batch_size, num_workers):
        return [[[images.image_file(index).pixels()[None], index] for index in range(len(images))] for _ in sizes]

    def evaluate(self, batches, metric, size):
        metric.reset()
        for (pixels,), index in batches:
            found = []
            for class_, channel in (0, 0), (1, 2):
                rows, columns = np.where(pixels[..., channel] > pixels[..., 1].astype(int) + 100)
                if len(rows):
                    found.append((class_, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            found = np.array(found, float).reshape(-1, 5)
            metric.update(index, found[:, 0].astype(int), np.full(len(found), size / 1000), found[:, 1:])
        return metric.get()


def test_all_views_find_the_same_boxes_in_the_images_pixels(squares):
    images = open_val('voc', str(squares), ['red', 'blue'], ['2007_test'])
    oracle, metric = Oracle(), make_metric('voc07', images)
    oracle.evaluate(oracle.loaders(images, [160], 1, 0)[0], metric, 160)
    plain = metric.detections
    merged = tta.Views(oracle, images, 160, 1, 0, NMS).merge(plain)
    assert [index for index, *_ in merged] == list(range(5)) and sum(len(found[1]) for found in plain) >= 4
    for (_, ids, _, boxes), (_, merged_ids, merged_scores, merged_boxes) in zip(plain, merged):
        # All six views agree, so NMS leaves one box each, with the score of the best view: the largest.
        order = merged_ids.argsort()
        np.testing.assert_array_equal(merged_ids[order], ids)
        np.testing.assert_array_equal(merged_scores, 0.192)
        np.testing.assert_allclose(merged_boxes[order], boxes)


def test_it_is_printed_beside_the_plain_numbers(run, params, squares, tmp_path):
    def values(*flags):
        result = run('eval_yolo3.py', '--params', params, '--dataset-root', squares, '--val-splits', '2007_test',
                     '--gpus', '', '-j', '1', '--json', tmp_path / 'numbers.json', *flags)
        assert result.returncode == 0, result.stderr
        return json.loads((tmp_path / 'numbers.json').read_text()), result.stdout
    plain, _ = values()
    augmented, printed = values('--tta')
    assert augmented['without_tta'] == plain['values'] != augmented['values']
    assert 'without --tta mAP was %.4f' % plain['values']['mAP'] in printed
    both, _ = values('--tta', '--metric', 'voc07,coco')
    assert both['values']['voc07'] == augmented['values']


def test_one_size_at_a_time(run, params, squares):
    result = run('eval_yolo3.py', '--params', params, '--dataset-root', squares, '--data-shape', '64,96', '--tta')
    assert result.returncode == 2 and '--tta' in result.stderr.splitlines()[-1]
