"""A trained detector from its file, .params or .onnx, behind one interface, and the flags that name it.

Both kinds (`yolo3.detect.MXNetDetector`, `yolo3.deploy.runtimes.ONNXDetector`) have
    info: dict with at least network, classes (names), anchors, data_shape (pixels) and dataset (of DATASETS);
    detect(images, size): images, a list of (H, W, 3) uint8 RGB arrays -> for each its (ids (n,), scores (n,),
        boxes (n, 4)), the best score first, boxes as corners in the image's own pixels and clipped to it;
    loaders(images, sizes, batch_size, num_workers): for each input size, pixels, the batches of a data set;
    evaluate(batches, metric, size): the values of a metric of `yolo3.metrics` over one of these;
    streams: how many threads may call `detect` at once, each then with its share of the processors.
An .onnx file needs neither MXNet nor GluonCV.
"""
import argparse
import os
import sys

from yolo3.cli import UserError, comma_list
from yolo3.defaults import BACKENDS, DATASETS, NMS
from yolo3.sidecar import network_name, require_given

ZOO_DETECTOR = 'yolo3_mobilenet1.0_coco'


def add_params_flags(parser, kinds='.params', default=''):
    """The flags that name the detector's file, of one of the `kinds`, and what the sidecar of a .params file says.

    default: the detector without --params; with '' the flag is required.
    """
    add = parser.add_argument
    add('--params', '--pretrained', dest='params', required=not default, default=default, metavar='FILE',
        help="%s file of the detector, or %s or ..._voc of GluonCV's zoo%s"
        % (kinds, ZOO_DETECTOR, ', the default' if default else ''))
    add('--mirror', type=mirror, metavar='URL', help="model store to download the zoo's weights from")
    add('--network', type=network_name, help='backbone of a .params file without sidecar; default: mobilenet1_0')
    add('--dataset', default='', type=str.lower, choices=DATASETS,
        help='form of the data set: voc, coco or yolo; voc and coco give the classes of a .params file without sidecar')
    add('--classes', default='', metavar='A,B,C', help='class names of a .params file without sidecar')


def mirror(url):
    """Make `url` GluonCV's model store."""
    if not url.startswith(('http://', 'https://')):
        raise argparse.ArgumentTypeError('%s does not start with http:// or https://' % url)
    os.environ['MXNET_GLUON_REPO'] = url
    return url


def add_detector_flags(parser, default=''):
    """The flags of `open_detector`; default: see `add_params_flags`."""
    add_params_flags(parser, '.params or .onnx', default)
    add = parser.add_argument
    add('--gpus', default=None, metavar='0,1', help="GPUs to use; '' is the CPU; default: GPU 0 if there is one")
    add('--backend', default='', choices=BACKENDS,
        help='runtime of an .onnx file; default: %s' % BACKENDS[0])


def open_detector(args, nms=NMS, at_once=1):
    """The detector that the flags of `add_detector_flags` name; nms: its settings. Raises UserError.

    at_once: how many images there are to look at side by side: that is faster in all, and slower for each of them.
    """
    # Imports are here as flags need none of them, and an .onnx file needs no MXNet.
    if is_exported(args.params):
        from yolo3.deploy.runtimes import ONNXDetector
        detector = ONNXDetector(args.params, args.backend, args.gpus, nms, at_once)
        require_given(detector.info, args.params, args.network, comma_list(args.classes))
        if detector.runs_on:
            print('%s runs on %s' % (args.params, detector.runs_on), file=sys.stderr)
        return detector
    if args.backend:
        raise UserError('--backend %s is for .onnx files, not for %s' % (args.backend, args.params))
    from yolo3.detect import MXNetDetector
    from yolo3.devices import contexts
    from yolo3.weights import load_detector
    devices = contexts(args.gpus)
    return MXNetDetector(*load_detector(args.params, args.network, args.dataset, comma_list(args.classes)), devices,
                         nms)


def is_exported(path):
    """Whether `path` names an .onnx file, as opposed to .params."""
    return path.lower().endswith('.onnx')
