"""Evaluate a detector: a .params or .onnx file and a data set -> the AP of each class and the mAP."""
import argparse
import os
import time

from yolo3.cli import ArgumentParser, UserError, comma_list, input_size, positive, processes, run, share, start
from yolo3.defaults import METRICS, NMS, ROOT
from yolo3.detector import add_detector_flags, open_detector
from yolo3.files import check_output, make_output_folder
from yolo3.show.flags import add_vote_flag


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add_detector_flags(parser)
    add = parser.add_argument
    add('--dataset-root', default='', metavar='DIR',
        help='folder of your own data, or its data.yaml (yolo); default: ~/.mxnet/datasets/...')
    add('--val-splits', default='', metavar='A,B',
        help='2007_test,... (voc), the stem of an annotation file (coco) or val (yolo)')
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
    add('--nms-score-floor', type=share, default=NMS.score_floor, metavar='SCORE',
        help='boxes that score less, 0..1, are dropped before NMS; default: %(default)s, as in GluonCV')
    add_vote_flag(parser)
    add('--json', default='', metavar='FILE', help='also write the numbers to this file')
    add('--detections', default='', metavar='FILE|DIR', help="write the detections to this file, in COCO's result "
        "format, or into this folder, as VOC's comp4_det_test_dog.txt and so on")
    add('--no-labels', action='store_true', help='only write --detections: of an image_info JSON, of a split without '
        'annotations or, without --val-splits, of all images below --dataset-root')
    add('--report', default='', metavar='DIR', help='write report.html and its pictures to this folder')
    add('--report-thresh', type=share, default=0.5, metavar='SCORE',
        help="lowest score, 0..1, in the report's confusion matrix and pictures; default: %(default)s, as in demo.py")
    args = parser.parse_args(argv)
    if len(args.data_shape) > 1 and (args.detections or args.report or args.tta):
        raise UserError('--detections, --report and --tta need a single --data-shape, not %d' % len(args.data_shape))
    if args.no_labels:
        refused = [flag for flag in ('--metric', '--json', '--report', '--tta') if vars(args)[flag[2:]]]
        refused += ['several --data-shape'] if len(args.data_shape) > 1 else []
        if refused or not args.detections:
            raise UserError('--no-labels %s' % ('cannot be combined with ' + refused[0] if refused else
                                                'needs --detections FILE: without labels there are no numbers'))
    used = [args.params, args.dataset_root or ROOT, args.report and os.path.join(args.report, 'report.html')]
    args.json = check_output('--json', args.json, used, begins='{"params":')
    if args.detections.endswith(os.sep) or os.path.isdir(args.detections):
        make_output_folder('--detections', args.detections)
    else:
        args.detections = check_output('--detections', args.detections, [*used, args.json], begins='[{"image_id":')
    return args


def input_sizes(text):
    """'320,416' -> [320, 416]."""
    return [input_size(size) for size in comma_list(text)]


def metric_names(text):
    """'voc07,coco' -> ['voc07', 'coco']."""
    names = comma_list(text)
    if not names or not set(names) <= set(METRICS) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError('%s is not one of %s, or several joined by commas'
                                         % (text, ', '.join(METRICS)))
    return names


start(__name__, parse_args)

import numpy as np

from yolo3 import log, metrics, submission, tta
from yolo3.atomic import write_json
from yolo3.data.datasets import open_val
from yolo3.data.unlabelled import open_unlabelled
from yolo3.f1 import f1
from yolo3.show import report, tables


def timed(batches, seconds):
    """Yield from `batches`; append to `seconds` the time per image that the consumer takes, without loading."""
    for batch in batches:
        start = time.perf_counter()
        yield batch
        seconds.append((time.perf_counter() - start) / len(batch[0]))


def look(detector, batches, size, images):
    """What the detector finds in the `batches` of `images`, as metrics.Detections; and milliseconds an image."""
    found, seconds = metrics.Detections(images), []
    with log.bar(len(images), 'evaluation') as bar:
        detector.evaluate(timed(log.advancing(bar, batches), seconds), found, size)
    # The first batch of a size also builds and tunes the network for it.
    return found, 1000 * float(np.median(seconds[1:] or seconds))


def measured(found, args, size):
    """{metric: its numbers} of what `look` found at an input size."""
    made = {name: metrics.make_metric(name, found.images, size if args.gluoncv_compatible else None)
            for name in args.metric}
    return {name: metrics.measure(metric, found.detections) for name, metric in made.items()}


def unwrapped(values):
    """The numbers alone if they are of one metric."""
    return values if len(values) > 1 else next(iter(values.values()))


def main(argv=None):
    args = parse_args(argv)
    log.start_log()
    nms = NMS._replace(score_floor=args.nms_score_floor, vote=args.vote)
    detector = open_detector(args, nms, args.batch_size)
    dataset = args.dataset or detector.info['dataset']
    args.metric = args.metric or [metrics.default_metric(dataset)]
    open_images = open_unlabelled if args.no_labels else open_val
    images = open_images(dataset, args.dataset_root, detector.info['classes'], comma_list(args.val_splits),
                         args.on_bad_image)
    if args.report:
        make_output_folder('--report', args.report, {os.path.dirname(images.image_path(index))
                                                     for index in range(len(images))})
    print(images.summary())

    sizes, results = args.data_shape or [detector.info['data_shape']], []
    views = tta.Views(detector, images, sizes[0], args.batch_size, args.num_workers, nms) if args.tta else None
    for size, batches in zip(sizes, detector.loaders(images, sizes, args.batch_size, args.num_workers)):
        found, milliseconds = look(detector, batches, size, images)
        values = {} if args.no_labels else measured(found, args, size)
        results.append({'data_shape': size, 'values': values, 'milliseconds': milliseconds})

    numbers = {'params': args.params, 'images': len(found.detections), 'metric': ','.join(args.metric)}
    if len(sizes) > 1:
        tables.print_sizes(results)
        numbers['sizes'] = [dict(result, values=unwrapped(result['values'])) for result in results]
    elif not args.no_labels:
        if views:
            numbers['without_tta'] = unwrapped(values)
            tables.print_without_tta(values)
            found.detections = views.merge(found.detections)
            values = measured(found, args, size)
        tables.print_values(values)
        numbers.update(data_shape=size, values=unwrapped(values))
        balance = f1(found)
        if balance:
            tables.print_f1(balance)
            numbers.update(thresh=balance.threshold, f1=balance.table())
    if args.json:
        write_json(args.json, numbers)
    if args.detections:
        submission.write(args.detections, images, found.detections)
    if args.report:
        text = '%s; input %d x %d; metric %s' % (images.summary(), size, size, args.metric[0])
        report.write(args.report, os.path.basename(args.params), text, found, values[args.metric[0]],
                     args.report_thresh)


if __name__ == '__main__':
    run(main)
