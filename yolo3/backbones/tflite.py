"""A TFLite file -> a Source: its convolutions in order, in floating point or dequantised, batch norm folded in."""
import numpy as np

from yolo3.backbones.naming import LAYERS, SCALINGS, Layer, Scaling, Source

EPSILON = 1e-5  # of the batch norm put after each convolution, which changes nothing until it is measured
WITH_WEIGHTS = {'CONV_2D': 'C', 'DEPTHWISE_CONV_2D': 'D', 'FULLY_CONNECTED': 'F'}


def read_tflite(content, tflite):
    """The Source in the bytes `content` of a .tflite file. Raises ValueError and what the library raises.

    tflite: the module of this name, which reads the file's tables.
    """
    if content[4:8] != b'TFL3':
        raise ValueError('it is no TFLite file')
    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    kinds, parts, stored = '', [], {}  # stored: where DEQUANTIZE takes a tensor from
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        kind = tflite.opcode2name(model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode())
        inputs = [stored.get(index, index) for index in operator.InputsAsNumpy()]
        if kind == 'DEQUANTIZE':
            stored[operator.Outputs(0)] = inputs[0]
        elif kind in WITH_WEIGHTS:
            kinds += WITH_WEIGHTS[kind]
            parts.append([tensor(model, graph, index) for index in inputs[1:3]])
    convolutions = 'C' + 'DC' * (LAYERS // 2)
    if kinds not in (convolutions, convolutions + 'C', convolutions + 'F'):
        raise ValueError('it is no MobileNetV1: it has %d convolutions, %d of them depthwise, instead of %d and %d'
                         % (len(kinds), kinds.count('D'), LAYERS + 1, LAYERS // 2))
    layers = [folded_layer(weight, bias, kind) for (weight, bias), kind in zip(parts, convolutions)]
    classifier = None
    if len(parts) > LAYERS:
        weight, bias = parts[LAYERS]
        classifier = weight.reshape(len(weight), -1), bias
    return Source('TFLite', layers, classifier, EPSILON, scaling(graph.Tensors(graph.Inputs(0))),
                  relu6=True, same=True, folded=True)


def folded_layer(weight, bias, kind):
    """The Layer of a convolution (out, height, width, in), if it is depthwise (1, height, width, out), and its bias."""
    ones = np.ones(len(bias))
    return Layer(weight.transpose((3, 0, 1, 2) if kind == 'D' else (0, 3, 1, 2)),
                 ones, bias, np.zeros(len(bias)), ones - EPSILON)


def tensor(model, graph, index):
    """The constant tensor number `index` of the graph, in float64."""
    entry = graph.Tensors(index)
    values = model.Buffers(entry.Buffer()).DataAsNumpy()
    types = {0: '<f4', 1: '<f2', 2: '<i4', 3: 'u1', 9: 'i1'}  # TensorType of TensorFlow's lite/schema/schema.fbs
    if entry.Type() not in types or not isinstance(values, np.ndarray):
        raise ValueError('its tensor %d holds no constant numbers' % index)
    values = values.view(types[entry.Type()]).reshape(entry.ShapeAsNumpy()).astype('float64')
    quantization = entry.Quantization()
    if quantization is None or not quantization.ScaleLength() or entry.Type() < 2:
        return values
    shape = [1] * values.ndim
    shape[quantization.QuantizedDimension()] = quantization.ScaleLength()  # one for all, or one for each channel
    scale = quantization.ScaleAsNumpy().astype('float64').reshape(shape)
    return (values - quantization.ZeroPointAsNumpy().reshape(shape)) * scale


def scaling(entry):
    """The Scaling of pixels that the input tensor wants: an 8-bit one says it."""
    lowest = {3: 0, 9: -128}.get(entry.Type())  # uint8, int8
    if lowest is None:
        return SCALINGS['symmetric']
    quantization = entry.Quantization()
    scale, zero = float(quantization.Scale(0)), int(quantization.ZeroPoint(0)) - lowest
    return Scaling((zero / 255,) * 3, (1 / 255 / scale,) * 3)
