"""GluonCV's trained weights by name, detectors and ImageNet backbones: downloaded once, by its model store."""
import contextlib
import functools
import os
import sys
from unittest import mock

import requests

from yolo3.mxnet_setup import gluoncv
from gluoncv.model_zoo import model_store

from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS
from yolo3.data.download import within
from yolo3.data.voc import VOC_CLASSES
from yolo3.network import WIDTHS, reason

CLASSES = {'voc': list(VOC_CLASSES), 'coco': list(gluoncv.data.COCODetection.CLASSES)}
DETECTORS = {'yolo3_mobilenet1.0_%s' % dataset: {'network': 'mobilenet1_0', 'classes': CLASSES[dataset],
                                                 'data_shape': 416, 'dataset': dataset, 'anchors': ANCHORS}
             for dataset in CLASSES}
DARKNETS = {'yolo3_darknet53_%s' % dataset: CLASSES[dataset] for dataset in CLASSES}  # to learn from: see teacher.py
PROBE_SECONDS = 20
STALL_SECONDS = 60  # without a byte


def detector_file(name):
    """The .params file of a detector of GluonCV's zoo, of DETECTORS or DARKNETS. Raises UserError as `download`."""
    return download(name, 'give another store with --mirror URL, or a file of your own (--params, --teacher)')


def backbone_file(network, path='', pretrained_base=True):
    """The file of ImageNet weights that `network` starts from: `path`, else GluonCV's own; '' for random weights.

    Raises UserError as `download`.
    """
    return path or (download('mobilenet%s' % WIDTHS[network], 'give the weights with --backbone-params FILE, or train '
                             'from scratch with --no-pretrained-base') if pretrained_base else '')


def download(name, remedy):
    """The file of GluonCV's weights `name`, from the cache or else its model store, whose checksum is verified.

    The store is MXNET_GLUON_REPO, if set. Raises UserError, with the `remedy`, if the file cannot be had: within half a
    minute if the store does not answer, after STALL_SECONDS if it stops sending.
    """
    store = os.environ.get('MXNET_GLUON_REPO') or model_store.apache_repo_url
    file = '%s-%s.params' % (name, model_store.short_hash(name))
    folder = os.path.join(os.path.expanduser(os.environ.get('MXNET_HOME', '~/.mxnet')), 'models')
    remedy = '%s; or put %s, whose SHA-1 is %s, into %s' % (remedy, file, model_store._model_sha1[name], folder)
    if not os.path.exists(os.path.join(folder, file)) and not answers(store):
        raise UserError('cannot reach %s for the weights %s: %s' % (store, name, remedy))
    try:
        # It prints to stdout that it downloads, and sets no timeout.
        with contextlib.redirect_stdout(sys.stderr), \
                mock.patch.object(requests, 'get', functools.partial(requests.get, timeout=STALL_SECONDS)):
            return model_store.get_model_file(name)
    except Exception as error:
        raise UserError('the weights %s could not be downloaded from %s (%s): %s'
                        % (name, store, reason(error), remedy))


def answers(url):
    """Whether a server answers at `url`. GluonCV's download waits without limit, name look-up included."""
    try:
        within(PROBE_SECONDS, lambda: requests.head(url, timeout=PROBE_SECONDS / 2))
    except requests.RequestException:
        return False
    return True
