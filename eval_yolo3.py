"""Evaluate a detector: a .params or .onnx file and a data set -> the AP of each class and the mAP."""
import argparse
import json
import math
import os
import time

from yolo3.cli import start

start(__name__)

import numpy as np

from yolo3 import log, metrics, tta
from yolo3.atomic import replacing, write_json
from yolo3.boxes import SCORE_FLOOR
from yolo3.cli import ArgumentParser, UserError, comma_list, input_size, positive, processes, run, share
from yolo3.data.datasets import ROOT, open_val
from yolo3.detector import add_detector_flags, open_detector
from yolo3.f1 import f1
from yolo3.files import check_output, make_output_folder
from yolo3.show import report


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add_detector_flags(parser)
    add = parser.add_argument
    add('--dataset-root', default='', metavar='DIR', help='folder of your own data; default: ~/.mxnet/datasets/...')
    add('--val-splits', default='', metavar='A,B', help='2007_test,... (voc) or the stem of an annotation file (coco)')
    add('--metric', default=[], type=metric_names, metavar='A[,B]', help='voc07: 11 points; voc: area under the curve; '
        'coco: AP50, AP75, AP and the rest of its 12 numbers; several joined by commas; default: by --dataset')
    add('--on-bad-image', default='', choices=('', 'skip', 'stop'), help='as in training: an image that is missing, '
        'unreadable or of another size than annotated is skipped with a warning, up to 1%% of them; any number; none')
    add('--data-shape', default=[], type=input_sizes, metavar='SIZE[,SIZE]',
        help='input size, pixels; default: as in training; several are compared by mAP and time per image')
    add('--batch-size', type=positive, default=64, metavar='N', help='images; default: %(default)s')
    add('--num-workers', '-j', type=processes, default=4, metavar='N',
        help='processes that prepare the batches; default: %(default)s')
    add('--tta', action='store_true', help='test-time augmentation: three sizes, each also mirrored, merged by NMS')
    add('--gluoncv-compatible', action='store_true',
        help="the numbers of GluonCV's eval_yolo.py: COCO without scores under 0.05, VOC in resized pixels")
    add('--nms-score-floor', type=share, default=SCORE_FLOOR, metavar='SCORE',
        help='boxes that score less, 0..1, are dropped before NMS; default: %(default)s, as in GluonCV')
    add('--json', default='', metavar='FILE', help='also write the numbers to this file')
    add('--detections', default='', metavar='FILE', help="write the detections to this file, in COCO's result format")
    add('--report', default='', metavar='DIR', help='write report.html and its pictures to this folder')
    add('--report-thresh', type=share, default=0.5, metavar='SCORE',
        help="lowest score, 0..1, in the report's confusion matrix and pictures; default: %(default)s, as in demo.py")
    args = parser.parse_args(argv)
    if len(args.data_shape) > 1 and (args.detections or args.report or args.tta):
        raise UserError('--detections, --report and --tta need a single --data-shape, not %d' % len(args.data_shape))
    used = [args.params, args.dataset_root or ROOT, args.report and os.path.join(args.report, 'report.html')]
    args.json = check_output('--json', args.json, used, begins='{"params":')
    args.detections = check_output('--detections', args.detections, [*used, args.json], begins='[{"image_id":')
    return args


def input_sizes(text):
    """'320,416' -> [320, 416]."""
    return [input_size(size) for size in comma_list(text)]


def metric_names(text):
    """'voc07,coco' -> ['voc07', 'coco']."""
    names = comma_list(text)
    if not names or not set(names) <= set(metrics.NAMES) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError('%s is not one of %s, or several joined by commas'
                                         % (text, ', '.join(metrics.NAMES)))
    return names


def timed(batches, seconds):
    """Yield from `batches`; append to `seconds` the time per image that the consumer takes, without loading."""
    for batch in batches:
        start = time.perf_counter()
        yield batch
        seconds.append((time.perf_counter() - start) / len(batch[0]))


