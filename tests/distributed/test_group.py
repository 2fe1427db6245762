"""What the processes of a group tell each other, how one failure ends all, and that each is told why.

Three members live in threads of one process, connected by pipes.
"""
import os
import signal
import socket
import threading
from multiprocessing import Pipe

import numpy as np
import pytest

from yolo3.cli import Interrupted, RunError, UserError
from yolo3.distributed import group as group_module
from yolo3.distributed import liveness
from yolo3.distributed.group import ONE_PROCESS, Group
from yolo3.distributed.liveness import Links, Lost, decode, encode

HOSTS = 'first', 'second', 'third'


class Backend:
    left = False

    def leave(self):
        self.left = True


class StopOfThread(threading.local):
    """In place of `yolo3.cli.stop`, which is one for the process: a signal for each member."""
    signum = 0

    def check(self):
        if self.signum:
            raise Interrupted(self.signum)


@pytest.fixture
def three(monkeypatch):
    """The groups of three members; their threads end before what is patched here is undone."""
    monkeypatch.setattr(liveness, 'HEARTBEAT', 0.1)
    monkeypatch.setattr(liveness, 'SILENCE', 1.5)
    monkeypatch.setattr(liveness, 'GRACE', 1)
    monkeypatch.setattr(liveness.signal, 'alarm', lambda seconds: None)
    monkeypatch.setattr(liveness.atexit, 'register', lambda *args: None)
    monkeypatch.setattr(liveness, 'end_now', lambda message: None)
    monkeypatch.setattr(group_module, 'stop', StopOfThread())
    ours, theirs = zip(*[Pipe() for _ in range(2)])
    pipes = {1: ours[0], 2: ours[1]}, {0: theirs[0]}, {0: theirs[1]}
    links = [Links(rank, HOSTS, pipes[rank]) for rank in range(3)]
    yield [Group(rank, 3, links[rank], Backend()) for rank in range(3)]
    for member in links:
        cut(member)
    for member in links:
        member._thread.join(30)
        assert not member._thread.is_alive()


