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
from yolo3.loss import DetectionLoss, set_loss

SIZE = 96


@pytest.fixture(scope='module')
def batches(data):
    """Two real batches with mixup, some of whose images have no object, and their classes."""
    images = open_train('coco', data + '/coco-mini')
    loader = train_loader(images, TrainSampler(len(images), 6, [SIZE], seed=1, samples_per_epoch=12))
    loader._sampler.set_epoch(0, mixup=True)
    batches = list(loader)
    batches[0].boxes[0], batches[0].targets[0] = -1, mx.nd.array([0] * 7 + [-1])
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
        ours = DetectionLoss(80, label_smooth)
        ours.hybridize(hybrid)
        results = [losses_and_gradients(loss, arrays) for loss in (
            lambda *raw: ours(*raw, batch.boxes, batch.targets), stock(batch, 80, label_smooth))]
        for mine, other in zip(*[losses for losses, _ in results]):
            assert mine.shape == (6,)
            np.testing.assert_allclose(mine, other, rtol=1e-6)
        for mine, other in zip(*[gradients[:4] for _, gradients in results]):
            assert other.any() and relative(mine, other) < 1e-6
        assert not results[0][1][4].any()


def test_some_predictions_are_ignored(batches):
    batch = batches[0][1]
    arrays = outputs(batch, 80)
    (objectness, *_), _ = losses_and_gradients(lambda *raw: DetectionLoss(80)(*raw, batch.boxes, batch.targets), arrays)
    arrays[4][:] = -100
    (more, *_), _ = losses_and_gradients(lambda *raw: DetectionLoss(80)(*raw, batch.boxes, batch.targets), arrays)
    assert (more > objectness + 1).any()


@pytest.mark.parametrize('repeats', [1, 4])
def test_a_row_that_pads_counts_once(batches, repeats):
    batch = batches[0][0]
    arrays = outputs(batch, 80)
    padded = mx.nd.array(np.pad(batch.targets.asnumpy(), ((0, 0), (0, repeats), (0, 0)), 'edge'))
    results = [losses_and_gradients(lambda *raw: DetectionLoss(80)(*raw, batch.boxes, rows), arrays)
               for rows in (batch.targets, padded)]
    for mine, other in zip(*[losses + gradients[:4] for losses, gradients in results]):
        assert relative(mine, other) < 1e-6


def test_half_precision_outputs_are_summed_in_single(batches):
    batch = batches[0][0]
    arrays = [array.astype('float16') for array in outputs(batch, 80)]
    losses, gradients = losses_and_gradients(lambda *raw: DetectionLoss(80)(*raw, batch.boxes, batch.targets), arrays)
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
    apart, moved = [np.sqrt(sum(((theirs[name] - other[name]) ** 2).sum() for name in theirs))
                    for other in (ours, before)]
    print('moved %.1e, apart %.1e' % (moved, apart))
    assert apart < 1e-5 * moved and moved > 0.01
