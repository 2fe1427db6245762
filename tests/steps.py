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

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from yolo3.mxnet_setup import mx
from mxnet.gluon.nn import BatchNorm

import train_yolo3_mobilenet as training
from yolo3 import detect, network
from yolo3.distributed import backends
from yolo3.data.gluon import VOCDetection
from yolo3.data.loader import train_loader, val_loader
from yolo3.data.sampler import TrainSampler
from yolo3.metrics import make_metric
from yolo3.distributed.group import ONE_PROCESS
from yolo3.loss import DetectionLoss, set_loss


def flags(devices=(mx.cpu(),), accumulate=1, no_wd=False):
    """The flags of the training that a step takes note of."""
    return argparse.Namespace(devices=list(devices), accumulate=accumulate, no_wd=no_wd, lr=1e-3, optimizer='sgd',
                              momentum=0.9, wd=5e-4, amp=False)


def sgd(net, args=flags(), backend=None):
    """The trainer of the recipe."""
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


def freeze(net):
    """Give `net` small weights and fixed statistics of batch norm.

    Larger weights, unnormalized, would blow up the rounding of the first step a thousandfold by the fifth.
    """
    net.initialize(mx.init.Uniform(), force_reinit=True)
    for block in blocks(net):
        if isinstance(block, BatchNorm):
            block._kwargs['use_global_stats'] = True


def steps(squares, args, batch_size, count=5, group=ONE_PROCESS, mode='frozen'):
    """The weights before and after some steps with the flags `args`.

    mode: 'frozen', with batch norm's statistics fixed; 'slow', the same, and each step takes a random time; 'normal'.
    """
    mx.random.seed(3 + group.rank)  # rank 0's are to be everybody's
    net = network.build('mobilenet0_25', ['red', 'blue'])
    if mode != 'normal':
        freeze(net)
    set_loss(net, DetectionLoss(2))
    net.collect_params().reset_ctx(args.devices)
    trainer = sgd(net, args, group.backend)
    backends.broadcast(group, trainer)
    before = weights_of(net)
    net.hybridize()
    images = VOCDetection(str(squares), ['2007_trainval'], ['red', 'blue'])
    sampler = TrainSampler(len(images), batch_size, [64], 1, count * batch_size, group.part(batch_size))
    for batch in train_loader(images, sampler):
        if mode == 'slow':
            time.sleep(np.random.uniform(0, 0.5))
        training.train_step(net, batch, trainer, args, group)
    network.average_running_statistics(net, group)
    return before, weights_of(net)


def validated(squares, batch_size, group=ONE_PROCESS):
    """The value of the metric over all 22 images, by random weights that are no detector but detect something."""
    mx.random.seed(4)
    net = network.build('mobilenet0_25', ['red', 'blue'])
    images = VOCDetection(str(squares), ['2007_trainval'], ['red', 'blue'])
    loader = val_loader(images, 64, batch_size, group.part)
    return detect.evaluate(net, loader, make_metric('voc07', images), 64, [mx.cpu()], group)


def momentum(group):
    """This rank's momentum, {number of the parameter: array}, where rank 0 alone had some: the number everywhere.

    And the average of --ema, as number 1000.
    """
    net = network.build('mobilenet0_25', ['red', 'blue'])
    net.collect_params().reset_ctx([mx.cpu(0), mx.cpu(1)][:1 if group.backend.local_rank is not None else 2])
    trainer = sgd(net, backend=group.backend)
    if group.rank == 0:
        for updater in trainer._updaters:
            for index, parameter in enumerate(trainer._params):
                if parameter.grad_req != 'null':
                    updater.states[index] = mx.nd.full(parameter.shape, index)
    average = [mx.gluon.Parameter('of the average', shape=(2, 3))]
    average[0].initialize(mx.init.Constant(1000 - group.rank), ctx=trainer._contexts)
    backends.broadcast(group, trainer, average)
    momenta = {'%d on %d' % (index, device): state.asnumpy() for device, updater in enumerate(trainer._updaters)
               for index, state in updater.states.items()}
    return dict(momenta, **{'1000 on %d' % device: array.asnumpy()
                            for device, array in enumerate(average[0].list_data())})


def main():
    root, out, backend, batch_size, count, mode, *slow = sys.argv[1:]
    with backends.join(backend == 'horovod', 'device' if backend == 'horovod' else backend) as group:
        if mode == 'validate':
            result = validated(root, int(batch_size), group)
        elif mode == 'momentum':
            result = momentum(group)
        else:
            if slow == [str(group.rank)]:
                mode = 'slow'
            _, result = steps(root, flags(), int(batch_size), int(count), group, mode)
        if result is not None:
            np.savez(out.replace('.npz', '%d.npz' % group.rank), **result)


if __name__ == '__main__':
    main()
