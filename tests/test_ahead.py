"""Results computed ahead: their order, how far ahead, errors at their turn, and an early end."""
import itertools
import threading

import pytest

from yolo3.ahead import ahead


@pytest.mark.parametrize('threads', [0, 1, 3])
def test_results_come_in_order(threads):
    gates = [threading.Event() for _ in range(9)]

    def double(number):
        if threads == 3 and number % 3 == 0:  # is overtaken by the next one
            assert gates[number + 1].wait(30)
        gates[number].set()
        return 2 * number
    assert list(ahead(double, range(9), threads)) == list(range(0, 18, 2))


def test_threads_compute_while_a_result_is_in_use():
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def wait(number):
        begun.release()
        go.acquire()
        return number
    pulled = []
    results = ahead(wait, map(lambda number: pulled.append(number) or number, itertools.count()), 2)
    go.release()
    assert next(results) == 0
    for _ in range(3):  # the first, and two while it is in use
        assert begun.acquire(timeout=30)
    assert pulled == [0, 1, 2, 3] and not begun.acquire(timeout=0.01)
    go.release(99)
    results.close()


def test_without_threads_nothing_is_taken_before_its_time():
    pulled = []
    results = ahead(abs, map(lambda number: pulled.append(number) or number, itertools.count()), 0)
    assert next(results) == 0 and pulled == [0]


def test_an_error_is_raised_at_its_turn():
    results = ahead(lambda number: 1 / (number - 2), range(9))
    assert [next(results), next(results)] == [-0.5, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_end_of_the_items_or_of_their_use_ends_the_threads():
    before, done = threading.active_count(), []
    assert list(ahead(abs, [], 3)) == []
    results = ahead(done.append, range(9), 2)
    next(results)
    assert threading.active_count() == before + 2
    results.close()
    assert threading.active_count() == before and len(done) <= 4
