"""Ranks tell each other numbers and words, and how each of them ended."""
import os
import signal
import socket
import threading
from multiprocessing import Pipe

import numpy as np
import pytest

from yolo3.distributed import group as module
from yolo3.cli import Interrupted, RunError, StopSignal, UserError
from yolo3.distributed.group import Group, Lost, ONE_PROCESS, decode, encode

HOSTS = 'first', 'second', 'third'


class Engine:
    left = False

    def leave(self):
        self.left = True


@pytest.fixture
def three(monkeypatch):
    """Three ranks in one process, and what would have ended it."""
    monkeypatch.setattr(module, 'PULSE', 0.1)
    monkeypatch.setattr(module, 'SILENCE', 1.5)
    monkeypatch.setattr(module, 'GRACE', 1)
    monkeypatch.setattr(module.signal, 'alarm', lambda seconds: None)
    monkeypatch.setattr(module.atexit, 'register', lambda *args: None)
    monkeypatch.setattr(module, 'end_now', lambda line: None)
    ours, theirs = zip(*[Pipe() for _ in range(2)])
    return ([Group(0, 3, HOSTS, {1: ours[0], 2: ours[1]}, Engine())] +
            [Group(number, 3, HOSTS, {0: theirs[number - 1]}, Engine()) for number in (1, 2)])


def at_each(ranks, call):
    """What call(rank) returns or raises, at all ranks at once."""
    results = [None] * len(ranks)

    def work(number):
        try:
            results[number] = call(ranks[number])
        except BaseException as error:
            results[number] = error
    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(ranks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_numbers_are_summed_to_the_last_bit(three):
    values = [[0.1, float('nan'), 3], [0.2, 1, 1e300], [0.3, 2, -1e300]]
    sums = at_each(three, lambda rank: rank.sum(values[rank.rank]))
    for total in sums:
        np.testing.assert_array_equal(total, [0.1 + 0.2 + 0.3, float('nan'), 0])
    assert ONE_PROCESS.sum([1, 2]).tolist() == [1, 2]


def test_messages_are_gathered_in_order_and_shared(three):
    gathered = at_each(three, lambda rank: rank.gather(b'%d' % rank.rank))
    assert gathered == [[b'0', b'1', b'2'], None, None]
    assert at_each(three, lambda rank: rank.share(b'%d' % rank.rank)) == [b'0'] * 3
    assert ONE_PROCESS.gather(b'x') == [b'x'] and ONE_PROCESS.share(b'x') == b'x'


def test_parts_are_all_in_order():
    for count in range(20):
        parts = [list(range(count))[Group(rank, 3).part(count)] for rank in range(3)]
        assert sum(parts, []) == list(range(count)) and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_signal_at_one_is_a_stop_at_all(three):
    for rank in three:
        rank.stop = StopSignal.__new__(StopSignal)
        rank.stop.signum = signal.SIGTERM if rank.rank == 2 else 0
    for stop in at_each(three, lambda rank: rank.step([1])):
        assert isinstance(stop, Interrupted) and stop.signum == signal.SIGTERM
    with pytest.raises(Interrupted):
        list(three[2].watch([1]))


def test_other_facts_are_named(three):
    facts = [{'--lr': '0.1', '--seed': '1\n2'}, {'--lr': '0.1', '--seed': '1\n2'}, {'--lr': '0.2', '--seed': '1\n2'}]

    def call(rank):
        with rank:
            rank.require_same(facts[rank.rank])
    for error in at_each(three, call):
        assert isinstance(error, UserError)
        assert 'rank 2 (third) has --lr 0.2, and rank 0 (first) has 0.1' in str(error)
    assert all(rank.engine.left for rank in three)


@pytest.mark.parametrize('teller', [0, 1])
@pytest.mark.parametrize('error, kind', [(UserError('a mistake'), UserError), (RunError('a fault'), RunError),
                                         (ZeroDivisionError('a defect'), RunError)])
def test_an_error_of_one_ends_all_with_its_words(three, teller, error, kind):
    def call(rank):
        with rank:
            if rank.rank == teller:
                raise error
            rank.sum([1])
    for rank, raised in enumerate(at_each(three, call)):
        if rank == teller:
            assert raised is error
        else:
            assert type(raised) is kind and 'rank %d (%s): ' % (teller, HOSTS[teller]) in str(raised)
            assert str(error) in str(raised)


def test_one_that_leaves_well_is_not_missed(three):
    def call(rank):
        with rank:
            return rank.sum([1]).tolist()
    assert at_each(three, call) == [[3]] * 3
    assert all(rank.engine.left for rank in three) and not any(rank._failure for rank in three)


@pytest.mark.parametrize('gone', [0, 1])
def test_one_that_is_gone_is_named_at_all(three, gone):
    def call(rank):
        if rank.rank == gone:
            for pipe in rank._pipes.values():
                os.close(pipe.fileno())  # as its system does
                pipe._handle = None
            return None
        with rank:
            rank.sum([1])
    errors = at_each(three, call)
    for rank, error in enumerate(errors):
        if rank != gone:
            assert isinstance(error, Lost) and 'rank %d (%s) is gone' % (gone, HOSTS[gone]) in str(error)
            assert not three[rank].engine.left


def test_one_that_is_gone_while_the_others_leave_is_named(three):
    with socket.socket(fileno=os.dup(three[1]._pipes[0].fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)

    def call(rank):
        with rank:
            pass
    for rank, error in zip(three[::2], at_each(three[::2], call)):
        assert isinstance(error, Lost) and 'rank 1 (second) is gone' in str(error)
        assert rank._leaving and not rank.engine.left


@pytest.mark.parametrize('silent', [0, 2])
def test_one_that_is_silent_is_named_at_all(three, silent, monkeypatch):
    monkeypatch.setattr(three[silent], '_send', lambda *args: None)

    def call(rank):
        if rank.rank != silent:
            with rank:
                rank.sum([1])
    errors = at_each(three, call)
    for rank, error in enumerate(errors):
        if rank != silent:
            assert isinstance(error, Lost)
            assert 'rank %d (%s) has not been heard of' % (silent, HOSTS[silent]) in str(error)


def test_the_engines_own_error_gives_way_to_its_cause(three, monkeypatch):
    monkeypatch.setattr(module, 'PULSE', 1)
    with socket.socket(fileno=os.dup(three[1]._pipes[0].fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)  # closing would wait for the thread that listens

    def call(rank):
        with rank:
            raise OSError('connection reset by peer')
    errors = at_each(three[::2], call)
    assert all(isinstance(error, Lost) and 'rank 1 (second) is gone' in str(error) for error in errors)


@pytest.mark.parametrize('error', [UserError('a\nb'), RunError('ä'), Lost('c'), Interrupted(15), KeyboardInterrupt()])
def test_errors_travel(error):
    again = decode(encode(error))
    assert type(again) is (Interrupted if isinstance(error, KeyboardInterrupt) else type(error))
    assert getattr(again, 'signum', 15) == (2 if isinstance(error, KeyboardInterrupt) else 15)
    assert ' '.join(str(error).split()) in str(again) or isinstance(again, Interrupted)
