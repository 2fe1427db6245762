"""Export a detector to ONNX: a .params file -> one .onnx file, batch norm folded in, boxes decoded inside."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import ArgumentParser, UserError, comma_list, fail, run, start
from yolo3.defaults import NMS, STRIDES
from yolo3.detector import add_params_flags
from yolo3.files import check_output


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add_params_flags(parser)
    add = parser.add_argument
    add('--output', default='', metavar='FILE',
        help='file to write; default: the .params file with .onnx or, with --fp16, with _fp16.onnx')
    add('--nms', action='store_true', help='do NMS inside too: one image in, final detections out')
    add('--uint8-input', action='store_true', help="take the image's bytes, (B, H, W, 3) RGB, and normalise inside")
    add('--heads', action='store_true', help="only the three raw outputs, for runtimes such as OpenCV's dnn")
    add('--fp16', action='store_true',
        help='convolutions in float16: half the size, for GPUs; input, outputs and decoding stay as they are')
    args = parser.parse_args(argv)
    if args.nms and args.heads:
        raise UserError('--nms and --heads: choose one, as NMS needs the decoded boxes')
    args.output = args.output or re.sub(r'\.params$', '', args.params) + ('_fp16.onnx' if args.fp16 else '.onnx')
    args.output = check_output('--output', args.output, [args.params], kinds=('.onnx',))
    return args


start(__name__, parse_args)

import numpy as np

from yolo3.atomic import replacing
from yolo3.boxes import MEAN, STD
from yolo3.network import LARGEST_EXPONENT, anchors_of
from yolo3.sidecar import OPTIONAL
from yolo3.weights import load_detector
from mxnet.gluon import nn

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from yolo3.deploy.float16 import halved
except ImportError:
    fail(UserError('Python has no module onnx here: pip install -r requirements/deploy.txt'))

OPSET, IR_VERSION = 13, 8  # per-channel INT8 needs opset 13; newer ones add nothing here


class Graph:
    """Nodes and constants of an ONNX graph under construction; a tensor is its name."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, op, *inputs, name='', outputs=1, **attributes):
        """Append a node; arrays among the inputs become constants. Returns its output, or a list of its `outputs`."""
        name = name or '%s_%d' % (op.lower(), len(self.nodes))
        inputs = [part if isinstance(part, str) else self.constant('%s.%d' % (name, position), part)
                  for position, part in enumerate(inputs)]
        results = [name] if outputs == 1 else ['%s:%d' % (name, number) for number in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, results, name, **attributes))
        return results[0] if outputs == 1 else results

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def conv(graph, name, x, block, norm=None, scale=None):
    """A Conv2D with the BatchNorm after it folded in; the input channels are multiplied by `scale` first."""
    weight = block.weight.data().asnumpy().astype('float64')
    bias = np.zeros(len(weight)) if block.bias is None else block.bias.data().asnumpy().astype('float64')
    if norm is not None:
        gamma, beta, mean, variance = [parameter.data().asnumpy().astype('float64') for parameter in (
            norm.gamma, norm.beta, norm.running_mean, norm.running_var)]
        if norm._kwargs['fix_gamma']:
            gamma = np.ones_like(gamma)
        factor = gamma / np.sqrt(variance + norm._kwargs['eps'])
        weight, bias = weight * factor[:, None, None, None], beta + (bias - mean) * factor
    if scale is not None:
        weight = weight * scale[:, None, None]
    settings = block._kwargs
    return graph.add('Conv', x, graph.constant(name + '.weight', weight.astype('float32')),
                     graph.constant(name + '.bias', bias.astype('float32')), name=name, kernel_shape=settings['kernel'],
                     strides=settings['stride'], pads=settings['pad'] * 2, dilations=settings['dilate'],
                     group=settings['num_group'])


def layers(block, name):
    """The (name, layer) pairs of nested Sequential blocks, in order."""
    if isinstance(block, nn.HybridSequential):
        return [pair for key, child in block._children.items() for pair in layers(child, '%s.%s' % (name, key))]
    return [(name, block)]


def sequence(graph, name, x, block, scale=None):
    """The layers of a Sequential block in order; `scale` is for the first convolution, see `conv`."""
    pairs = layers(block, name)
    for (path, layer), (_, following) in zip(pairs, pairs[1:] + [('', None)]):
        if isinstance(layer, nn.Conv2D):
            norm = following if isinstance(following, nn.BatchNorm) else None
            x, scale = conv(graph, path, x, layer, norm, scale), None
        elif isinstance(layer, nn.Activation) and layer._act_type == 'relu':
            x = graph.add('Relu', x, name=path)
        elif isinstance(layer, nn.LeakyReLU):
            x = graph.add('LeakyRelu', x, name=path, alpha=layer._alpha)
        elif not isinstance(layer, nn.BatchNorm):
            raise TypeError('%s: no ONNX operator for %s' % (path, type(layer).__name__))
    return x


