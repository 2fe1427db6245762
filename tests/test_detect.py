"""One path from network to detections: any number of devices, uneven batches, boxes in the image's own pixels."""
import numpy as np

from yolo3.mxnet_setup import mx
from yolo3 import detect, network
from yolo3.data.gluon import VOCDetection
from yolo3.data.loader import val_loader


class Recorder:
    """A metric that keeps what it is given."""

    def reset(self):
        self.found = {}

    def update(self, index, ids, scores, boxes):
        self.found[index] = (ids, scores, boxes)

    def get(self):
        return self.found


def detector(device_count):
    mx.random.seed(1)
    net = network.build('mobilenet0_25', ['red', 'blue'])
    devices = [mx.cpu(number) for number in range(device_count)]
    net.collect_params().reset_ctx(devices)
    return net, devices


def test_devices_and_batches_do_not_matter(squares):
    images = VOCDetection(str(squares), ['2007_test'], ['red', 'blue'])
    results = []
    for count, batch_size in (1, 5), (2, 4), (4, 5), (4, 2):  # batches of 1 image for 2 and for 4 devices
        net, devices = detector(count)
        results.append(detect.evaluate(net, val_loader(images, 96, batch_size, 0), Recorder(), 96, devices))
    for result in results:
        assert sorted(result) == list(range(5)) and len(result[0][0]) == 100
        for index in range(5):
            for mine, other in zip(result[index], results[0][index]):
                np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-3)


def test_detect_is_what_evaluation_sees(squares):
    images = VOCDetection(str(squares), ['2007_test'], ['red', 'blue'])
    net, devices = detector(1)
    evaluated = detect.evaluate(net, val_loader(images, 96, 3, 0), Recorder(), 96, devices)
    pictures = [images[index][0] for index in range(5)]
    for index, found in enumerate(detect.detect(net, pictures, 96, devices)):
        for mine, other in zip(found, evaluated[index]):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-3)


class Centre(mx.gluon.Block):
    """A network that finds one object in the middle quarter of its input, and padding."""

    def forward(self, x):
        size = x.shape[2]
        boxes = mx.nd.array([[size / 4, size / 4, 3 * size / 4, 3 * size / 4], [-1, -1, -1, -1]])
        return [part.expand_dims(0).repeat(len(x), axis=0) for part in
                (mx.nd.array([[3], [-1]]), mx.nd.array([[0.5], [-1]]), boxes)]


def test_boxes_are_in_the_images_own_pixels():
    images = [np.zeros((100, 200, 3), 'uint8'), np.zeros((480, 640, 3), 'uint8')]
    (ids, scores, wide), (_, _, large) = detect.detect(Centre(), images, 64, [mx.cpu()])
    assert ids.tolist() == [3] and scores.tolist() == [0.5]
    np.testing.assert_allclose(wide, [[50, 25, 150, 75]])
    np.testing.assert_allclose(large, [[160, 120, 480, 360]])


def found_with(floor, **settings):
    net, devices = detector(1)
    net.set_nms(**dict({'nms_thresh': 0.45, 'nms_topk': 400}, **settings))
    image = mx.random.uniform(-2, 2, (2, 3, 96, 96), ctx=devices[0])
    ready = detect.prepare(net, floor) if not settings else net
    return [[part.asnumpy() for part in ready(image)] for _ in range(2)][0]


def test_score_floor_just_beside_gluoncvs_gives_what_its_network_gives():
    # One runs the NMS within the network, the other around it.
    for mine, theirs in zip(found_with(0.01 + 1e-9), found_with(detect.SCORE_FLOOR)):
        np.testing.assert_array_equal(mine, theirs)
    assert (found_with(0.01)[0] >= 0).sum() == 200


def test_score_floor_is_that_of_box_nms():
    ids, scores, boxes = found_with(0.01, nms_thresh=-1)  # raw: all boxes, no NMS
    raw = mx.nd.array(np.concatenate([ids, scores, boxes], axis=2))
    for floor in 0, 0.2, float(np.median(scores)), 0.9999:
        expected = mx.nd.contrib.box_nms(raw, overlap_thresh=0.45, valid_thresh=floor, topk=400, id_index=0,
                                         score_index=1, coord_start=2)[:, :100].asnumpy()
        got = np.concatenate(found_with(floor), axis=2)
        np.testing.assert_array_equal(got, expected)
        assert (got[got[:, :, 0] >= 0][:, 1] > floor).all()
