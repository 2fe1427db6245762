"""Worker processes that make batches for the main process, in memory shared with it; one that dies is noticed."""
import itertools
import mmap
import multiprocessing
import os
import signal
import traceback
from multiprocessing.connection import wait
from multiprocessing.util import Finalize

import numpy as np

from yolo3.cli import RunError, UserError
from yolo3.system import available_memory

AHEAD = 2  # batches a worker, made or in the making, that the main process has not taken yet
ALIGNMENT = 64  # bytes, of an array's place in a slot
PATIENCE = 1  # seconds between two looks of an idle worker whether its main process is still there


class Workers:
    """Processes that call `make(samples, note)` -> a batch; `name(sample)` is for error messages.

    They are forked at once. A batch is a list of lists of equal NumPy arrays, which are stacked. `make` calls
    note(number) before it begins with that number of its samples. slot_bytes: the most that a batch may take; what is
    larger, or all where it is 0, is sent through a pipe, which costs time.
    The shared memory has no name: nothing of it is left whichever process is killed, and /dev/shm is not used.
    """

    def __init__(self, make, name, count, slot_bytes):
        context = multiprocessing.get_context('fork')
        needed, available = AHEAD * count * slot_bytes, available_memory()
        self._main, self._pipes, self.processes = os.getpid(), [], []
        self._name = name
        self._slot_bytes = slot_bytes
        if needed > available:
            raise UserError('-j %d: the batches need up to %.1f GB of memory, and %.1f GB are free: give fewer -j, a '
                            'smaller --batch-size or --max-shape, or --no-shared-memory'
                            % (count, needed / 1e9, available / 1e9))
        self._memory = mmap.mmap(-1, needed) if needed else None
        self._places = mmap.mmap(-1, 8 * count)
        self._progress = np.frombuffer(self._places, 'int64')
        Finalize(self, _end, [self.processes], exitpriority=0)  # at the latest before multiprocessing's own end
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=self._work, args=(make, theirs, number), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        self._pending = [[] for _ in range(count)]  # for each worker what it was given: (number, slot, samples)

    def batches(self, requests):
        """Yield the arrays of each of `requests`, lists of samples, in order. They are to be copied before the next.

        Raises what `make` raised, and RunError where a worker is gone.
        """
        while any(self._pending):  # of an iteration that was not used up
            self._receive()
        requests, made = enumerate(requests), {}
        free = list(range(AHEAD * len(self._pipes)))
        for expected in itertools.count():
            for slot, (number, samples) in zip(list(free), requests):
                free.remove(slot)
                self._give(number, slot, samples)
            if expected not in made and not any(self._pending):
                return
            while expected not in made:
                made.update(self._receive())
            slot, result = made.pop(expected)
            if isinstance(result, Exception):
                raise result
            yield [self._array(slot, *part) if isinstance(part, tuple) else part for part in result]
            free.append(slot)

    def _give(self, number, slot, samples):
        """Have the least busy worker make batch `number`."""
        worker = min(range(len(self._pipes)), key=lambda worker: len(self._pending[worker]))
        self._pending[worker].append((number, slot, samples))
        try:
            self._pipes[worker].send((slot, samples))
        except OSError:
            self._mourn(worker)

    def _receive(self):
        """Wait for a worker; {number: (slot, result)} of the batches made."""
        made = {}
        for pipe in wait(self._pipes):
            worker = self._pipes.index(pipe)
            try:
                result = pipe.recv()
            except (EOFError, OSError):
                self._mourn(worker)
            number, slot, _ = self._pending[worker].pop(0)
            made[number] = slot, result
        return made

    def _mourn(self, worker):
        """Raise RunError: `worker` is gone."""
        process = self.processes[worker]
        process.join(5)
        how = ('was killed by signal %d (9: often for want of memory, then -j must be smaller)' % -process.exitcode
               if (process.exitcode or 0) < 0 else 'ended with exit code %s' % process.exitcode)
        last = ''
        if self._pending[worker]:
            samples = self._pending[worker][0][2]
            last = '; the last it began with: %s' % self._name(samples[min(self._progress[worker], len(samples) - 1)])
        raise RunError('data worker %d %s%s' % (process.pid, how, last))

    def _array(self, slot, offset, shape, dtype):
        return np.ndarray(shape, dtype, self._memory, slot * self._slot_bytes + offset)

    def _work(self, make, pipe, number):
        """The life of a worker."""
        # A signal to all processes (Ctrl-C, a cluster's preemption) is for the main one alone, which still needs these.
        for signum in signal.SIGINT, signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # MXNet's own handler turns it into an exit code
        while True:
            while not pipe.poll(PATIENCE):
                if os.getppid() != self._main:
                    return
            try:
                slot, samples = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                result = self._placed(make(samples, lambda place: self._progress.__setitem__(number, place)), slot)
            except UserError as error:
                result = error
            except Exception:
                result = RuntimeError('in a data worker:\n' + traceback.format_exc())
            try:
                pipe.send(result)
            except OSError:
                return

    def _placed(self, batch, slot):
        """The (offset, shape, dtype) of the batch's arrays, stacked in `slot`; or if they do not fit, the arrays."""
        places, end = [], 0
        for parts in batch:
            places.append((end, (len(parts),) + parts[0].shape, parts[0].dtype.str))
            end += -(-len(parts) * parts[0].nbytes // ALIGNMENT) * ALIGNMENT
        if end > self._slot_bytes:
            return [np.stack(parts) for parts in batch]
        for parts, place in zip(batch, places):
            np.stack(parts, out=self._array(slot, *place))
        return places


def _end(processes):
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
