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
    """`count` processes that make the batches of `loaders`, each with `make(samples, note)` and `name(sample)`.

    They are forked at once. `make` returns a batch as lists of equal NumPy arrays, which are stacked, and calls
    note(place) before it begins with the sample at that place. `name` is for error messages. slot_bytes: the most that
    a batch may take in shared memory; a larger one goes through a pipe, which costs time.
    The shared memory has no name: nothing of it is left whichever process is killed, and /dev/shm is not used.
    """

    def __init__(self, loaders, count, slot_bytes):
        context = multiprocessing.get_context('fork')
        needed, available = AHEAD * count * slot_bytes, available_memory()
        self._main, self._pipes, self.processes = os.getpid(), [], []
        self._names = [loader.name for loader in loaders]
        self._slot_bytes = slot_bytes
        if needed > available:
            raise UserError('-j %d: the batches need up to %.1f GB of memory, and %.1f GB are free: use a smaller -j, '
                            '--batch-size or --max-shape' % (count, needed / 1e9, available / 1e9))
        self._memory = mmap.mmap(-1, needed) if needed else None
        self._places = mmap.mmap(-1, 8 * count)
        self._progress = np.frombuffer(self._places, 'int64')
        Finalize(self, _end, [self.processes], exitpriority=0)  # at the latest before multiprocessing's own end
        for number in range(count):
            ours, theirs = context.Pipe()
            makers = [loader.make for loader in loaders]
            process = context.Process(target=self._work, args=(makers, theirs, number), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        self._pending = [[] for _ in range(count)]  # each worker's batches: (number, slot, loader, samples)

    def batches(self, loader, sampler):
        """Yield each list of samples in `sampler`, in order, and the arrays that `loader`, a number, makes of it.

        The arrays must be copied before the next ones. Raises what `make` raised, and RunError if a worker is gone.
        """
        while any(self._pending):  # of an iteration that was not used up
            self._receive()
        tasks, made = enumerate(sampler), {}
        free = list(range(AHEAD * len(self._pipes)))
        for expected in itertools.count():
            for slot, (number, samples) in zip(list(free), tasks):
                free.remove(slot)
                self._give(number, slot, loader, samples)
            if expected not in made and not any(self._pending):
                return
            while expected not in made:
                made.update(self._receive())
            slot, samples, result = made.pop(expected)
            if isinstance(result, Exception):
                raise result
            yield samples, [self._array(slot, *part) if isinstance(part, tuple) else part for part in result]
            free.append(slot)

    def _give(self, number, slot, loader, samples):
        """Have the least busy worker make batch `number`."""
        worker = min(range(len(self._pipes)), key=lambda worker: len(self._pending[worker]))
        self._pending[worker].append((number, slot, loader, samples))
        try:
            self._pipes[worker].send((slot, loader, samples))
        except OSError:
            self._mourn(worker)

    def _receive(self):
        """Wait for a worker; {number: (slot, samples, result)} of the batches made."""
        made = {}
        for pipe in wait(self._pipes):
            worker = self._pipes.index(pipe)
            try:
                result = pipe.recv()
            except (EOFError, OSError):
                self._mourn(worker)
            number, slot, _, samples = self._pending[worker].pop(0)
            made[number] = slot, samples, result
        return made

    def _mourn(self, worker):
        """Raise RunError: `worker` is gone."""
        process = self.processes[worker]
        process.join(5)
        how = ('was killed by signal %d (9: often out of memory, then use a smaller -j)' % -process.exitcode
               if (process.exitcode or 0) < 0 else 'ended with exit code %s' % process.exitcode)
        last = ''
        if self._pending[worker]:
            _, _, loader, samples = self._pending[worker][0]
            sample = samples[min(self._progress[worker], len(samples) - 1)]
            last = '; the last image it began: %s' % self._names[loader](sample)
        raise RunError('data worker %d %s%s' % (process.pid, how, last))

    def _array(self, slot, offset, shape, dtype):
        return np.ndarray(shape, dtype, self._memory, slot * self._slot_bytes + offset)

    def _work(self, makers, pipe, number):
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
                slot, loader, samples = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                made = makers[loader](samples, lambda place: self._progress.__setitem__(number, place))
                result = self._placed(made, slot)
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
