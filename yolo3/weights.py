"""Weights in and out: .params files with their sidecars, transfer to other classes, and GluonCV's backbone weights."""
import contextlib
import errno
import json
import os

import requests

from yolo3.mxnet_setup import mx
from gluoncv.data import COCODetection
from gluoncv.model_zoo import model_store

from yolo3.atomic import dump_json, replacing, sync
from yolo3.cli import UserError, shorten
from yolo3.data.anchors import ANCHORS
from yolo3.data.datasets import VOC_CLASSES
from yolo3.data.download import within
from yolo3.network import WIDTHS, build, network_name, reason, set_anchors

CLASSES = {'voc': list(VOC_CLASSES), 'coco': list(COCODetection.CLASSES)}
PROBE_SECONDS = 20
MOST_CLASSES, MOST_PIXELS = 10 ** 4, 2 ** 13  # in a sidecar: limits what an untrusted file can cost in memory


def backbone_file(network, path='', pretrained_base=True):
    """The file of ImageNet weights that `network` starts from: `path`, else GluonCV's own; '' for random weights.

    Raises UserError if GluonCV's cannot be downloaded.
    """
    return path or (download_backbone(network) if pretrained_base else '')


def download_backbone(network):
    """GluonCV's ImageNet weights of `network`, downloaded to its cache unless there. Returns the file's path.

    Raises UserError, within half a minute, if the model store does not answer.
    """
    name = 'mobilenet%s' % WIDTHS[network]
    store = os.environ.get('MXNET_GLUON_REPO', model_store.apache_repo_url)
    remedy = ('give the weights with --backbone-params FILE (or put %s-%s.params into ~/.mxnet/models), or train '
              'from scratch with --no-pretrained-base' % (name, model_store.short_hash(name)))
    cached = os.path.join(os.path.expanduser(os.environ.get('MXNET_HOME', '~/.mxnet')), 'models',
                          '%s-%s.params' % (name, model_store.short_hash(name)))
    if not os.path.exists(cached) and not answers(store):
        raise UserError('cannot reach %s for the ImageNet weights of %s: %s' % (store, network, remedy))
    try:
        return model_store.get_model_file(name)
    except Exception as error:
        raise UserError('the ImageNet weights of %s could not be downloaded from %s (%s): %s'
                        % (network, store, reason(error), remedy))


def answers(url):
    """Whether a server answers at `url`. GluonCV's download waits without limit, name look-up included."""
    try:
        within(PROBE_SECONDS, lambda: requests.head(url, timeout=PROBE_SECONDS / 2))
    except requests.RequestException:
        return False
    return True


def sidecar_path(params):
    """The path of the JSON beside a .params file."""
    return os.path.splitext(params)[0] + '.json'


def save_detector(net, path, **sidecar):
    """Write the weights to `path`, as GluonCV's `save_parameters` does, and the sidecar beside them.

    sidecar: network, classes, anchors, data_shape (pixels), dataset, epoch, metrics. Both files are replaced whole, and
    at no moment is there a sidecar beside weights that are not its own. Raises OSError.
    """
    with replacing(sidecar_path(path)) as facts:
        dump_json(facts, sidecar)
        with replacing(path) as weights:
            try:
                net.save_parameters(os.path.abspath(weights))
                mx.nd.load(os.path.abspath(weights))  # MXNet does not say that a disk was full
            except mx.base.MXNetError as error:
                raise OSError(errno.EIO, reason(error), weights)
            sync(weights)
            with contextlib.suppress(FileNotFoundError):
                os.remove(sidecar_path(path))


def load_detector(path, network=None, dataset=None, classes=None, devices=None):
    """A detector and its sidecar from the .params file at `path`.

    Without a sidecar (a file of GluonCV's zoo, say) the classes are `classes` or those of `dataset` ('voc' | 'coco')
    and the network is `network` or mobilenet1_0. Returns (net, info): info is a dict with at least network,
    classes, anchors, data_shape (pixels) and dataset. Raises UserError.
    """
    info = read_sidecar(path)
    if info is None:
        if not classes and not dataset:
            raise UserError('%s has no sidecar %s: say which classes it detects with --classes a,b,c or '
                            '--dataset voc|coco' % (path, os.path.basename(sidecar_path(path))))
        info = {'network': network_name(network or 'mobilenet1_0'), 'classes': list(classes or CLASSES[dataset]),
                'data_shape': 416, 'dataset': dataset or 'voc', 'anchors': ANCHORS}
    net = build(info['network'], info['classes'], anchors=info['anchors'])
    load_weights(net, path, info['network'])
    if devices:
        net.collect_params().reset_ctx(devices)
    return net, info


