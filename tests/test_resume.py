"""However a training begins and goes on, network and targets have the same anchors, classes and data, or it is said."""
import contextlib
import os
import re

import pytest

from conftest import ROOT
from yolo3.mxnet_setup import mx

import train_yolo3_mobilenet as training
from yolo3 import network, resume, weights
from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS
from yolo3.data.loader import train_loader
from yolo3.data.sampler import TrainSampler
from yolo3.distributed import backends
from yolo3.distributed.group import ONE_PROCESS
from yolo3.ema import Ema
from yolo3.run import Run

NUMBERS = list(range(11, 29))
OF_FILE = [[side + 40 for side in row] for row in ANCHORS]
FITTED = [[10, 12, 10, 60, 50, 12], [10, 240, 200, 12, 50, 60], [200, 60, 50, 240, 200, 240]]


class Images:
    """A data set whose boxes have nine sizes, in pixels of any input, all the larger by `grown`."""

    def __init__(self, classes=('a', 'b'), digest='1', grown=0):
        self.classes, self._digest, self._grown = classes, digest, grown

    def __len__(self):
        return 8

    def digest(self):
        return self._digest

    def extents(self, size):
        return [[width + self._grown, height + self._grown] for width in (10, 50, 200) for height in (12, 60, 240)] * 3


@pytest.fixture
def start(tmp_path, caplog):
    """start(flags, images) begins a training as main does, up to its first batch, and writes its checkpoint.

    Returns the anchors of the loader, of the network and of the State, and what was logged.
    """
    def begin(*flags, images=Images(), val_images=Images()):
        caplog.clear()
        args = training.parse_args(['--network', 'mobilenet0_25', '--no-pretrained-base', '--batch-size', '4',
                                    '--save-prefix', '%s/' % tmp_path, *map(str, flags)])
        args.devices = [mx.cpu()]
        sampler = TrainSampler(len(images), 4, args.sizes, args.seed)
        args.resume = resume.resumable(args, ONE_PROCESS)
        state = resume.begin(args, images, val_images, sampler, ONE_PROCESS)
        loader = train_loader(images, sampler, state.anchors)
        net = training.build_network(args, state)
        trainer = training.build_trainer(args, net, backends.OneProcess('device'))
        ema = Ema(args, state, net)
        with contextlib.suppress(KeyError), Run(args, state, ema, trainer, sampler, ONE_PROCESS) as run:
            run._save()
        return loader._samples._anchors, network.anchors_of(net), state.anchors, caplog.text
    caplog.set_level('INFO', 'yolo3')
    return begin


@pytest.fixture(scope='module')
def params(tmp_path_factory):
    """A detector of a and b whose anchors are OF_FILE."""
    path = str(tmp_path_factory.mktemp('file') / 'a.params')
    weights.save_detector(network.build('mobilenet0_25', ['a', 'b'], OF_FILE), path, network='mobilenet0_25',
                          classes=['a', 'b'], dataset='voc', data_shape=416, anchors=OF_FILE, epoch=0, metrics={})
    return path


@pytest.mark.parametrize('given, expected', [
    ((), None), (('--anchors', 'auto'), FITTED), (('--anchors', ','.join(map(str, NUMBERS))), [
        NUMBERS[:6], NUMBERS[6:12], NUMBERS[12:]])], ids=['none', 'auto', 'numbers'])
@pytest.mark.parametrize('origin', ['', '--pretrained', '--resume'])
def test_one_owner_of_the_anchors(start, params, origin, given, expected):
    expected = expected or (OF_FILE if origin else ANCHORS)
    first = start(*given, *([origin, params] if origin else []))
    assert first[0] == first[1] == first[2] == expected
    assert ('replaces the anchors' in first[-1]) == bool(origin and given)
    # The same command goes on, with or without what only the start uses, even if the boxes would now fit others.
    again = start(*given, '--resume', 'auto', *([] if origin else ['--pretrained', params]), images=Images(grown=5))
    assert again[0] == again[1] == again[2] == expected
    for other in ('--anchors', 'auto'), ('--anchors', ','.join(['7'] * 18)), ():
        if other != given:
            with pytest.raises(UserError, match='--anchors'):
                start(*other, '--resume', 'auto')


def test_a_network_with_other_anchors_than_the_targets_is_refused(start, monkeypatch):
    start()
    monkeypatch.setattr(training.network, 'build', lambda *args, build=network.build: build(*args[:2], OF_FILE))
    with pytest.raises(UserError, match='decodes the anchors'):
        start('--save-prefix', 'elsewhere')


@pytest.mark.parametrize('changed, words', [
    ({'images': Images(('b', 'a'))}, 'classes a, b, in this order'),
    ({'images': Images(('a', 'b', 'c'))}, 'classes a, b'),
    ({'images': Images(digest='other')}, 'other training data'),
    ({'val_images': Images(digest='other')}, 'other validation data')], ids=lambda value: str(value)[:20])
def test_other_classes_or_data_are_refused(start, changed, words):
    start()
    with pytest.raises(UserError, match=words):
        start('--resume', 'auto', **changed)
    start('--resume', 'auto')


def test_weights_with_other_classes_are_refused(start, params):
    for classes in ('b', 'a'), ('a', 'c'):
        with pytest.raises(UserError, match='--pretrained'):
            start('--resume', params, images=Images(classes))


OTHER = {'lr': 0.1, 'lr_decay_epoch': '1,2', 'mixup': None, 'data_shape': 320, 'batch_size': 2, 'seed': 1,
         'pretrained': 'x', 'start_epoch': 1, 'keep': 3, 'optimizer': 'adam'}


@pytest.mark.parametrize('name', OTHER)
def test_a_changed_flag_does_what_the_table_says(start, name):
    change = next(rule.change for rule in resume.RULES if name in rule.flags)
    flags = [resume.flag(name)] + [OTHER[name]] * (OTHER[name] is not None)
    start()
    if change == resume.REFUSED:
        with pytest.raises(UserError, match=flags[0]):
            start('--resume', 'auto', *flags)
        return
    assert (flags[0] + ' ' in start('--resume', 'auto', *flags)[-1]) == (change in (resume.SAID, resume.UNUSED))
    assert flags[0] not in start('--resume', 'auto', *flags)[-1]  # it is the flag of this training now


def test_the_table_has_every_flag():
    flags = [name for rule in resume.RULES for name in rule.flags]
    derived = {'prefix', 'sizes'}
    assert sorted(flags) == sorted(set(vars(training.parse_args([]))) - derived)


def test_the_docs_have_the_table():
    rows = ['| %s | %s | %s |' % (', '.join('`%s`' % resume.flag(name) for name in rule.flags), rule.change, rule.why)
            for rule in resume.RULES]
    with open(os.path.join(ROOT, 'docs', 'reliability.md'), encoding='utf-8') as file:
        assert '\n'.join(rows) in file.read()


def test_an_unfinished_training_is_kept(start, tmp_path):
    start()
    assert re.search('unfinished.*yolo3_mobilenet0_25_voc_earlier1_', start()[-1])
    assert {'yolo3_mobilenet0_25_voc%s_last.npz' % end for end in ('', '_earlier1')} <= set(os.listdir(tmp_path))
