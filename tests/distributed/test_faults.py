"""If one process of a training fails, is killed, hangs or is stopped, all end, and every one says why."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from job import FAULTY_TRAINING, TIME_TO_END, TRAIN, Job, both_backends, needs_horovod, progress, training_flags

pytestmark = pytest.mark.slow
FAULTS = {'kill': r' is gone', 'hang': r' has been silent for', 'mistake': r': a mistake',
          'defect': r': ZeroDivisionError: a defect'}


@pytest.mark.parametrize('backend, rank, fault', [
    ('dist_sync', 0, 'kill'), ('dist_sync', 1, 'kill'), ('dist_sync', 1, 'hang'), ('dist_sync', 1, 'mistake'),
    ('dist_sync', 0, 'defect'), pytest.param('horovod', 1, 'kill', marks=needs_horovod),
    pytest.param('horovod', 0, 'hang', marks=needs_horovod)])
def test_all_end_and_name_the_process_at_fault(backend, rank, fault, squares, tmp_path):
    command = [FAULTY_TRAINING, rank, fault, *training_flags(backend, squares, tmp_path, '--checkpoint-batches', '1')]
    with Job(backend, 3, command, tmp_path) as job:
        job.wait_for('[Epoch 0]')
        codes = job.wait(TIME_TO_END, but=fault == 'hang' and backend != 'horovod')
        assert 'error: rank %d (%s)%s' % (rank, socket.gethostname(), FAULTS[fault]) in job.text(), job.text()
        assert 0 not in codes
        if None in codes:  # once it goes on, it finds itself alone
            job.send(signal.SIGCONT)
            job.wait(TIME_TO_END)
    epoch, batch = progress(tmp_path)
    assert epoch == 0 and 1 <= batch <= 3


@both_backends
def test_a_signal_to_one_stops_all_and_another_number_of_processes_resumes(backend, squares, tmp_path):
    with Job(backend, 3, [FAULTY_TRAINING, 1, 'term', *training_flags(backend, squares, tmp_path)], tmp_path) as job:
        codes = job.wait(TIME_TO_END)
        assert set(codes) == {1 if backend == 'horovod' else 143}, job.text()
        assert 'Stopped in epoch 0' in job.text()
        assert not any(job.others())
    assert progress(tmp_path) in [(0, 2), (0, 3)]
    again = tmp_path / 'again'
    again.mkdir()
    with Job(backend, 2, [TRAIN, *training_flags(backend, squares, tmp_path, '--resume', 'auto')], again) as job:
        assert not any(job.wait()), job.text()
        assert re.search('Resume .* at epoch 0, batch [23]', job.text())


def test_a_signal_to_one_during_validation_stops_all(squares, tmp_path):
    command = [FAULTY_TRAINING, 1, 'validation-term', *training_flags('dist_sync', squares, tmp_path)]
    with Job('dist_sync', 3, command, tmp_path) as job:
        assert job.wait(TIME_TO_END) == [143] * 3, job.text()
        assert not any(job.others())
    assert progress(tmp_path) == (0, 5)


def test_different_flags_are_named(squares, tmp_path):
    command = [TRAIN, *training_flags('dist_sync', squares, tmp_path)]
    with Job('dist_sync', 3, command, tmp_path, last=['--lr', '0.5']) as job:
        assert job.wait(TIME_TO_END) == [2, 2, 2], job.text()
        assert not any(job.others())
        lines = [line for line in job.text().splitlines() if 'all processes must have the same' in line]
        assert len(lines) == 3 and all(re.search(r'rank [12] \S+ has --lr 0\.\d+, but rank 0', line) for line in lines)


def test_different_data_sets_are_named(squares, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(squares, other)
    annotation = other / 'VOC2007/Annotations/trainval_01.xml'
    annotation.write_text(annotation.read_text().replace('<xmin>', '<xmin>1', 1))
    command = [TRAIN, *training_flags('dist_sync', squares, tmp_path)]
    with Job('dist_sync', 2, command, tmp_path, last=['--dataset-root', str(other)]) as job:
        assert job.wait(TIME_TO_END) == [2, 2], job.text()
        assert re.search(r'rank 1 \S+ has training images with labels \w{16}, but rank 0', job.text()), job.text()


def test_a_scheduler_that_does_not_answer_is_named(squares, tmp_path):
    env = dict(os.environ, DMLC_ROLE='worker', DMLC_PS_ROOT_URI='127.0.0.1', DMLC_PS_ROOT_PORT='1', DMLC_NUM_WORKER='2',
               DMLC_NUM_SERVER='1')
    command = [sys.executable, FAULTY_TRAINING, '0', '', *map(str, training_flags('dist_sync', squares, tmp_path))]
    result = subprocess.run(command, env=env, timeout=TIME_TO_END, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert '--kv-store dist_sync: %s timed out after 15 s waiting for the scheduler at 127.0.0.1:1, 2 worker(s) and ' \
           '1 server(s)' % socket.gethostname() in result.stderr.splitlines()[-1]