def at_each(members, call):
    """What call(group) returns or raises, at all members at once."""
    results = [None] * len(members)

    def work(number):
        try:
            results[number] = call(members[number])
        except BaseException as error:
            results[number] = error
    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(members))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def cut(links):
    """Cut the connections of `links`, as the end of its process would.

    They are not closed: the thread lives on here, and another file could get the number of a closed one.
    """
    for pipe in links._pipes.values():
        if not pipe.closed:
            with socket.socket(fileno=os.dup(pipe.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)


def test_sums_are_the_same_bits_everywhere(three):
    values = [[0.1, float('nan'), 3], [0.2, 1, 1e300], [0.3, 2, -1e300]]
    for total in at_each(three, lambda group: group.sum(values[group.rank])):
        np.testing.assert_array_equal(total, [0.1 + 0.2 + 0.3, float('nan'), 0])
    assert ONE_PROCESS.sum([1, 2]).tolist() == [1, 2]


def test_gather_is_by_rank(three):
    assert at_each(three, lambda group: group.gather(b'%d' % group.rank)) == [[b'0', b'1', b'2'], None, None]
    assert ONE_PROCESS.gather(b'x') == [b'x']


def test_share_gives_rank_0s_value(three):
    value = {'a': [1, 0.1, None, 'Ä'], 'b': True}
    assert at_each(three, lambda group: group.share(value if group.rank == 0 else object())) == [value] * 3
    assert ONE_PROCESS.share(value) == value and ONE_PROCESS.share((1, 2)) == [1, 2]


def test_parts_cover_everything_in_order():
    for count in range(20):
        parts = [list(range(count))[Group(rank, 3).part(count)] for rank in range(3)]
        assert sum(parts, []) == list(range(count)) and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_local_size_counts_the_processes_of_this_host():
    hosts = 'a', 'b', 'a'
    assert [Group(rank, 3, Links(rank, hosts)).local_size for rank in range(3)] == [2, 1, 2]
    assert ONE_PROCESS.local_size == 1


def test_a_signal_to_one_stops_all_at_the_same_step(three):
    def call(group):
        group_module.stop.signum = signal.SIGTERM if group.rank == 2 else 0
        group.step([1])
    for error in at_each(three, call):
        assert isinstance(error, Interrupted) and error.signum == signal.SIGTERM


def test_watch_stops_at_a_signal(three):
    def call(group):
        group_module.stop.signum = signal.SIGTERM if group.rank == 2 else 0
        return list(group.watch([1]))
    first, second, third = at_each(three, call)
    assert first == second == [1] and isinstance(third, Interrupted)


def test_different_facts_are_named(three):
    facts = [{'--lr': '0.1', '--seed': '1\n2'}, {'--lr': '0.1', '--seed': '1\n2'}, {'--lr': '0.2', '--seed': '1\n2'}]

    def call(group):
        with group:
            group.require_same(facts[group.rank])
    for error in at_each(three, call):
        assert isinstance(error, UserError)
        assert 'rank 2 (third) has --lr 0.2, but rank 0 (first) has 0.1' in str(error)
    assert all(group.backend.left for group in three)


@pytest.mark.parametrize('teller', [0, 1])
@pytest.mark.parametrize('error, kind', [(UserError('a mistake'), UserError), (RunError('a fault'), RunError),
                                         (ZeroDivisionError('a defect'), RunError)])
def test_all_raise_the_error_of_one(three, teller, error, kind):
    def call(group):
        with group:
            if group.rank == teller:
                raise error
            group.sum([1])
    for rank, raised in enumerate(at_each(three, call)):
        if rank == teller:
            assert raised is error
        else:
            assert type(raised) is kind and 'rank %d (%s): ' % (teller, HOSTS[teller]) in str(raised)
            assert str(error) in str(raised)


def test_all_leave_when_all_are_done(three):
    def call(group):
        with group:
            return group.sum([1]).tolist()
    assert at_each(three, call) == [[3]] * 3
    assert all(group.backend.left for group in three) and not any(group._links._failure for group in three)


def test_a_connection_may_be_closed_just_before_it_is_read_from(three):
    links = three[1]._links
    pipe, links._closing = links._pipes[0], True

    def close_and_read():
        pipe.close()
        return pipe._recv_bytes()  # what is left of recv_bytes after its check
    pipe.recv_bytes = close_and_read
    assert three[0]._links._put(1, b'')
    links._thread.join(30)
    assert not links._thread.is_alive() and not links._failure


@pytest.mark.parametrize('gone', [0, 1])
def test_a_killed_process_is_named_everywhere(three, gone):
    def call(group):
        if group.rank == gone:
            group._links._put = lambda peer, message: False  # its thread lives on here, but must not tell the others
            cut(group._links)
            return None
        with group:
            group.sum([1])
    for rank, error in enumerate(at_each(three, call)):
        if rank != gone:
            assert isinstance(error, Lost) and 'rank %d (%s) is gone' % (gone, HOSTS[gone]) in str(error)
            assert not three[rank].backend.left


def test_a_process_lost_while_the_others_leave_is_named(three):
    cut(three[1]._links)

    def call(group):
        with group:
            pass
    for group, error in zip(three[::2], at_each(three[::2], call)):
        assert isinstance(error, Lost) and 'rank 1 (second) is gone' in str(error)
        assert group._links._closing and not group.backend.left


@pytest.mark.parametrize('silent', [0, 2])
def test_a_silent_process_is_named_everywhere(three, silent, monkeypatch):
    monkeypatch.setattr(three[silent]._links, '_put', lambda *args: True)

    def call(group):
        if group.rank != silent:
            with group:
                group.sum([1])
    for rank, error in enumerate(at_each(three, call)):
        if rank != silent:
            assert isinstance(error, Lost)
            assert 'rank %d (%s) has been silent for' % (silent, HOSTS[silent]) in str(error)


def test_a_lost_process_explains_the_backends_error(three, monkeypatch):
    monkeypatch.setattr(liveness, 'HEARTBEAT', 1)
    cut(three[1]._links)

    def call(group):
        with group:
            raise OSError('connection reset by peer')
    errors = at_each(three[::2], call)
    assert all(isinstance(error, Lost) and 'rank 1 (second) is gone' in str(error) for error in errors)


@pytest.mark.parametrize('error', [UserError('a\nb'), RunError('ä'), Lost('c'), Interrupted(15), KeyboardInterrupt()])
def test_errors_survive_encoding(error):
    again = decode(encode(error))
    assert type(again) is (Interrupted if isinstance(error, KeyboardInterrupt) else type(error))
    assert getattr(again, 'signum', 15) == (2 if isinstance(error, KeyboardInterrupt) else 15)
    assert ' '.join(str(error).split()) in str(again) or isinstance(again, Interrupted)
