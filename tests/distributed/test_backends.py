"""Several ranks, as real processes of both engines, train as one process would; and none outlives another."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT
from launch import HOROVODRUN, Job
from steps import steps, validated
from test_train import TINY

TRAIN = os.path.join(ROOT, 'train_yolo3_mobilenet.py')
STEPS = os.path.join(ROOT, 'tests', 'steps.py')
FAULTY = os.path.join(ROOT, 'tests', 'distributed', 'faulty.py')
PREFIX = 'yolo3_mobilenet0_25_voc'
PROMISE = 60  # seconds in which all ranks end
built = pytest.mark.skipif(not HOROVODRUN, reason='no Horovod: scripts/setup.sh --horovod builds it')
both = pytest.mark.parametrize('engine', [pytest.param('horovod', marks=built), 'dist_sync'])


def after_steps(engine, count, squares, folder, *arguments):
    """What each rank of tests/steps.py wrote."""
    with Job(engine, count, [STEPS, squares, folder / 'rank.npz', engine, *arguments], folder) as job:
        codes = job.wait()
        assert not any(codes), job.text()
        assert not any(job.others())
    return [dict(np.load(folder / ('rank%d.npz' % rank))) for rank in range(count)]


@pytest.mark.parametrize('engine, count, batch_size', [
    pytest.param('horovod', 2, 8, marks=built), pytest.param('horovod', 4, 7, marks=built),
    ('dist_sync', 2, 8), ('dist_sync', 4, 7), ('dist_sync_device', 2, 7)])
def test_the_weights_are_those_of_one_process(engine, count, batch_size, squares, tmp_path):
    before, one = steps(squares, 1, batch_size, 10)
    many = after_steps(engine, count, squares, tmp_path, batch_size, 10, 'frozen', count - 1)
    size = np.sqrt(sum((value ** 2).sum() for name, value in one.items() if 'offset' not in name))
    apart, moved = [np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)) for other in (many[0], before)]
    print('%s, %d ranks: relative difference %.1e, moved %.1e' % (engine, count, apart / size, moved / size))
    assert apart < 1e-5 * size and moved > 1e-3 * size


@both
def test_batch_norm_stays_the_same_at_all_ranks(engine, squares, tmp_path):
    first, *others = after_steps(engine, 4, squares, tmp_path, 8, 10, 'normal')
    for other in others:
        for name in first:
            np.testing.assert_array_equal(first[name], other[name], err_msg=name)
    assert any('running_mean' in name and value.any() for name, value in first.items())


def flags(engine, root, folder, *more):
    return ['--dataset-root', root, *TINY, '--save-prefix', str(folder) + '/', '--epochs', '2',
            *(['--horovod'] if engine == 'horovod' else [] if engine is None else ['--kv-store', engine]), *more]


@both
def test_validation_gives_the_map_of_one_process(engine, squares, tmp_path):
    """22 images in batches of 4 at 3 ranks: at the last batch one has none."""
    with Job(engine, 3, [STEPS, squares, tmp_path / 'rank.npz', engine, 4, 0, 'validate'], tmp_path) as job:
        assert not any(job.wait()), job.text()
    with np.load(tmp_path / 'rank0.npz') as file:
        values = {name: float(file[name]) for name in file.files}
    assert values == validated(squares, 4) and 0 < values['mAP'] < 1
    assert not (tmp_path / 'rank1.npz').exists()


def test_two_epochs_are_those_of_one_process_but_for_batch_norm(squares, run, tmp_path):
    (tmp_path / 'one').mkdir()
    more = '--mixup', '--no-mixup-epochs', '1', '-j', '1'
    assert run('train_yolo3_mobilenet.py', *flags(None, squares, tmp_path / 'one', *more)).returncode == 0
    with Job('dist_sync', 3, [TRAIN, *flags('dist_sync', squares, tmp_path, *more)], tmp_path) as job:
        assert not any(job.wait()), job.text()
    logs = [(folder / (PREFIX + '_train.log')).read_text() for folder in (tmp_path / 'one', tmp_path)]
    for pattern in r'Batch \d+\], LR: \S+', r'Mixed samples: .*', r'training on .*':
        assert re.findall(pattern, logs[0]) == re.findall(pattern, logs[1]) != []
    names = [{re.sub(r'_0\.\d+', '', name) for name in os.listdir(folder) if PREFIX in name}
             for folder in (tmp_path / 'one', tmp_path)]
    assert names[0] == names[1]


@both
def test_all_ranks_have_the_momentum_of_rank_0(engine, squares, tmp_path):
    for arrays in after_steps(engine, 2, squares, tmp_path, 4, 0, 'momentum'):
        assert len(arrays) >= 70
        assert all((array == int(name.split()[0])).all() for name, array in arrays.items())


FAULTS = {'kill': ' is gone', 'hang': ' has not been heard of', 'mistake': ': a mistake',
          'defect': ': ended with ZeroDivisionError: a defect'}


@pytest.mark.parametrize('engine, rank, fault', [
    ('dist_sync', 0, 'kill'), ('dist_sync', 1, 'kill'), ('dist_sync', 1, 'hang'), ('dist_sync', 0, 'hang'),
    ('dist_sync', 1, 'mistake'), ('dist_sync', 0, 'defect'), pytest.param('horovod', 1, 'kill', marks=built),
    pytest.param('horovod', 0, 'hang', marks=built), pytest.param('horovod', 1, 'mistake', marks=built)])
def test_all_ranks_end_with_the_cause_named_by_rank(engine, rank, fault, squares, tmp_path):
    command = [FAULTY, rank, fault, *flags(engine, squares, tmp_path, '--checkpoint-batches', '1')]
    with Job(engine, 3, command, tmp_path) as job:
        job.wait_for('[Epoch 0]')
        codes = job.wait(PROMISE, but=fault == 'hang' and engine != 'horovod')
        assert 'error: rank %d (%s)%s' % (rank, socket.gethostname(), FAULTS[fault]) in job.text(), job.text()
        assert 0 not in codes
        if None in codes:  # once it goes on, it finds itself alone
            job.send(signal.SIGCONT)
            job.wait(PROMISE)
    epoch, batch = state(tmp_path)
    assert epoch == 0 and 1 <= batch <= 3


def state(folder):
    """Epoch and batch of the checkpoint in `folder`."""
    with np.load(folder / (PREFIX + '_last.npz')) as file:
        content = json.loads(file['state'].tobytes().decode())
    return content['epoch'], content['batch']


@both
def test_a_signal_to_one_rank_stops_all_and_another_number_goes_on(engine, squares, tmp_path):
    with Job(engine, 3, [FAULTY, 1, 'term', *flags(engine, squares, tmp_path)], tmp_path) as job:
        codes = job.wait(PROMISE)
        assert set(codes) == {1 if engine == 'horovod' else 143}, job.text()
        assert 'Stopped in epoch 0' in job.text()
        assert not any(job.others())
    assert state(tmp_path) in [(0, 2), (0, 3)]
    again = tmp_path / 'again'
    again.mkdir()
    with Job(engine, 2, [TRAIN, *flags(engine, squares, tmp_path, '--resume', 'auto')], again) as job:
        assert not any(job.wait()), job.text()
        assert re.search('Resume .* at epoch 0, batch [23]', job.text())


def test_a_signal_to_one_rank_in_its_validation_stops_all(squares, tmp_path):
    with Job('dist_sync', 3, [FAULTY, 1, 'validation-term', *flags('dist_sync', squares, tmp_path)], tmp_path) as job:
        assert job.wait(PROMISE) == [143] * 3, job.text()
        assert not any(job.others())
    assert state(tmp_path) == (0, 5)


def test_flags_that_disagree_are_named(squares, tmp_path):
    command = [TRAIN, *flags('dist_sync', squares, tmp_path)]
    with Job('dist_sync', 3, command, tmp_path, last=['--lr', '0.5']) as job:
        assert job.wait(PROMISE) == [2, 2, 2], job.text()
        assert not any(job.others())
        lines = [line for line in job.text().splitlines() if 'must be the same at all ranks' in line]
        assert len(lines) == 3 and all(re.search(r'rank [12] \S+ has --lr 0\.\d+, and rank 0', line) for line in lines)


def test_data_sets_that_differ_are_named(squares, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(squares, other)
    annotation = other / 'VOC2007/Annotations/trainval_01.xml'
    annotation.write_text(annotation.read_text().replace('<xmin>', '<xmin>1', 1))
    command = [TRAIN, *flags('dist_sync', squares, tmp_path)]
    with Job('dist_sync', 2, command, tmp_path, last=['--dataset-root', str(other)]) as job:
        assert job.wait(PROMISE) == [2, 2], job.text()
        assert re.search(r'rank 1 \S+ has training images with labels \w{16}, and rank 0', job.text()), job.text()


def test_a_scheduler_out_of_reach_is_named(squares, tmp_path):
    env = dict(os.environ, DMLC_ROLE='worker', DMLC_PS_ROOT_URI='127.0.0.1', DMLC_PS_ROOT_PORT='1', DMLC_NUM_WORKER='2',
               DMLC_NUM_SERVER='1')
    command = [sys.executable, FAULTY, '0', '', *map(str, flags('dist_sync', squares, tmp_path))]
    result = subprocess.run(command, env=env, timeout=PROMISE, stderr=subprocess.PIPE, universal_newlines=True)
    assert result.returncode == 1
    assert 'scheduler at 127.0.0.1:1' in result.stderr.splitlines()[-1]


@pytest.mark.parametrize('arguments, word', [
    (['--kv-store', 'dist_sync'], 'DMLC_ROLE'), (['--kv-store', 'nccl'], 'NCCL'),
    (['--horovod', '--kv-store', 'dist_sync'], '--horovod and --kv-store dist_sync')])
def test_wrong_beginnings_get_one_line(arguments, word, squares, run, tmp_path):
    result = run('train_yolo3_mobilenet.py', *flags(None, squares, tmp_path, *arguments))
    assert result.returncode == 2 and word in result.stderr and 'Traceback' not in result.stderr


def test_horovod_that_is_not_installed_is_named(squares, run_process, tmp_path):
    (tmp_path / 'horovod').mkdir()
    (tmp_path / 'horovod' / '__init__.py').write_text('raise ImportError("none")')
    result = run_process('train_yolo3_mobilenet.py', *flags('horovod', squares, tmp_path),
                         env={'PYTHONPATH': str(tmp_path)})
    assert result.returncode == 2 and 'scripts/setup.sh --horovod' in result.stderr.splitlines()[-1]
