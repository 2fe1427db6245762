"""The detector: GluonCV's MobileNet stages wired into its YOLOv3 head."""
import contextlib
import math

import numpy as np

from yolo3.mxnet_setup import mx
from gluoncv.model_zoo.mobilenet import get_mobilenet
from gluoncv.model_zoo.yolo.yolo3 import YOLOOutputV3, get_yolov3
from mxnet.gluon.contrib.nn import SyncBatchNorm
from mxnet.gluon.nn import BatchNorm

from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS, PER_STRIDE, STRIDES
from yolo3.files import require_regular
from yolo3.sidecar import NETWORKS

WIDTHS = dict(zip(NETWORKS, (1.0, 0.75, 0.5, 0.25)))
LARGEST_EXPONENT = 20  # of a box's size: e^20 anchors are a billion pixels


def build(network, classes, anchors=ANCHORS, backbone_params='', sync_devices=1):
    """A YOLOv3 detector (gluoncv.model_zoo.yolo.YOLOV3) with all its weights initialized, on the CPU.

    network: one of NETWORKS. classes: names. anchors: as ANCHORS. backbone_params: a file of ImageNet weights in the
    form of GluonCV's `get_mobilenet`, '' for random ones. sync_devices: with more than one, batch norm's statistics are
    shared over that many GPUs. Raises UserError if the file does not fit.
    """
    norm = {'norm_layer': BatchNorm, 'norm_kwargs': None}
    if sync_devices > 1:
        norm = {'norm_layer': SyncBatchNorm, 'norm_kwargs': {'num_devices': sync_devices}}
    backbone = get_mobilenet(WIDTHS[network], **norm)
    if backbone_params:
        try:
            require_regular(backbone_params)
            backbone.load_parameters(backbone_params)
        except Exception as error:
            raise UserError('--backbone-params %s does not hold weights of %s in GluonCV\'s form: %s'
                            % (backbone_params, network, reason(error)))
    net = wire(network, backbone.features, classes, anchors, norm)
    for output in net.yolo_outputs:
        output.__class__ = BoundedOutput
    # From scratch, GluonCV's default (uniform within 0.07, whatever the layer's size) hardly learns: He et al. 2015.
    default = mx.init.Uniform() if backbone_params else mx.init.Xavier('gaussian', 'in', 2)
    for parameter in net.collect_params().values():
        if parameter._data is None:  # not in the backbone's file
            parameter.initialize(default_init=default)
    net(mx.nd.zeros((1, 3, 64, 64)))  # the head's input channels are known only after a forward pass
    mx.nd.waitall()  # oneDNN reorders the weights meanwhile: one that is read too early is scrambled
    return net


def wire(network, features, classes, anchors, norm):
    """GluonCV's MobileNet in three stages, of strides 8, 16 and 32, under its YOLOv3 head."""
    stages = [features[:33], features[33:69], features[69:-2]]
    channels = [256, 128, 128] if network == 'mobilenet0_25' else [512, 256, 128]
    return get_yolov3(network, stages, channels, anchors, STRIDES, list(classes), '', **norm)


class BoundedOutput(YOLOOutputV3):
    """GluonCV's output layer, with box sizes that cannot overflow.

    Without an object no loss limits a box's size, so some sizes grow without limit. exp(89) is infinite, and although
    nothing is learned from it, the backward pass multiplies it by its gradient of 0: NaN in nearly all weights.
    """

    def hybrid_forward(self, F, x, anchors, offsets):
        """As YOLOOutputV3's."""
        return super().hybrid_forward(_BoundedExp(F), x, anchors, offsets)


class _BoundedExp:
    """MXNet's operators `F`, with an `exp` that is the same for every size a box can have."""

    def __init__(self, F):
        self._operators = F

    def __getattr__(self, name):
        return getattr(self._operators, name)

    def exp(self, x):
        """exp(x), with x bounded."""
        return bounded_exp(self._operators, x)


def bounded_exp(F, x):
    """exp(x), with x bounded."""
    return F.exp(F.clip(x, -LARGEST_EXPONENT, LARGEST_EXPONENT))


def set_anchors(net, anchors):
    """Replace the anchors that `net` has from its file; `anchors`: as ANCHORS."""
    for output, row in zip(net.yolo_outputs, anchors[::-1]):
        output.anchors.set_data(mx.nd.array(row).reshape((1, 1, -1, 2)))


def anchors_of(net):
    """The anchors of `net`, as ANCHORS."""
    return [output.anchors.data(output.anchors.list_ctx()[0]).asnumpy().ravel().tolist()
            for output in net.yolo_outputs][::-1]


def set_objectness_prior(net, prior):
    """Have `net` start from the belief that a prediction has an object with probability `prior` (RetinaNet, 3.3).

    Without, training begins by teaching nearly all predictions, at a great loss, that they have none.
    """
    for output in net.yolo_outputs:
        output.prediction.bias.data().reshape((PER_STRIDE, -1))[:, 4] = math.log(prior / (1 - prior))


def freeze(net, frozen):
    """Keep the backbone of `net` as it is, weights and batch norm's statistics, or have it learn again."""
    parameters = net.stages.collect_params()
    wanted = 'null' if frozen else net.yolo_outputs[0].prediction.weight.grad_req
    if wanted == next(iter(parameters.values())).grad_req:
        return
    parameters.setattr('grad_req', wanted)

    def fix(block):
        if isinstance(block, BatchNorm):
            block._kwargs['use_global_stats'] = frozen
    net.stages.apply(fix)
    net.hybridize()  # traced anew


@contextlib.contextmanager
def rollback(net):
    """Undo what the block does to batch norm's running statistics, unless it calls the function that this yields.

    The forward pass changes them before it is known whether the step will be applied.
    """
    parameters = running_statistics(net)
    devices = list(zip(*[parameter.list_data() for parameter in parameters]))
    before = [mx.nd.concat(*arrays, dim=0) for arrays in devices]
    committed = []
    try:
        yield lambda: committed.append(True)
    finally:
        if not committed:
            for arrays, values in zip(devices, before):
                fill(arrays, values)


def average_running_statistics(net, group):
    """Give all devices of all processes the mean of their batch norm statistics, as GluonCV saves it in .params files.

    So what is validated, saved and continued from is one network.
    """
    parameters = running_statistics(net)
    if group.size == 1 and all(len(parameter.list_ctx()) == 1 for parameter in parameters):
        return
    means = [parameter._reduce() for parameter in parameters]
    if group.size > 1:
        whole = group.sum(np.concatenate([mean.asnumpy() for mean in means])) / group.size
        fill(means, mx.nd.array(whole))
    for parameter, mean in zip(parameters, means):
        parameter.set_data(mean)


def running_statistics(net):
    """The parameters of `net` that are batch norm's running means and variances."""
    return list(net.collect_params('.*running_(mean|var)').values())


def fill(arrays, values):
    """Fill the one-dimensional `arrays` from `values`, which has their numbers end to end."""
    start = 0
    for array in arrays:
        array[:] = values[start:start + array.size]
        start += array.size


def reason(error):
    """The line of `error` that says what is wrong: MXNet prints a traceback of its own before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if lines[0].startswith('Traceback') else lines[0]
