"""What sums gradients over the ranks of a training: Horovod, MXNet's parameter server, or nothing for one process."""
import contextlib
import json
import os
import secrets
import socket
import struct
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener

import numpy as np

from yolo3.mxnet_setup import mx
from mxnet import gluon

from yolo3.checkpoint import as_tuple
from yolo3.cli import UserError
from yolo3.distributed.group import Group, SILENCE, end_later, end_now

START = 45  # seconds in which all ranks must have come, and then have the weights
PS_VARIABLES = 'DMLC_ROLE', 'DMLC_PS_ROOT_URI', 'DMLC_PS_ROOT_PORT', 'DMLC_NUM_WORKER', 'DMLC_NUM_SERVER'
FIRST_KEY = 2 ** 20  # in the parameter server, beyond those of the trainer
INVITATION = 256  # bytes, padded


class OneProcess:
    """gluon.Trainer's own sum over this process' devices. kv_store: 'device' or 'nccl'."""
    rank, size, local_rank = 0, 1, None

    def __init__(self, kv_store):
        if kv_store == 'nccl' and not mx.runtime.Features().is_enabled('NCCL'):
            raise UserError('--kv-store nccl: this MXNet is built without NCCL (the CPU build always is): leave it out')
        self._kv_store = kv_store

    def trainer(self, *args):
        """A gluon.Trainer of its arguments, whose `step` is to be given the number of images of all ranks."""
        return gluon.Trainer(*args, kvstore=self._kv_store, update_on_kvstore=False)


class Horovod:
    """Horovod: a process for each device, started by `horovodrun`."""

    def __init__(self):
        try:
            import horovod.mxnet
        except ImportError as error:
            raise UserError('--horovod: cannot load Horovod (%s): bash scripts/setup.sh --horovod builds it' % error)
        self._horovod = horovod.mxnet
        with expected('--horovod: HOROVOD_SIZE %s' % os.environ.get('HOROVOD_SIZE', '1')):
            self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()
        self.local_rank = self._horovod.local_rank()
        self.meeting_point = os.environ.get('HOROVOD_GLOO_RENDEZVOUS_ADDR', socket.gethostname())
        self._sent = 0

    def broadcast(self, array):
        """Replace `array` by rank 0's, as a sum: Horovod's own broadcast logs the name of an array that may be freed by
        then, and one rank in some thirty took all memory there is."""
        if self.rank:
            array[:] = 0
        self._sent += 1
        self._horovod.allreduce_(array, name='broadcast %d' % self._sent, op=self._horovod.Sum)
        array.wait_to_read()

    def trainer(self, *args):
        """As OneProcess.trainer."""
        trainer = self._horovod.DistributedTrainer(*args)
        trainer._scale *= self.size  # Horovod takes the mean over the ranks: parts of a batch may be unequal
        return trainer

    def start(self, trainer):
        """Give all ranks the weights of rank 0 that `trainer` is for."""
        for parameter in trainer._params:
            self.broadcast(parameter.data())

    def leave(self):
        """Take leave of the other processes."""
        self._horovod.shutdown()


class ParameterServer:
    """MXNet's parameter server, ps-lite: a process for each host. kv_store: 'dist_sync' or 'dist_sync_device'."""
    local_rank = None

    def __init__(self, kv_store):
        missing = [name for name in PS_VARIABLES if not os.environ.get(name)]
        if missing:
            raise UserError('--kv-store %s: %s is not set; scripts/cluster/ has what starts the processes'
                            % (kv_store, missing[0]))
        with expected('--kv-store %s: the scheduler at %s:%s, %s workers and %s servers' % (
                (kv_store,) + tuple(os.environ[name] for name in PS_VARIABLES[1:]))):
            self._store = mx.kv.create(kv_store)
        self.rank, self.size = self._store.rank, self._store.num_workers
        self.meeting_point = os.environ['DMLC_PS_ROOT_URI']
        self._sent = FIRST_KEY

    def broadcast(self, array):
        """As Horovod.broadcast."""
        self._sent += 1
        self._store.broadcast(self._sent, array, array)
        array.wait_to_read()

    def trainer(self, *args):
        """As OneProcess.trainer."""
        return gluon.Trainer(*args, kvstore=self._store, update_on_kvstore=False)

    def start(self, trainer):
        """As Horovod.start. Left to the trainer's first step, a rank may get a gradient for its weights: the server
        keeps both under one name, and nothing orders them."""
        trainer._init_kvstore()
        trainer._init_params()
        mx.nd.waitall()

    def leave(self):
        """As Horovod.leave; the servers end too. Left to the interpreter's end, it comes after that of threads which it
        needs: some processes abort, and others wait for them."""
        mx.nd.waitall()
        mx.base.check_call(mx.base._LIB.MXKVStoreFree(self._store.handle))
        self._store.handle = mx.base.KVStoreHandle()


