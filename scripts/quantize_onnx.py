"""Quantize an exported .onnx file to INT8: a quarter of the size, faster on a processor with INT8 instructions.

ONNX Runtime's static quantization, as QDQ pairs and per channel, with ranges calibrated on training images. Each
convolution is first quantized alone to measure how that changes the detections; the most sensitive ones stay float.
"""
import copy
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import ArgumentParser, UserError, comma_list, fail, positive, run, start
from yolo3.defaults import DATASETS
from yolo3.detector import is_exported
from yolo3.files import check_output
from yolo3.system import usable_cpus


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--params', required=True, metavar='FILE', help='the .onnx file that scripts/export_onnx.py wrote')
    add('--output', default='', metavar='FILE', help='file to write; default: as --params, with _int8.onnx')
    add('--dataset', default='', type=str.lower, choices=DATASETS,
        help='form of the data set: voc, coco or yolo; default: as in training')
    add('--dataset-root', default='', metavar='DIR', help='folder of your own data; default: ~/.mxnet/datasets/...')
    add('--train-splits', default='', metavar='A,B', help='splits to calibrate on; default: as in training')
    add('--images', type=positive, default=64, metavar='N',
        help='training images to calibrate on; default: %(default)s')
    args = parser.parse_args(argv)
    if not is_exported(args.params):
        raise UserError('--params %s: export it first with scripts/export_onnx.py' % args.params)
    args.output = args.output or os.path.splitext(args.params)[0] + '_int8.onnx'
    args.output = check_output('--output', args.output, [args.params, args.dataset_root], kinds=('.onnx',))
    return args


start(__name__, parse_args)

import numpy as np

from yolo3 import log
from yolo3.atomic import replacing
from yolo3.boxes import iou
from yolo3.data.datasets import open_train, val_sample
from yolo3.deploy.runtimes import ONNXDetector

try:
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QDQQuantizer, QuantType, create_calibrator
except ImportError as missing:
    fail(UserError('Python has no module %s here: pip install -r requirements/deploy.txt' % missing.name))

OPERATORS = ['Conv', 'Relu', 'LeakyRelu', 'Resize', 'Concat']
MEASURED = 8  # images on which a layer's sensitivity is measured
TOLERANCE = 0.01  # change of the detections' score and overlap, together: a layer that changes them more stays float
BUDGET = 0.01  # share of the float file that layers kept float may add


class Feeds(CalibrationDataReader):
    """The inputs (n, ...) one by one, as ONNX Runtime's calibration takes them."""

    def __init__(self, inputs):
        self._feeds = ({'images': inputs[number:number + 1]} for number in range(len(inputs)))

    def get_next(self):
        return next(self._feeds, None)


def calibrate(path, inputs):
    """The range of each tensor of the file at `path` over the inputs, for `quantize`."""
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(pathlib.Path(path), OPERATORS, os.path.join(folder, 'augmented.onnx'))
        calibrator.collect_data(Feeds(inputs))
        return calibrator.compute_data()


def quantize(model, ranges, names):
    """A copy of the model in which the nodes `names` are INT8."""
    quantizer = QDQQuantizer(copy.deepcopy(model), True, False, QuantType.QInt8, QuantType.QUInt8, ranges, names, [],
                             OPERATORS, {})
    quantizer.quantize_model()
    return quantizer.model.model


def trunk(model):
    """The names of the nodes to quantize: all up to the last Conv, after which the boxes are decoded."""
    nodes = list(model.graph.node)
    last = max(number for number, node in enumerate(nodes) if node.op_type == 'Conv')
    return [node.name for node in nodes[:last + 1] if node.op_type in OPERATORS]


def layers(model):
    """{convolution: (the names of it and its activation, its number of weights)}."""
    sizes = {constant.name: int(np.prod(constant.dims)) for constant in model.graph.initializer}
    activations = {node.input[0]: node.name for node in model.graph.node if node.op_type in ('Relu', 'LeakyRelu')}
    return {node.name: ([node.name] + [activations[output] for output in node.output if output in activations],
                        sizes[node.input[1]])
            for node in model.graph.node if node.op_type == 'Conv'}


