"""A random MobileNetV1, its function by its own framework's conventions, and its files in the form of each framework.

The names are those that timm 1.0.19, Keras 2.12 and PaddleClas's mobilenet_v1.py give their arrays.
"""
import io
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np

from yolo3.boxes import MEAN
from yolo3.mxnet_setup import mx

STRIDES = [2, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1] + [1] * 10 + [2, 1, 1, 1]
CHANNELS = [32, 32, 64, 64, 128, 128, 128, 128, 256, 256, 256, 256, 512] + [512] * 11 + [1024] * 3
TIMM = '0.0 1.0 1.1 2.0 2.1 3.0 3.1 3.2 3.3 3.4 3.5 4.0 4.1'.split()
PADDLE = '2_1 2_2 3_1 3_2 4_1 4_2 5_1 5_2 5_3 5_4 5_5 5_6 6'.split()
NORM = 'gamma', 'beta', 'mean', 'variance'


def random_network(width=0.25, classes=1000, seed=0):
    """27 layers, dicts of weight, gamma, beta, mean and variance, and the last layer's weight and bias, in float32."""
    generator = np.random.RandomState(seed)
    layers, before = [], 3
    for number, channels in enumerate(int(channels * width) for channels in CHANNELS):
        side = 3 if number % 2 or number == 0 else 1
        shape = channels, 1 if number % 2 else before, side, side
        weight = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        norm = [low + generator.uniform(0, 1, channels) for low in (0.5, -0.5, -0.5, 0.5)]
        layers.append({key: array.astype('float32') for key, array in zip(('weight',) + NORM, [weight] + norm)})
        before = channels
    return layers, (generator.normal(0, 0.1, (classes, before)).astype('float32'),
                    generator.normal(0, 0.1, classes).astype('float32'))


def function(network, pixels, mean, std, epsilon, padding=None):
    """The outputs of every layer's convolution and norm before ReLU, then the logits, for pixels (B, H, W, 3), uint8.

    mean, std: of the source's scaling. padding: what a stride of 2 pads before and after; by default 1 and 1, and the
    first layer pads with the colour that zeros are for GluonCV, so that its network computes the same.
    """
    layers, (last, bias) = network
    x = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    outputs = []
    for number, (layer, stride) in enumerate(zip(layers, STRIDES)):
        colour = (np.subtract(MEAN, mean) / std).reshape((1, 3, 1, 1)) if number == 0 and not padding else 0
        if layer['weight'].shape[2] == 3:
            sides = padding if padding and stride == 2 else (1, 1)
            x = np.pad(x - colour, ((0, 0), (0, 0), sides, sides)) + colour
        weight = mx.nd.array(layer['weight'])
        x = mx.nd.Convolution(mx.nd.array(x), weight, no_bias=True, kernel=weight.shape[2:], stride=(stride, stride),
                              num_filter=len(weight), num_group=x.shape[1] // weight.shape[1]).asnumpy()
        gamma, beta, running, variance = [layer[key].reshape((1, -1, 1, 1)) for key in NORM]
        x = gamma * (x - running) / np.sqrt(variance + epsilon) + beta
        outputs.append(x)
        x = np.maximum(x, 0)
    return outputs, x.mean(axis=(2, 3)) @ last.T + bias


def timm_arrays(network):
    """{name: array} as timm's state_dict."""
    parts = ('conv_dw', 'bn1'), ('conv_pw', 'bn2')
    owners = [('conv_stem', 'bn1')] + [tuple('blocks.%s.%s' % (block, part) for part in pair)
                                       for block in TIMM for pair in parts]
    return _torch_like(network, owners, ('weight', 'bias', 'running_mean', 'running_var'), 'classifier', False)


def paddle_arrays(network):
    """{name: array} as the state_dict of PaddleClas."""
    kinds = 'depthwise', 'pointwise'
    owners = ['conv1.'] + ['conv%s._%s_conv.' % (block, kind) for block in PADDLE for kind in kinds]
    owners = [(owner + '_conv', owner + '_batch_norm') for owner in owners]
    return _torch_like(network, owners, ('weight', 'bias', '_mean', '_variance'), 'out', True)


def _torch_like(network, owners, norms, classifier, turned):
    layers, (weight, bias) = network
    arrays = {}
    for (conv, norm), layer in zip(owners, layers):
        arrays[conv + '.weight'] = layer['weight']
        arrays.update(('%s.%s' % (norm, name), layer[key]) for name, key in zip(norms, NORM))
    arrays.update({classifier + '.weight': weight.T if turned else weight, classifier + '.bias': bias})
    return arrays


def keras_arrays(network):
    """{layer/name: array} as in the .h5 files of Keras."""
    layers, (weight, bias) = network
    arrays = {'conv_preds/kernel': weight.T[None, None], 'conv_preds/bias': bias}
    for number, layer in enumerate(layers):
        kind = 'dw' if number % 2 else 'pw'
        name = 'conv_%s_%d' % (kind, (number + 1) // 2) if number else 'conv1'
        arrays[name + ('/depthwise_kernel' if number % 2 else '/kernel')] = layer['weight'].transpose(
            (2, 3, 0, 1) if number % 2 else (2, 3, 1, 0))
        arrays.update(('%s_bn/%s' % (name, leaf), layer[key])
                      for leaf, key in zip(('gamma', 'beta', 'moving_mean', 'moving_variance'), NORM))
    return arrays


def write_torch(path, arrays):
    """Write {name: array} as torch.save does, with stand-ins for its modules."""
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    torch.FloatStorage = type('FloatStorage', (), {'__module__': 'torch'})

    def _rebuild_tensor_v2():
        raise AssertionError('only its name is written')
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = 'torch._utils', '_rebuild_tensor_v2'
    utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils

    class Storage:
        def __init__(self, key, size):
            self.pid = 'storage', torch.FloatStorage, key, 'cpu', size

    class Tensor:
        def __init__(self, key, array):
            self.key, self.array = key, array

        def __reduce__(self):
            strides = tuple(step // self.array.itemsize for step in self.array.strides)
            return _rebuild_tensor_v2, (Storage(self.key, self.array.size), 0, self.array.shape, strides, False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return item.pid if isinstance(item, Storage) else None

    content = io.BytesIO()
    with mock.patch.dict(sys.modules, {'torch': torch, 'torch._utils': utils}):
        Pickler(content, 2).dump({name: Tensor(str(key), array) for key, (name, array) in enumerate(arrays.items())})
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', content.getvalue())
        for key, array in enumerate(arrays.values()):
            archive.writestr('archive/data/%d' % key, array.ravel('K').tobytes())


