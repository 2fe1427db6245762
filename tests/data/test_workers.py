"""Workers: their batches in order, whatever becomes of them; a death is noticed, named and leaves nothing behind."""
import collections
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from conftest import ROOT, abandoned, alive
from yolo3.data import workers as module
from yolo3.cli import RunError, UserError

SLOT = 4096
Loader = collections.namedtuple('Loader', 'make name', defaults=(str,))


def double(samples, note):
    for number, _ in enumerate(samples):
        note(number)
    return [[np.array([2 * sample], 'int32') for sample in samples], [np.float32(sample) for sample in samples]]


def workers(make, count, slot_bytes=SLOT, name=str):
    return module.Workers([Loader(make, name)], count, slot_bytes)


def lists(made):
    return [[array.tolist() for array in batch] for _, batch in made]


@pytest.mark.parametrize('slot_bytes', [SLOT, 0, 8])  # in shared memory, through the pipe, and where it does not fit
@pytest.mark.parametrize('count', [1, 3])
def test_batches_come_in_order(count, slot_bytes):
    crew = workers(double, count, slot_bytes)
    for length in 0, 1, 20:
        requests = [[3 * number, 3 * number + 1] for number in range(length)]
        assert lists(crew.batches(0, requests)) == [[[[2 * a], [2 * b]], [a, b]] for a, b in requests]


def test_an_iteration_may_be_left(count=2):
    crew = workers(double, count)
    for start in range(5):
        assert lists([next(crew.batches(0, [[start + number] for number in range(10)]))]) == [[[[2 * start]], [start]]]


def test_slots_are_not_overwritten_before_the_next_batch():
    def big(samples, note):
        time.sleep(0.002 * (samples[0] % 3))
        return [[np.full(100, samples[0])]]
    for number, (_, (array,)) in enumerate(workers(big, 3).batches(0, [[number] for number in range(60)])):
        time.sleep(0.001)
        assert (array == number).all()


def test_an_error_is_the_main_processs():
    def broken(samples, note):
        raise UserError('a.jpg: broken') if samples == [3] else ZeroDivisionError
    with pytest.raises(UserError, match='a.jpg: broken'):
        list(workers(broken, 2).batches(0, [[3]]))
    with pytest.raises(RuntimeError, match='ZeroDivisionError'):
        list(workers(broken, 2).batches(0, [[4]]))


@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_is_noticed_with_its_last_sample(signum):
    def deadly(samples, note):
        for number, sample in enumerate(samples):
            note(number)
            if sample == 'c.jpg':
                os.kill(os.getpid(), signum)
        return [[np.zeros(1)]]
    start = time.time()
    with pytest.raises(RunError, match=r'signal %d.*the last image it began: image c.jpg$' % signum):
        list(workers(deadly, 2, name=lambda sample: 'image ' + sample).batches(0, [['a.jpg', 'c.jpg', 'b.jpg']] * 3))
    assert time.time() - start < 30  # promised


def test_workers_killed_at_any_moment_are_noticed():
    for delay in np.linspace(0, 0.05, 12):
        crew = workers(double, 3)
        made = crew.batches(0, ([number] for number in itertools.count()))
        next(made)
        time.sleep(delay)
        os.kill(crew.processes[1].pid, signal.SIGKILL)
        with pytest.raises(RunError, match='data worker %d' % crew.processes[1].pid):
            for _ in made:
                pass


def test_workers_end_with_their_main_process_and_leave_nothing():
    before = abandoned()
    code = ('import time, types, numpy as np; from yolo3.data.workers import Workers\n'
            'loader = types.SimpleNamespace(make=lambda samples, note: [[np.zeros(9)]], name=str)\n'
            'crews = [Workers([loader], 2, 4096) for _ in range(2)]\n'
            'next(crews[0].batches(0, [[0]] * 9))\n'
            'print(*[process.pid for crew in crews for process in crew.processes], flush=True)\n'
            'time.sleep(60)')
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, universal_newlines=True)
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 4 and all(map(alive, pids))
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.time() + 30
    while any(map(alive, pids)) and time.time() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, pids)) and not abandoned(before)


def test_they_end_with_the_object():
    crew = workers(double, 2)
    pids = [process.pid for process in crew.processes]
    del crew
    assert not any(map(alive, pids))


def test_too_little_memory_is_said_at_once(monkeypatch):
    with pytest.raises(UserError, match=r'-j 4.*800000\.0 GB.*smaller -j'):
        workers(double, 4, 10 ** 14)
    monkeypatch.setattr(module, 'available_memory', lambda: 5e6)
    with pytest.raises(UserError, match=r'-j 2.*0\.8 GB.*0\.0 GB.*--batch-size'):
        workers(double, 2, 2 * 10 ** 8)
    assert lists(workers(double, 2, 0).batches(0, [[1]])) == [[[[2]], [1]]]


def test_several_loaders_share_the_workers():
    def triple(samples, note):
        return [[np.array([3 * sample]) for sample in samples]]
    crew = module.Workers([Loader(double), Loader(triple)], 2, SLOT)
    for _ in range(2):
        assert lists(crew.batches(1, [[1], [2, 3]])) == [[[[3]]], [[[6], [9]]]]
        assert lists(crew.batches(0, [[1]])) == [[[[2]], [1]]]