def print_tables(values):
    """For each metric a line for each class and number, the summary last; `values` is {metric: {name: number}}."""
    for metric, numbers in values.items():
        if len(values) > 1:
            print('--metric %s' % metric)
        width = max(map(len, numbers))
        for name, value in numbers.items():
            print('%-*s  %s' % (width, name, '  none' if math.isnan(value) else '%.4f' % value))


def print_f1(found):
    """The threshold at which an F1 of `yolo3.f1` is best, and a line for each class there."""
    width = max(map(len, found.names))
    print('best mean F1, %.4f, at --thresh %.3f:' % (found.f1.mean(axis=0)[found.best], found.threshold))
    print('%-*s  precision  recall      F1' % (width, ''))
    for name, numbers in found.table().items():
        print('%-*s  %9.4f  %6.4f  %6.4f' % (width, name, *numbers.values()))


def print_sizes(results):
    """A line for each input size: the summary number of each metric and the milliseconds per image."""
    names = list(results[0]['values'])
    heads = names if len(names) > 1 else [list(results[0]['values'][names[0]])[-1]]
    print('%6s  %s  ms/image' % ('size', '  '.join('%6s' % head for head in heads)))
    for result in results:
        summaries = ['%6.4f' % list(values.values())[-1] for values in result['values'].values()]
        print('%6d  %s  %8.1f' % (result['data_shape'], '  '.join(summaries), result['milliseconds']))


def main(argv=None):
    args = parse_args(argv)
    log.start_log()
    detector = open_detector(args, args.nms_score_floor)
    dataset = args.dataset or detector.info['dataset']
    names = args.metric or [metrics.default_metric(dataset)]
    images = open_val(dataset, args.dataset_root, detector.info['classes'], comma_list(args.val_splits),
                      args.on_bad_image)
    if args.report:
        make_output_folder('--report', args.report, {os.path.dirname(images.image_path(index))
                                                     for index in range(len(images))})
    print(images.summary())

    results = []
    sizes = args.data_shape or [detector.info['data_shape']]
    views = tta.Views(detector, images, sizes[0], args.batch_size, args.num_workers) if args.tta else None
    for size, batches in zip(sizes, detector.loaders(images, sizes, args.batch_size, args.num_workers)):
        metric, *others = [metrics.make_metric(name, images, size if args.gluoncv_compatible else None)
                           for name in names]
        seconds = []
        with log.bar(len(images), 'evaluation') as bar:
            values = [detector.evaluate(timed(log.advancing(bar, batches), seconds), metric, size)]
        values = dict(zip(names, values + [metrics.measure(other, metric.detections) for other in others]))
        # The first batch of a size also builds and tunes the network for it.
        results.append({'data_shape': size, 'values': values, 'milliseconds': 1000 * np.median(seconds[1:] or seconds)})

    if views:
        plain, merged = values, views.merge(metric.detections)
        values = {name: metrics.measure(each, merged) for name, each in zip(names, [metric, *others])}
        results[0]['values'] = values
    balance = f1(metric) if len(sizes) == 1 else None
    print_tables(values) if len(sizes) == 1 else print_sizes(results)
    if views:
        for name in names:
            print('without --tta %s was %.4f' % list(plain[name].items())[-1])
    if balance:
        print_f1(balance)
    if args.json:
        if len(names) == 1:
            results = [dict(result, values=result['values'][names[0]]) for result in results]
        numbers = {'data_shape': size, 'values': results[0]['values']} if len(sizes) == 1 else {'sizes': results}
        if views:
            numbers['without_tta'] = plain if len(names) > 1 else plain[names[0]]
        if balance:
            numbers.update(thresh=balance.threshold, f1=balance.table())
        facts = {'params': args.params, 'images': len(metric.detections), 'metric': ','.join(names)}
        write_json(args.json, dict(facts, **numbers))
    if args.detections:
        with replacing(args.detections) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            json.dump(metrics.coco_results(images, metric.detections), file)
    if args.report:
        text = '%s; input %d x %d; metric %s' % (images.summary(), size, size, names[0])
        report.write(args.report, os.path.basename(args.params), text, metric, values[names[0]], args.report_thresh)


if __name__ == '__main__':
    run(main)
