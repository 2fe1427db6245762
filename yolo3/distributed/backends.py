"""What sums the gradients of all processes: Horovod, MXNet's parameter server, or neither if there is one process.

Each backend has `rank` and `size`; `local_rank`, the number of this process on its host, if each process uses one GPU,
else None; and `trainer`. Backends of several processes also have `root`, a host that all can reach, `broadcast`,
`broadcast_weights` and `leave`.
"""
import os
import socket

from yolo3.mxnet_setup import mx
from mxnet import gluon

from yolo3.checkpoint import as_tuple
from yolo3.cli import UserError
from yolo3.dmlc import check_environment
from yolo3.distributed.group import Group
from yolo3.distributed.rendezvous import connect, time_limit

FIRST_KEY = 2 ** 20  # in the parameter server, after the keys of the trainer


class OneProcess:
    """gluon.Trainer's own sum over the devices of this process. kv_store: 'device' or 'nccl'."""
    rank, size, local_rank = 0, 1, None

    def __init__(self, kv_store):
        if kv_store == 'nccl' and not mx.runtime.Features().is_enabled('NCCL'):
            raise UserError('--kv-store nccl: this MXNet has no NCCL (no CPU build has): leave the flag out')
        self._kv_store = kv_store

    def trainer(self, parameters, optimizer, settings):
        """A gluon.Trainer, whose `step` takes the number of images of all processes."""
        return gluon.Trainer(parameters, optimizer, settings, kvstore=self._kv_store, update_on_kvstore=False)


class Horovod:
    """Horovod: one process per device, started by `horovodrun`."""

    def __init__(self):
        try:
            import horovod.mxnet
        except ImportError as error:
            raise UserError('--horovod: cannot import Horovod (%s): bash scripts/setup.sh --horovod builds it' % error)
        self._horovod = horovod.mxnet
        with time_limit('--horovod: ' + socket.gethostname(), 'the other processes'):
            self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()
        self.local_rank = self._horovod.local_rank()
        self.root = os.environ.get('HOROVOD_GLOO_RENDEZVOUS_ADDR', socket.gethostname())
        self._sent = 0

    def broadcast(self, array):
        """Replace `array` by rank 0's.

        A sum does it: Horovod's own broadcast logs the name of an array that may already be freed, and about one
        process in thirty then took all memory.
        """
        if self.rank:
            array[:] = 0
        self._sent += 1
        self._horovod.allreduce_(array, name='broadcast %d' % self._sent, op=self._horovod.Sum)
        array.wait_to_read()

    def trainer(self, parameters, optimizer, settings):
        """As OneProcess.trainer."""
        trainer = self._horovod.DistributedTrainer(parameters, optimizer, settings)
        trainer._scale *= self.size  # Horovod averages over the processes, whose parts of a batch may be unequal
        return trainer

    def broadcast_weights(self, trainer):
        """Replace the weights that `trainer` updates by rank 0's."""
        for parameter in trainer._params:
            self.broadcast(parameter.data())

    def leave(self):
        """Take leave of the other processes."""
        self._horovod.shutdown()


class ParameterServer:
    """MXNet's parameter server, ps-lite: one process per host. kv_store: 'dist_sync' or 'dist_sync_device'."""
    local_rank = None

    def __init__(self, kv_store):
        check_environment('--kv-store %s: ' % kv_store)
        with time_limit('--kv-store %s: %s' % (kv_store, socket.gethostname()),
                        'the scheduler at {DMLC_PS_ROOT_URI}:{DMLC_PS_ROOT_PORT}, {DMLC_NUM_WORKER} worker(s) and '
                        '{DMLC_NUM_SERVER} server(s)'.format(**os.environ)):
            self._store = mx.kv.create(kv_store)
        self.rank, self.size = self._store.rank, self._store.num_workers
        self.root = os.environ['DMLC_PS_ROOT_URI']
        self._sent = FIRST_KEY

    def broadcast(self, array):
        """As Horovod.broadcast."""
        self._sent += 1
        self._store.broadcast(self._sent, array, array)
        array.wait_to_read()

    def trainer(self, parameters, optimizer, settings):
        """As OneProcess.trainer."""
        return gluon.Trainer(parameters, optimizer, settings, kvstore=self._store, update_on_kvstore=False)

    def broadcast_weights(self, trainer):
        """As Horovod.broadcast_weights.

        If left to the trainer's first step, a process may receive a gradient as its weights: the server keeps both
        under one key, and nothing orders the two.
        """
        trainer._init_kvstore()
        trainer._init_params()
        mx.nd.waitall()

    def leave(self):
        """As Horovod.leave; the servers end too.

        The interpreter's own clean-up would do this after it has ended threads that this needs: some processes then
        abort, and others wait for them.
        """
        mx.nd.waitall()
        mx.base.check_call(mx.base._LIB.MXKVStoreFree(self._store.handle))
        self._store.handle = mx.base.KVStoreHandle()


def join(horovod, kv_store):
    """The Group of this process, once all others have come. Raises UserError if the backend cannot be used."""
    if horovod and kv_store != 'device':
        raise UserError('--horovod and --kv-store %s: choose one' % kv_store)
    backend = Horovod() if horovod else (ParameterServer if kv_store.startswith('dist') else OneProcess)(kv_store)
    return Group(backend.rank, backend.size, connect(backend) if backend.size > 1 else None, backend)


def broadcast(group, trainer, average=()):
    """Replace the weights and momentum of all processes by rank 0's, and the data of the parameters `average`."""
    if group.size == 1:
        return
    backend = group.backend

    def on_all_devices(arrays):
        backend.broadcast(arrays[0])
        for array in arrays[1:]:
            arrays[0].copyto(array)
    with time_limit(group.name(group.rank), 'the weights of rank 0'):
        backend.broadcast_weights(trainer)
        for index in group.share(sorted(trainer._updaters[0].states)):
            for updater, weight in zip(trainer._updaters, trainer._params[index].list_data()):
                if index not in updater.states:
                    updater.states[index] = trainer._optimizer.create_state_multi_precision(index, weight)
                    updater.states_synced[index] = True
            for parts in zip(*[as_tuple(updater.states[index]) for updater in trainer._updaters]):
                on_all_devices(parts)
        for parameter in average:
            on_all_devices(parameter.list_data())
        group.barrier()  # nobody begins before all have everything
