"""The training loader against GluonCV's, one worker against one worker."""
import statistics
import time

import cv2

from benchmarks import stock_pipeline
from benchmarks.training import dataset
from yolo3.data import augment, images as files, loader as ours
from yolo3.data.sampler import TrainSampler
from yolo3.data.anchors import ANCHORS
from yolo3.network import build
from yolo3.mxnet_setup import mx


def figures(args):
    """Images a second, and where ours spends its time."""
    images = dataset(args)
    net = build('mobilenet1_0', images.classes)
    found = {}
    for mixup in False, True:
        sampler = TrainSampler(len(images), args.batch_size, args.sizes, seed=1)
        sampler.set_epoch(0, mixup)
        loaders = {'stock': stock_pipeline.loader(images, net, args.sizes, args.batch_size, 1, mixup),
                   'ours': ours.train_loader(images, sampler)}
        ours.start_workers(1, loaders['ours'])
        speeds = {name: [] for name in loaders}
        for round_ in range(args.rounds):
            for name, batches in loaders.items():
                # Several epochs of ours, as it is over so soon. Each starts with its worker idle, as does stock's.
                count, start = 0, time.perf_counter()
                for epoch_ in range(8 if name == 'ours' else 1):
                    sampler.set_epoch(8 * round_ + epoch_, mixup)
                    count += sum(len(batch[0]) for batch in batches)
                speeds[name].append(count / (time.perf_counter() - start))
        kind = ', mixup' if mixup else ''
        for name in speeds:
            found['images/s, one worker%s: %s' % (kind, name)] = statistics.median(speeds[name])
        found['ours / stock%s' % kind] = statistics.median(
            ours / stock for ours, stock in zip(speeds['ours'], speeds['stock']))
        found.update(stages(images, args, mixup, kind))
    found.update(bytes_per_image(images, net))
    return found


def stages(images, args, mixup, kind):
    """Milliseconds of processor time an image in each stage of our loader, and JPEG decoding's share of them."""
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
               watch(ours, 'sparse_targets', 'targets'), watch(ours, 'ndarray', 'stack into the batch')]
    sampler = TrainSampler(len(images), args.batch_size, args.sizes, seed=1)
    samples = ours.TrainSamples(images, ANCHORS)
    count, start = 0, time.process_time()
    for epoch_ in range(3):
        sampler.set_epoch(epoch_, mixup)
        for batch in sampler:
            for field in samples.stack([samples[spec] for spec in batch]):
                ours.ndarray(field, mx.cpu())
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
    """What a worker sends for an image of `size` x `size` pixels."""
    sampler = TrainSampler(len(images), 8, [size], seed=1)
    loaders = {'stock': stock_pipeline.loader(images, net, [size], 8, 0),
               'ours': ours.train_loader(images, sampler)}
    return {'MB an image at %d: %s' % (size, name): sum(array.size * array.asnumpy().itemsize for array in
                                                        next(iter(batches)) if isinstance(array, mx.nd.NDArray)) / 8e6
            for name, batches in loaders.items()}
