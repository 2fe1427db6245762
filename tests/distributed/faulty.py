"""One rank of a training, with a fault at one of them.

python tests/distributed/faulty.py RANK FAULT [flags of the training]: rank RANK has FAULT, one of STEP, in its third
step, or in its first validation (validation-term); or FAULT is of the network from the start on (slow, absent), or
none.
"""
import os
import signal
import sys
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

import train_yolo3_mobilenet as training  # noqa: E402
from proxy import Proxy  # noqa: E402
from yolo3 import detect  # noqa: E402
from yolo3.distributed import backends, group  # noqa: E402
from yolo3.cli import UserError, run  # noqa: E402

proxies = []  # between this rank and rank 0


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


def main():
    group.PULSE, group.SILENCE, group.GRACE, backends.START = 1, 6, 6, 15  # lest the tests take minutes
    rank, fault = int(sys.argv[1]), sys.argv[2]
    del sys.argv[1:3]
    if fault == 'absent':
        backends.START = 10
    delay = 0.05 if fault == 'slow' else 0
    if fault == 'slow':
        scheduler = Proxy((os.environ['DMLC_PS_ROOT_URI'], int(os.environ['DMLC_PS_ROOT_PORT'])), delay)
        os.environ['DMLC_PS_ROOT_PORT'] = str(scheduler.address[1])
    real_client, real_step, real_evaluate, calls = backends.Client, training.train_step, detect.evaluate, []

    def client(address, **kwargs):
        proxies.append(Proxy(address, delay))
        return real_client(proxies[0].address, **kwargs)

    def train_step(*args):
        calls.append('step')
        if args[-1].rank == rank and len(calls) == 3 and fault in STEP:
            STEP[fault]()
        return real_step(*args)

    def evaluate(*args, **kwargs):
        if kwargs['ranks'].rank == rank and fault == 'validation-term':
            send(signal.SIGTERM)
        return real_evaluate(*args, **kwargs)
    training.train_step, detect.evaluate = train_step, evaluate
    if fault in ('slow', 'stall', 'cut'):
        backends.Client = client
    run(training.main)


if __name__ == '__main__':
    main()
