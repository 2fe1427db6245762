"""Start the processes of one training on this machine, as a launcher would on several hosts, and watch them."""
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from conftest import ROOT

TRAIN = os.path.join(ROOT, 'train_yolo3_mobilenet.py')
FAULTY_TRAINING = os.path.join(ROOT, 'tests', 'distributed', 'faulty_training.py')
PREFIX = 'yolo3_mobilenet0_25_voc'  # of the files that a training writes
TIME_TO_END = 60  # seconds in which all processes end once one has failed
HOROVODRUN = shutil.which('horovodrun', path=os.path.dirname(sys.executable))
RENDEZVOUS = '''from horovod.runner.http.http_server import RendezvousHTTPServer, RendezvousHandler
RendezvousHTTPServer(('', 2000), RendezvousHandler, verbose=0).serve_forever()'''

needs_horovod = pytest.mark.skipif(not HOROVODRUN, reason='no Horovod: scripts/setup.sh --horovod builds it')
both_backends = pytest.mark.parametrize('backend', [pytest.param('horovod', marks=needs_horovod), 'dist_sync'])


def training_flags(backend, root, folder, *more):
    """The flags of a short training on the squares, 2 epochs of 5 batches; backend: None for one process."""
    kind = {None: [], 'horovod': ['--horovod']}.get(backend, ['--kv-store', backend])
    return ['--network', 'mobilenet0.25', '--dataset', 'voc', '--dataset-root', root, '--classes', 'red,blue',
            '--train-splits', '2007_trainval', '--val-splits', '2007_test', '--gpus', '', '--no-pretrained-base',
            '--batch-size', '4', '-j', '1', '--data-shape', '64', '--min-shape', '64', '--max-shape', '96',
            '--lr-mode', 'cosine', '--log-interval', '2', '--epochs', '2', '--save-prefix', '%s/' % folder, *kind,
            *more]


def progress(folder):
    """Epoch and batch of the checkpoint in `folder`."""
    with np.load(folder / (PREFIX + '_last.npz')) as file:
        state = json.loads(file['state'].tobytes().decode())
    return state['epoch'], state['batch']


class Job:
    """`count` processes of `command`, a list that begins with a Python script; backend: 'horovod' or a --kv-store.

    Their stderr goes to files in `folder`. last: added to the command of the last one (parameter server). hosts: one
    of `virtual_hosts` per process; the first runs the scheduler, or what Horovod's processes find each other by.
    """

    def __init__(self, backend, count, command, folder, last=(), hosts=()):
        command = [sys.executable, *map(str, command)]
        self.backend, self.count, self.folder, self._hosts = backend, count, str(folder), hosts
        self._processes = []
        env = dict(os.environ, OMP_NUM_THREADS='1')
        if backend != 'horovod':
            self._start_parameter_server(command, last, env)
        elif hosts:
            self._start_horovod(command, env)
        else:
            script = os.path.join(self.folder, 'command.sh')  # horovodrun would take --network for a flag of its own
            with open(script, 'w') as file:
                file.write('exec ' + ' '.join(map(shlex.quote, command)))
            self._start([HOROVODRUN, '-np', str(count), '-H', 'localhost:%d' % count, 'bash', script], env)

    def _start_parameter_server(self, command, last, env):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        places = [(host.prefix, host.address) for host in self._hosts] or [([], '127.0.0.1')] * self.count
        env.update(DMLC_PS_ROOT_URI=places[0][1], DMLC_PS_ROOT_PORT=str(port), DMLC_NUM_WORKER=str(self.count),
                   DMLC_NUM_SERVER='1')
        for number, (prefix, address) in enumerate(places):
            self._start(prefix + command + list(last) * (number == self.count - 1),
                        dict(env, DMLC_ROLE='worker', DMLC_NODE_HOST=address))
        prefix, address = places[0]
        for role in 'scheduler', 'server':
            self._start(prefix + command, dict(env, DMLC_ROLE=role, DMLC_NODE_HOST=address))

    def _start_horovod(self, command, env):
        """Start a process on each host, as horovodrun does by ssh."""
        count = str(len(self._hosts))
        env.update(HOROVOD_GLOO_RENDEZVOUS_ADDR=self._hosts[0].address, HOROVOD_GLOO_RENDEZVOUS_PORT='2000',
                   HOROVOD_GLOO_IFACE='eth0', HOROVOD_CONTROLLER='gloo', HOROVOD_CPU_OPERATIONS='gloo',
                   HOROVOD_SIZE=count, HOROVOD_LOCAL_RANK='0', HOROVOD_LOCAL_SIZE='1', HOROVOD_CROSS_SIZE=count)
        for number, host in enumerate(self._hosts):
            self._start(host.prefix + command, dict(env, HOROVOD_HOSTNAME=host.name, HOROVOD_RANK=str(number),
                                                    HOROVOD_CROSS_RANK=str(number)))
        self._start(self._hosts[0].prefix + [sys.executable, '-c', RENDEZVOUS], env)

    def _start(self, command, env):
        path = os.path.join(self.folder, 'stderr%d' % len(self._processes))
        with open(path, 'w') as file:
            self._processes.append(subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True))

    def trainers(self):
        """The processes that train, or the horovodrun that started them."""
        return self._processes[:1 if self.backend == 'horovod' and not self._hosts else self.count]

    def wait(self, timeout=300, but=0):
        """The exit codes of the `trainers` once all, `but` so many, have ended; fails after `timeout` seconds."""
        end = time.time() + timeout
        while sum(process.poll() is None for process in self.trainers()) > but:
            assert time.time() < end, self.text()
            time.sleep(0.1)
        return [process.poll() for process in self.trainers()]

    def send(self, signum):
        """Send a signal to the trainers that still run."""
        for process in self.trainers():
            if process.poll() is None:
                process.send_signal(signum)

    def others(self, timeout=20):
        """The exit codes of scheduler and servers; raises TimeoutExpired if they do not end."""
        return [process.wait(timeout) for process in self._processes[len(self.trainers()):]]

    def text(self):
        """All output."""
        texts = []
        for number in range(len(self._processes)):
            with open(os.path.join(self.folder, 'stderr%d' % number)) as file:
                texts.append(file.read())
        return '\n'.join(texts)

    def wait_for(self, word, timeout=120):
        """Wait until `word` is in the output."""
        end = time.time() + timeout
        while word not in self.text():
            assert time.time() < end, self.text()
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
