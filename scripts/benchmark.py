"""Measure training against the stock GluonCV pipeline, both in one run: the loader, a step, an epoch."""
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

from yolo3.cli import ArgumentParser, UserError, comma_list, run
from yolo3.files import write_json

RUNS = ('stock', 'ours', 'torch')


def parse_args():
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('what', choices=('loader', 'step', 'epoch'))
    add('--json', default='', help='write the figures to this file too')
    add('--dataset', default='coco', choices=('voc', 'coco'), help='form of the data set')
    add('--dataset-root', default='', help='folder of the data set; default: ~/.mxnet/datasets/voc or coco')
    add('--classes', default='', help='class names a,b,c of your own data')
    add('--train-splits', default='', help='as in training')
    add('--backbone-params', default='', help="ImageNet weights in GluonCV's form (epoch); default: random weights")
    add('--batch-size', type=int, default=8)
    add('--data-shape', type=int, default=416, help='input size of step, pixels')
    add('--min-shape', type=int, default=320, help='smallest input size of loader and epoch, pixels')
    add('--max-shape', type=int, default=608, help='largest input size of loader and epoch, pixels')
    add('--rounds', type=int, default=3, help='how often each is measured, by turns; the median counts')
    add('--epochs', type=int, default=1, help='epochs in each round of ours (epoch)')
    add('--only', default='', choices=('',) + RUNS, help='measure one of the two alone, in this process (step, epoch)')
    return parser.parse_args()


def main():
    args = parse_args()
    args.sizes = list(range(args.min_shape, args.max_shape + 1, 32))
    if not args.sizes or args.rounds < 1 or args.epochs < 1:
        raise UserError('--min-shape must not be above --max-shape; --rounds and --epochs must be at least 1')
    figures = {'loader': loader, 'step': step, 'epoch': epoch}[args.what](args)
    for name, value in figures.items():
        print('%-52s %s' % (name, '%.4g' % value if isinstance(value, float) else value))
    if args.json:
        write_json(args.json, figures)


def dataset(args):
    from yolo3.datasets import open_train
    return open_train(args.dataset, args.dataset_root, comma_list(args.classes), comma_list(args.train_splits),
                      skip_empty=True)  # the stock pipeline cannot take an image without objects


# ---- loader: one worker against one worker

def loader(args):
    """Images a second, and where ours spends its time."""
    from yolo3.network import build
    import stock_pipeline
    from yolo3.loader import Requests, train_loader
    images = dataset(args)
    net = build('mobilenet1_0', images.classes)
    figures = {}
    for mixup in False, True:
        requests = Requests(len(images), args.batch_size, args.sizes, seed=1)
        requests.begin(0, mixup)
        loaders = {'stock': stock_pipeline.loader(images, net, args.sizes, args.batch_size, 1, mixup),
                   'ours': train_loader(images, requests, 1)}
        speeds = {name: [] for name in loaders}
        for round_ in range(args.rounds):
            for name, batches in loaders.items():
                # Several epochs of ours, as it is over so soon. Each starts with its worker idle, as does stock's.
                count, start = 0, time.time()
                for epoch_ in range(8 if name == 'ours' else 1):
                    requests.begin(8 * round_ + epoch_, mixup)
                    count += sum(len(batch[0]) for batch in batches)
                speeds[name].append(count / (time.time() - start))
        kind = ', mixup' if mixup else ''
        for name in speeds:
            figures['images/s, one worker%s: %s' % (kind, name)] = statistics.median(speeds[name])
        figures['ours / stock%s' % kind] = statistics.median(
            ours / stock for ours, stock in zip(speeds['ours'], speeds['stock']))
        figures.update(stages(images, args, mixup, kind))
    figures.update(bytes_per_image(images, net))
    return figures


