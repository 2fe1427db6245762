"""How the processes of one training find each other: rank 0's address goes to all through the backend."""
import contextlib
import json
import secrets
import socket
import struct
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener

import numpy as np

from yolo3.mxnet_setup import mx

from yolo3.distributed.liveness import SILENCE, Links, end_later, end_now

TIMEOUT = 45  # seconds to wait for all processes, and then for the weights of rank 0
INVITATION = 256  # bytes, padded


@contextlib.contextmanager
def time_limit(who, awaited):
    """End this process, with one line, if the block takes longer than TIMEOUT."""
    timer = end_later(TIMEOUT, '%s timed out after %d s waiting for %s' % (who, TIMEOUT, awaited))
    try:
        yield
    finally:
        timer.cancel()


def connect(backend):
    """Links between rank 0 and all other processes of `backend`; if that fails, ends this process with one line."""
    rank, size, host = backend.rank, backend.size, socket.gethostname()
    with time_limit('rank %d of %d (%s)' % (rank, size, host), 'the other processes'):
        if rank:
            return join_rank_0(backend, json.loads(broadcast(backend, b'')), host)
        key = secrets.token_hex(16)
        with Listener((own_address(backend.root), 0), backlog=size, authkey=key.encode()) as listener:
            broadcast(backend, json.dumps([*listener.address, key]).encode())
            return accept_all(listener, size, host)


def broadcast(backend, invitation):
    """Rank 0's `invitation`, up to INVITATION bytes, at all processes of `backend`."""
    array = mx.nd.array(np.frombuffer(invitation.ljust(INVITATION), 'uint8'), dtype='float32')
    backend.broadcast(array)
    return array.asnumpy().astype('uint8').tobytes()


def join_rank_0(backend, invitation, host):
    """Links of another process than rank 0."""
    address, port, key = invitation
    try:
        pipe = set_options(Client((address, port), authkey=key.encode()))
        pipe.send_bytes(json.dumps([backend.rank, host]).encode())
        return Links(backend.rank, json.loads(pipe.recv_bytes()), {0: pipe})
    except (EOFError, OSError) as error:
        end_now('rank %d of %d (%s) cannot connect to rank 0 at %s:%d (%s): open all ports between the hosts' % (
            backend.rank, backend.size, host, address, port, getattr(error, 'strerror', None) or 'connection closed'))


def accept_all(listener, size, host):
    """Links of rank 0 to the `size` - 1 others."""
    pipes, hosts = {}, {0: host}
    while len(hosts) < size:
        with contextlib.suppress(AuthenticationError, EOFError, OSError):  # a stranger, such as a port scanner
            pipe = set_options(listener.accept())
            rank, name = json.loads(pipe.recv_bytes())
            pipes[rank], hosts[rank] = pipe, name
    hosts = [hosts[rank] for rank in range(size)]
    for pipe in pipes.values():
        pipe.send_bytes(json.dumps(hosts).encode())
    return Links(0, hosts, pipes)


def own_address(other):
    """The address of this host in the network that leads to the host `other`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))  # sends nothing
        return probe.getsockname()[0]


def set_options(pipe):
    """The Connection `pipe`, which now sends at once and raises OSError if stuck for SILENCE seconds."""
    with socket.fromfd(pipe.fileno(), socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack('ll', SILENCE, 0))
    return pipe
