"""Evaluate a detector: a .params or .onnx file and a data set -> the AP of each class and the mAP."""
import math

from yolo3 import deploy, metrics, progress
from yolo3.cli import ArgumentParser, UserError, comma_list, run
from yolo3.datasets import open_val
from yolo3.files import write_json


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
    add('--data-shape', type=int, default=0, help='input size, pixels; default: as in training')
    add('--batch-size', type=int, default=64)
    add('--num-workers', '-j', type=int, default=4, help='processes that prepare the batches')
    add('--gpus', default=None, help="GPUs to use; '' is the CPU; default: GPU 0 where there is one")
    add('--backend', default='', choices=('',) + deploy.BACKENDS,
        help='what runs an .onnx file, on the CPU; default: %s' % deploy.BACKENDS[0])
    add('--json', default='', help='write the numbers to this file too')
    args = parser.parse_args(argv)
    if args.data_shape < 0 or args.data_shape % 32:
        raise UserError('--data-shape %d: must be a positive multiple of 32, the largest stride' % args.data_shape)
    if args.batch_size < 1 or args.num_workers < 0:
        raise UserError('--batch-size must be at least 1 and --num-workers at least 0')
    deploy.check_flags(args)
    return args


def print_table(values):
    """A line for each class and number, the summary last."""
    width = max(map(len, values))
    for name, value in values.items():
        print('%-*s  %s' % (width, name, '  none' if math.isnan(value) else '%.4f' % value))


def main():
    args = parse_args()
    if deploy.is_exported(args.params):
        net, info = deploy.load(args.params, args.backend)
    else:
        # Here, as an .onnx file needs no MXNet.
        from yolo3 import loader, network, runtime, validation
        devices = runtime.devices(args.gpus)
        net, info = network.load_detector(args.params, args.network, args.dataset, comma_list(args.classes))
    dataset = args.dataset or info['dataset']
    metric_name = args.metric or metrics.default_metric(dataset)
    if metric_name == 'coco' and dataset != 'coco':
        raise UserError('--metric coco needs --dataset coco: VOC annotations do not say what it counts')
    size = args.data_shape or info['data_shape']

    images = open_val(dataset, args.dataset_root, info['classes'], comma_list(args.val_splits))
    print(images.summary())
    metric = metrics.make_metric(metric_name, images)
    if deploy.is_exported(args.params):
        batches = deploy.batches(images, size, args.batch_size, args.num_workers)
    else:
        # This forks the workers, so nothing is on a GPU yet.
        batches = loader.val_loader(images, size, args.batch_size, args.num_workers, devices[0].device_type == 'gpu')
        net.collect_params().reset_ctx(devices)
    with progress.bar(len(images), 'evaluation') as bar:
        batches = progress.advancing(bar, batches)
        values = (deploy.evaluate(net, batches, metric, size) if deploy.is_exported(args.params) else
                  validation.evaluate(net, batches, metric, size, devices))
    print_table(values)
    if args.json:
        write_json(args.json, {'params': args.params, 'images': len(images), 'data_shape': size,
                               'metric': metric_name, 'values': values})


if __name__ == '__main__':
    run(main)
