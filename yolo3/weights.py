"""Weights in and out: .params files with their sidecars, and transfer to other classes."""
import contextlib
import errno
import os

import numpy as np

from yolo3.mxnet_setup import mx

from yolo3 import zoo
from yolo3.atomic import dump_json, replacing, sync
from yolo3.cli import UserError, shorten
from yolo3.data.anchors import ANCHORS, PER_STRIDE
from yolo3.files import require_regular
from yolo3.network import anchors_of, build, reason, set_anchors
from yolo3.sidecar import NETWORKS, read_sidecar, require_given, sidecar_path


def located(name):
    """The .params file that `name` stands for, and its detector's facts: those of the sidecar, None without one.

    name: a path, or a name of GluonCV's zoo, such as yolo3_mobilenet1.0_coco. Raises UserError.
    """
    if name in zoo.DETECTORS:
        return zoo.detector_file(name), dict(zoo.DETECTORS[name])
    return name, read_sidecar(name)


def save_detector(net, path, **sidecar):
    """Write the weights to `path`, as GluonCV's `save_parameters` does, and the sidecar beside them.

    sidecar: network, classes, anchors, data_shape (pixels), dataset, epoch, metrics. Both files are replaced whole, and
    at no moment is there a sidecar beside weights that are not its own. Raises OSError.
    """
    with replacing(sidecar_path(path)) as facts:
        dump_json(facts, sidecar)
        with replacing(path) as weights:
            save_weights(net, weights)
            sync(weights)
            with contextlib.suppress(FileNotFoundError):
                os.remove(sidecar_path(path))


def save_weights(net, path):
    """Write the weights of `net` to `path`, as GluonCV's `save_parameters` does. Raises OSError."""
    try:
        net.save_parameters(os.path.abspath(path))
        mx.nd.load(os.path.abspath(path))  # MXNet does not say that a disk was full
    except mx.base.MXNetError as error:
        raise OSError(errno.EIO, reason(error), path)


def load_detector(path, network=None, dataset=None, classes=None, devices=None):
    """A detector and its facts from `path`: a .params file or a name of GluonCV's zoo, see `located`.

    Without a sidecar the classes are `classes` or those of `dataset` ('voc' | 'coco') and the network is `network` or
    mobilenet1_0. Returns (net, info): info is a dict with at least network,
    classes, anchors, data_shape (pixels) and dataset. Raises UserError.
    """
    path, info = located(path)
    if info is None:
        if not classes and dataset not in zoo.CLASSES:
            raise UserError('%s has no sidecar %s: say which classes it detects with --classes a,b,c or '
                            '--dataset voc|coco' % (path, os.path.basename(sidecar_path(path))))
        info = {'network': network or NETWORKS[0], 'classes': list(classes or zoo.CLASSES[dataset]),
                'data_shape': 416, 'dataset': dataset or 'voc', 'anchors': ANCHORS}
    require_given(info, sidecar_path(path), network, classes or ())
    net = build(info['network'], info['classes'], anchors=info['anchors'])
    load_weights(net, path, info['network'])
    info['anchors'] = anchors_of(net)  # the file's own
    if devices:
        net.collect_params().reset_ctx(devices)
    return net, info


def anchors_of_file(path):
    """The anchors in the weights `path`, see `located`, as ANCHORS; COCO's if `path` is ''. Raises UserError."""
    if not path:
        return ANCHORS
    path, info = located(path)
    arrays = read_params(path)
    rows = [arrays['yolo_outputs.%d.anchors' % number].asnumpy().ravel().tolist() for number in (2, 1, 0)
            if 'yolo_outputs.%d.anchors' % number in arrays]
    return rows if len(rows) == 3 else (info or {}).get('anchors', ANCHORS)


def read_params(path):
    """{name: NDArray} of the .params file at `path`. Raises UserError."""
    try:
        require_regular(path)
        arrays = mx.nd.load(path)
        if not isinstance(arrays, dict):
            raise ValueError('its arrays have no names')
        return arrays
    except FileNotFoundError:
        raise UserError('no such .params file: %s' % path)
    except Exception as error:
        raise UserError('%s is not a readable .params file: %s'
                        % (path, getattr(error, 'strerror', '') or reason(error)))


def load_weights(net, path, network):
    """Load the .params file at `path` into `net`. Raises UserError if it is unreadable or does not fit."""
    arrays = read_params(path)
    count = classes_in(arrays)
    if count not in (None, len(net.classes)):
        raise UserError('%s detects %d classes, not the %d of its sidecar or of --classes / --dataset: %s'
                        % (path, count, len(net.classes), shorten(net.classes, 5)))
    if not all(np.isfinite(array.asnumpy()).all() for array in arrays.values()):
        raise UserError('%s holds weights that are not finite numbers: take an earlier file' % path)
    try:
        net.load_parameters(path)
    except Exception as error:
        raise UserError('%s does not hold a %s detector: give the right --network (%s)'
                        % (path, network, reason(error)))


def resume(net, path, network):
    """Put the weights of the .params file at `path` (`--resume FILE`) into `net`, which keeps its own anchors.

    Raises UserError as `load_weights`, and if the file has a sidecar with other classes, or in another order.
    """
    info, anchors = read_sidecar(path), anchors_of(net)
    if info and [name.casefold() for name in info['classes']] != [name.casefold() for name in net.classes]:
        raise UserError('--resume %s detects the classes %s, in this order, not %s: --pretrained takes them by name'
                        % (path, shorten(info['classes'], 10), shorten(net.classes, 10)))
    load_weights(net, path, network)
    set_anchors(net, anchors)


def transfer(path, classes, network, sync_devices=1, anchors=ANCHORS):
    """A detector for `classes` that starts from the one at `path` (`--pretrained`), which may have other classes.

    The rows of the classes that both have (compared without regard to case) are kept, as are backbone and head; see
    GluonCV's `YOLOV3.reset_class`. sync_devices, anchors: see `build`. Returns (net, names of the classes kept).
    """
    path, info = located(path)
    old = [name.casefold() for name in (info['classes'] if info else guess_classes(path, classes))]
    if info and info['network'] != network:
        raise UserError('--pretrained %s is a %s, not the --network %s' % (path, info['network'], network))
    net = build(network, old, sync_devices=sync_devices)
    load_weights(net, path, network)
    set_anchors(net, anchors)
    new = [name.casefold() for name in classes]
    kept = {new.index(name): old.index(name) for name in new if name in old}
    if new != old:
        net.reset_class(list(classes), reuse_weights=kept)
    net._classes = list(classes)
    return net, [classes[index] for index in kept]


def guess_classes(path, classes):
    """The classes of a zoo .params file by how many it has: 20 are VOC's, 80 COCO's, or as many as `classes`."""
    count = classes_in(read_params(path))
    known = {len(names): names for names in [list(classes)] + list(zoo.CLASSES.values())}
    if count is None:
        raise UserError('%s is not the .params file of a YOLOv3 detector' % path)
    if count not in known:
        raise UserError('--pretrained %s has %d classes and no sidecar that names them: put %s beside it'
                        % (path, count, os.path.basename(sidecar_path(path))))
    return known[count]


def classes_in(arrays):
    """How many classes the arrays of a .params file tell apart; None if it is no YOLOv3 detector's."""
    weight = arrays.get('yolo_outputs.0.prediction.weight')
    return None if weight is None else weight.shape[0] // PER_STRIDE - 5
