"""What the tests share: the folder of real data, a small data set, a detector, and a command run as a user would."""
import contextlib
import gc
import glob
import importlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from unittest import mock

import cv2
import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Threads that wait for work let others run: the tests start several processes, each with a thread for every processor.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from yolo3.mxnet_setup import gluoncv, mx  # before any test imports MXNet or GluonCV
from yolo3 import cli
from yolo3.network import build
from yolo3.weights import save_detector

ANNOTATION = '''<annotation><filename>%s.jpg</filename>
<size><width>%d</width><height>%d</height><depth>3</depth></size>%s</annotation>'''
OBJECT = '''<object><name>%s</name><difficult>0</difficult>
<bndbox><xmin>%d</xmin><ymin>%d</ymin><xmax>%d</xmax><ymax>%d</ymax></bndbox></object>'''


def slow(*values, marks=()):
    """The values of a parametrized test, as a case that is only in the slow run."""
    return pytest.param(*values, marks=[pytest.mark.slow, *marks])


@pytest.fixture(scope='session')
def data():
    """The folder with bccd/, coco-mini/ and the backbone weights; tests that need it skip without it."""
    folder = os.environ.get('YOLO3_TEST_DATA', os.path.join(ROOT, '..', 'shared', 'data'))
    if not os.path.isdir(folder):
        pytest.skip('no test data at %s: set YOLO3_TEST_DATA' % folder)
    return os.path.abspath(folder)


def learned(path):
    """What the checkpoint at `path` holds, {name: array}, but for the times, which differ from run to run, and so the
    checksum."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != 'checksum'}
    state = json.loads(arrays['state'].tobytes().decode())
    for entry in [state, *state['history']]:
        assert entry.pop('seconds') >= 0 and entry.pop('images_per_second', 1) > 0
    arrays['state'] = np.array(json.dumps(state))
    return arrays


@contextlib.contextmanager
def restored():
    """Afterwards the process has the folder, environment, signal handlers, log and warning filters it had before."""
    folder, environment, logger = os.getcwd(), dict(os.environ), logging.getLogger('yolo3')
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        os.chdir(folder)
        # MXNet's threads may be reading the environment: nothing is set without need.
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate
        for number, handler in signals.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def redirected(name, file):
    """sys.stdout or sys.stderr goes into `file`, and so does what libraries and child processes write there."""
    number = {'stdout': 1, 'stderr': 2}[name]
    original = os.dup(number)
    with mock.patch.object(sys, name, file):
        os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            file.flush()
            os.dup2(original, number)
            os.close(original)


def exit_code(main, argv):
    """Call `main(argv)` as a command does; returns the exit code that it would end with."""
    try:
        cli.run(lambda: main(argv))
    except SystemExit as end:
        if isinstance(end.code, (int, type(None))):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@pytest.fixture
def run():
    """run('demo.py', '--thresh', 0.5) -> CompletedProcess with returncode, stdout and stderr as text.

    The command runs in this process, which spares it the import of MXNet: `run_process` is for signals, kills and
    variables that are read at the start of Python.
    """
    def command(script, *args, cwd=None, env=None):
        argv = [str(arg) for arg in args]
        module = importlib.import_module(os.path.splitext(os.path.basename(script))[0])
        with tempfile.TemporaryFile('w+', encoding='utf-8', buffering=1) as stdout, \
                tempfile.TemporaryFile('w+', encoding='utf-8', buffering=1) as stderr:
            with restored(), redirected('stdout', stdout), redirected('stderr', stderr), \
                    mock.patch.object(sys, 'argv', [os.path.join(ROOT, script)] + argv):
                os.environ.update(env or {})
                os.chdir(cwd or os.curdir)
                code = exit_code(module.main, argv)
            if multiprocessing.active_children():
                gc.collect()  # a command leaves its workers to the end of its process
            for file in stdout, stderr:
                file.seek(0)
            return subprocess.CompletedProcess([script] + argv, code, stdout.read(), stderr.read())
    return command


@pytest.fixture
def run_process():
    """As `run`, in a process of its own."""
    def command(script, *args, cwd=None, env=None, timeout=600):
        return subprocess.run([sys.executable, os.path.join(ROOT, script)] + [str(arg) for arg in args],
                              cwd=cwd, env=dict(os.environ, **(env or {})), timeout=timeout,
                              capture_output=True, text=True)
    return command


def alive(pid):
    """Whether a process runs (Linux)."""
    try:
        with open('/proc/%d/stat' % pid) as file:
            return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def abandoned(before=()):
    """The files in /dev/shm, {inode: name}, that no process has mapped and that are not in `before` (Linux).

    Tests that run beside this one may have files of their own there.
    """
    files, mapped = {}, set()
    for entry in os.scandir('/dev/shm'):
        files[entry.inode()] = entry.name
    for path in glob.glob('/proc/[0-9]*/maps'):
        with contextlib.suppress(OSError), open(path) as file:  # the process may have ended
            mapped.update(int(line.split()[4]) for line in file if ' /dev/shm/' in line)
    return {inode: name for inode, name in files.items()
            if inode not in before and inode not in mapped and os.path.exists('/dev/shm/' + name)}


@pytest.fixture(scope='session')
def browser():
    """The path of a Chromium or Chrome; tests that need it skip without it."""
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip('no browser: none of %s on the PATH' % ', '.join(names))
    return path


@pytest.fixture(scope='session')
def params(tmp_path_factory):
    """The weights of a detector of 'red' and 'blue' that learned nothing, and their sidecar; 64 x 64 input."""
    path = str(tmp_path_factory.mktemp('weights') / 'net.params')
    mx.random.seed(0)  # not every random network finds something at every size
    save_detector(build('mobilenet0_25', ['red', 'blue']), path, network='mobilenet0_25', classes=['red', 'blue'],
                  data_shape=64, dataset='voc')
    return path


@pytest.fixture
def picture():
    """A network's input, (2, 3, 96, 128): noise."""
    return mx.nd.random.uniform(-2, 2, shape=(2, 3, 96, 128))


