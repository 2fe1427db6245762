"""The processes of one training: how many there are, which one this is, and what they tell each other.

Numbers and detections go through rank 0, over the connections of `liveness`. Weights and gradients do not: they go
through a backend (`backends`).
"""
import json
import signal

import numpy as np

from yolo3.cli import Interrupted, RunError, UserError, stop
from yolo3.distributed.liveness import Links, shut_down


class Group:
    """This process is `rank` of `size` processes, `local_size` of them on this host; `backend`: see `backends`.

    All processes must make the same calls in the same order. Each call raises what `check` raises if another process
    has ended. As a context manager, the group ends together: if one process fails, all raise its error.
    """

    def __init__(self, rank=0, size=1, links=None, backend=None):
        self.rank, self.size, self.backend = rank, size, backend
        self._links = links or Links()
        self.local_size = self._links.hosts.count(self._links.hosts[self._links.rank])

    def name(self, rank):
        """'rank 1 (host)'."""
        return self._links.name(rank)

    def part(self, count):
        """This process's slice of `count` things; the slices of all processes cover them in order."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, content):
        """The bytes of all processes in a list, by rank, at rank 0; None elsewhere."""
        if self.rank:
            self._links.send(0, content)
            return None
        return [content] + [self._links.receive(peer) for peer in range(1, self.size)]

    def share(self, value):
        """Rank 0's `value`, a JSON value, at all processes; what the others pass is ignored."""
        return json.loads(self._share(json.dumps(value).encode() if self.rank == 0 else b''))

    def sum(self, numbers):
        """The sums over all processes of `numbers`, (n,) float64: the same bits everywhere."""
        total = np.array(numbers, 'float64')
        rows = self.gather(total.tobytes())
        if rows is not None:
            total = sum(map(np.frombuffer, rows))
        return np.frombuffer(self._share(total.tobytes()))

    def barrier(self):
        """Wait until all processes are here."""
        self.sum([])

    def step(self, numbers):
        """`sum`, once a training step; raises Interrupted at all processes if one was signalled to stop."""
        *totals, term, interrupt = self.sum([*numbers, stop.signum == signal.SIGTERM, stop.signum == signal.SIGINT])
        if term or interrupt:
            raise Interrupted(signal.SIGTERM if term else signal.SIGINT)
        return np.array(totals)

    def check(self):
        """Raise Interrupted if this process was signalled to stop, or the UserError, RunError or Interrupted that
        another one ended with."""
        self._links.check()
        stop.check()

    def watch(self, iterable):
        """Yield from `iterable`, calling `check` before each item and at the end."""
        for item in iterable:
            self.check()
            yield item
        self.check()

    def require_same(self, facts):
        """Raise UserError at all processes if `facts`, {name: text}, of one differ from rank 0's."""
        rows = self.gather(json.dumps(facts).encode())
        for rank, row in enumerate(rows or []):
            for name, text in json.loads(row).items():
                if text != facts.get(name):
                    raise UserError('%s has %s %s, but %s has %s: all processes must have the same'
                                    % (self.name(rank), name, text, self.name(0), facts.get(name)))
        self.share(None)  # nobody goes on before rank 0 has compared

    def _share(self, content):
        """Rank 0's bytes at all processes."""
        if self.rank:
            return self._links.receive(0)
        for peer in range(1, self.size):
            self._links.send(peer, content)
        return content

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.size == 1:
            return
        if error is None:
            try:
                self.barrier()  # nobody leaves before all are done
            except (UserError, RunError, Interrupted) as late:
                error = late
        error = self._links.close(error)
        shut_down(self.backend, error)
        if error is not None:
            raise error


ONE_PROCESS = Group()
