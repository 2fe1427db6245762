"""Ranks on several hosts, and what becomes of them where the network is slow, stalls, or is cut."""
import os
import re
import time

import numpy as np
import pytest

from hosts import several
from launch import Job
from test_backends import FAULTY, PREFIX, PROMISE, TRAIN, both, flags
from test_train import assert_same


@pytest.fixture
def hosts(tmp_path):
    with several(3, tmp_path) as hosts:
        yield hosts


@both
def test_hosts_train_as_one(engine, squares, hosts, tmp_path):
    """The scheduler is on the first host; ps-lite makes the one of the highest address rank 0."""
    command = [TRAIN, *flags(engine, squares, '.', '--epochs', '1')]
    with Job(engine, 2, command, tmp_path, hosts=hosts[:2]) as job:
        assert job.wait() == [0, 0], job.text()
    zero = hosts[0 if engine == 'horovod' else 1]
    assert [host.name for host in hosts if os.listdir(host.home)] == [zero.name]
    assert {PREFIX + '_best.params', PREFIX + '_train.log', PREFIX + '_last.npz'} <= set(os.listdir(zero.home))


def test_a_short_outage_is_survived(squares, hosts, tmp_path):
    command = [FAULTY, 0, 'none', *flags('dist_sync', squares, '.')]
    with Job('dist_sync', 2, command, tmp_path, hosts=[hosts[1], hosts[0]]) as job:  # rank 0 and scheduler are on one
        job.wait_for('[Epoch 0]')
        hosts[0].link('down')
        time.sleep(2)
        hosts[0].link('up')
        assert job.wait() == [0, 0], job.text()


@both
def test_a_host_cut_off_is_named_on_both_sides(engine, squares, hosts, tmp_path):
    order = hosts if engine == 'horovod' else hosts[::-1]  # rank 0 is on the first of them
    command = [FAULTY, 0, 'none', *flags(engine, squares, '.', '--epochs', '9')]
    with Job(engine, 3, command, tmp_path, hosts=order) as job:
        job.wait_for('[Epoch 0]')
        order[2].link('down')
        codes = job.wait(PROMISE)
        assert 0 not in codes, job.text()
        for number, culprit in (0, 2), (1, 2), (2, 0):
            assert re.search(r'error: rank %d \(%s\) has not been heard of' % (culprit, order[culprit].name),
                             (tmp_path / ('stderr%d' % number)).read_text()), job.text()


def test_a_host_out_of_reach_at_the_start_is_one_line_at_each(squares, hosts, tmp_path):
    hosts[2].link('down')
    with Job('dist_sync', 3, [FAULTY, 0, 'absent', *flags('dist_sync', squares, '.')], tmp_path, hosts=hosts) as job:
        assert job.wait(PROMISE) == [1, 1, 1], job.text()
        for number, host in enumerate(hosts):
            text = (tmp_path / ('stderr%d' % number)).read_text()
            assert re.fullmatch(r'error: .*not all came within 10 seconds \(this is %s\)\n*' % host.name, text), text


def test_a_rank_0_out_of_reach_is_one_line_at_each(squares, hosts, tmp_path):
    """The second cannot get to the third, which is rank 0; both can to the scheduler."""
    hosts[1].bar(hosts[2])
    with Job('dist_sync', 3, [FAULTY, 0, 'absent', *flags('dist_sync', squares, '.')], tmp_path, hosts=hosts) as job:
        assert job.wait(PROMISE) == [1, 1, 1], job.text()
        for number, words in (0, r'error: rank 2 of 3: not all came'), (2, r'error: rank 0 of 3: not all came'), (
                1, r'error: rank 1 of 3 does not get to rank 0 at 10.77.0.3:\d+: No route .*\(this is host2\)'):
            text = (tmp_path / ('stderr%d' % number)).read_text()
            assert re.fullmatch(words + '.*\n*', text), text


def by_proxy(fault, squares, folder):
    """The exit codes of two ranks with a proxy between them, and what they wrote."""
    with Job('dist_sync', 2, [FAULTY, 1, fault, *flags('dist_sync', squares, folder, '--epochs', '1')], folder) as job:
        return job.wait(PROMISE), job.text()


def test_a_slow_connection_changes_nothing(squares, tmp_path):
    """Pieces come 50 ms late, between the ranks and to the scheduler; and once, none between the ranks for 2 s."""
    checkpoints = []
    for fault in 'none', 'slow':
        (tmp_path / fault).mkdir()
        codes, text = by_proxy(fault, squares, tmp_path / fault)
        assert codes == [0, 0], text
        with np.load(tmp_path / fault / (PREFIX + '_last.npz')) as file:
            checkpoints.append(dict(file))
    assert_same(*checkpoints)


@pytest.mark.parametrize('fault, words', [('stall', 'has not been heard of'), ('cut', 'is gone')])
def test_a_lost_connection_ends_both_sides(fault, words, squares, tmp_path):
    codes, text = by_proxy(fault, squares, tmp_path)
    assert 0 not in codes
    for rank in 0, 1:
        assert re.search(r'error: rank %d \(\S+\) %s' % (rank, words), text), text
