"""VOC's AP without MXNet: equal to GluonCV's on random detections. (By hand: test_metrics.py.)"""
import numpy as np
import pytest

from yolo3 import voc_ap
from yolo3.mxnet_setup import gluoncv  # noqa: F401
from gluoncv.utils.metrics import voc_detection

NAMES = ['a', 'b', 'c', 'd']


@pytest.mark.parametrize('name', ['VOCMApMetric', 'VOC07MApMetric'])
@pytest.mark.parametrize('seed', range(8))
def test_equals_gluoncv(name, seed):
    generator = np.random.RandomState(seed)
    ours, theirs = getattr(voc_ap, name)(0.5, NAMES), getattr(voc_detection, name)(0.5, NAMES)
    for metric in ours, theirs:
        metric.reset()
    for _ in range(12):
        count, found = generator.randint(0, 6), generator.randint(0, 15)
        corner = generator.randint(0, 80, (count, 2)).astype(float)
        truth = np.hstack((corner, corner + generator.randint(8, 40, (count, 2))))
        true_ids = generator.randint(0, seed % 4 + 1, count)  # some classes have no object at all
        which = generator.randint(0, max(1, count), found)
        boxes = (truth[which] if count else 30) + generator.randint(-6, 7, (found, 4))
        ids = np.where(generator.rand(found) < 0.7, true_ids[which] if count else 0, generator.randint(0, 4, found))
        sample = [part[None] for part in (boxes.astype(float), ids, generator.rand(found), truth, true_ids,
                                          generator.rand(count) < 0.2)]
        for metric in ours, theirs:
            metric.update(*sample)
    names, values = ours.get()
    assert names == theirs.get()[0]
    np.testing.assert_allclose(values, theirs.get()[1], atol=1e-12)
    assert 0 < values[-1] < 1
