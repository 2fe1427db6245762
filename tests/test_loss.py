"""The losses, their gradients and what is learned from them equal GluonCV's."""
import numpy as np
import pytest

from steps import freeze, sgd, weights_of
from yolo3.mxnet_setup import gluoncv, mx
from benchmarks.stock_pipeline import dense_targets
from yolo3 import network
from yolo3.data.augment import normalize
from yolo3.data.datasets import open_train
from yolo3.data.loader import train_loader
from yolo3.data.sampler import TrainSampler
from yolo3.data.targets import BACKGROUND, COLUMNS
from yolo3.loss import CIOU_WEIGHT, DetectionLoss, ciou, set_loss

SIZE = 96


@pytest.fixture(scope='module')
def batches(data):
    """Two real batches with mixup, some of whose images have no object, and their classes."""
    images = open_train('coco', data + '/coco-mini')
    loader = train_loader(images, TrainSampler(len(images), 6, [SIZE], seed=1, samples_per_epoch=12))
    loader._sampler.set_epoch(0, mixup=True)
    batches = list(loader)
    batches[0].boxes[0], batches[0].targets[0] = -1, mx.nd.array(BACKGROUND)
    return batches, images.classes


def outputs(batch, num_class, seed=0):
    """What a network gives the loss, at random: raw objectness, centres, scales, classes, and boxes near real ones."""
    generator = np.random.RandomState(seed)
    count = sum((SIZE // stride) ** 2 * 3 for stride in (8, 16, 32))
    raw = [generator.normal(0, 3, (len(batch.boxes), count, width)) for width in (1, 2, 2, num_class)]
    boxes = batch.boxes.asnumpy()
    near = boxes[:, generator.randint(boxes.shape[1], size=count)] + generator.normal(0, 2, (len(boxes), count, 4))
    return [mx.nd.array(array) for array in (*raw, near)]


def stock(batch, num_class, label_smooth):
    """GluonCV's losses of a batch, as a function of what a network gives."""
    merger = gluoncv.model_zoo.yolo.yolo_target.YOLOV3TargetMerger(num_class, 0.7)
    merger._label_smooth = label_smooth
    targets = [mx.nd.array(array) for array in dense_targets(batch.targets.asnumpy(), SIZE, num_class)]
    return lambda *raw: gluoncv.loss.YOLOV3Loss()(*raw[:4], *merger(raw[4], batch.boxes, *targets))


def ours(batch, loss):
    """The losses of a batch by the DetectionLoss `loss`, as a function of what GluonCV's network gives."""
    return lambda objectness, centers, scales, classes, found: loss(
        mx.nd.concat(centers, scales, objectness, classes, dim=2), found, batch.boxes, batch.targets)


def losses_and_gradients(loss, arrays):
    for array in arrays:
        array.attach_grad()
    with mx.autograd.record():
        losses = loss(*arrays)
        # Each by a factor of its own, so that no two gradients can stand in for each other.
        mx.autograd.backward([sum((k + 1) * each for k, each in enumerate(losses))])
    return [loss.asnumpy() for loss in losses], [array.grad.asnumpy() for array in arrays]


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize('label_smooth', [False, True])
@pytest.mark.parametrize('hybrid', [False, True])
def test_losses_and_gradients_equal_gluoncvs(batches, label_smooth, hybrid):
    for seed, batch in enumerate(batches[0]):
        arrays = outputs(batch, 80, seed)
        loss = DetectionLoss(80, label_smooth)
        loss.hybridize(hybrid)
        results = [losses_and_gradients(loss, arrays) for loss in (
            ours(batch, loss), stock(batch, 80, label_smooth))]
        for mine, other in zip(*[losses for losses, _ in results]):
            assert mine.shape == (6,)
            np.testing.assert_allclose(mine, other, rtol=1e-6)
        for mine, other in zip(*[gradients[:4] for _, gradients in results]):
            assert other.any() and relative(mine, other) < 1e-6
        assert not results[0][1][4].any()


def test_some_predictions_are_ignored(batches):
    batch = batches[0][1]
    arrays = outputs(batch, 80)
    (objectness, *_), _ = losses_and_gradients(ours(batch, DetectionLoss(80)), arrays)
    arrays[4][:] = -100
    (more, *_), _ = losses_and_gradients(ours(batch, DetectionLoss(80)), arrays)
    assert (more > objectness + 1).any()


@pytest.mark.parametrize('repeats', [1, 4])
def test_a_row_that_pads_counts_once(batches, repeats):
    batch = batches[0][0]
    arrays = outputs(batch, 80)
    padded = mx.nd.array(np.pad(batch.targets.asnumpy(), ((0, 0), (0, repeats), (0, 0)), 'edge'))
    results = [losses_and_gradients(ours(batch._replace(targets=rows), DetectionLoss(80)), arrays)
               for rows in (batch.targets, padded)]
    for mine, other in zip(*[losses + gradients[:4] for losses, gradients in results]):
        assert relative(mine, other) < 1e-6


def test_half_precision_outputs_are_summed_in_single(batches):
    batch = batches[0][0]
    arrays = [array.astype('float16') for array in outputs(batch, 80)]
    losses, gradients = losses_and_gradients(ours(batch, DetectionLoss(80)), arrays)
    expected, _ = losses_and_gradients(stock(batch, 80, False), [array.astype('float32') for array in arrays])
    for mine, other in zip(losses, expected):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    assert all(gradient.dtype == np.float16 for gradient in gradients)


@pytest.fixture(scope='module')
def learned(batches):
    """learned(ours) -> the weights after a step on each batch, by our loss or GluonCV's, with label smoothing."""
    batches, classes = batches

    def train(ours):
        mx.random.seed(1)
        net = network.build('mobilenet0_25', classes)
        freeze(net)
        names = list(net._collect_params_with_prefix())
        net._target_generator._label_smooth = True
        if ours:
            set_loss(net, DetectionLoss(len(classes), label_smooth=True))
        assert list(net._collect_params_with_prefix()) == names
        net.hybridize()
        before, trainer = weights_of(net), sgd(net)
        for batch in batches:
            targets = [batch.targets] if ours else map(mx.nd.array, dense_targets(batch.targets.asnumpy(), SIZE, 80))
            with mx.autograd.record():
                total = sum(net(normalize(batch.images), batch.boxes, *targets))
            total.backward()
            trainer.step(len(batch.images))
        return before, weights_of(net)
    return train


def test_two_steps_teach_what_gluoncvs_loss_teaches(learned):
    (before, theirs), (_, ours) = learned(False), learned(True)
    apart, moved = [np.concatenate([np.abs(theirs[name] - other[name]).ravel() for name in theirs])
                    for other in (ours, before)]
    # By rounding a ReLU of 0 may fall either way.
    assert np.linalg.norm(np.sort(apart)[:-1]) < 1e-5 * np.linalg.norm(moved) and np.linalg.norm(moved) > 0.01


class Given(DetectionLoss):
    """Returns what it is given."""

    def hybrid_forward(self, F, *arrays):
        return list(arrays)


@pytest.mark.parametrize('hybrid', [False, True])
def test_the_loss_gets_what_gluoncvs_network_predicts(batches, hybrid):
    net = network.build('mobilenet0_25', batches[1])
    images = normalize(batches[0][0].images)
    with mx.autograd.train_mode():
        boxes, *_, centers, scales, objectness, classes = net(images)
    set_loss(net, Given(len(batches[1])))
    net.hybridize(hybrid)
    with mx.autograd.record():
        found = net(images, images)
    assert len(found) == 3
    for mine, other in zip(found, (mx.nd.concat(centers, scales, objectness, classes, dim=2), boxes)):
        np.testing.assert_allclose(mine.asnumpy(), other.asnumpy(), rtol=1e-5, atol=1e-5)


def ciou_of(found, box, weight=None):
    """The two terms of `ciou`, in NumPy, for one box (Zheng et al. 2020), and the weight of the shape's."""
    found, box = np.asarray(found, 'float64'), np.asarray(box, 'float64')
    sides, true_sides = found[2:] - found[:2], box[2:] - box[:2]
    shared = np.maximum(np.minimum(found[2:], box[2:]) - np.maximum(found[:2], box[:2]), 0).prod()
    iou = shared / (sides.prod() + true_sides.prod() - shared)
    around = np.maximum(found[2:], box[2:]) - np.minimum(found[:2], box[:2])
    between = (found[2:] + found[:2] - box[2:] - box[:2]) / 2
    v = 4 / np.pi ** 2 * (np.arctan(np.divide(*true_sides)) - np.arctan(np.divide(*sides))) ** 2
    weight = v / (1 - iou + v) if weight is None else weight
    return (between ** 2).sum() / (around ** 2).sum(), 1 - iou + weight * v, weight


PAIRS = [([0, 0, 2, 2], [1, 1, 3, 3]), ([0, 0, 4, 2], [0, 0, 2, 4]), ([10, 20, 50, 90], [12, 25, 41, 99]),
         ([-5, 3, 6, 20], [100, 200, 130, 205])]


def test_ciou_of_hand_computed_boxes():
    found, boxes = [mx.nd.array(arrays)[None] for arrays in zip(*PAIRS)]
    found.attach_grad()
    with mx.autograd.record():
        distance, rest = ciou(mx.nd, found, boxes)
        (distance + 2 * rest).sum().backward()
    # (4, 2) and (2, 4) in a corner: IoU 4 / 12, centres sqrt(2) apart, the diagonal around them sqrt(32).
    v = 4 / np.pi ** 2 * (np.arctan(2) - np.arctan(0.5)) ** 2
    np.testing.assert_allclose(distance.asnumpy()[0, :2, 0], [2 / 18, 2 / 32], rtol=1e-5)
    np.testing.assert_allclose(rest.asnumpy()[0, :2, 0], [6 / 7, 2 / 3 + v ** 2 / (2 / 3 + v)], rtol=1e-5)
    for index, (mine, box) in enumerate(PAIRS):
        *terms, weight = ciou_of(mine, box)
        np.testing.assert_allclose([term[0, index].asscalar() for term in (distance, rest)], terms,
                                   rtol=1e-5)
        for place in range(4) if index != 1 else ():  # not where two edges are one: the gradient jumps there
            # The weight of the shape is taken as constant.
            step = 1e-5 * np.eye(4)[place]
            (a, b, _), (c, d, _) = [ciou_of(mine + sign * step, box, weight) for sign in (1, -1)]
            assert found.grad[0, index, place].asscalar() == pytest.approx((a - c + 2 * (b - d)) / 2e-5, rel=1e-3,
                                                                           abs=1e-6)


def test_ciou_replaces_the_losses_of_boxes(batches):
    batch = batches[0][0]
    arrays = outputs(batch, 80)
    (obj, center, scale, class_), gradients = losses_and_gradients(
        ours(batch, DetectionLoss(80, box_loss='ciou')), arrays)
    plain, _ = losses_and_gradients(stock(batch, 80, False), arrays)
    np.testing.assert_allclose([obj, class_], [plain[0], plain[3]], rtol=1e-6)
    expected = np.zeros((2, 6))
    for image, rows in enumerate(batch.targets.asnumpy()):
        for number in np.unique(rows[rows[:, 7] >= 0, 0]):
            row = rows[rows[:, 0] == number][0]
            number, _, _, weight, ratio, _, box = [row[begin:end] for begin, end in COLUMNS]
            terms = ciou_of(arrays[4][image, int(number[0])].asnumpy(), box)[:2]
            expected[:, image] += CIOU_WEIGHT * weight * ratio * terms
    np.testing.assert_allclose([center, scale], expected, rtol=1e-4)
    assert not gradients[1].any() and not gradients[2].any() and gradients[4].any()


@pytest.mark.parametrize('found', [[5, 5, 5, 5], [5, 5, 5, 9], [3, 3, 3, 3], [-1e11, -1e11, 1e11, 1e11],
                                   [-1e11, 5, 1e11, 5], [5, -1e11, 5, 1e11]])
@pytest.mark.parametrize('box', [[5, 5, 5, 5], [5, 5, 9, 5], [5, 5, 5, 9], [0, 0, 9, 9]])
def test_ciou_of_boxes_without_area_or_of_any_size_is_finite(found, box):
    found, box = mx.nd.array([[found]]), mx.nd.array([[box]])
    found.attach_grad()
    with mx.autograd.record():
        loss = sum(ciou(mx.nd, found, box))
    loss.backward()
    assert 0 <= loss.asscalar() < 4 and np.isfinite(found.grad.asnumpy()).all()
