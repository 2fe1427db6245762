"""The processes, called ranks, of one training on one host or several: what they tell each other, and who is gone.

Each rank holds a connection to rank 0. A few numbers a step go over it, the detections of a validation, and a pulse;
weights and gradients go through the engine (`backends`), which in MXNet would wait for ever for a rank that died.
"""
import atexit
import json
import os
import queue
import signal
import sys
import threading
import time
from multiprocessing.connection import wait

import numpy as np

from yolo3.cli import Interrupted, RunError, UserError, status, stop

PULSE = 5  # seconds between two signs of life
SILENCE = 30  # seconds without one, after which a rank counts as gone; reading COCO's annotations blocks for some
GRACE = 20  # seconds that a rank has for its checkpoint after another one's end
LEAVE = 60  # seconds that taking leave may take where all is well
DATA, END, BYE = b'd', b'e', b'b'  # what a message begins with; a pulse is empty


class Lost(RunError):
    """A rank is gone without a word."""


class Group:
    """This process is `rank` of `size`. Alone, it is rank 0 of 1, and all calls answer for itself.

    names: the host of each rank. pipes: {rank: Connection}, to all others at rank 0, else to rank 0. All ranks are to
    make the same calls in the same order; any raises what `check` raises where another rank has ended. As a context
    manager, it tells the others how this one ended. engine: of `backends`.
    """

    def __init__(self, rank=0, size=1, names=('',), pipes=None, engine=None):
        self.rank, self.size, self.engine = rank, size, engine
        self._names, self._pipes = names, pipes or {}
        self._inboxes = {peer: queue.Queue() for peer in self._pipes}
        self._sending = {peer: threading.Lock() for peer in self._pipes}
        self._failure, self._failed, self._leaving = None, threading.Event(), False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        if self._pipes:
            self._thread.start()

    def name(self, rank):
        """'rank 1 (host)'."""
        return 'rank %d (%s)' % (rank, self._names[rank])

    def part(self, count):
        """The slice that is this rank's of `count` things, in the same proportion at any number of ranks."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, message):
        """The messages of all ranks in a list, bytes each, at rank 0; None at the others."""
        if self.rank:
            self._send(0, DATA + message)
            return None
        return [message] + [self._take(peer) for peer in sorted(self._pipes)]

    def share(self, message):
        """The message of rank 0, bytes; what the others give is ignored."""
        if self.rank:
            return self._take(0)
        for peer in self._pipes:
            self._send(peer, DATA + message)
        return message

    def sum(self, numbers):
        """The sums over all ranks of `numbers`, (n,) float64, the same to the last bit at each."""
        total = np.array(numbers, 'float64')
        rows = self.gather(total.tobytes())
        if rows is not None:
            total = sum(map(np.frombuffer, rows))
        return np.frombuffer(self.share(total.tobytes()))

    def step(self, numbers):
        """As `sum`, once a step: raises Interrupted at all ranks where one of them has been signalled to stop."""
        *totals, term, interrupt = self.sum([*numbers, stop.signum == signal.SIGTERM, stop.signum == signal.SIGINT])
        if term or interrupt:
            raise Interrupted(signal.SIGTERM if term else signal.SIGINT)
        return np.array(totals)

    def watch(self, iterable):
        """Yield from `iterable`, calling `check` between the items."""
        for item in iterable:
            self.check()
            yield item
        self.check()

    def check(self):
        """Raise Interrupted where this rank has been signalled to stop, or what the end of another one means for it:
        UserError, RunError or Interrupted."""
        self._raise()
        stop.check()

    def require_same(self, facts):
        """Raise UserError at all ranks where {name: text} of one differ from rank 0's."""
        rows = self.gather(json.dumps(facts).encode())
        for rank, row in enumerate(rows or []):
            for name, text in json.loads(row).items():
                if text != facts.get(name):
                    raise UserError('%s has %s %s, and %s has %s: they must be the same at all ranks'
                                    % (self.name(rank), name, text, self.name(0), facts.get(name)))
        self.share(b'')

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if not self._pipes:
            return
        if error is None:
            try:
                self.sum([])  # nobody leaves before all have done
            except (UserError, RunError, Interrupted) as late:
                error = late
        if error is None:
            self._end(BYE)
        else:
            # The engine's own errors come from a rank that is gone, mostly: who it was is known a moment later.
            if not isinstance(error, (UserError, RunError, Interrupted, KeyboardInterrupt)):
                self._failed.wait(PULSE)
            failure = self._failure
            self._end(END + (encode(failure) if failure else encode(error, self.name(self.rank))))
            error = failure or error
        if isinstance(error, Lost):
            atexit.register(os._exit, status(error))  # the engine would wait for it, or abort
        else:
            signal.alarm(LEAVE)  # should a rank be gone just now, the system ends this process
            self.engine.leave()
            signal.alarm(0)
        if error is not None:
            raise error

    def _end(self, message):
        """Tell the others, and let rank 0 hang up last: some launchers kill all once the first is gone."""
        self._leaving = True
        for peer in self._pipes:
            self._send(peer, message)
        if self.rank:
            self._thread.join(GRACE)
        for pipe in self._pipes.values():
            pipe.close()

    def _send(self, peer, message):
        try:
            with self._sending[peer]:
                self._pipes[peer].send_bytes(message)
        except OSError:
            if message[:1] == DATA:
                self._failed.wait(PULSE)  # the other thread finds out, and says why
                self._raise()

    def _take(self, peer):
        message = self._inboxes[peer].get()
        if message is None:
            self._inboxes[peer].put(None)
            self._raise()
        return message

    def _raise(self):
        if self._failure:
            raise self._failure

    def _listen(self):
        """The life of the thread that hears the others."""
        peers = {pipe: peer for peer, pipe in self._pipes.items()}
        heard, sent = dict.fromkeys(peers, time.monotonic()), 0
        while peers:
            try:
                ready = wait(list(peers), PULSE)
            except (OSError, ValueError):  # closed by this process' end
                return
            now = time.monotonic()
            for pipe in ready:
                try:
                    message = pipe.recv_bytes()
                except (EOFError, OSError):
                    if self._leaving:
                        return
                    self._fail(Lost('%s is gone: killed, or out of reach; --resume auto goes on from the last '
                                    'checkpoint' % self.name(peers.pop(pipe))))
                    continue
                heard[pipe] = now
                if message[:1] == DATA:
                    self._inboxes[peers[pipe]].put(message[1:])
                elif message:
                    del peers[pipe]
                    if message[:1] == END:
                        self._fail(decode(message[1:]))
            for pipe, peer in list(peers.items()):
                if now - heard[pipe] > SILENCE:
                    del peers[pipe]
                    self._fail(Lost('%s has not been heard of for %d seconds: it hangs, or is out of reach; '
                                    '--resume auto goes on from the last checkpoint' % (self.name(peer), SILENCE)))
            if now - sent > PULSE:
                sent = now
                for peer in peers.values():
                    self._send(peer, b'')

    def _fail(self, failure):
        """Note the `failure` of another rank, pass it on, and see to it that this process ends too."""
        if self._failure:
            return
        self._failure = failure
        if not self.rank:
            for peer in self._pipes:
                self._send(peer, END + encode(failure))
        self._failed.set()
        for inbox in self._inboxes.values():
            inbox.put(None)
        if not isinstance(failure, Interrupted):
            end_later(GRACE, '%s: error: %s' % (os.path.basename(sys.argv[0]), failure))


def end_now(line):
    """End this process, with `line` on stderr, past the engine, which would wait for the others."""
    print(line, file=sys.stderr, flush=True)
    os._exit(1)


def end_later(seconds, line):
    """Have `end_now(line)` called after so many seconds, unless the Timer that this returns is cancelled."""
    timer = threading.Timer(seconds, end_now, [line])
    timer.daemon = True
    timer.start()
    return timer


def encode(error, teller=''):
    """An exception that ends a rank, as bytes; the rank that tells of it is put before its text."""
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return b'%d' % getattr(error, 'signum', signal.SIGINT)
    kind = 'user' if isinstance(error, UserError) else 'lost' if isinstance(error, Lost) else 'run'
    if not isinstance(error, (UserError, RunError)):
        error = 'ended with %s: %s' % (type(error).__name__, error)
    return ('%s %s%s' % (kind, teller and teller + ': ', error)).encode()


def decode(message):
    """What `encode` was given, with the text made one line."""
    kind, _, text = message.decode(errors='replace').partition(' ')
    if not text:
        return Interrupted(int(kind))
    return {'user': UserError, 'run': RunError, 'lost': Lost}[kind](' '.join(text.split()))


ONE_PROCESS = Group()