def stages(images, args, mixup, kind):
    """Milliseconds of processor time an image in each stage of our loader, and JPEG decoding's share of them."""
    import cv2
    from yolo3 import augment, images as files, loader as ours
    from yolo3.network import ANCHORS
    from yolo3.runtime import mx
    spent = {}

    def watch(owner, name, stage):
        real = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.process_time()
            try:
                return real(*args, **kwargs)
            finally:
                spent[stage] = spent.get(stage, 0) + time.process_time() - start
        setattr(owner, name, timed)
        return owner, name, real

    watched = [watch(files.ImageFile, '__init__', 'read file, header'), watch(files.ImageFile, 'pixels', 'decode'),
               watch(augment, 'draw_colour', 'draw colour'), watch(augment, 'draw_view', 'draw crop'),
               watch(cv2, 'transform', 'colour'), watch(cv2, 'copyMakeBorder', 'expand, blend'),
               watch(cv2, 'addWeighted', 'expand, blend'), watch(cv2, 'resize', 'resize'), watch(cv2, 'flip', 'flip'),
               watch(ours, 'sparse_targets', 'targets'), watch(ours, 'together', 'stack into the batch')]
    requests = ours.Requests(len(images), args.batch_size, args.sizes, seed=1)
    samples = ours.TrainSamples(images, ANCHORS)
    count, start = 0, time.process_time()
    for epoch_ in range(3):
        requests.begin(epoch_, mixup)
        for batch in requests:
            for parts in ours.stack_train([samples[request] for request in batch]):
                ours.together(parts, mx.cpu())
            count += len(batch)
    total = time.process_time() - start
    for owner, name, real in watched:
        setattr(owner, name, real)
    spent['the rest'] = total - sum(spent.values())
    table = {'ms an image%s: %s' % (kind, stage): 1000 * seconds / count
             for stage, seconds in sorted(spent.items(), key=lambda item: -item[1])}
    return dict(table, **{'ms an image%s: all' % kind: 1000 * total / count,
                          'share of decoding%s' % kind: spent['decode'] / total})


def bytes_per_image(images, net, size=608):
    """What a worker sends for an image of 608 x 608 pixels."""
    import stock_pipeline
    from yolo3.loader import Requests, train_loader
    requests = Requests(len(images), 8, [size], seed=1)
    loaders = {'stock': stock_pipeline.loader(images, net, [size], 8, 0), 'ours': train_loader(images, requests, 0)}
    return {'MB an image at %d: %s' % (size, name): sum(array.size * array.asnumpy().itemsize for array in
                                                        next(iter(batches))) / 8e6
            for name, batches in loaders.items()}


# ---- step and epoch: each run in a process of its own, for the number of threads is fixed when MXNet is imported

def by_turns(args, runs, settings=()):
    """The JSON that each of `runs` prints when run alone, args.rounds times: {run: [figures, ...]}."""
    results = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name in runs:
            env = dict(os.environ)
            if name == 'stock':
                env['OMP_NUM_THREADS'] = str(max(1, os.cpu_count() // 2))  # MXNet's own choice
            with tempfile.NamedTemporaryFile(suffix='.json') as file:
                command = [sys.executable, *sys.argv, '--only', name, '--json', file.name]
                subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
                results[name].append(json.load(open(file.name)))
    return results


def medians(results):
    """{figure of each run: its median}."""
    return {'%s: %s' % (key, name): statistics.median(figures[key] for figures in rounds)
            for name, rounds in results.items() for key in rounds[0]}


def ratio(results, key, over, under):
    """The median over the rounds of one run's figure over another's."""
    return statistics.median(a[key] / b[key] for a, b in zip(results[over], results[under]))


def step(args):
    """Images a second of a training step at --data-shape."""
    if args.only:
        return {'stock': stock_step, 'ours': our_step, 'torch': torch_step}[args.only](args)
    runs = RUNS if importlib.util.find_spec('torch') else RUNS[:2]
    results = by_turns(args, runs)
    return dict(medians(results), **{'ours / %s' % other: ratio(results, 'images/s', 'ours', other)
                                     for other in runs if other != 'ours'})


def seconds(action, count):
    """The median time that `action` takes, the first two times left out."""
    times = []
    for _ in range(count + 2):
        start = time.time()
        action()
        times.append(time.time() - start)
    return statistics.median(times[2:])


def some_batch(args, num_class=80, boxes=8):
    """A batch of noise with random boxes, as `train_loader` gives it."""
    import numpy as np
    from yolo3.loader import stack_train, together
    from yolo3.network import ANCHORS
    from yolo3.runtime import mx
    from yolo3.targets import sparse_targets
    generator, size = np.random.RandomState(0), args.data_shape
    samples = []
    for _ in range(args.batch_size):
        corners = generator.uniform(0, size / 2, (boxes, 2))
        label = np.hstack((corners, corners + generator.uniform(8, size / 2, (boxes, 2)))).astype('float32')
        samples.append((generator.randint(0, 256, (size, size, 3)).astype('uint8'), label,
                        sparse_targets(label, generator.randint(0, num_class, boxes), np.ones(boxes), size, ANCHORS),
                        np.float32(1)))
    return [together(parts, mx.cpu()) for parts in stack_train(samples)]


def network_and_trainer():
    from yolo3.network import CLASSES, build
    from mxnet import gluon
    net = build('mobilenet1_0', CLASSES['coco'])
    net.hybridize()
    return net, gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1e-6, 'momentum': 0.9, 'wd': 5e-4})