def heads(graph, net, x, scale=None):
    """The raw outputs of GluonCV's YOLOV3 for the input x, (B, anchors * (5 + classes), H, W), the coarsest first."""
    routes, results = [], []
    for number, stage in enumerate(net.stages):
        x, scale = sequence(graph, 'stages.%d' % number, x, stage, scale), None
        routes.append(x)
    routes.pop()
    for number, (block, output) in enumerate(zip(net.yolo_blocks, net.yolo_outputs)):
        x = sequence(graph, 'yolo_blocks.%d.body' % number, x, block.body)
        tip = sequence(graph, 'yolo_blocks.%d.tip' % number, x, block.tip)
        results.append(conv(graph, 'yolo_outputs.%d.prediction' % number, tip, output.prediction))
        if routes:
            x = sequence(graph, 'transitions.%d' % number, x, net.transitions[number])
            x = graph.add('Resize', x, '', np.float32([1, 1, 2, 2]), name='upsample.%d' % number, mode='nearest',
                          coordinate_transformation_mode='asymmetric', nearest_mode='floor')
            x = graph.add('Concat', x, routes.pop(), name='concat.%d' % number, axis=1)
    return results


def decode(graph, head, output, num_class):
    """Boxes (B, n, 4), corners in input pixels, and scores (B, n, num_class) of one raw output, as YOLOOutputV3's.

    The n predictions are ordered by row, column and anchor.
    """
    anchors = output.anchors.data().asnumpy().reshape(-1, 2)
    head = graph.add('Transpose', head, perm=[0, 2, 3, 1])
    # A 0 keeps a dimension: batch, rows, columns.
    cells = graph.add('Reshape', head, [0, 0, 0, len(anchors), 5 + num_class])
    centre, extent, objectness, classes = graph.add('Split', cells, [2, 2, 1, num_class], outputs=4, axis=-1)
    shape = graph.add('Shape', head)
    rows, columns = [graph.add('Gather', shape, axis) for axis in (1, 2)]
    across, down = [graph.add('Cast', graph.add('Range', np.int64(0), count, np.int64(1)), to=TensorProto.FLOAT)
                    for count in (columns, rows)]
    ones = graph.add('Concat', [1], graph.add('Unsqueeze', rows, [0]), graph.add('Unsqueeze', columns, [0]), [1, 1],
                     axis=0)
    corner = graph.add('Concat', graph.add('Expand', graph.add('Reshape', across, [1, 1, -1, 1, 1]), ones),
                       graph.add('Expand', graph.add('Reshape', down, [1, -1, 1, 1, 1]), ones), axis=-1)
    centre = graph.add('Mul', graph.add('Add', graph.add('Sigmoid', centre), corner), np.float32(output._stride))
    extent = graph.add('Clip', extent, np.float32(-LARGEST_EXPONENT), np.float32(LARGEST_EXPONENT))
    half = graph.add('Mul', graph.add('Exp', extent), anchors / 2)
    boxes = graph.add('Concat', graph.add('Sub', centre, half), graph.add('Add', centre, half), axis=-1)
    scores = graph.add('Mul', graph.add('Sigmoid', classes), graph.add('Sigmoid', objectness))
    return graph.add('Reshape', boxes, [0, -1, 4]), graph.add('Reshape', scores, [0, -1, num_class])


def suppress(graph, boxes, scores):
    """Final boxes (n, 4), scores (n,) and classes (n,) of one image, the best first, as GluonCV's box_nms."""
    # Only the best 400 scores of all classes take part. The operator has no such setting, but its threshold can be
    # computed: the 401st score.
    flat = graph.add('Concat', graph.add('Reshape', scores, [-1]), np.zeros(NMS.topk + 1, 'float32'), axis=0)
    best, _ = graph.add('TopK', flat, [NMS.topk + 1], outputs=2)
    threshold = graph.add('Max', graph.add('Gather', best, [NMS.topk], axis=0), np.float32([NMS.score_floor]))
    chosen = graph.add('NonMaxSuppression', boxes, graph.add('Transpose', scores, perm=[0, 2, 1]),
                       np.int64([NMS.kept]), np.float32([NMS.thresh]), threshold)
    boxes, scores = [graph.add('Squeeze', tensor, [0]) for tensor in (boxes, scores)]
    classes, numbers = [graph.add('Gather', chosen, column, axis=1) for column in (1, 2)]
    scores = graph.add('GatherND', scores, graph.add('Concat', graph.add('Unsqueeze', numbers, [1]),
                                                     graph.add('Unsqueeze', classes, [1]), axis=1))
    count = graph.add('Min', graph.add('Shape', scores), np.int64([NMS.kept]))
    scores, order = graph.add('TopK', scores, count, outputs=2)
    return (graph.add('Gather', boxes, graph.add('Gather', numbers, order)), scores,
            graph.add('Gather', classes, order))