def read_sidecar(path):
    """The sidecar of the .params file at `path`, or None if it has none. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError('no such .params file: %s' % path)
    if not os.path.exists(sidecar_path(path)):
        return None
    try:
        with open(sidecar_path(path), encoding='utf-8') as file:
            info = json.load(file)
        if info['network'] not in WIDTHS:
            raise ValueError('"network" is not one of %s' % ', '.join(WIDTHS))
        names = info['classes']
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError('"classes" is not a list of names')
        if len(names) > MOST_CLASSES:
            raise ValueError('"classes" has more than %d names' % MOST_CLASSES)
        size = info['data_shape']
        if not isinstance(size, int) or not 32 <= size <= MOST_PIXELS or size % 32:
            raise ValueError('"data_shape" is not a multiple of 32 from 32 to %d' % MOST_PIXELS)
        if info['dataset'] not in CLASSES:
            raise ValueError('"dataset" is not voc or coco')
        # Older files have none: all had COCO's.
        anchors = info.setdefault('anchors', ANCHORS)
        if len(anchors) != 3 or not all(len(row) == 6 and all(0 < side < MOST_PIXELS for side in row)
                                        for row in anchors):
            raise ValueError('"anchors" is not three rows of six positive numbers')
        return info
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError('%s is not a sidecar of this project (%s: %s): correct it, or remove it and give --classes'
                        % (sidecar_path(path), type(error).__name__, reason(error)))


def anchors_of_file(path):
    """The anchors in the sidecar of the .params file at `path`; COCO's if there is no sidecar, or `path` is ''."""
    info = read_sidecar(path) if path else None
    return info['anchors'] if info else ANCHORS


def load_weights(net, path, network):
    """Load the .params file at `path` into `net`. Raises UserError if it is unreadable or does not fit."""
    if not os.path.isfile(path):
        raise UserError('no such .params file: %s' % path)
    try:
        loaded = mx.nd.load(path)
    except Exception as error:
        raise UserError('%s is not a readable .params file: %s' % (path, reason(error)))
    rows = loaded['yolo_outputs.0.prediction.weight'].shape[0] if (
        isinstance(loaded, dict) and 'yolo_outputs.0.prediction.weight' in loaded) else None
    if rows is not None and rows != 3 * (5 + len(net.classes)):
        raise UserError('%s detects %d classes, not the %d of its sidecar or of --classes / --dataset: %s'
                        % (path, rows // 3 - 5, len(net.classes), shorten(net.classes, 5)))
    try:
        net.load_parameters(path)
    except Exception as error:
        raise UserError('%s does not hold a %s detector: give the right --network (%s)'
                        % (path, network, reason(error)))


def transfer(path, classes, network, sync_devices=1, anchors=ANCHORS):
    """A detector for `classes` that starts from the one at `path` (`--pretrained`), which may have other classes.

    The rows of the classes that both have (compared without regard to case) are kept, as are backbone and head; see
    GluonCV's `YOLOV3.reset_class`. sync_devices, anchors: see `build`. Returns (net, names of the classes kept).
    """
    info = read_sidecar(path)
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
    try:
        rows = mx.nd.load(path)['yolo_outputs.0.prediction.weight'].shape[0]
    except Exception as error:
        raise UserError('%s is not the .params file of a YOLOv3 detector: %s' % (path, reason(error)))
    known = {len(names): names for names in [list(classes)] + list(CLASSES.values())}
    count = rows // 3 - 5
    if count not in known:
        raise UserError('--pretrained %s has %d classes and no sidecar that names them: put %s beside it'
                        % (path, count, os.path.basename(sidecar_path(path))))
    return known[count]
