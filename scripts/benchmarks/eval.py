"""Evaluation against the bare network: the cost of reading, resizing and the metric."""
import statistics
import time

from yolo3.mxnet_setup import mx
from yolo3 import detect, metrics, weights
from yolo3.cli import UserError, comma_list
from yolo3.data.datasets import open_val
from yolo3.data.loader import start_workers, val_loader


def figures(args):
    """Seconds of eval_yolo3.py's work with one worker at --data-shape, and of the network alone on the same batches."""
    if not args.params:
        raise UserError('eval needs --params FILE: an untrained network finds far too many boxes')
    net, info = weights.load_detector(args.params)
    images = open_val(info['dataset'], args.dataset_root, info['classes'], comma_list(args.val_splits))
    loader = val_loader(images, args.data_shape, args.batch_size)
    start_workers(1, loader)
    metric = metrics.make_metric(metrics.default_metric(info['dataset']), images)
    inputs = [batch.images for batch in loader]
    found = {'the network alone, s': lambda: alone(net, inputs), 'evaluation, s': lambda: detect.evaluate(
        net, loader, metric, args.data_shape, [mx.cpu()])}
    times = {name: [] for name in found}
    for round_ in range(args.rounds + 1):
        for name, action in found.items():
            start = time.perf_counter()
            action()
            if round_:  # the first builds the network
                times[name].append(time.perf_counter() - start)
    once, whole = times.values()
    return dict({name: statistics.median(values) for name, values in times.items()}, images=len(images), **{
        'evaluation / network': statistics.median(b / a for a, b in zip(once, whole))})


def alone(net, inputs):
    """Run `net` over `inputs`, batches (B, H, W, 3) uint8, without using what it finds."""
    for batch in inputs:
        for output in net(detect.normalize(batch.copyto(mx.cpu()))):
            output.wait_to_read()
