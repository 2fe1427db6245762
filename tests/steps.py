"""Some steps of training on the squares: on devices of one process, or as one rank of several.

python tests/steps.py ROOT OUT.npz BACKEND BATCH_SIZE STEPS frozen|normal|validate|momentum [SLOW_RANK]; BACKEND is a
--kv-store or horovod. Each rank writes OUT.npz with its number before the ending: the weights after the steps, or
what else it has.
"""
import argparse
import os
import sys
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from yolo3.mxnet_setup import mx  # noqa: E402
from mxnet.gluon.nn import BatchNorm  # noqa: E402

import train_yolo3_mobilenet as training  # noqa: E402
from yolo3 import checkpoint, detect, network  # noqa: E402
from yolo3.distributed import backends  # noqa: E402
from yolo3.data.datasets import VOCDetection  # noqa: E402
from yolo3.data.loader import Requests, train_loader, val_loader  # noqa: E402
from yolo3.metrics import make_metric  # noqa: E402
from yolo3.distributed.group import ONE_PROCESS  # noqa: E402
from yolo3.data.targets import DenseTargets  # noqa: E402


def sgd(net, accumulate=1, no_wd=False, backend=None):
    """The trainer of the recipe."""
    args = argparse.Namespace(no_wd=no_wd, lr=1e-3, momentum=0.9, wd=5e-4, amp=False, accumulate=accumulate)
    return training.build_trainer(args, net, backend or backends.OneProcess('device'))


def blocks(block):
    """`block` and all in it."""
    yield block
    for child in block._children.values():
        yield from blocks(child)


def weights_of(net):
    """{name: array} of the first device."""
    return {name: parameter.data(parameter.list_ctx()[0]).asnumpy()
            for name, parameter in net._collect_params_with_prefix().items()}


def steps(squares, device_count, batch_size, count=5, accumulate=1, ranks=ONE_PROCESS, frozen=True, slow=False):
    """The weights before and after some steps, batch norm frozen or not. slow: take a random time for each."""
    mx.random.seed(3 + ranks.rank)  # rank 0's are to be everybody's
    net = network.build('mobilenet0_25', ['red', 'blue'])
    if frozen:
        # Larger weights, unnormalized, would blow up the rounding of the first step a thousandfold by the fifth.
        net.initialize(mx.init.Uniform(), force_reinit=True)
        for block in blocks(net):
            if isinstance(block, BatchNorm):
                block._kwargs['use_global_stats'] = True
    devices = [mx.cpu(number) for number in range(device_count)]
    net.collect_params().reset_ctx(devices)
    trainer = sgd(net, accumulate, backend=ranks.backend)
    backends.broadcast(ranks, trainer)
    before = weights_of(net)
    net.hybridize()
    images = VOCDetection(str(squares), ['2007_trainval'], ['red', 'blue'])
    requests = Requests(len(images), batch_size, [64], 1, count * batch_size, ranks.part(batch_size))
    targets = DenseTargets(2)
    for batch in train_loader(images, requests, num_workers=0):
        if slow:
            time.sleep(np.random.uniform(0, 0.5))
        training.train_step(net, targets, batch, devices, trainer, accumulate=accumulate, ranks=ranks)
    checkpoint.average_running_statistics(net, ranks)
    return before, weights_of(net)


def validated(squares, batch_size, ranks=ONE_PROCESS):
    """The value of the metric over all 22 images, by random weights that are no detector but detect something."""
    mx.random.seed(4)
    net = network.build('mobilenet0_25', ['red', 'blue'])
    images = VOCDetection(str(squares), ['2007_trainval'], ['red', 'blue'])
    return detect.evaluate(net, val_loader(images, 64, batch_size, 0, part=ranks.part),
                               make_metric('voc07', images), 64, [mx.cpu()], ranks=ranks)


def momentum(ranks):
    """This rank's momentum, {number of the parameter: array}, where rank 0 alone had some: the number everywhere."""
    net = network.build('mobilenet0_25', ['red', 'blue'])
    net.collect_params().reset_ctx([mx.cpu(0), mx.cpu(1)][:1 if ranks.backend.local_rank is not None else 2])
    trainer = sgd(net, backend=ranks.backend)
    if ranks.rank == 0:
        for updater in trainer._updaters:
            for index, parameter in enumerate(trainer._params):
                if parameter.grad_req != 'null':
                    updater.states[index] = mx.nd.full(parameter.shape, index)
    backends.broadcast(ranks, trainer)
    return {'%d on %d' % (index, device): state.asnumpy() for device, updater in enumerate(trainer._updaters)
            for index, state in updater.states.items()}


def main():
    root, out, backend, batch_size, count, mode, *slow = sys.argv[1:]
    with backends.join(backend == 'horovod', 'device' if backend == 'horovod' else backend) as ranks:
        if mode == 'validate':
            result = validated(root, int(batch_size), ranks)
        elif mode == 'momentum':
            result = momentum(ranks)
        else:
            _, result = steps(root, 1, int(batch_size), int(count), ranks=ranks, frozen=mode == 'frozen',
                              slow=slow == [str(ranks.rank)])
        if result is not None:
            np.savez(out.replace('.npz', '%d.npz' % ranks.rank), **result)


if __name__ == '__main__':
    main()
