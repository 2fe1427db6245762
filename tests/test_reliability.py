"""A training that is killed, disturbed or lied to: nothing is lost, nothing hangs, nothing is left behind."""
import collections
import ctypes
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

from conftest import ROOT, abandoned, alive, learned

SCRIPT = os.path.join(ROOT, 'train_yolo3_mobilenet.py')
KILLED = os.path.join(ROOT, 'tests', 'killed.py')
KILLS = int(os.environ.get('YOLO3_TEST_KILLS', 4))  # at least, by turns in each of PLACES
PLACES = 'step', 'validation', 'save', 'rename'
PRCTL = ctypes.CDLL(None).prctl  # looked up here, as little may be done between fork and exec
STEM = 'yolo3_mobilenet0_25_voc'


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """22 + 6 scenes of handwritten digits."""
    root = tmp_path_factory.mktemp('digits')
    subprocess.run([sys.executable, os.path.join(ROOT, 'scripts', 'make_digits.py'), '--out', str(root),
                    '--train', '22', '--test', '6'], check=True, stderr=subprocess.DEVNULL)
    return root


def flags(root, folder, *more):
    """22 images in batches of 4, so that each epoch leaves some for the next; mixup in two epochs of three."""
    return ['--network', 'mobilenet0.25', '--dataset', 'voc', '--dataset-root', str(root), '--classes',
            '0,1,2,3,4,5,6,7,8,9', '--train-splits', '2007_trainval', '--val-splits', '2007_test', '--gpus', '',
            '--no-pretrained-base', '--batch-size', '4', '-j', '1', '--data-shape', '64', '--min-shape', '64',
            '--max-shape', '96', '--log-interval', '1', '--epochs', '3', '--mixup', '--no-mixup-epochs', '1',
            '--checkpoint-batches', '2', '--save-prefix', str(folder) + '/', '--resume', 'auto', *map(str, more)]


def start(arguments, **kwargs):
    return subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, universal_newlines=True, **kwargs)


def finish(process):
    errors = process.communicate(timeout=600)[1]
    return process.returncode, errors


def last(folder):
    return learned(folder / (STEM + '_last.npz'))


@pytest.fixture(scope='module')
def straight(digits, tmp_path_factory):
    """The last checkpoint of a training that nothing happened to."""
    folder = tmp_path_factory.mktemp('straight')
    code, errors = finish(start([SCRIPT, *flags(digits, folder)]))
    assert code == 0, errors
    return last(folder)


def check_same(folder, straight):
    """The last checkpoint in `folder` is `straight`, bit for bit."""
    ours = last(folder)
    assert ours.keys() == straight.keys()
    for name in straight:
        np.testing.assert_array_equal(ours[name], straight[name], err_msg=name)


def check_resumed(digits, folder, straight):
    """The training in `folder` can be resumed, and ends as if nothing had happened."""
    code, errors = finish(start([SCRIPT, *flags(digits, folder)]))
    assert code == 0, errors
    check_same(folder, straight)


@pytest.mark.slow
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
        check_same(folder, straight)
    print('%d trainings killed %d times: %s' % (trainings, sum(kills.values()), dict(kills)))


def children(pid):
    """The process numbers of the children of `pid`."""
    with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
        return [int(child) for child in file.read().split()]


def wait_for(process, word):
    """Read the log of `process` up to a line with `word`; returns it."""
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError('no line with ' + word)


@pytest.mark.slow
@pytest.mark.parametrize('signum, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_leaves_a_checkpoint_and_nothing_else(digits, straight, tmp_path, signum, code):
    before = abandoned()
    process = start([SCRIPT, *flags(digits, tmp_path)], start_new_session=True)
    wait_for(process, '[Epoch 1][Batch 0]')
    workers = children(process.pid)
    assert len(workers) == 1  # for training and validation
    sent = time.time()
    for pid in [process.pid] + workers:
        os.kill(pid, signum)
    assert finish(process)[0] == code and time.time() - sent < 30  # promised
    assert not any(map(alive, workers)) and not abandoned(before)
    assert str(last(tmp_path)['state']).startswith('{"epoch": 1, "batch": ')
    check_resumed(digits, tmp_path, straight)


@pytest.mark.slow
def test_a_second_signal_quits_at_once(digits, tmp_path):
    process = start([SCRIPT, *flags(digits, tmp_path)])
    wait_for(process, '[Epoch 0][Batch 1]')
    os.kill(process.pid, signal.SIGSTOP)  # so that both come before it could stop by itself
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    wait_for(process, 'once more to quit at once')
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGINT)
    assert finish(process)[0] in (-signal.SIGINT, 130)
    deadline = time.time() + 30
    while any(map(alive, workers)) and time.time() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_checkpoint(digits, straight, tmp_path):
    process = start([SCRIPT, *flags(digits, tmp_path)])
    wait_for(process, '[Epoch 1][Batch 1]')
    killed = time.time()
    os.kill(children(process.pid)[0], signal.SIGKILL)
    code, errors = finish(process)
    assert code == 1 and 'Traceback' not in errors and time.time() - killed < 30  # promised
    assert 'was killed by signal 9' in errors.splitlines()[-1] and '.jpg' in errors.splitlines()[-1]
    check_resumed(digits, tmp_path, straight)


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_last_checkpoint_stays(digits, tmp_path):
    code, errors = finish(start([SCRIPT, *flags(digits, tmp_path, '--epochs', 1)]))
    assert code == 0, errors
    names = [STEM + end for end in ('_last.npz', '_best.params', '_best.json')]
    before = {name: (tmp_path / name).read_bytes() for name in names}

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 ** 5, 10 ** 5))
    code, errors = finish(start([SCRIPT, *flags(digits, tmp_path, '--epochs', 3)], preexec_fn=little_room))
    assert code == 1 and 'Traceback' not in errors
    assert errors.count('could not write') >= 4 and 'could not be written' in errors.splitlines()[-1]
    assert '[Epoch 2] Training cost' in errors
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert not glob.glob(str(tmp_path / '*.tmp'))


