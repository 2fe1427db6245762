"""A training step over several processes on this machine, with each backend that sums their gradients."""
import importlib.util
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from yolo3.cli import RunError, UserError
from yolo3.system import usable_cpus

PROCESSES = 2, 4  # and one, to compare with
PACKAGES = {'dist_sync_device': 'mxnet', 'horovod': 'horovod'}  # that the backends come in


def figures(args):
    """A row per backend and number of processes; --batch-size counts the images of all processes.

    In the first row, of one process, nothing is exchanged: the time of its backend is the error of the measurement.
    """
    if args.only:
        return one_process(args)
    if args.batch_size < max(PROCESSES):
        raise UserError('--batch-size %d is smaller than the %d processes' % (args.batch_size, max(PROCESSES)))
    runs = [('device', 1)] + [(backend, count) for count in PROCESSES for backend, package in PACKAGES.items()
                              if importlib.util.find_spec(package)]
    results = {run: [] for run in runs}
    for _ in range(args.rounds):
        for run in runs:
            results[run].append(measured(args, *run))
    return [{'backend': backend, 'processes': count,
             **{key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}}
            for (backend, count), rounds in results.items()]


def measured(args, backend, count):
    """What rank 0 of `count` processes measures."""
    with tempfile.TemporaryDirectory() as folder:
        path, script = os.path.join(folder, 'figures.json'), os.path.join(folder, 'command.sh')
        command = [*args.command, '--only', backend, '--json', path]
        with open(script, 'wb') as file:  # horovodrun would take some flags for its own
            file.write(os.fsencode('exec ' + ' '.join(map(shlex.quote, command))))
        env = dict(os.environ, OMP_NUM_THREADS=str(max(1, usable_cpus() // count)))
        if backend == 'horovod':
            run = os.path.join(os.path.dirname(sys.executable), 'horovodrun')
            commands = [([run, '-np', str(count), '-H', 'localhost:%d' % count, 'bash', script], env)]
        elif backend == 'device':
            commands = [(command, env)]
        else:
            with socket.create_server(('127.0.0.1', 0)) as free:
                env.update(DMLC_PS_ROOT_URI='127.0.0.1', DMLC_PS_ROOT_PORT=str(free.getsockname()[1]),
                           DMLC_NODE_HOST='127.0.0.1', DMLC_NUM_WORKER=str(count), DMLC_NUM_SERVER='1')
            commands = [(command, dict(env, DMLC_ROLE=role)) for role in ['scheduler', 'server'] + ['worker'] * count]
        processes = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for command, env in commands]
        try:
            if any([process.wait() for process in processes[-count:]]):
                raise RunError('%d processes with %s failed: see above' % (count, backend))
        finally:
            for process in processes:
                process.terminate()
        with open(path, encoding='utf-8') as file:
            return json.load(file)


def one_process(args):
    """The figures of one process of the backend args.only, in step with all others."""
    import train_yolo3_mobilenet as training
    from benchmarks.step import some_batch
    from yolo3 import network, zoo
    from yolo3.distributed import backends
    from yolo3.distributed.group import ONE_PROCESS
    from yolo3.loss import DetectionLoss, set_loss
    from yolo3.mxnet_setup import mx
    horovod = args.only == 'horovod'
    with backends.join(horovod, 'device' if horovod else args.only) as group:
        part = group.part(args.batch_size)
        args.batch_size = part.stop - part.start
        batch = some_batch(args)
        net = network.build('mobilenet1_0', zoo.CLASSES['coco'])
        set_loss(net, DetectionLoss(80))
        flags = training.parse_args(['--lr', '1e-6'])
        flags.devices = [mx.cpu()]
        # As in training: ps-lite fails on weights that are still in a layout of oneDNN.
        net.collect_params().reset_ctx(flags.devices)
        with_backend = training.build_trainer(flags, net, group.backend)
        without = training.build_trainer(flags, net, backends.OneProcess('device'))
        backends.broadcast(group, with_backend)
        net.hybridize()

        def milliseconds(trainer, members):
            """One step's, averaged over three: from the start of all processes to the end of the last."""
            group.barrier()
            start = time.perf_counter()
            for _ in range(3):
                training.train_step(net, batch, trainer, flags, members)
            mx.nd.waitall()
            group.barrier()
            return (time.perf_counter() - start) / 3 * 1000
        pairs = [(milliseconds(with_backend, group), milliseconds(without, ONE_PROCESS)) for _ in range(4)][1:]
        backend = statistics.median(a - b for a, b in pairs)
        step, alone = map(statistics.median, zip(*pairs))
        if group.rank:
            args.json = ''  # rank 0 writes the file
        return {'ms a step': step, 'ms without exchange': alone, 'ms of the backend': backend,
                'backend / step without': backend / alone,
                'MB of gradients a step': sum(parameter.data().size * 4 for parameter in with_backend._params
                                              if parameter.grad_req != 'null') / 1e6}
