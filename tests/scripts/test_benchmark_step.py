"""benchmark.py step: PyTorch trains the same network on the same losses."""
import argparse

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from yolo3.loss import DetectionLoss, set_loss
from yolo3.mxnet_setup import mx
from yolo3.data.augment import normalize
from yolo3.network import build
from yolo3.zoo import CLASSES

from benchmarks import step, torch_network

ARGS = argparse.Namespace(data_shape=96, batch_size=3)


def pairs(net, other):
    """The parameters of our network and of PyTorch's, which stand for each other."""
    found = [[block, mate] for block, mate in zip(net.stages, other.stages)]
    found += [[block.body, mate] for block, mate in zip(net.yolo_blocks, other.heads)]
    found += [[block.tip, mate] for block, mate in zip(net.yolo_blocks, other.tips)]
    found += [[block.prediction, mate] for block, mate in zip(net.yolo_outputs, other.outputs)]
    found += [[block, mate] for block, mate in zip(net.transitions, other.transitions)]
    for block, mate in found:
        ours = [p for p in block.collect_params().values() if p.grad_req != 'null']
        yield from zip(ours, mate.parameters())


def test_pytorch_computes_the_same_losses_and_gradients():
    net, other = build('mobilenet1_0', CLASSES['coco']), torch_network.Detector().train()
    set_loss(net, DetectionLoss(80))
    with torch.no_grad():
        for ours, theirs in pairs(net, other):
            theirs.copy_(torch.from_numpy(ours.data().asnumpy()))
    assert sum(1 for _ in pairs(net, other)) == len(list(other.parameters()))
    batch, (_, labels, _, rows) = step.some_batch(ARGS), zip(*step.noise(ARGS))
    with mx.autograd.record():
        losses = net(normalize(batch.images), batch.boxes, batch.targets)
        sum(losses).backward()
    expected = torch_network.losses(other(torch.from_numpy(normalize(batch.images).asnumpy())),
                                    torch.from_numpy(np.stack(labels)),
                                    torch.from_numpy(np.repeat(np.arange(3), [*map(len, rows)])),
                                    torch.from_numpy(np.concatenate(rows)))
    expected.sum().backward()
    np.testing.assert_allclose([loss.sum().asscalar() for loss in losses], expected.tolist(), rtol=1e-4)
    gradients = [np.concatenate(arrays) for arrays in zip(*[
        (ours.grad().asnumpy().ravel(), theirs.grad.numpy().ravel()) for ours, theirs in pairs(net, other)])]
    # Rounding grows on the way back through 46 batch norms.
    assert np.linalg.norm(gradients[0] - gradients[1]) < 0.05 * np.linalg.norm(gradients[1])
