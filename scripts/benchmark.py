"""Measure training against the stock GluonCV pipeline and inference against other runtimes, each in one run."""
import argparse
import importlib
import os
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

from yolo3.cli import ArgumentParser, UserError, input_size, positive, run, start

start(__name__)

from yolo3.atomic import write_json
from yolo3.files import check_output


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('what', choices=('all', 'loader', 'step', 'epoch', 'eval', 'infer', 'runtimes', 'scale', 'start'),
        help='a file of scripts/benchmarks/; all: the ratios of all of them, beside those of the last release')
    add('--quick', action='store_true', help='one short round, of the most telling parts: under five minutes for all')
    add('--json', default='', help='write the figures to this file too')
    add('--dataset', default='coco', choices=('voc', 'coco'), help='form of the data set')
    add('--dataset-root', default='', help='folder of the data set; default: ~/.mxnet/datasets/voc or coco')
    add('--classes', default='', help='class names a,b,c of your own data')
    add('--train-splits', default='', help='as in training')
    add('--val-splits', default='', help='as in training (eval)')
    add('--backbone-params', default='', help="ImageNet weights in GluonCV's form (epoch); default: random weights")
    add('--batch-size', type=positive, default=8, help='scale: of all processes together')
    add('--data-shape', type=input_size, default=416, help='input size of step, eval, infer and scale, pixels')
    add('--amp', action='store_true', help='step: in bfloat16, against float32 and PyTorch in bfloat16')
    add('--min-shape', type=input_size, default=320, help='smallest input size of loader and epoch, pixels')
    add('--max-shape', type=input_size, default=608, help='largest input size of loader and epoch, pixels')
    add('--rounds', type=positive, default=3, help='how often each is measured, by turns; the median counts')
    add('--epochs', type=positive, default=1, help='epochs in each round of ours (epoch)')
    add('--params', default='', help='.params file to run (eval); infer and runtimes without it: random weights')
    add('--int8', default='', metavar='FILE', help='its INT8 file by quantize_onnx.py, for infer and runtimes')
    # For the processes that the benchmarks start: measure one alone, with the files in this folder.
    add('--only', default='', help=argparse.SUPPRESS)
    add('--folder', default='', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds = 1
    args.json = check_output('--json', args.json, [args.params, args.int8, args.backbone_params, args.dataset_root])
    args.command = [sys.executable, os.path.abspath(__file__), *(sys.argv[1:] if argv is None else argv)]
    return args


def main(argv=None):
    args = parse_args(argv)
    args.sizes = list(range(args.min_shape, args.max_shape + 1, 32))
    if not args.sizes:
        raise UserError('--min-shape %d is larger than --max-shape %d' % (args.min_shape, args.max_shape))
    figures = importlib.import_module('benchmarks.%s' % args.what).figures(args)
    if isinstance(figures, list):
        print_table(figures)
    else:
        for name, value in figures.items():
            print('%-52s %s' % (name, '%.4g' % value if isinstance(value, float) else value))
    if args.json:
        write_json(args.json, figures)


def print_table(rows):
    """Rows of equal columns; None is left blank."""
    texts = [list(rows[0])] + [['' if value is None else '%.4g' % value if isinstance(value, float) else str(value)
                                for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    for text in texts:
        print('  '.join(value.ljust(width) for value, width in zip(text, widths)).rstrip())


if __name__ == '__main__':
    run(main)
