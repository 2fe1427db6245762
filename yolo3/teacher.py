"""--teacher: a trained detector, whose raw predictions for each batch the network learns too (loss.distillation)."""
import logging

import numpy as np

from yolo3.mxnet_setup import gluoncv, mx
from mxnet.gluon import nn

from yolo3 import network, weights, zoo
from yolo3.cli import UserError, shorten
from yolo3.data.anchors import PER_STRIDE
from yolo3.data.augment import normalize
from yolo3.data.targets import LAYERS
from yolo3.deploy.runtimes import Exported
from yolo3.detector import is_exported

logger = logging.getLogger('yolo3')

HEADS = ['head_%d' % stride for stride in LAYERS]
TRIAL = 64  # pixels


class Teacher:
    """The detector that args.teacher names, on args.devices, for a student with the classes and anchors of `state`.

    Called with images (B, H, W, 3) uint8, RGB, an NDArray on a device, it gives there what it predicts for them,
    (B, N, 5 + classes) float32, the classes in the student's order: x, y, w, h, objectness and the classes, as they are
    before sigmoid and exp. It never learns, and batch norm uses its running statistics.
    Raises UserError if it lacks a class, has other anchors, or its file is no such detector's.
    """

    def __init__(self, args, state):
        try:
            self._predict, classes, anchors = (exported if is_exported(args.teacher) else loaded)(args.teacher,
                                                                                                 args.devices)
            self._columns = columns(classes, state.classes)
            require_same_anchors(anchors, state.anchors)
            self._require_predictions(args.devices[0], len(classes))
        except UserError as error:
            raise UserError('--teacher %s: %s' % (args.teacher, error))
        logger.info('learning from %s%s, which knows %d classes', args.teacher,
                    ', on the CPU' if is_exported(args.teacher) else '', len(classes))

    def __call__(self, images):
        return mx.nd.take(self._predict(images), mx.nd.array(self._columns, images.context), axis=2)

    def _require_predictions(self, device, num_class):
        """Raise UserError unless there is a finite prediction for each anchor of the strides 32, 16 and 8."""
        found = self._predict(mx.nd.zeros((1, TRIAL, TRIAL, 3), device, 'uint8')).asnumpy()
        count = sum((TRIAL // stride) ** 2 * PER_STRIDE for stride in LAYERS)
        if found.shape != (1, count, 5 + num_class) or not np.isfinite(found).all():
            raise UserError('its predictions have other strides than %s, or are not finite numbers: take another '
                            'detector' % ', '.join(map(str, LAYERS)))


def loaded(name, devices):
    """A function as Teacher's of the .params file or zoo's detector `name`, its classes in its order, and its anchors.

    Raises UserError.
    """
    if name in zoo.DARKNETS:
        net = gluoncv.model_zoo.get_model(name, pretrained_base=False)
        net.initialize()
        weights.load_weights(net, zoo.detector_file(name), 'darknet53')
    elif weights.located(name)[1] is None:
        raise UserError('it has no sidecar, the .json that names its network and classes: put it beside the file')
    else:
        net, _ = weights.load_detector(name)
    classes, anchors = list(net.classes), network.anchors_of(net)
    predict_raw(net)
    net.collect_params().setattr('grad_req', 'null')
    net.collect_params().reset_ctx(devices)
    net.hybridize()
    return lambda images: mx.nd.concat(*net(normalize(images)), dim=2), classes, anchors


def predict_raw(net):
    """Have GluonCV's YOLOV3 `net`, in inference, give its raw predictions instead of detections.

    They come in three parts, to be joined along their last axis, since GluonCV takes them for ids, scores and boxes.
    """
    width = 5 + len(net.classes)
    heads = nn.HybridSequential()
    for output in net.yolo_outputs:
        head = nn.HybridSequential()
        head.add(output.prediction, nn.HybridLambda(lambda F, x: x.transpose((0, 2, 3, 1)).reshape((0, -1, width))))
        heads.add(head)
    net.yolo_outputs = heads
    net.set_nms(nms_thresh=0)  # none


def exported(path, devices):
    """As `loaded`, of a file of scripts/export_onnx.py --heads. It runs on the CPU, whatever the `devices`."""
    file = Exported(path)
    classes = file.info['classes']
    if not file.shapes.keys() >= set(HEADS):
        raise UserError('boxes and scores do not tell what a teacher predicts: export it with --heads')
    if any(file.shapes[name][1] != PER_STRIDE * (5 + len(classes)) for name in HEADS):
        raise UserError('its outputs are of other classes than its metadata names: export it again')

    def predict(images):
        heads = file.run(file.prepare(images.asnumpy()), HEADS)
        return mx.nd.array(np.concatenate([head.transpose(0, 2, 3, 1).reshape(len(images), -1, 5 + len(classes))
                                           for head in heads], axis=1), images.context)
    return predict, classes, file.info['anchors']


def columns(known, classes):
    """The numbers of the columns of a Teacher's predictions that a student of `classes` learns, in its order.

    known: the teacher's classes, in the order of its columns. Names are compared without regard to case. Raises
    UserError if it does not know one.
    """
    known = [name.casefold() for name in known]
    missing = [name for name in classes if name.casefold() not in known]
    if missing:
        raise UserError('it does not know %d of the %d classes to learn (%s): take a detector that does'
                        % (len(missing), len(classes), shorten(missing, 5)))
    return [0, 1, 2, 3, 4] + [5 + known.index(name.casefold()) for name in classes]


def require_same_anchors(theirs, ours):
    """Raise UserError unless both anchors are the same: else a teacher's predictions are for boxes of other shapes."""
    if not np.array_equal(np.float32(theirs), np.float32(ours)):
        raise UserError('it has other anchors than the network to train: start anew with --anchors %s'
                        % ','.join('%.9g' % side for row in theirs for side in row))
