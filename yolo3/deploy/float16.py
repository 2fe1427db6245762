"""The convolutions of an exported network in float16: 11 bits, fewer under 6e-5, and nothing over 65504."""
import collections

import numpy as np
from onnx import numpy_helper

from yolo3.cli import UserError

TINY = np.float32(1e-12)  # in place of 0

def halved(nodes, constants):
    """The `constants` of an ONNX graph of `nodes`, both lists, with the weights of its convolutions in float16.

    Raises UserError if one of these is too large.
    """
    weights = {constant.name: numpy_helper.to_array(constant) for constant in constants}
    balance(nodes, weights)
    for name in [name for node in nodes if node.op_type == 'Conv' for name in node.input[1:]]:
        if np.abs(weights[name]).max() > np.finfo('float16').max:
            raise UserError('--fp16: %s goes beyond 65504, the largest float16: export without it' % name)
        weights[name] = weights[name].astype('float16')
    return [numpy_helper.from_array(values, name) for name, values in weights.items()]


def balance(nodes, weights):
    """Bring each channel's largest weights in a depthwise convolution and in the layer before it to the same size.

    Trained networks have channels of tiny values that the following weights, up to 500,000, bring back to size. The
    ReLU between the two commutes with the scales: powers of two, so exact. See Nagel et al., 2019, section 4.1.
    """
    makers = {output: node for node in nodes for output in node.output}
    users = collections.Counter(name for node in nodes for name in node.input)
    for node in nodes:
        activation = makers.get(node.input[0])
        if node.op_type != 'Conv' or weights[node.input[1]].shape[1] > 1 or users[node.input[0]] > 1 \
                or activation is None or activation.op_type not in ('Relu', 'LeakyRelu'):
            continue
        own, (before, bias) = node.input[1], makers[activation.input[0]].input[1:]
        largest = np.maximum(np.abs(weights[before]).max(axis=(1, 2, 3)), np.abs(weights[bias]))
        ratio = np.abs(weights[own]).max(axis=(1, 2, 3)) / np.maximum(largest, TINY)
        scale = np.exp2(np.round(np.log2(np.maximum(ratio, TINY)) / 2)).astype('float32')
        weights[own] = weights[own] / scale[:, None, None, None]
        weights[before] = weights[before] * scale[:, None, None, None]
        weights[bias] = weights[bias] * scale
