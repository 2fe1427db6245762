"""The connections between the processes of one training: who is still there, why one ended, and how all end together.

MXNet and Horovod would wait forever for a process that died. So rank 0 keeps a connection to every other process, a
thread at both ends sends and expects heartbeats over it, and a process that ends says why.
"""
import atexit
import contextlib
import os
import queue
import signal
import sys
import threading
import time
from multiprocessing.connection import wait

from yolo3.cli import Interrupted, RunError, UserError, status

HEARTBEAT = 5  # seconds
SILENCE = 30  # seconds without a heartbeat after which a process is lost; reading COCO's annotations blocks for some
GRACE = 20  # seconds in which a process must save and end after another one has failed
SHUTDOWN = 60  # seconds that the backend's shutdown may take when nothing is wrong
DATA, END, BYE = b'd', b'e', b'b'  # the first byte of a message; a heartbeat is empty
BROKEN = EOFError, OSError, TypeError  # TypeError: the other thread closed the connection just before the system call
EXPECTED = UserError, RunError, Interrupted, KeyboardInterrupt  # anything else is a defect, or MXNet's or Horovod's


class Lost(RunError):
    """A process died or cannot be reached."""


class Links:
    """The connections of this process, and a daemon thread that listens to them.

    rank: of this process. hosts: the host name of each rank. pipes: {rank: Connection}, to all others at rank 0, to
    rank 0 elsewhere. Once another process fails or is lost, all calls but `close` raise what it ended with.
    """

    def __init__(self, rank=0, hosts=('',), pipes=None):
        self.rank, self.hosts, self._pipes = rank, hosts, pipes or {}
        self._inboxes = {peer: queue.Queue() for peer in self._pipes}
        self._sending = {peer: threading.Lock() for peer in self._pipes}
        self._failure, self._failed, self._closing = None, threading.Event(), False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        if self._pipes:
            self._thread.start()

    def name(self, rank):
        """'rank 1 (host)'."""
        return 'rank %d (%s)' % (rank, self.hosts[rank])

    def send(self, peer, content):
        """Send bytes to the process of rank `peer`."""
        if not self._put(peer, DATA + content):
            self._failed.wait(HEARTBEAT)  # the thread finds out why
            self.check()

    def receive(self, peer):
        """The next bytes from rank `peer`, waiting for them."""
        content = self._inboxes[peer].get()
        if content is None:
            self._inboxes[peer].put(None)
            self.check()
        return content

    def check(self):
        """Raise the UserError, RunError or Interrupted that another process ended with, if one did."""
        if self._failure:
            raise self._failure

    def close(self, error=None):
        """Tell the others that this process is done, or has failed with `error`.

        Returns the error to end with: another process's if that came first, else `error`.
        """
        if error is not None and not isinstance(error, EXPECTED):
            self._failed.wait(HEARTBEAT)  # most likely because of a process that is lost: the thread soon knows which
        failure = self._failure if error is not None else None
        message = BYE if error is None else END + (encode(failure) if failure else encode(error, self.name(self.rank)))
        self._closing = True
        for peer in self._pipes:
            self._put(peer, message)
        if self.rank:
            self._thread.join(GRACE)  # rank 0 closes last: some launchers kill all processes when the first one ends
        for pipe in self._pipes.values():
            pipe.close()
        return failure or error

    def _put(self, peer, message):
        """Send the whole `message`; returns whether the connection took it."""
        with contextlib.suppress(*BROKEN), self._sending[peer]:
            self._pipes[peer].send_bytes(message)
            return True
        return False

    def _listen(self):
        """The thread: receives messages, sends heartbeats, and notices silence, until no peer is left."""
        heard = dict.fromkeys(self._pipes, time.monotonic())  # {rank: when}, of the peers that are left
        sent = 0
        while heard:
            pipes = {self._pipes[peer]: peer for peer in heard}
            try:
                ready = wait(list(pipes), HEARTBEAT)
            except (OSError, ValueError):  # `close` has closed them
                return
            now = time.monotonic()
            for peer in map(pipes.get, ready):
                heard[peer] = now
                if not self._hear(peer):
                    del heard[peer]
            for peer in [peer for peer, when in heard.items() if now - when > SILENCE]:
                del heard[peer]
                self._fail(Lost('%s has been silent for %d s (it hangs or cannot be reached): --resume auto continues '
                                'from the last checkpoint' % (self.name(peer), SILENCE)))
            if now - sent > HEARTBEAT:
                sent = now
                for peer in heard:
                    self._put(peer, b'')

    def _hear(self, peer):
        """Take a message from `peer`; returns whether more may come."""
        try:
            message = self._pipes[peer].recv_bytes()
        except BROKEN:
            if not self._closing:
                self._fail(Lost('%s is gone (killed or unreachable): --resume auto continues from the last checkpoint'
                                % self.name(peer)))
            return False
        kind, content = message[:1], message[1:]
        if kind == DATA:
            self._inboxes[peer].put(content)
        elif kind == END:
            self._fail(decode(content))
        return kind not in (END, BYE)

    def _fail(self, failure):
        """Note the `failure` of another process, pass it on, and make sure that this process ends too."""
        if self._failure:
            return
        self._failure = failure
        if not self.rank:
            for peer in self._pipes:
                self._put(peer, END + encode(failure))
        self._failed.set()
        for inbox in self._inboxes.values():
            inbox.put(None)
        if not isinstance(failure, Interrupted):
            end_later(GRACE, failure)


def shut_down(backend, error):
    """End this process's part in `backend`, after the `error` that the training ended with, if any."""
    if isinstance(error, Lost):
        atexit.register(os._exit, status(error))  # the backend's own clean-up would wait for the lost process, or abort
    else:
        signal.alarm(SHUTDOWN)  # kills this process if another one is lost just now
        backend.leave()
        signal.alarm(0)


def end_now(message):
    """End this process with one line on stderr and exit code 1, without the clean-up that would wait for the others."""
    print('%s: error: %s' % (os.path.basename(sys.argv[0]), message), file=sys.stderr, flush=True)
    os._exit(1)


def end_later(seconds, message):
    """Call `end_now(message)` after `seconds`, unless the Timer that this returns is cancelled."""
    timer = threading.Timer(seconds, end_now, [message])
    timer.daemon = True
    timer.start()
    return timer


def encode(error, teller=''):
    """The exception that a process ends with, as bytes; its text begins with the name of the process, `teller`."""
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return b'%d' % getattr(error, 'signum', signal.SIGINT)
    kind = 'user' if isinstance(error, UserError) else 'lost' if isinstance(error, Lost) else 'run'
    text = str(error) if isinstance(error, EXPECTED) else '%s: %s' % (type(error).__name__, error)
    return ('%s %s%s' % (kind, teller and teller + ': ', text)).encode()


def decode(message):
    """The exception that `encode` was given, its text made one line."""
    kind, _, text = message.decode(errors='replace').partition(' ')
    if not text:
        return Interrupted(int(kind))
    return {'user': UserError, 'run': RunError, 'lost': Lost}[kind](' '.join(text.split()))
