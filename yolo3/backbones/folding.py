"""A Source -> GluonCV's MobileNet: input scaling and epsilon folded in, batch norm measured on pictures."""
import numpy as np

from yolo3.mxnet_setup import mx
from gluoncv.model_zoo.mobilenet import get_mobilenet

from yolo3.backbones.naming import LAYERS, SCALINGS
from yolo3.network import WIDTHS

CLASSES = 1000  # of ImageNet, as GluonCV counts them


def convert(source):
    """GluonCV's MobileNet that computes what the Source does, and the name of its network. Raises ValueError.

    It is the same function of the pixels but for three things, which `measure` makes up for in part: ReLU is not cut
    off at 6 (relu6); zeros in the padding stand for another colour; and TensorFlow pads below and to the right only
    where the stride is 2 (same). Its features are those of the picture moved by 1 + 2 + 4 + 8 + 16 = 31 pixels, which
    a detector learns; only along the border are they others.
    """
    channels = len(source.layers[0].weight)
    network = next((name for name, width in WIDTHS.items() if int(32 * width) == channels), None)
    if network is None:
        raise ValueError('it is a MobileNetV1 of width %g: GluonCV has %s'
                         % (channels / 32, ', '.join('%g' % width for width in WIDTHS.values())))
    net = get_mobilenet(WIDTHS[network])
    net.initialize()
    net(mx.nd.zeros((1, 3, 32, 32)))  # the input channels are known only after a forward pass
    layers = [fold_scaling(source.layers[0], source.scaling)] + source.layers[1:]
    arrays = {}
    for number, layer in enumerate(layers):
        arrays['features.%d.weight' % (3 * number)] = layer.weight
        norm = layer.gamma, layer.beta, layer.mean, layer.variance + (source.epsilon - epsilon(net))
        for name, array in zip(('gamma', 'beta', 'running_mean', 'running_var'), norm):
            arrays['features.%d.%s' % (3 * number + 1, name)] = array
    arrays['output.weight'], arrays['output.bias'] = classifier(source)
    put(net, arrays)
    return net, network


def fold_scaling(layer, scaling):
    """The first Layer for pixels as GluonCV normalises them instead of `scaling`.

    Of a pixel the source makes factor * x + offset, with x as GluonCV has it.
    """
    ours = SCALINGS['imagenet']
    factor = np.divide(ours.std, scaling.std)
    offset = np.subtract(ours.mean, scaling.mean) / scaling.std
    added = np.tensordot(layer.weight.sum(axis=(2, 3)), offset, 1)  # by the offset, to each output
    return layer._replace(weight=layer.weight * factor[:, None, None], mean=layer.mean - added)


def epsilon(net):
    """The epsilon of batch norm in GluonCV's network."""
    return net.features[1]._kwargs['eps']


def has_classifier(source):
    """Whether the Source has a last layer for ImageNet's classes; TensorFlow's has one more, the background, first."""
    return source.classifier is not None and len(source.classifier[1]) in (CLASSES, CLASSES + 1)


def classifier(source):
    """The last layer for ImageNet's classes, zeros if the Source has none."""
    if not has_classifier(source):
        return np.zeros((CLASSES, len(source.layers[-1].weight))), np.zeros(CLASSES)
    weight, bias = source.classifier
    return weight[-CLASSES:], bias[-CLASSES:]


def put(net, arrays):
    """Put the arrays into the parameters of these names, which are all of `net`. Raises ValueError if they do not fit.
    """
    for name, parameter in net._collect_params_with_prefix().items():
        array = arrays[name]
        if array.shape != parameter.shape:
            raise ValueError('it is no MobileNetV1: %s has the shape %s instead of %s'
                             % (name, array.shape, parameter.shape))
        if not np.isfinite(array.astype('float32')).all() or name.endswith('running_var') and array.min() < 0:
            raise ValueError('its weights are damaged: %s is not finite, or a variance below 0' % name)
        parameter.set_data(mx.nd.array(array))


def measure(net, source, batches):
    """Give batch norm the statistics that pictures have in `net`, layer by layer.

    batches: NDArrays (B, 3, H, W), as the network takes them, H and W multiples of 32. So each layer again puts out
    what the next one expects, in spite of the other padding and activation; and a training, whose first steps
    normalise by the pictures they see, starts from the same function. If the Source was folded, gamma and beta become
    the deviation and mean that its own layers have.
    """
    ours = theirs = list(batches)
    colour = mx.nd.array(np.subtract(source.scaling.mean, SCALINGS['imagenet'].mean) / SCALINGS['imagenet'].std)
    for number in range(LAYERS):
        conv, norm, relu = net.features[3 * number:3 * number + 3]
        if source.folded:
            padding = colour if number == 0 else mx.nd.zeros(1)
            theirs = [convolve_as(source, conv, x, padding.reshape((1, -1, 1, 1))) for x in theirs]
            renorm(norm, *statistics(theirs))
            theirs = [mx.nd.clip(norm(x), 0, 6) if source.relu6 else relu(norm(x)) for x in theirs]
        ours = [conv(x) for x in ours]
        for parameter, array in zip((norm.running_mean, norm.running_var), statistics(ours)):
            parameter.set_data(mx.nd.array(array))
        ours = [relu(norm(x)) for x in ours]


def convolve_as(source, conv, x, colour):
    """What the layer `conv` makes of `x` under the Source's padding, with `colour` where there is no picture."""
    settings = conv._kwargs
    if settings['kernel'] == (1, 1):
        return conv(x)
    before, after = (0, 1) if source.same and settings['stride'] == (2, 2) else (1, 1)
    x = mx.nd.broadcast_sub(x, colour)
    x = mx.nd.pad(x, mode='constant', constant_value=0, pad_width=(0, 0, 0, 0, before, after, before, after))
    return mx.nd.Convolution(mx.nd.broadcast_add(x, colour), conv.weight.data(), **dict(settings, pad=(0, 0)))


def statistics(batches):
    """The means and variances (C,) of the channels of NDArrays (B, C, H, W)."""
    count = sum(x.size // x.shape[1] for x in batches)
    mean = sum(x.asnumpy().sum(axis=(0, 2, 3), dtype='float64') for x in batches) / count
    return mean, sum(np.square(x.asnumpy() - mean.reshape(1, -1, 1, 1)).sum(axis=(0, 2, 3)) for x in batches) / count


def renorm(norm, mean, variance):
    """Give the layer `norm` this running mean and variance, with gamma and beta such that it computes the same."""
    parameters = norm.gamma, norm.beta, norm.running_mean, norm.running_var
    gamma, beta, old_mean, old_variance = [parameter.data().asnumpy().astype('float64') for parameter in parameters]
    scale = gamma / np.sqrt(old_variance + norm._kwargs['eps'])
    new = scale * np.sqrt(variance + norm._kwargs['eps']), beta + scale * (mean - old_mean), mean, variance
    for parameter, array in zip(parameters, new):
        parameter.set_data(mx.nd.array(array))