def export(net, info, nms=False, uint8_input=False, only_heads=False, fp16=False):
    """The ONNX model of a detector on the CPU; `net` and `info` as from `load_detector`, the rest as the flags.

    Input: `images`, float32 (B, 3, H, W), RGB, normalised with the metadata's mean and std after division by 255; or
    uint8 (B, H, W, 3). H and W are multiples of 32. Outputs: `boxes` (B, N, 4) float32, corners in input pixels;
    `scores` (B, N, classes) float32; `classes` (B, N) int64, the best of each. With nms, B is 1 and they are (n, 4),
    (n,), (n,), the best first, n at most 100. With only_heads: `head_32`, `head_16`, `head_8`, raw. fp16 is for what
    is computed between the input and the raw outputs.
    """
    graph, x, scale = Graph(), 'images', None
    if uint8_input:
        # The mean is subtracted before the first convolution pads with zeros; the division is folded into its weights.
        x = graph.add('Transpose', graph.add('Cast', x, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
        x = graph.add('Sub', x, 255 * np.float32(MEAN).reshape(1, 3, 1, 1))
        scale = 1 / (255 * np.float64(STD))
    if fp16:
        x = graph.add('Cast', x, to=TensorProto.FLOAT16)
    raw, num_class = heads(graph, net, x, scale), len(info['classes'])
    if fp16:
        graph.constants = halved(graph.nodes, graph.constants)
        raw = [graph.add('Cast', head, to=TensorProto.FLOAT) for head in raw]  # boxes in pixels need more bits
    batch = 1 if nms else 'batch'
    if only_heads:
        results = [('head_%d' % output._stride, tensor, TensorProto.FLOAT,
                    ['batch', 3 * (5 + num_class), 'height/%d' % output._stride, 'width/%d' % output._stride])
                   for output, tensor in zip(net.yolo_outputs, raw)]
    else:
        decoded = [decode(graph, head, output, num_class) for head, output in zip(raw, net.yolo_outputs)]
        boxes, scores = [graph.add('Concat', *parts, name=name, axis=1)
                         for name, parts in zip(('all_boxes', 'all_scores'), zip(*decoded))]
        if nms:
            boxes, scores, classes = suppress(graph, boxes, scores)
            shapes = ['detections', 4], ['detections'], ['detections']
        else:
            classes = graph.add('ArgMax', scores, axis=-1, keepdims=0)
            shapes = [batch, 'predictions', 4], [batch, 'predictions', num_class], [batch, 'predictions']
        results = list(zip(('boxes', 'scores', 'classes'), (boxes, scores, classes),
                           (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64), shapes))
    for name, tensor, _, _ in results:
        graph.nodes.append(helper.make_node('Identity', [tensor], [name], name))
    inputs = helper.make_tensor_value_info('images', *(
        (TensorProto.UINT8, [batch, 'height', 'width', 3]) if uint8_input else
        (TensorProto.FLOAT, [batch, 3, 'height', 'width'])))
    outputs = [helper.make_tensor_value_info(name, kind, shape) for name, _, kind, shape in results]
    model = helper.make_model(helper.make_graph(graph.nodes, 'yolo3', [inputs], outputs, graph.constants),
                              opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION,
                              producer_name='scripts/export_onnx.py')
    helper.set_model_props(model, {key: json.dumps(value) for key, value in {
        'network': info['network'], 'classes': list(info['classes']), 'dataset': info['dataset'],
        'data_shape': info['data_shape'], 'anchors': anchors_of(net), 'strides': STRIDES, 'mean': MEAN, 'std': STD,
        **{key: info[key] for key in OPTIONAL if key in info},
    }.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def main(argv=None):
    args = parse_args(argv)
    net, info = load_detector(args.params, args.network, args.dataset, comma_list(args.classes))
    model = export(net, info, args.nms, args.uint8_input, args.heads, args.fp16)
    with replacing(args.output) as temporary, open(temporary, 'wb') as file:
        file.write(model.SerializeToString())
    print('%s: %.1f MB; in %s; out %s' % (args.output, os.path.getsize(args.output) / 1e6, *[
        ', '.join('%s (%s)' % (part.name, ', '.join(side.dim_param or str(side.dim_value)
                                                    for side in part.type.tensor_type.shape.dim)) for part in parts)
        for parts in (model.graph.input, model.graph.output)]))


if __name__ == '__main__':
    run(main)
