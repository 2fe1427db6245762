"""Evaluate a detector: a .params or .onnx file and a data set -> the AP of each class and the mAP."""
import functools
import json
import math
import os
import time

from yolo3 import log, metrics
from yolo3.deploy import runtimes
from yolo3.show import report
from yolo3.cli import ArgumentParser, UserError, check_output_file, comma_list, make_output_folder, run
from yolo3.data.datasets import open_val
from yolo3.atomic import replacing, write_json
from yolo3.boxes import SCORE_FLOOR

import numpy as np


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--params', '--pretrained', dest='params', required=True, help='.params or .onnx file of the detector')
    add('--dataset', default='', choices=('', 'voc', 'coco'), help='form of the data set; default: as in training')
    add('--dataset-root', default='', help='folder of your own data; default: ~/.mxnet/datasets/voc or coco')
    add('--val-splits', default='', help='2007_test,... (voc) or an annotation file stem (coco)')
    add('--classes', default='', help='for a .params without sidecar: its class names a,b,c')
    add('--network', default='', help='for a .params without sidecar: its backbone')
    add('--metric', default='', choices=('', 'voc07', 'voc', 'coco'),
        help='voc07: 11 points; voc: area under the curve; coco: its 12 numbers. Default: voc07 or coco, by --dataset')
    add('--data-shape', default='', metavar='SIZE[,SIZE]',
        help='input size, pixels; several are compared, mAP and time an image; default: as in training')
    add('--batch-size', type=int, default=64)
    add('--num-workers', '-j', type=int, default=4, help='processes that prepare the batches')
    add('--gpus', default=None, help="GPUs to use; '' is the CPU; default: GPU 0 where there is one")
    add('--backend', default='', choices=('',) + runtimes.BACKENDS,
        help='what runs an .onnx file, on the CPU; default: %s' % runtimes.BACKENDS[0])
    add('--gluoncv-compatible', action='store_true',
        help="the numbers of GluonCV's eval_yolo.py: COCO without scores under 0.05, VOC in resized pixels")
    add('--nms-score-floor', type=float, default=SCORE_FLOOR,
        help='boxes that score less are left out before NMS, 0..1; default: %(default)s, as in GluonCV')
    add('--json', default='', help='write the numbers to this file too')
    add('--detections', default='', metavar='FILE', help="write the detections to this file, in COCO's result format")
    add('--report', default='', metavar='DIR', help='write report.html and its pictures into this folder')
    add('--report-thresh', type=float, default=0.5,
        help="least score in the report's confusion matrix and on its images, 0..1; default: %(default)s, as demo.py")
    args = parser.parse_args(argv)
    try:
        sizes = [int(size) for size in comma_list(args.data_shape)]
    except ValueError:
        sizes = [0]
    if not all(size > 0 and size % 32 == 0 for size in sizes):
        raise UserError('--data-shape %s: must be positive multiples of 32, the largest stride' % args.data_shape)
    args.data_shape = sizes
    if len(sizes) > 1 and (args.detections or args.report):
        raise UserError('--detections and --report are of one --data-shape, not %d' % len(sizes))
    if args.batch_size < 1 or args.num_workers < 0:
        raise UserError('--batch-size must be at least 1 and --num-workers at least 0')
    for flag, score in ('--nms-score-floor', args.nms_score_floor), ('--report-thresh', args.report_thresh):
        if not 0 <= score <= 1:
            raise UserError('%s %g: must be from 0 to 1' % (flag, score))
    check_output_file('--json', args.json)
    check_output_file('--detections', args.detections)
    runtimes.check_flags(args)
    return args


def print_table(values):
    """A line for each class and number, the summary last."""
    width = max(map(len, values))
    for name, value in values.items():
        print('%-*s  %s' % (width, name, '  none' if math.isnan(value) else '%.4f' % value))


def print_sizes(results):
    """A line for each input size: its summary number and the milliseconds an image."""
    summary = list(results[0]['values'])[-1]
    print('%6s  %6s  ms/image' % ('size', summary))
    for result in results:
        print('%6d  %6.4f  %8.1f' % (result['data_shape'], result['values'][summary], result['milliseconds']))


def timed(batches, times):
    """Yield from `batches`; append to `times` the seconds an image that each keeps its consumer busy: no loading."""
    for batch in batches:
        start = time.perf_counter()
        yield batch
        times.append((time.perf_counter() - start) / len(batch[0]))


def detector(args):
    """What the file `--params` is: its info; (images, sizes) -> each size's batches; and `evaluate` of
    `yolo3.validation` or `yolo3.deploy`, (batches, metric, size) -> the metric's values."""
    if runtimes.is_exported(args.params):
        net, info = runtimes.load(args.params, args.backend, args.nms_score_floor)
        return (info, lambda images, sizes: [runtimes.batches(images, size, args.batch_size, args.num_workers)
                                             for size in sizes], functools.partial(runtimes.evaluate, net))
    # Here, as an .onnx file needs no MXNet.
    from yolo3 import detect, weights
    from yolo3.devices import contexts
    from yolo3.data import loader
    devices = contexts(args.gpus)
    net, info = weights.load_detector(args.params, args.network, args.dataset, comma_list(args.classes))

    def batches_of(images, sizes):
        # This forks the workers, so nothing is on a GPU yet.
        on_gpu = devices[0].device_type == 'gpu'
        loaders = [loader.val_loader(images, size, args.batch_size, pin_memory=on_gpu) for size in sizes]
        loader.start_workers(args.num_workers, *loaders)
        net.collect_params().reset_ctx(devices)
        return loaders
    return info, batches_of, functools.partial(detect.evaluate, net, devices=devices,
                                               score_floor=args.nms_score_floor)


def main():
    args = parse_args()
    if args.report:
        make_output_folder('--report', args.report)
    info, batches_of, evaluate = detector(args)
    dataset = args.dataset or info['dataset']
    metric_name = args.metric or metrics.default_metric(dataset)
    if metric_name == 'coco' and dataset != 'coco':
        raise UserError('--metric coco needs --dataset coco: VOC annotations do not say what it counts')
    sizes = args.data_shape or [info['data_shape']]

    images = open_val(dataset, args.dataset_root, info['classes'], comma_list(args.val_splits))
    print(images.summary())
    results = []
    for size, batches in zip(sizes, batches_of(images, sizes)):
        metric = metrics.make_metric(metric_name, images, size if args.gluoncv_compatible else None)
        times = []
        with log.bar(len(images), 'evaluation') as bar:
            values = evaluate(timed(log.advancing(bar, batches), times), metric, size)
        # A size's first batch also builds and tunes the network for it.
        results.append({'data_shape': size, 'values': values, 'milliseconds': 1000 * np.median(times[1:] or times)})
    if len(sizes) == 1:
        print_table(values)
        numbers = {'data_shape': size, 'values': values}
    else:
        print_sizes(results)
        numbers = {'sizes': results}
    if args.json:
        write_json(args.json, dict(params=args.params, images=len(images), metric=metric_name, **numbers))
    if args.detections:
        with replacing(args.detections) as temporary, open(temporary, 'w') as file:
            json.dump(metrics.coco_results(images, metric.detections), file)
    if args.report:
        facts = '%s; input %d x %d; metric %s' % (images.summary(), size, size, metric_name)
        report.write(args.report, os.path.basename(args.params), facts, images, metric.detections, values,
                     args.report_thresh)


if __name__ == '__main__':
    run(main)
