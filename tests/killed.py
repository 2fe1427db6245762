"""Train, and kill this process (SIGKILL) at a random moment of its n-th step, validation, save or rename.

python tests/killed.py PLACE NUMBER SEED [flags of train_yolo3_mobilenet.py]; exit status -9, or 0 where the training
was done before.
"""
import os
import random
import signal
import sys
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import train_yolo3_mobilenet as training
from yolo3 import checkpoint, detect
from yolo3.cli import run

# Where to count, and within how many seconds of its beginning to kill.
PLACES = {'step': (training, 'train_step', 0.1), 'validation': (detect, 'evaluate', 0.3),
          'save': (checkpoint, 'save', 0.1), 'rename': (os, 'replace', 0)}


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def watch(place, number, generator):
    """Have the `number`-th call of PLACES[place] killed."""
    owner, name, seconds = PLACES[place]
    real, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) != number:
            return real(*args, **kwargs)
        if seconds:
            threading.Timer(generator.uniform(0, seconds), kill).start()
        elif generator.random() < 0.5:
            kill()
        result = real(*args, **kwargs)
        if not seconds:
            kill()
        return result
    setattr(owner, name, counted)


if __name__ == '__main__':
    watch(sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3])))
    del sys.argv[1:4]
    run(training.main)
