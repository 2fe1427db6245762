"""TFLite files, written here table by table: float, half precision and 8 bits give the layers; other networks fail."""
import flatbuffers
import numpy as np
import pytest

tflite = pytest.importorskip('tflite', reason='pip install -r requirements/convert.txt')

from sources import random_network
from yolo3.backbones.readers import read
from yolo3.backbones.tflite import read_tflite
from yolo3.cli import UserError

TYPES = {'float32': 0, 'float16': 1, 'int32': 2, 'uint8': 3, 'int8': 9}
CODES = [tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D, tflite.BuiltinOperator.DEQUANTIZE]


class Tensor:
    """A tensor of a file: an array, with the scales, zero points and the dimension they are for, if it is quantized."""

    def __init__(self, array, scales=(), zeros=(), dimension=0):
        self.array, self.scales, self.zeros, self.dimension = array, scales, zeros, dimension


def table(builder, name, **fields):
    """A table of the schema from its fields, which are numbers or offsets."""
    getattr(tflite, name + 'Start')(builder)
    for field, value in fields.items():
        getattr(tflite, name + 'Add' + field)(builder, value)
    return getattr(tflite, name + 'End')(builder)


def numbers(builder, values, dtype='int32'):
    """A vector of numbers."""
    return builder.CreateNumpyVector(np.array(values, dtype))


def vector(builder, offsets):
    """A vector of tables."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def write(tensors, operators):
    """The bytes of a file. tensors: the first is the input. operators: (number in CODES, inputs, output)."""
    builder = flatbuffers.Builder(1 << 20)
    buffers, entries = [], []
    for number, tensor in enumerate(tensors):
        content = b'' if number == 0 else tensor.array.tobytes()
        buffers.append(table(builder, 'Buffer', Data=builder.CreateByteVector(content)) if content
                       else table(builder, 'Buffer'))
        fields = {'Shape': numbers(builder, tensor.array.shape), 'Buffer': number,
                  'Type': TYPES[tensor.array.dtype.name]}
        if len(tensor.scales):
            fields['Quantization'] = table(
                builder, 'QuantizationParameters', Scale=numbers(builder, tensor.scales, 'float32'),
                ZeroPoint=numbers(builder, tensor.zeros, 'int64'), QuantizedDimension=tensor.dimension)
        entries.append(table(builder, 'Tensor', **fields))
    steps = [table(builder, 'Operator', OpcodeIndex=code, Inputs=numbers(builder, inputs),
                   Outputs=numbers(builder, [output])) for code, inputs, output in operators]
    graph = table(builder, 'SubGraph', Tensors=vector(builder, entries), Operators=vector(builder, steps),
                  Inputs=numbers(builder, [0]))
    codes = [table(builder, 'OperatorCode', DeprecatedBuiltinCode=code) for code in CODES]
    builder.Finish(table(builder, 'Model', Version=3, OperatorCodes=vector(builder, codes),
                         Subgraphs=vector(builder, [graph]), Buffers=vector(builder, buffers)), b'TFL3')
    return bytes(builder.Output())


def network_file(network, stored, picture=Tensor(np.zeros((1, 32, 32, 3), 'float32'))):
    """The bytes of a file of `network`, each array as the Tensor `stored(array, dimension)`; its beta is the bias."""
    layers, (weight, bias) = network
    arrays = [(layer['weight'].transpose((1, 2, 3, 0) if number % 2 else (0, 2, 3, 1)), layer['beta'], number % 2)
              for number, layer in enumerate(layers)] + [(weight[:, None, None], bias, 0)]
    tensors, operators = [picture], []
    for kernel, bias, depthwise in arrays:
        inputs = [0]
        for array, dimension in ((kernel, 3 if depthwise else 0), (bias, 0)):
            tensors.append(stored(array, dimension))
            inputs.append(len(tensors) - 1)
            if tensors[-1].array.dtype == 'float16':  # as TensorFlow does: it is turned into float32 first
                tensors.append(Tensor(np.zeros(0, 'float32')))
                operators.append((2, [inputs[-1]], len(tensors) - 1))
                inputs[-1] = len(tensors) - 1
        operators.append((int(depthwise), inputs, 0))
    return write(tensors, operators)


def per_channel(array, dimension):
    """int8 with a scale for each output channel, int32 for a bias."""
    scales = np.moveaxis(np.abs(array), dimension, 0).reshape(array.shape[dimension], -1).max(axis=1) / 127 + 1e-9
    shape = np.where(np.arange(array.ndim) == dimension, -1, 1)
    return Tensor(np.round(array / scales.reshape(shape)).astype('int32' if array.ndim == 1 else 'int8'),
                  scales, np.zeros(len(scales)), dimension)


def per_tensor(array, dimension):
    """uint8 with one scale, int32 for a bias."""
    if array.ndim == 1:
        return Tensor(np.round(array / 1e-4).astype('int32'), [1e-4], [0])
    scale, zero = np.ptp(array) / 255, round(-array.min() / np.ptp(array) * 255)
    return Tensor((np.round(array / scale) + zero).clip(0, 255).astype('uint8'), [scale], [zero])


@pytest.mark.parametrize('stored, step', [(lambda array, dimension: Tensor(array), 0),
                                          (lambda array, dimension: Tensor(array.astype('float16')), 2e-3),
                                          (per_channel, 1 / 120), (per_tensor, 1 / 120)])
def test_the_layers_are_found(stored, step, tmp_path):
    network = random_network(classes=1001)
    path = tmp_path / 'net.tflite'
    path.write_bytes(network_file(network, stored))
    source = read(str(path))
    assert source.folded and source.scaling.mean == (0.5,) * 3 and source.classifier[0].shape == (1001, 256)
    expected = [layer[key] for layer in network[0] for key in ('weight', 'beta')] + list(network[1])
    found = [getattr(layer, key) for layer in source.layers for key in ('weight', 'beta')] + list(source.classifier)
    for mine, theirs in zip(found, expected):
        np.testing.assert_allclose(mine, theirs, atol=step * np.abs(theirs).max())


@pytest.mark.parametrize('dtype, zero, mean', [('uint8', 128, 128 / 255), ('int8', -1, 127 / 255)])
def test_an_8_bit_input_says_how_pixels_are_scaled(dtype, zero, mean):
    picture = Tensor(np.zeros((1, 32, 32, 3), dtype), [1 / 128], [zero])
    scaling = read_tflite(network_file(random_network(), lambda array, _: Tensor(array), picture), tflite).scaling
    np.testing.assert_allclose(scaling, [[mean] * 3, [128 / 255] * 3], rtol=1e-6)


def test_other_networks_are_refused():
    layers, last = random_network()
    content = network_file((layers[:21], last), lambda array, _: Tensor(array))
    with pytest.raises(ValueError, match='it has 22 convolutions, 10 of them depthwise, instead of 28 and 13'):
        read_tflite(content, tflite)


def test_damaged_files_are_refused(tmp_path):
    good = network_file(random_network(), lambda array, _: Tensor(array))
    generator = np.random.RandomState(0)
    for number in range(30):
        content = bytearray(good)
        for place in generator.randint(0, 4000, 8) if number % 2 else generator.randint(len(good) - 4000, len(good), 8):
            content[place] = generator.randint(256)
        path = tmp_path / 'net.tflite'
        path.write_bytes(content[:generator.randint(100, 4000)] if number % 3 == 0 else content)
        try:
            read(str(path))
        except UserError as error:
            assert str(error).startswith(str(path))
