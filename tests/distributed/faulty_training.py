"""One process of a training, with a fault at one of them.

python tests/distributed/faulty_training.py RANK FAULT [flags of the training]: the process of rank RANK has FAULT: one
of STEP, in its third step; or validation-term, in its first validation. FAULT may also be one of the network's, from
the start (slow, absent), or none. All time limits are short, so that the tests do not take minutes.
"""
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))

import train_yolo3_mobilenet as training
from tcp_proxy import Proxy
from yolo3.cli import UserError, run
from yolo3.distributed import liveness, rendezvous
from yolo3.distributed.group import Group

proxies = []  # between this process and rank 0


def send(signum):
    os.kill(os.getpid(), signum)


def mistake():
    raise UserError('a mistake')


def defect():
    raise ZeroDivisionError('a defect')


def stall():
    proxies[0].flowing.clear()


def pause():
    stall()
    threading.Timer(2, proxies[0].flowing.set).start()


STEP = {'kill': lambda: send(signal.SIGKILL), 'hang': lambda: send(signal.SIGSTOP),
        'term': lambda: send(signal.SIGTERM), 'mistake': mistake, 'defect': defect,
        'cut': lambda: proxies[0].cut(), 'stall': stall, 'slow': pause}


def inject(rank, fault):
    """Have Group raise, send or cut what `fault` says at the process of `rank`."""
    real_step, real_watch, steps = Group.step, Group.watch, []

    def step(group, numbers):
        steps.append('step')
        if group.rank == rank and len(steps) == 3 and fault in STEP:
            STEP[fault]()
        return real_step(group, numbers)

    def watch(group, iterable):
        if group.rank == rank and fault == 'validation-term':
            send(signal.SIGTERM)
        return real_watch(group, iterable)
    Group.step, Group.watch = step, watch


def connect_by_proxy(delay):
    """Have the connections to rank 0 go through a Proxy."""
    real_client = rendezvous.Client

    def client(address, **kwargs):
        proxies.append(Proxy(address, delay))
        return real_client(proxies[0].address, **kwargs)
    rendezvous.Client = client


def main():
    rank, fault = int(sys.argv[1]), sys.argv[2]
    del sys.argv[1:3]
    liveness.HEARTBEAT, liveness.SILENCE, liveness.GRACE = 1, 6, 6
    rendezvous.TIMEOUT = 10 if fault == 'absent' else 15
    if fault == 'slow':
        scheduler = Proxy((os.environ['DMLC_PS_ROOT_URI'], int(os.environ['DMLC_PS_ROOT_PORT'])), 0.05)
        os.environ['DMLC_PS_ROOT_PORT'] = str(scheduler.address[1])
    if fault in ('slow', 'stall', 'cut'):
        connect_by_proxy(0.05 if fault == 'slow' else 0)
    inject(rank, fault)
    run(training.main)


if __name__ == '__main__':
    main()
