"""A training that is killed, disturbed or lied to: nothing is lost, nothing hangs, nothing is left behind."""
import collections
import glob
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from conftest import ROOT

SCRIPT = os.path.join(ROOT, 'train_yolo3_mobilenet.py')
KILLED = os.path.join(ROOT, 'tests', 'killed.py')
KILLS = int(os.environ.get('YOLO3_TEST_KILLS', 4))  # at least; docs/reliability.md tells of 40
PLACES = 'step', 'validation', 'save', 'rename'
STEM = 'yolo3_mobilenet0_25_voc'


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """22 + 6 scenes of handwritten digits."""
    root = tmp_path_factory.mktemp('digits')
    subprocess.run([sys.executable, os.path.join(ROOT, 'scripts', 'make_digits.py'), '--out', str(root), '--train', '22',
                    '--test', '6'], check=True, stderr=subprocess.DEVNULL)
    return root


def flags(root, folder, *more):
    """22 images in batches of 4, so that each epoch leaves some for the next; mixup in the first two epochs of three."""
    return ['--network', 'mobilenet0.25', '--dataset', 'voc', '--dataset-root', str(root), '--classes',
            '0,1,2,3,4,5,6,7,8,9', '--train-splits', '2007_trainval', '--val-splits', '2007_test', '--gpus', '',
            '--no-pretrained-base', '--batch-size', '4', '-j', '1', '--data-shape', '64', '--min-shape', '64',
            '--max-shape', '96', '--log-interval', '1', '--epochs', '3', '--mixup', '--no-mixup-epochs', '1',
            '--checkpoint-batches', '2', '--save-prefix', str(folder) + '/', '--resume', 'auto', *map(str, more)]


def start(arguments, **kwargs):
    return subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, universal_newlines=True, **kwargs)


def finish(process):
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors


def last(folder):
    with np.load(folder / (STEM + '_last.npz')) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope='module')
def straight(digits, tmp_path_factory):
    """The last checkpoint of a training that nothing happened to."""
    folder = tmp_path_factory.mktemp('straight')
    code, errors = finish(start([SCRIPT, *flags(digits, folder)]))
    assert code == 0, errors
    return last(folder)


def test_killed_at_any_moment_the_weights_end_up_the_same(digits, straight, tmp_path):
    generator, kills, trainings = random.Random(5), collections.Counter(), 0
    while sum(kills.values()) < KILLS or len(kills) < len(PLACES):
        folder = tmp_path / str(trainings)
        code = None
        while code != 0:
            place = min(PLACES, key=lambda place: (kills[place], PLACES.index(place)))
            number = generator.randint(1, {'step': 6, 'validation': 1, 'save': 4, 'rename': 8}[place])
            if sum(kills.values()) >= KILLS and len(kills) == len(PLACES):
                number = 10 ** 6
            code, errors = finish(start([KILLED, place, str(number), str(generator.random() * 1e9).split('.')[0],
                                         *flags(digits, folder)]))
            assert code in (0, -signal.SIGKILL), errors
            kills[place] += code != 0
        trainings += 1
        ours = last(folder)
        assert ours.keys() == straight.keys()
        for name in straight:
            np.testing.assert_array_equal(ours[name], straight[name], err_msg=name)
    print('%d trainings killed %d times: %s' % (trainings, sum(kills.values()), dict(kills)))
