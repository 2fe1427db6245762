"""An epoch against the stock pipeline's, and the memory that it takes."""
import statistics
import time

from benchmarks import measure, stock_pipeline
from benchmarks.training import dataset, network_and_trainer
from yolo3.mxnet_setup import mx
import train_yolo3_mobilenet as training
from yolo3.data.loader import start_workers, train_loader
from yolo3.data.sampler import TrainSampler
from yolo3.distributed.group import ONE_PROCESS
from yolo3.loss import DetectionLoss, set_loss


def figures(args):
    """Seconds an epoch with one worker; MB of the main process and of the worker after each of --epochs."""
    if args.only:
        return {'stock': stock_epoch, 'ours': our_epochs}[args.only](args)
    results = measure.by_turns(args, ('stock', 'ours'))
    return dict(measure.medians(results),
                **{'ours / stock': measure.ratio(results, 'seconds an epoch', 'ours', 'stock')})


def at_mean_size(seconds, pixels, args, count):
    """The seconds that `count` images would have taken with the sizes of --min-shape to --max-shape in equal shares.

    An epoch draws a few of the sizes by chance, and the time of a step grows as the pixels of its images.
    """
    return seconds / pixels * count * statistics.mean(size ** 2 for size in args.sizes)


def stock_epoch(args):
    images = dataset(args)
    net, trainer = network_and_trainer(images.classes, args.backbone_params)
    batches = stock_pipeline.loader(images, net, args.sizes, args.batch_size, 1)
    net.hybridize()  # anew: the loader ran it for its shapes
    start, pixels = time.perf_counter(), 0
    for batch in batches:
        stock_pipeline.train_step(net, batch, trainer)
        pixels += len(batch[0]) * batch[0].shape[2] ** 2
    mx.nd.waitall()
    return {'seconds an epoch': at_mean_size(time.perf_counter() - start, pixels, args, len(images))}


def our_epochs(args):
    images = dataset(args)
    net, trainer = network_and_trainer(images.classes, args.backbone_params)
    set_loss(net, DetectionLoss(len(images.classes)))
    sampler = TrainSampler(len(images), args.batch_size, args.sizes, seed=1)
    loader = train_loader(images, sampler)
    worker = start_workers(1, loader).processes[0]
    flags = training.parse_args([])
    flags.devices = [mx.cpu()]
    memory, times = {}, []
    for number in range(args.epochs):
        sampler.set_epoch(number)
        start, pixels = time.perf_counter(), 0
        for batch in loader:
            training.train_step(net, batch, trainer, flags, ONE_PROCESS)
            pixels += sum(spec.size ** 2 for spec in batch.samples)
        mx.nd.waitall()
        times.append(at_mean_size(time.perf_counter() - start, pixels, args, len(images)))
        memory['MB after epoch %d, main' % (number + 1)] = measure.resident('self')
        memory['MB after epoch %d, worker' % (number + 1)] = measure.resident(worker.pid)
    return dict({'seconds an epoch': statistics.median(times)}, **memory)