def predictions(model, inputs):
    """Boxes (n, N, 4) and scores (n, N, classes) before NMS."""
    model = copy.deepcopy(model)
    model.graph.output.extend([onnx.helper.make_empty_tensor_value_info(name) for name in ('all_boxes', 'all_scores')])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    results = [session.run(['all_boxes', 'all_scores'], feed) for feed in Feeds(inputs)]
    return [np.concatenate(parts) for parts in zip(*results)]


def change(found, true):
    """How far predictions are from the true ones: the mean of 1 - IoU plus the change in score."""
    (boxes, scores), (true_boxes, true_scores) = found, true
    weights = true_scores.max(-1) ** 2  # so that the many with next to no score count for nothing
    overlaps = iou(boxes[..., None, :], true_boxes[..., None, :])[..., 0, 0]
    off = 1 - overlaps + np.abs(scores - true_scores).max(-1)
    return float((off * weights).sum() / weights.sum())


def sensitivities(model, ranges, inputs):
    """{convolution: the `change` when it alone is quantized}, the largest first. Raises UserError."""
    true, found = predictions(model, inputs), {}
    if not all(np.isfinite(values).all() for values in true) or not true[1].any():
        raise UserError('--params: on the training images the network gives no finite scores over 0: train it first')
    parts = layers(model)
    with log.bar(len(parts), 'sensitivity', 'layer') as bar:
        for name, (nodes, _) in parts.items():
            found[name] = change(predictions(quantize(model, ranges, nodes), inputs), true)
            bar.update()
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def choose_float(model, sensitivity):
    """The convolutions to keep float: those over TOLERANCE, the most sensitive first, within BUDGET."""
    parts, chosen = layers(model), []
    # A float weight takes three bytes more than an INT8 one.
    room = BUDGET * sum(size for _, size in parts.values()) * 4 / 3
    for name, changed in sensitivity.items():
        if changed > TOLERANCE and parts[name][1] <= room:
            chosen.append(name)
            room -= parts[name][1]
    return chosen


def main(argv=None):
    args = parse_args(argv)
    detector = ONNXDetector(args.params)
    info = detector.info
    model = onnx.shape_inference.infer_shapes(onnx.load(args.params))
    if any(constant.data_type == onnx.TensorProto.FLOAT16 for constant in model.graph.initializer):
        raise UserError('--params %s: ONNX Runtime quantizes float32 only: export it without --fp16' % args.params)
    images = open_train(args.dataset or info['dataset'], args.dataset_root, info['classes'],
                        comma_list(args.train_splits))
    order = np.random.RandomState(0).permutation(len(images))[:args.images + MEASURED]
    inputs = detector.prepare(np.stack([val_sample(images, index, info['data_shape'])[0] for index in order]))
    ranges = calibrate(args.params, inputs[:args.images])
    measured = inputs[-MEASURED:]  # other images than those of the ranges, if there are enough
    sensitivity = sensitivities(model, ranges, measured)
    kept_float = choose_float(model, sensitivity)
    parts = layers(model)
    floats = [node for name in kept_float for node in parts[name][0]]
    quantized = quantize(model, ranges, [name for name in trunk(model) if name not in floats])
    with replacing(args.output) as temporary, open(temporary, 'wb') as file:
        file.write(quantized.SerializeToString())
    for name in kept_float:
        print('kept float: %-28s alone changes detections by %.3f' % (name, sensitivity[name]))
    whole = change(predictions(quantized, measured), predictions(model, measured))
    print('%s: %.1f MB, %.1f%% of the float file; %d of %d convolutions INT8; detections changed by %.3f' % (
        args.output, os.path.getsize(args.output) / 1e6,
        100 * os.path.getsize(args.output) / os.path.getsize(args.params), len(parts) - len(kept_float), len(parts),
        whole))


if __name__ == '__main__':
    run(main)