@contextlib.contextmanager
def expected(what):
    """End this process, with one line that names `what`, where the block takes longer than START seconds."""
    timer = end_later(START, line('%s: not all came within %d seconds' % (what, START)))
    try:
        yield
    finally:
        timer.cancel()


def line(message):
    """What is said at the end of a process that has not met the others."""
    return 'error: %s (this is %s)' % (message, socket.gethostname())


def join(horovod, kv_store):
    """The Ranks that this process is one of; waits for the others. Raises UserError where the engine cannot be had."""
    if horovod and kv_store != 'device':
        raise UserError('--horovod and --kv-store %s: choose one' % kv_store)
    engine = Horovod() if horovod else (ParameterServer if kv_store.startswith('dist') else OneProcess)(kv_store)
    if engine.size == 1:
        return Group(engine=engine)
    with expected('rank %d of %d' % (engine.rank, engine.size)):
        return meet(engine)


def meet(engine):
    """Connect all ranks with rank 0, whose address and password go through the `engine`. Ends this process with one
    line where it does not get there."""
    host, invitation = socket.gethostname(), b''
    if engine.rank == 0:
        key = secrets.token_hex(16)
        listener = Listener((own_address(engine.meeting_point), 0), backlog=engine.size, authkey=key.encode())
        invitation = json.dumps([*listener.address, key]).encode()
    array = mx.nd.array(np.frombuffer(invitation.ljust(INVITATION), 'uint8'), dtype='float32')
    engine.broadcast(array)
    address, port, key = json.loads(array.asnumpy().astype('uint8').tobytes())
    if engine.rank:
        try:
            pipe = tuned(Client((address, port), authkey=key.encode()))
            pipe.send_bytes(json.dumps([engine.rank, host]).encode())
            return Group(engine.rank, engine.size, json.loads(pipe.recv_bytes()), {0: pipe}, engine)
        except (EOFError, OSError) as error:
            end_now(line('rank %d of %d does not get to rank 0 at %s:%d: %s; the hosts must let each other in on all '
                         'ports' % (engine.rank, engine.size, address, port,
                                    getattr(error, 'strerror', None) or 'it hung up')))
    pipes, names = {}, {0: host}
    while len(names) < engine.size:
        with contextlib.suppress(AuthenticationError, EOFError, OSError):  # somebody else, who scans ports
            pipe = tuned(listener.accept())
            rank, name = json.loads(pipe.recv_bytes())
            pipes[rank], names[rank] = pipe, name
    listener.close()
    names = [names[rank] for rank in range(engine.size)]
    for pipe in pipes.values():
        pipe.send_bytes(json.dumps(names).encode())
    return Group(0, engine.size, names, pipes, engine)


def own_address(other):
    """The address of this host on the way to the host `other`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))  # sends nothing
        return probe.getsockname()[0]


def tuned(pipe):
    """The Connection `pipe`, sending at once, and raising OSError where it is stuck for SILENCE seconds."""
    with socket.fromfd(pipe.fileno(), socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack('ll', SILENCE, 0))
    return pipe


def spread(ranks, trainer):
    """Give all ranks the weights and momentum of rank 0."""
    if ranks.size == 1:
        return
    with expected('%s: the weights of rank 0' % ranks.name(ranks.rank)):
        ranks.engine.start(trainer)
        for index in json.loads(ranks.share(json.dumps(sorted(trainer._updaters[0].states)).encode())):
            for updater, weight in zip(trainer._updaters, trainer._params[index].list_data()):
                if index not in updater.states:
                    updater.states[index] = trainer._optimizer.create_state_multi_precision(index, weight)
                    updater.states_synced[index] = True
            for parts in zip(*[as_tuple(updater.states[index]) for updater in trainer._updaters]):
                ranks.engine.broadcast(parts[0])
                for part in parts[1:]:
                    parts[0].copyto(part)
        ranks.sum([])  # nobody begins before all have all