@pytest.mark.slow
def test_a_deleted_folder_is_said_and_training_goes_on(digits, straight, tmp_path):
    folder = tmp_path / 'run'
    process = start([SCRIPT, *flags(digits, folder)])
    wait_for(process, '[Epoch 0][Batch 1]')
    folder.rename(tmp_path / 'gone')  # at once: rmtree alone may meet a file that is written just then
    shutil.rmtree(tmp_path / 'gone')
    assert 'could not write' in wait_for(process, 'could not write')
    wait_for(process, '[Epoch 1]')
    folder.mkdir()
    code, errors = finish(process)
    assert code == 0 and 'Traceback' not in errors
    check_same(folder, straight)
    assert '[Epoch 2]' in (folder / (STEM + '_train.log')).read_text()


def obey_modes():
    """In a new process: root, too, may write only where the permissions say so (Linux)."""
    PRCTL(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE; of no effect for others, who lack it


@pytest.mark.slow
def test_a_read_only_folder_is_said_and_the_last_checkpoint_stays(digits, straight, tmp_path):
    process = start([SCRIPT, *flags(digits, tmp_path)], preexec_fn=obey_modes)
    wait_for(process, '[Epoch 1][Batch 0]')
    tmp_path.chmod(0o555)
    before = {path: path.read_bytes() for path in tmp_path.glob('*.npz')}
    code, errors = finish(process)
    assert code == 1 and 'Traceback' not in errors
    assert errors.count('could not write') >= 4 and 'could not be written' in errors.splitlines()[-1]
    assert '[Epoch 2] Training cost' in errors
    assert before and {path: path.read_bytes() for path in tmp_path.glob('*.npz')} == before
    code, errors = finish(start([SCRIPT, *flags(digits, tmp_path)], preexec_fn=obey_modes))
    assert code == 2 and len(errors.splitlines()) == 1 and '--save-prefix %s: not writable' % tmp_path in errors
    tmp_path.chmod(0o755)
    check_resumed(digits, tmp_path, straight)


@pytest.fixture
def damaged(digits, tmp_path):
    """The digits with four bad images of 22: of no bytes, missing, no image, and of another size than annotated."""
    root = tmp_path / 'damaged'
    shutil.copytree(digits, root)
    images = sorted((root / 'VOC2007/JPEGImages').glob('digits_train_*'))
    images[1].write_bytes(b'')
    images[2].unlink()
    images[3].write_text('no image')
    annotation = root / 'VOC2007/Annotations' / (images[4].stem + '.xml')
    annotation.write_text(annotation.read_text().replace('<width>256', '<width>200'))
    return root, [image.stem for image in images[1:5]]


@pytest.mark.parametrize('policy, code', [((), 2), (('--on-bad-image', 'stop'), 2), (('--on-bad-image', 'skip'), 0)])
def test_bad_images(damaged, tmp_path, run, policy, code):
    root, bad = damaged
    result = run(SCRIPT, *flags(root, tmp_path / 'run', '--epochs', 1, *policy))
    errors = result.stderr
    assert result.returncode == code and 'Traceback' not in errors
    if code == 0:
        assert '18 images' in errors and all(name in errors for name in bad)
        for why in 'missing', 'unreadable', 'of another size than annotated':
            assert why in errors
    else:
        assert bad[0] in errors.splitlines()[-1]
        assert policy or '4 of 22 images are bad' in errors.splitlines()[-1]


@pytest.mark.slow
def test_an_image_that_goes_bad_later_is_skipped_and_named(digits, tmp_path):
    root = tmp_path / 'digits'
    shutil.copytree(digits, root)
    process = start([SCRIPT, *flags(root, tmp_path / 'run', '--on-bad-image', 'skip')])
    wait_for(process, '[Epoch 0][Batch 0]')
    image = sorted((root / 'VOC2007/JPEGImages').glob('digits_train_*'))[7]
    image.unlink()
    code, errors = finish(process)
    assert code == 0 and errors.count('skipped image, unreadable: %s' % image) == 1
