"""The names that frameworks give the arrays of MobileNetV1, and how they scale pixels -> a Source."""
from typing import Callable, List, NamedTuple, Optional, Tuple

import numpy as np

from yolo3.boxes import MEAN, STD
from yolo3.cli import shorten

LAYERS = 27  # convolutions, each with its batch norm: one, then 13 pairs of a depthwise and a 1x1
BLOCKS = (1, 2, 2, 6, 2)  # pairs in the stages of stride 2, 4, 8, 16, 32


class Scaling(NamedTuple):
    """How a network wants its pixels, RGB: (pixel / 255 - mean) / std."""

    mean: Tuple[float, ...]
    std: Tuple[float, ...]


SCALINGS = {'imagenet': Scaling(MEAN, STD), 'symmetric': Scaling((0.5,) * 3, (0.5,) * 3)}


class Layer(NamedTuple):
    """A convolution (out, in, height, width) without bias and the batch norm after it, four arrays (out,)."""

    weight: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class Source(NamedTuple):
    """A MobileNetV1 as a framework has it, in float64."""

    framework: str
    layers: List[Layer]  # LAYERS of them, in order
    classifier: Optional[Tuple[np.ndarray, np.ndarray]]  # (classes, in), (classes,)
    epsilon: float  # of batch norm
    scaling: Scaling
    relu6: bool  # its activations are cut off at 6; GluonCV's are not
    same: bool  # it pads as TensorFlow: where the stride is 2, below and to the right only
    folded: bool = False  # batch norm was folded into the convolutions: its statistics are unknown


class Naming(NamedTuple):
    """The names of a framework's arrays, with %s for what they belong to, and its conventions."""

    framework: str
    pairs: List[Tuple[str, str]]  # of a convolution and its batch norm
    kernels: Tuple[str, ...]  # a convolution's array has one of these names
    norm: Tuple[str, ...]  # gamma, beta, running mean, running variance
    classifiers: Tuple[str, ...]  # the last layer has one of these names
    bias: str
    turn: Callable  # a kernel as (out, in, height, width), or (classes, in)
    epsilon: float
    scaling: str  # of the published weights, a key of SCALINGS
    relu6: bool
    same: bool


def timm_pairs():
    """timm's MobileNetV1, models/_efficientnet_blocks.py DepthwiseSeparableConv: stages and blocks from 0."""
    blocks = ['blocks.%d.%d' % (stage, block) for stage, count in enumerate(BLOCKS) for block in range(count)]
    return [('conv_stem', 'bn1')] + [(block + conv, block + norm) for block in blocks
                                     for conv, norm in (('.conv_dw', '.bn1'), ('.conv_pw', '.bn2'))]


def keras_pairs():
    """keras.applications.mobilenet: blocks from 1 to 13."""
    names = ['conv1'] + ['conv_%s_%d' % (kind, block) for block in range(1, 14) for kind in ('dw', 'pw')]
    return [(name, name + '_bn') for name in names]


def paddle_pairs():
    """PaddleClas, ppcls/arch/backbone/legendary_models/mobilenet_v1.py: a stage ends where the stride doubles."""
    blocks = ['conv2_1', 'conv2_2', 'conv3_1', 'conv3_2', 'conv4_1', 'conv4_2']
    blocks += ['conv5_%d' % block for block in range(1, 7)] + ['conv6']
    names = ['conv1'] + [block + part for block in blocks for part in ('._depthwise_conv', '._pointwise_conv')]
    return [(name + '._conv', name + '._batch_norm') for name in names]


def _keras_kernel(name, array):
    """(height, width, in, out), or (height, width, out, 1) if it is depthwise; the last layer's is 1x1."""
    array = array.transpose((2, 3, 0, 1) if name.endswith('depthwise_kernel') else (3, 2, 0, 1))
    return array[:, :, 0, 0] if name.startswith('conv_preds') else array


NAMINGS = [
    Naming('timm', timm_pairs(), ('%s.weight',), ('%s.weight', '%s.bias', '%s.running_mean', '%s.running_var'),
           ('classifier',), '%s.bias', lambda name, array: array, 1e-5, 'symmetric', True, False),
    Naming('Keras', keras_pairs(), ('%s/kernel', '%s/depthwise_kernel'),
           ('%s/gamma', '%s/beta', '%s/moving_mean', '%s/moving_variance'),
           ('conv_preds',), '%s/bias', _keras_kernel, 1e-3, 'symmetric', True, True),
    Naming('Paddle', paddle_pairs(), ('%s.weight',),
           ('%s.weight', '%s.bias', '%s._mean', '%s._variance'),
           ('out', 'fc'), '%s.bias', lambda name, array: array.T if array.ndim == 2 else array, 1e-5,
           'imagenet', False, False)]


def recognise(arrays):
    """The Source of {name: array}, whatever the framework that named them. Raises ValueError.

    Names may begin with 'module.', as of a network that was trained on several GPUs.
    """
    arrays = {name[len('module.'):] if name.startswith('module.') else name: array.astype('float64')
              for name, array in arrays.items() if array.dtype.kind == 'f'}
    for naming in NAMINGS:
        if any(kernel % naming.pairs[0][0] in arrays for kernel in naming.kernels):
            return name_arrays(arrays, naming)
    raise ValueError('it is no MobileNetV1 of %s: it holds %s' % (
        ', '.join(naming.framework for naming in NAMINGS), shorten(list(arrays), 4) or 'no arrays'))


def name_arrays(arrays, naming):
    """The Source of {name: float64 array} under a Naming. Raises ValueError if one is missing or one too many."""
    left = dict(arrays)

    def take(*names):
        for name in names:
            if name in left:
                return name, left.pop(name)
        raise ValueError("it is no MobileNetV1 of %s's: it has no %s" % (naming.framework, names[0]))

    def kernel(owner):
        name, array = take(*(form % owner for form in naming.kernels))
        return naming.turn(name, array)

    layers = [Layer(kernel(conv), *(take(form % norm)[1] for form in naming.norm)) for conv, norm in naming.pairs]
    classifier = None
    for name in naming.classifiers:
        if naming.kernels[0] % name in left:
            classifier = kernel(name), take(naming.bias % name)[1]
    if left:
        raise ValueError("it is no MobileNetV1 of %s's: it has %s too" % (naming.framework, shorten(list(left), 4)))
    return Source(naming.framework, layers, classifier, naming.epsilon, SCALINGS[naming.scaling],
                  naming.relu6, naming.same)
