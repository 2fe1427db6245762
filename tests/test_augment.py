"""Samples equal GluonCV's, also for images without boxes; boxes find back to the original image."""
import random

import numpy as np

from yolo3.runtime import mx
from gluoncv.data.transforms.experimental import image as colours
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultValTransform

from yolo3.augment import augment, resize, squeeze, to_original


def image(height=60, width=90):
    return mx.nd.array(np.random.RandomState(1).randint(0, 256, (height, width, 3)), dtype='uint8')


def test_validation_equals_gluoncv():
    for shape in ((60, 90), (300, 200)):
        expected, _ = YOLO3DefaultValTransform(128, 128)(image(*shape), np.array([[0., 0, 5, 5, 0]]))
        assert (resize(image(*shape).asnumpy(), 128) == expected).asnumpy().all()


def test_without_augmentation_only_the_size_changes():
    label = np.array([[9., 6, 45, 30, 1, 0, 1]])
    picture, boxes = squeeze(image(60, 90), label, 64)
    assert (picture == resize(image(60, 90), 64)).asnumpy().all()
    np.testing.assert_allclose(boxes, [[9 * 64 / 90, 6 * 64 / 60, 32, 32, 1, 0, 1]], rtol=1e-6)


def test_training_sample_of_an_image_without_boxes():
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)
        picture, label = augment(image(), np.zeros((0, 7)), 64)
        assert picture.shape == (3, 64, 64) and label.shape == (0, 7)


def test_boxes_follow_the_object(monkeypatch):
    # A white rectangle on black must be found inside its box after every transform, colours left alone.
    monkeypatch.setattr(colours, 'random_color_distort', lambda image: image.astype('float32'))
    for seed in range(40):
        random.seed(seed)
        np.random.seed(seed)
        source = np.zeros((120, 160, 3), 'uint8')
        source[30:80, 40:110] = 255
        picture, label = augment(mx.nd.array(source, dtype='uint8'), np.array([[40., 30, 110, 80, 2, 0, 1]]), 160)
        (xmin, ymin, xmax, ymax), rest = label[0, :4], label[0, 4:]
        assert rest.tolist() == [2, 0, 1]
        bright = picture.asnumpy()[0] > 0.9
        inside = bright[int(ymin) + 2:int(ymax) - 2, int(xmin) + 2:int(xmax) - 2]
        assert inside.size == 0 or inside.mean() > 0.95
        assert bright.sum() <= 1.1 * (xmax - xmin + 3) * (ymax - ymin + 3)


def test_to_original_scales_and_clips():
    boxes = np.array([[0., 0, 208, 416], [-20, 100, 500, 200]])
    expected = [[0, 0, 320, 480], [0, 480 * 100 / 416, 640, 480 * 200 / 416]]
    np.testing.assert_allclose(to_original(boxes, 416, 640, 480), expected)
