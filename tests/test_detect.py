"""One path from network to detections: any number of devices, uneven batches, boxes in the image's own pixels."""
import numpy as np
import pytest

from yolo3.mxnet_setup import mx
from yolo3 import detect, network
from yolo3.defaults import NMS, Suppression
from yolo3.data.datasets import open_val
from yolo3.data.loader import val_loader
from test_boxes import VOTERS, VOTES, WHERE


class Recorder:
    """A metric that keeps what it is given."""

    def reset(self):
        self.found = {}

    def update(self, index, ids, scores, boxes):
        self.found[index] = (ids, scores, boxes)

    def get(self):
        return self.found


@pytest.fixture(scope='module')
def net():
    """A network that learned nothing."""
    mx.random.seed(1)
    return network.build('mobilenet0_25', ['red', 'blue'])


@pytest.fixture
def images(squares):
    return open_val('voc', str(squares), ['red', 'blue'], ['2007_test'])


def test_devices_and_batches_do_not_matter(net, images):
    results = []
    for count, batch_size in (1, 5), (2, 4), (4, 5), (4, 2):  # batches of 1 image for 2 and for 4 devices
        devices = [mx.cpu(number) for number in range(count)]
        net.collect_params().reset_ctx(devices)
        results.append(detect.evaluate(net, val_loader(images, 96, batch_size), Recorder(), 96, devices))
    for result in results:
        assert sorted(result) == list(range(5)) and len(result[0][0]) == 100
        for index in range(5):
            for mine, other in zip(result[index], results[0][index]):
                np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-3)
    net.collect_params().reset_ctx([mx.cpu()])


def test_detect_is_what_evaluation_sees(net, images):
    evaluated = detect.evaluate(net, val_loader(images, 96, 3), Recorder(), 96, [mx.cpu()])
    detector = detect.MXNetDetector(net, {}, [mx.cpu()])
    batches, = detector.loaders(images, [96], 2, 1)
    again = detector.evaluate(batches, Recorder(), 96)
    detected = detector.detect([images.image_file(index).pixels() for index in range(5)], 96)
    assert sorted(evaluated) == sorted(again) == list(range(5))
    for index, found in enumerate(detected):
        for mine, others in zip(found, zip(evaluated[index], again[index])):
            for other in others:
                np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-3)


def test_packed_detections_come_back():
    generator = np.random.RandomState(0)
    for counts in [3, 0, 2], [0], []:
        found = [(7 - place, generator.randint(0, 9, count), generator.rand(count).astype('float32'),
                  generator.rand(count, 4).astype('float32')) for place, count in enumerate(counts)]
        back = detect.unpack(detect.pack(found))
        assert [index for index, *_ in back] == [index for index, *_ in found]
        for mine, theirs in zip(back, found):
            for one, other in zip(mine[1:], theirs[1:]):
                np.testing.assert_array_equal(one, other)


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


def outputs(network, size=96):
    """ids, scores and boxes of two random images."""
    mx.random.seed(2)
    return [part.asnumpy() for part in network(mx.random.uniform(-2, 2, (2, 3, size, size)))]


def test_settings_next_to_gluoncvs_give_what_its_network_gives(net):
    # One runs the NMS inside the network, the other around it.
    inside = outputs(detect.prepare(net))
    for mine, theirs in zip(outputs(detect.prepare(net, Suppression(score_floor=NMS.score_floor + 1e-9))), inside):
        np.testing.assert_array_equal(mine, theirs)
    assert (inside[0] >= 0).sum() == 200


@pytest.mark.parametrize('settings', [
    *[Suppression(score_floor=floor) for floor in (0, 0.2, 0.5, 0.9999)],
    *[Suppression(thresh=thresh) for thresh in (0, 0.2, 0.9, 1)],
    Suppression(kept=1), Suppression(kept=200, topk=800), Suppression(kept=10000, topk=40000)], ids=str)
def test_nms_is_box_nms_with_the_settings(net, settings):
    net.set_nms(nms_thresh=-1)  # raw: all boxes, no NMS
    raw = mx.nd.array(np.concatenate(outputs(net), axis=2))
    expected = mx.nd.contrib.box_nms(raw, overlap_thresh=settings.thresh, valid_thresh=settings.score_floor,
                                     topk=settings.topk, id_index=0, score_index=1,
                                     coord_start=2)[:, :settings.kept].asnumpy()
    got = np.concatenate(outputs(detect.prepare(net, settings)), axis=2)
    np.testing.assert_array_equal(got, expected)


class Fixed(mx.gluon.HybridBlock):
    """A detector that finds the same in each image, whatever it is: (ids, scores, boxes), arrays of rows."""

    def __init__(self, *found):
        super().__init__()
        self._found = [np.reshape(part, (1, len(part), -1)) for part in found]

    def set_nms(self, **settings):
        assert settings == {'nms_thresh': -1}

    def hybrid_forward(self, F, x):
        return [F.array(np.repeat(part, len(x), axis=0)) for part in self._found]


def test_boxes_move_to_where_those_around_them_vote():
    net = detect.OuterNMS(Fixed(*VOTES, VOTERS), Suppression(thresh=0.4, vote=True))
    images = mx.nd.zeros((2, 3, 32, 32))
    for ids, scores, boxes in zip(*[part.asnumpy() for part in net(images)]):
        real = ids[:, 0] >= 0
        np.testing.assert_allclose(scores[real, 0], [0.6, 0.5, 0.1], rtol=1e-6)
        np.testing.assert_allclose(boxes[real], WHERE, rtol=1e-5)
