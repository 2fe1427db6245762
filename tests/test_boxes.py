"""Resizing and its way back, against GluonCV's and by hand; IoU against GluonCV's."""
import numpy as np

from yolo3.boxes import iou, resize, to_original
from yolo3.mxnet_setup import mx
from gluoncv.data.transforms.image import imresize
from gluoncv.utils.bbox import bbox_iou


def test_resize_equals_gluoncv():
    for shape in (60, 90), (300, 200), (60, 200):
        image = np.random.RandomState(0).randint(0, 256, shape + (3,)).astype('uint8')
        expected = imresize(mx.nd.array(image, dtype='uint8'), 128, 128, interp=9).asnumpy().astype(int)
        # MXNet brings an OpenCV of its own: a level of 255 apart here and there.
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
    assert iou(first[:0], second).shape == (0, 20)