def zoo(name, classes):
    """GluonCV's own detector of these classes, with random weights."""
    if len(classes) == 3:
        return gluoncv.model_zoo.get_model('yolo3_%s_custom' % name, classes=classes, pretrained_base=False)
    return gluoncv.model_zoo.get_model('yolo3_%s_%s' % (name, 'voc' if len(classes) == 20 else 'coco'),
                                       pretrained_base=False)


@pytest.fixture(scope='session')
def squares(tmp_path_factory):
    """A data set in VOC form of 22 + 5 images of 128 x 96 pixels with red and blue squares; one image has none."""
    root = tmp_path_factory.mktemp('squares')
    generator = np.random.RandomState(0)
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / 'VOC2007' / folder).mkdir(parents=True)
    for split, count in ('trainval', 22), ('test', 5):
        names = ['%s_%02d' % (split, number) for number in range(count)]
        (root / 'VOC2007/ImageSets/Main' / (split + '.txt')).write_text('\n'.join(names) + '\n')
        for number, name in enumerate(names):
            image = generator.randint(90, 150, (96, 128, 3)).astype('uint8')
            objects = ''
            for colour in generator.permutation(2)[:number % 3]:
                side = generator.randint(16, 48)
                x, y = generator.randint(0, 128 - side), generator.randint(0, 96 - side)
                image[y:y + side, x:x + side] = [(0, 0, 255), (255, 0, 0)][colour]
                objects += OBJECT % (['Red', 'Blue'][colour], x + 1, y + 1, x + side, y + side)
            cv2.imwrite(str(root / 'VOC2007/JPEGImages' / (name + '.jpg')), image)
            (root / 'VOC2007/Annotations' / (name + '.xml')).write_text(ANNOTATION % (name, 128, 96, objects))
    return root
