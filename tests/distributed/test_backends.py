"""Several processes, with Horovod or the parameter server, compute what one process computes."""
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT, slow
from job import PREFIX, TRAIN, Job, both_backends, needs_horovod, training_flags
from steps import flags, steps, validated

from yolo3.cli import UserError
from yolo3.distributed import backends

STEPS = os.path.join(ROOT, 'tests', 'steps.py')


def after_steps(backend, count, squares, folder, *arguments):
    """What each process of tests/steps.py wrote."""
    with Job(backend, count, [STEPS, squares, folder / 'rank.npz', backend, *arguments], folder) as job:
        codes = job.wait()
        assert not any(codes), job.text()
        assert not any(job.others())
    return [dict(np.load(folder / ('rank%d.npz' % rank))) for rank in range(count)]


@pytest.mark.parametrize('backend, count, batch_size', [
    ('dist_sync', 2, 8), slow('dist_sync', 3, 7), slow('dist_sync_device', 2, 7),
    slow('horovod', 3, 7, marks=[needs_horovod])])
def test_weights_equal_those_of_one_process(backend, count, batch_size, squares, tmp_path):
    before, one = steps(squares, flags(), batch_size, 10)
    many = after_steps(backend, count, squares, tmp_path, batch_size, 10, 'frozen', count - 1)
    size = np.sqrt(sum((value ** 2).sum() for name, value in one.items() if 'offset' not in name))
    apart, moved = [np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)) for other in (many[0], before)]
    print('%s, %d processes: relative difference %.1e, moved %.1e' % (backend, count, apart / size, moved / size))
    assert apart < 1e-5 * size and moved > 1e-3 * size


@pytest.mark.slow
@both_backends
def test_batch_norm_is_the_same_everywhere(backend, squares, tmp_path):
    first, *others = after_steps(backend, 3, squares, tmp_path, 8, 4, 'normal')
    for other in others:
        for name in first:
            np.testing.assert_array_equal(first[name], other[name], err_msg=name)
    assert any('running_mean' in name and value.any() for name, value in first.items())


@pytest.mark.slow
@both_backends
def test_momentum_is_rank_0s_everywhere(backend, squares, tmp_path):
    for arrays in after_steps(backend, 2, squares, tmp_path, 4, 0, 'momentum'):
        assert len(arrays) >= 71
        assert all((array == int(name.split()[0])).all() for name, array in arrays.items())


@pytest.mark.slow
@both_backends
def test_validation_gives_the_map_of_one_process(backend, squares, tmp_path):
    """22 images in batches of 4 over 3 processes: one has none of the last batch."""
    with Job(backend, 3, [STEPS, squares, tmp_path / 'rank.npz', backend, 4, 0, 'validate'], tmp_path) as job:
        assert not any(job.wait()), job.text()
    with np.load(tmp_path / 'rank0.npz') as file:
        values = {name: float(file[name]) for name in file.files}
    assert values == validated(squares, 4) and 0 < values['mAP'] < 1
    assert not (tmp_path / 'rank1.npz').exists()


@pytest.mark.slow
def test_logs_and_files_are_those_of_one_process(squares, run, tmp_path):
    (tmp_path / 'one').mkdir()
    more = '--mixup', '--no-mixup-epochs', '1'
    assert run('train_yolo3_mobilenet.py', *training_flags(None, squares, tmp_path / 'one', *more)).returncode == 0
    with Job('dist_sync', 3, [TRAIN, *training_flags('dist_sync', squares, tmp_path, *more)], tmp_path) as job:
        assert not any(job.wait()), job.text()
    logs = [(folder / (PREFIX + '_train.log')).read_text() for folder in (tmp_path / 'one', tmp_path)]
    for pattern in r'Batch \d+\], LR: \S+', r'Mixed samples: .*', r'training on .*':
        assert re.findall(pattern, logs[0]) == re.findall(pattern, logs[1]) != []
    names = [{re.sub(r'_0\.\d+', '', name) for name in os.listdir(folder) if PREFIX in name}
             for folder in (tmp_path / 'one', tmp_path)]
    assert names[0] == names[1]


@pytest.mark.parametrize('horovod, kv_store, words', [
    (False, 'dist_sync', '--kv-store dist_sync: DMLC_ROLE must be .*, but is not set'),
    (False, 'nccl', '--kv-store nccl: .*no NCCL'), (True, 'dist_sync', '--horovod and --kv-store dist_sync')])
def test_wrong_flags_are_named(horovod, kv_store, words, monkeypatch):
    monkeypatch.delenv('DMLC_ROLE', raising=False)
    with pytest.raises(UserError, match=words):
        backends.join(horovod, kv_store)


def test_missing_horovod_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'horovod', None)
    with pytest.raises(UserError, match='--horovod: .*bash scripts/setup.sh --horovod'):
        backends.join(True, 'device')


@needs_horovod
def test_horovod_of_one_process_needs_no_launcher():
    code = ("from yolo3.distributed import backends\nwith backends.join(True, 'device') as group:\n"
            "    print(group.rank, group.size, group.local_size, group.backend.local_rank)")
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.stdout == '0 1 1 0\n'
