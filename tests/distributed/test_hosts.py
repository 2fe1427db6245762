"""Training over several hosts, and how it ends when the network is slow, stalls or is cut."""
import os
import re
import time

import numpy as np
import pytest

from conftest import learned
from job import FAULTY_TRAINING, PREFIX, TIME_TO_END, TRAIN, Job, both_backends, training_flags
from virtual_hosts import several

pytestmark = pytest.mark.slow


@pytest.fixture
def hosts(tmp_path):
    with several(3, tmp_path) as hosts:
        yield hosts


@both_backends
def test_hosts_train_together(backend, squares, hosts, tmp_path):
    """The scheduler is on the first host; ps-lite gives rank 0 to the host with the highest address."""
    command = [TRAIN, *training_flags(backend, squares, '.', '--epochs', '1')]
    with Job(backend, 2, command, tmp_path, hosts=hosts[:2]) as job:
        assert job.wait() == [0, 0], job.text()
    zero = hosts[0 if backend == 'horovod' else 1]
    assert [host.name for host in hosts if os.listdir(host.home)] == [zero.name]
    assert {PREFIX + '_best.params', PREFIX + '_train.log', PREFIX + '_last.npz'} <= set(os.listdir(zero.home))


def test_a_short_outage_changes_nothing(squares, hosts, tmp_path):
    command = [FAULTY_TRAINING, 0, 'none', *training_flags('dist_sync', squares, '.')]
    with Job('dist_sync', 2, command, tmp_path, hosts=[hosts[1], hosts[0]]) as job:  # one has rank 0 and the scheduler
        job.wait_for('[Epoch 0]')
        hosts[0].link('down')
        time.sleep(2)
        hosts[0].link('up')
        assert job.wait() == [0, 0], job.text()


@both_backends
def test_a_host_that_is_cut_off_is_named_on_both_sides(backend, squares, hosts, tmp_path):
    order = hosts if backend == 'horovod' else hosts[::-1]  # the first has rank 0
    command = [FAULTY_TRAINING, 0, 'none', *training_flags(backend, squares, '.', '--epochs', '9')]
    with Job(backend, 3, command, tmp_path, hosts=order) as job:
        job.wait_for('[Epoch 0]')
        order[2].link('down')
        codes = job.wait(TIME_TO_END)
        assert 0 not in codes, job.text()
        for number, culprit in (0, 2), (1, 2), (2, 0):
            assert re.search(r'error: rank %d \(%s\) has been silent for' % (culprit, order[culprit].name),
                             (tmp_path / ('stderr%d' % number)).read_text()), job.text()


def test_a_host_that_is_missing_at_the_start_gives_one_line_each(squares, hosts, tmp_path):
    hosts[2].link('down')
    command = [FAULTY_TRAINING, 0, 'absent', *training_flags('dist_sync', squares, '.')]
    with Job('dist_sync', 3, command, tmp_path, hosts=hosts) as job:
        assert job.wait(TIME_TO_END) == [1, 1, 1], job.text()
        for number, host in enumerate(hosts):
            text = (tmp_path / ('stderr%d' % number)).read_text()
            assert re.fullmatch(r'\S+: error: .*%s timed out after 10 s waiting for .*\n*' % host.name, text), text


def test_a_rank_0_that_is_unreachable_gives_one_line_each(squares, hosts, tmp_path):
    """The second host cannot reach the third, which has rank 0; both reach the scheduler."""
    hosts[1].block(hosts[2])
    command = [FAULTY_TRAINING, 0, 'absent', *training_flags('dist_sync', squares, '.')]
    with Job('dist_sync', 3, command, tmp_path, hosts=hosts) as job:
        assert job.wait(TIME_TO_END) == [1, 1, 1], job.text()
        for number, words in (0, r'rank 2 of 3 \(host1\) timed out after 10 s waiting for the other processes'), (
                2, r'rank 0 of 3 \(host3\) timed out after 10 s waiting for the other processes'), (
                1, r'rank 1 of 3 \(host2\) cannot connect to rank 0 at 10.77.0.3:\d+ \(No route .*\): open all ports'):
            text = (tmp_path / ('stderr%d' % number)).read_text()
            assert re.fullmatch(r'\S+: error: %s.*\n*' % words, text), text


def by_proxy(fault, squares, folder):
    """The exit codes and output of two processes; with a proxy between them if `fault` needs one."""
    command = [FAULTY_TRAINING, 1, fault, *training_flags('dist_sync', squares, folder, '--epochs', '1')]
    with Job('dist_sync', 2, command, folder) as job:
        return job.wait(TIME_TO_END), job.text()


def test_a_slow_connection_changes_no_number(squares, tmp_path):
    """Everything arrives 50 ms late, between the processes and at the scheduler; and once nothing for 2 s."""
    checkpoints = []
    for fault in 'none', 'slow':
        (tmp_path / fault).mkdir()
        codes, text = by_proxy(fault, squares, tmp_path / fault)
        assert codes == [0, 0], text
        checkpoints.append(learned(tmp_path / fault / (PREFIX + '_last.npz')))
    assert checkpoints[0].keys() == checkpoints[1].keys()
    for name, array in checkpoints[0].items():
        np.testing.assert_array_equal(array, checkpoints[1][name], err_msg=name)


@pytest.mark.parametrize('fault, words', [('stall', 'has been silent for'), ('cut', 'is gone')])
def test_a_lost_connection_ends_both_sides(fault, words, squares, tmp_path):
    codes, text = by_proxy(fault, squares, tmp_path)
    assert 0 not in codes
    for rank in 0, 1:
        assert re.search(r'error: rank %d \(\S+\) %s' % (rank, words), text), text
