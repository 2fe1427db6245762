"""The training loader against others: GluonCV's, Ultralytics' and torchvision's, one worker against one worker."""
import itertools
import statistics
import tempfile
import time

import cv2

from benchmarks import other_loaders, stock_pipeline
from benchmarks.training import dataset
from yolo3.data import augment, images as files, loader as ours
from yolo3.data.sampler import TrainSampler
from yolo3.data.anchors import ANCHORS
from yolo3.network import build
from yolo3.mxnet_setup import mx


EPOCHS = 8  # of ours in each round, as they are over so soon, at other sizes each


def figures(args):
    """Images a second by wall time and by processor time, and where ours spends its time.

    --quick: against the stock loader by wall time and against decoding by processor time.
    """
    images = dataset(args)
    net = build('mobilenet1_0', images.classes)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for mixup, kind in (False, ''), (True, ', mixup'):
            for workers, clock, unit in ((1, time.perf_counter, 'images/s, one worker'),
                                         (0, time.process_time, 'images/s of processor time')):
                runs = {'ours': epochs_of_ours(images, args, mixup, workers)}
                if workers or not args.quick:
                    runs['stock'] = counted(stock_pipeline.loader(images, net, args.sizes, args.batch_size, workers,
                                                                  mixup), 1)
                if not (mixup or args.quick):
                    runs.update(others(images, args, workers, folder))
                if not workers:
                    runs['decoding alone'] = decoding(images, args, mixup)
                found.update(compared(speeds(runs, args.rounds, clock), unit + kind))
            if not args.quick:
                found.update(stages(images, args, mixup, kind))
    found.update(bytes_per_image(images, net))
    return found


def epochs_of_ours(images, args, mixup, workers):
    """A function that makes EPOCHS epochs of ours, never the same, and returns how many images they are."""
    sampler = TrainSampler(len(images), args.batch_size, args.sizes, seed=1)
    batches = ours.train_loader(images, sampler)
    ours.start_workers(workers, batches)
    numbers = itertools.count()

    def run():
        count = 0
        for epoch in itertools.islice(numbers, EPOCHS):
            sampler.set_epoch(epoch, mixup)
            count += sum(len(batch.images) for batch in batches)
        return count
    return run


def counted(batches, epochs, images=lambda batch: batch[0]):
    """A function that makes some epochs of `batches` and returns how many images they are."""
    return lambda: sum(len(images(batch)) for _ in range(epochs) for batch in batches)


def others(images, args, workers, folder):
    """The loaders of other libraries, if installed, at the one size that has the mean number of pixels."""
    size = round(statistics.mean(size ** 2 for size in args.sizes) ** 0.5)
    loaders = {}
    for name, make, *settings in (('Ultralytics, mosaic', other_loaders.ultralytics, 1., folder),
                                  ('Ultralytics, no mosaic', other_loaders.ultralytics, 0., folder),
                                  ('torchvision', other_loaders.torchvision)):
        try:
            batches = make(images, size, args.batch_size, workers, *settings)
            next(iter(batches))  # starts the worker, as ours has been
            loaders[name] = counted(batches, 3, lambda batch: batch['img'])
        except ImportError as error:
            print('%s: not measured: %s' % (name, error))
    return loaders


def decoding(images, args, mixup):
    """A function that decodes what ours decodes in EPOCHS epochs, at the same scales, and does nothing else."""
    sampler = TrainSampler(len(images), args.batch_size, args.sizes, seed=1)
    samples, decoded, real, count = ours.TrainSamples(images, ANCHORS), [], files.ImageFile.pixels, 0

    def noted(image, *args):
        decoded.append((image, *args))
        return real(image, *args)
    files.ImageFile.pixels = noted
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch, mixup)
        for batch in sampler:
            samples.stack([samples[spec] for spec in batch])
            count += len(batch)
    files.ImageFile.pixels = real

    def run():
        for call in decoded:
            real(*call)
        return count
    return run


def speeds(runs, rounds, clock):
    """{name: [images a second of `clock` in each round]}, by turns."""
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            count = run()
            found[name].append(count / (clock() - start))
    return found


def compared(found, unit):
    """The medians of `speeds`, and those of ours over each other one's."""
    table = {'%s: %s' % (unit, name): statistics.median(values) for name, values in found.items()}
    return dict(table, **{'%s: ours / %s' % (unit, name): statistics.median(
        mine / other for mine, other in zip(found['ours'], values))
        for name, values in found.items() if name != 'ours'})


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
    for epoch_ in range(EPOCHS):
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
