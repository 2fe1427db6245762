"""A training step against stock MXNet's and PyTorch's. Imports are inside, for each runs in a process of its own."""
import importlib.util

from benchmarks import measure

RUNS = ('stock', 'ours', 'torch')


def figures(args):
    """Images a second of a training step at --data-shape."""
    if args.only:
        return {'stock': stock_step, 'ours': our_step, 'torch': torch_step}[args.only](args)
    runs = RUNS if importlib.util.find_spec('torch') else RUNS[:2]
    results = measure.by_turns(args, runs)
    ratios = {'ours / %s' % other: measure.ratio(results, 'images/s', 'ours', other)
              for other in runs if other != 'ours'}
    return dict(measure.medians(results), **ratios)


def some_batch(args, num_class=80, boxes=8):
    """A batch of noise with random boxes, as `train_loader` gives it."""
    import numpy as np
    from yolo3.data.loader import Batch, TrainSamples, ndarray
    from yolo3.data.anchors import ANCHORS
    from yolo3.mxnet_setup import mx
    from yolo3.data.targets import sparse_targets
    generator, size = np.random.RandomState(0), args.data_shape
    samples = []
    for _ in range(args.batch_size):
        corners = generator.uniform(0, size / 2, (boxes, 2))
        label = np.hstack((corners, corners + generator.uniform(8, size / 2, (boxes, 2)))).astype('float32')
        samples.append((generator.randint(0, 256, (size, size, 3)).astype('uint8'), label,
                        sparse_targets(label, generator.randint(0, num_class, boxes), np.ones(boxes), size, ANCHORS),
                        np.float32(1), np.array([-1, -1], 'int32')))
    return Batch(*[ndarray(field, mx.cpu()) for field in TrainSamples.stack(samples)], samples=None)


def stock_step(args):
    from benchmarks import stock_pipeline
    from benchmarks.training import network_and_trainer
    from yolo3.data.augment import normalize
    from yolo3.zoo import CLASSES
    from yolo3.mxnet_setup import mx
    net, trainer = network_and_trainer(CLASSES['coco'])
    ours = some_batch(args)
    targets = stock_pipeline.dense_targets(ours.targets.asnumpy(), args.data_shape, 80)
    batch = [normalize(ours.images), *map(mx.nd.array, targets), ours.boxes]  # what its workers send
    return {'images/s': args.batch_size / measure.seconds(lambda: stock_pipeline.train_step(net, batch, trainer), 3)}


def our_step(args):
    import train_yolo3_mobilenet as training
    from benchmarks.training import network_and_trainer
    from yolo3.zoo import CLASSES
    from yolo3.mxnet_setup import mx
    from yolo3.distributed.group import ONE_PROCESS
    from yolo3.loss import DetectionLoss, set_loss
    net, trainer = network_and_trainer(CLASSES['coco'])
    set_loss(net, DetectionLoss(80))
    batch, flags = some_batch(args), training.parse_args([])
    flags.devices = [mx.cpu()]

    def steps():
        """Three, which together say what one takes, as the loop runs ahead of the device."""
        for _ in range(3):
            training.train_step(net, batch, trainer, flags, ONE_PROCESS)
        mx.nd.waitall()
    once = measure.seconds(steps, 2) / 3
    work = 3 * measure.flop(net, args.data_shape) * args.batch_size  # forward, and backward for inputs and weights
    product = measure.product_speed()
    return {'images/s': args.batch_size / once, 'GFLOP/s': work / once / 1e9,
            'GFLOP/s of a 2048 x 2048 product': product / 1e9, 'share of that': work / once / product}


def torch_step(args):
    from benchmarks import torch_network
    return {'images/s': args.batch_size / torch_network.step_seconds(args.batch_size, args.data_shape)}
