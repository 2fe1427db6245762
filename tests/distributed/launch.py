"""Start the ranks of one training on this machine, as a launcher would on several, and look after them."""
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

HOROVODRUN = shutil.which('horovodrun', path=os.path.dirname(sys.executable))
RENDEZVOUS = '''from horovod.runner.http.http_server import RendezvousHTTPServer, RendezvousHandler
RendezvousHTTPServer(('', 2000), RendezvousHandler, verbose=0).serve_forever()'''


class Job:
    """`count` ranks of `command`, a list that begins with a Python script, by `engine`: 'horovod' or a --kv-store.

    Their stderr goes to files in `folder`. last: what is put behind the command of the last one only (not Horovod).
    servers: how many (not Horovod). env: more environment. hosts: one of tests/hosts.py for each rank; the first has
    what the ranks find each other by.
    """

    def __init__(self, engine, count, command, folder, last=(), servers=1, env=(), hosts=()):
        command = [sys.executable, *map(str, command)]
        self.engine, self.count, self.folder, self._hosts = engine, count, str(folder), hosts
        self.started = time.time()
        self._processes = []
        env = dict(os.environ, OMP_NUM_THREADS='1', **dict(env))
        if engine == 'horovod' and hosts:
            self._start_horovod(command, hosts, env)
            return
        if engine == 'horovod':
            script = os.path.join(self.folder, 'command.sh')  # horovodrun would take --network for an option of its own
            with open(script, 'w') as file:
                file.write('exec ' + ' '.join(map(shlex.quote, command)))
            self._start([HOROVODRUN, '-np', str(count), '-H', 'localhost:%d' % count, 'bash', script], env)
            return
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        places = [(host.prefix, host.address) for host in hosts] or [([], '127.0.0.1')] * count
        env.update(DMLC_PS_ROOT_URI=places[0][1], DMLC_PS_ROOT_PORT=str(port), DMLC_NUM_WORKER=str(count),
                   DMLC_NUM_SERVER=str(servers))
        for number, (prefix, address) in enumerate(places):
            self._start(prefix + command + list(last) * (number == count - 1),
                        dict(env, DMLC_ROLE='worker', DMLC_NODE_HOST=address))
        prefix, address = places[0]
        for role in ['scheduler'] + ['server'] * servers:
            self._start(prefix + command, dict(env, DMLC_ROLE=role, DMLC_NODE_HOST=address))

    def _start_horovod(self, command, hosts, env):
        """Start the ranks as horovodrun would by ssh."""
        env.update(HOROVOD_GLOO_RENDEZVOUS_ADDR=hosts[0].address, HOROVOD_GLOO_RENDEZVOUS_PORT='2000',
                   HOROVOD_GLOO_IFACE='eth0', HOROVOD_CONTROLLER='gloo', HOROVOD_CPU_OPERATIONS='gloo',
                   HOROVOD_SIZE=str(len(hosts)), HOROVOD_LOCAL_RANK='0', HOROVOD_LOCAL_SIZE='1',
                   HOROVOD_CROSS_SIZE=str(len(hosts)))
        for number, host in enumerate(hosts):
            self._start(host.prefix + command, dict(env, HOROVOD_HOSTNAME=host.name, HOROVOD_RANK=str(number),
                                                    HOROVOD_CROSS_RANK=str(number)))
        self._start(hosts[0].prefix + [sys.executable, '-c', RENDEZVOUS], env)

    def _start(self, command, env):
        path = os.path.join(self.folder, 'stderr%d' % len(self._processes))
        with open(path, 'w') as file:
            self._processes.append(subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True))

    def ranks(self):
        """The processes of the ranks; with Horovod, the one that started them."""
        return self._processes[:1 if self.engine == 'horovod' and not self._hosts else self.count]

    def wait(self, timeout=300, but=0):
        """The exit codes of the ranks, but that so many may still run; of Horovod, of `horovodrun`. Fails in time."""
        end = time.time() + timeout
        while sum(process.poll() is None for process in self.ranks()) > but:
            assert time.time() < end, self.text()
            time.sleep(0.1)
        return [process.poll() for process in self.ranks()]

    def send(self, signum):
        """Send a signal to the ranks that still run."""
        for process in self.ranks():
            if process.poll() is None:
                process.send_signal(signum)

    def others(self, timeout=20):
        """The exit codes of scheduler and servers; raises TimeoutExpired where they stay."""
        return [process.wait(timeout) for process in self._processes[len(self.ranks()):]]

    def text(self):
        """All that they wrote."""
        texts = []
        for number in range(len(self._processes)):
            with open(os.path.join(self.folder, 'stderr%d' % number)) as file:
                texts.append(file.read())
        return '\n'.join(texts)

    def wait_for(self, word, timeout=120):
        """Wait until one of them wrote `word`."""
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