def stock_step(args):
    import stock_pipeline
    from yolo3.augment import normalize
    from yolo3.targets import DenseTargets
    net, trainer = network_and_trainer()
    images, boxes, rows, _ = some_batch(args)
    batch = [normalize(images), *DenseTargets(80)(images, rows), boxes]  # its workers send this
    return {'images/s': args.batch_size / seconds(lambda: stock_pipeline.train_step(net, batch, trainer), 3)}


def our_step(args):
    import train_yolo3_mobilenet as training
    from yolo3.progress import LossMeter
    from yolo3.runtime import mx
    from yolo3.targets import DenseTargets
    net, trainer = network_and_trainer()
    batch, targets, meter = some_batch(args), DenseTargets(80), LossMeter()
    targets.hybridize()
    # The loop runs ahead of the device, so that three steps together say what one takes.
    once = seconds(lambda: [meter.update(training.train_step(net, targets, batch, [mx.cpu()], trainer))
                            for _ in range(3)] and meter.means(), 2) / 3
    matrix = mx.nd.random.uniform(shape=(2048, 2048))
    product = 2 * 2048 ** 3 / seconds(lambda: mx.nd.dot(matrix, matrix).wait_to_read(), 9)
    work = 3 * flop(net, args.data_shape) * args.batch_size / once  # forward, and backward for inputs and weights
    return {'images/s': args.batch_size / once, 'GFLOP/s': work / 1e9, 'GFLOP/s of a 2048 x 2048 product': product / 1e9,
            'share of that': work / product}


def flop(net, size):
    """Multiplications and additions in the convolutions for one image."""
    from yolo3.runtime import mx
    from mxnet.gluon.nn import Conv2D
    counted, hooks = [], []

    def count(block, inputs, output):
        _, channels, height, width = block.weight.shape[0], *block.weight.shape[1:]
        counted.append(2 * output.size * channels * height * width)

    def visit(block):
        if isinstance(block, Conv2D):
            hooks.append(block.register_forward_hook(count))
    net.apply(visit)
    net.hybridize(False)
    net(mx.nd.zeros((1, 3, size, size)))
    for hook in hooks:
        hook.detach()
    return sum(counted)


def torch_step(args):
    import torch_network
    return {'images/s': args.batch_size / torch_network.step_seconds(args.batch_size, args.data_shape)}


def epoch(args):
    """Seconds an epoch with one worker, and the memory of the main process and of the worker after each."""
    if args.only:
        return {'stock': stock_epoch, 'ours': our_epoch}[args.only](args)
    results = by_turns(args, RUNS[:2])
    return dict(medians(results), **{'ours / stock': ratio(results, 'seconds an epoch', 'ours', 'stock')})


def epoch_parts(args):
    """Network, trainer and data set of an epoch's measurement."""
    from yolo3.network import build
    from mxnet import gluon
    images = dataset(args)
    net = build('mobilenet1_0', images.classes, args.backbone_params)
    net.hybridize()
    return net, gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1e-4, 'momentum': 0.9, 'wd': 5e-4},
                              update_on_kvstore=False), images


def stock_epoch(args):
    import stock_pipeline
    net, trainer, images = epoch_parts(args)
    batches = stock_pipeline.loader(images, net, args.sizes, args.batch_size, 1)
    start = time.time()
    for batch in batches:
        stock_pipeline.train_step(net, batch, trainer)
    return {'seconds an epoch': time.time() - start}


def our_epoch(args):
    import logging
    import train_yolo3_mobilenet as training
    from yolo3.cli import StopSignal
    from yolo3.loader import Requests, train_loader
    from yolo3.runtime import mx
    net, trainer, images = epoch_parts(args)
    requests = Requests(len(images), args.batch_size, args.sizes, seed=1)
    loader_ = train_loader(images, requests, 1)
    flags = training.parse_args(['--batch-size', str(args.batch_size), '--lr', '1e-4', '--log-interval', '0'])
    stop, logger = StopSignal(), logging.getLogger('benchmark')
    figures, times = {}, []
    for number in range(args.epochs):
        state = {'epoch': number, 'batch': requests.batches(number).start, 'losses': None}
        start = time.time()
        training.train_epoch(flags, net, trainer, loader_, [mx.cpu()], state, logger, stop)
        times.append(time.time() - start)
        figures['MB after epoch %d, main' % (number + 1)] = resident('self')
        figures['MB after epoch %d, worker' % (number + 1)] = resident(loader_.workers.processes[0].pid)
    return dict({'seconds an epoch': statistics.median(times)}, **figures)


def resident(pid):
    """The resident set of a process, MB (Linux)."""
    with open('/proc/%s/status' % pid) as file:
        return int(re.search(r'VmRSS:\s+(\d+)', file.read()).group(1)) / 1024


if __name__ == '__main__':
    run(main)
