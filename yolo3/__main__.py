"""What a bug report needs: `python -m yolo3` prints versions, processors, memory and GPUs, one `name: value` a line."""
import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import subprocess

from yolo3.cli import run
from yolo3.streams import guard
from yolo3.system import available_memory, usable_cpus

PACKAGES = ('mxnet', 'mxnet-cu112', 'gluoncv', 'numpy', 'opencv-python', 'opencv-python-headless', 'horovod',
            'onnxruntime', 'openvino', 'torch')
FEATURES = 'CUDA', 'CUDNN', 'NCCL', 'MKLDNN', 'OPENMP', 'DIST_KVSTORE'  # MXNet still calls oneDNN by its old name


def output(*command):
    """What a command prints; '' if it fails or is missing."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=30,
                              encoding='utf-8', errors='replace',
                              cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def version(package):
    """The installed version of a package; '' without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ''


def mxnet():
    """Which features the installed MXNet has, or why it cannot be loaded."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            mx = importlib.import_module('yolo3.mxnet_setup').mx
    except (Exception, SystemExit) as error:
        return 'cannot be loaded: %s' % (errors.getvalue().strip().partition('error: ')[2] or error)
    features = mx.runtime.Features()
    return 'loads, with %s' % ', '.join(name for name in FEATURES if features.is_enabled(name))


def diagnostics():
    """Yield (name, value), both text. Works with nothing installed but Python."""
    yield 'commit', output('git', 'describe', '--always', '--dirty') or 'unknown'
    yield 'Python', '%s %s' % (platform.python_implementation(), platform.python_version())
    yield 'system', platform.platform()
    yield 'processors', '%d usable of %s' % (usable_cpus(), os.cpu_count())
    yield 'memory', '%.1f GB available' % (available_memory() / 1e9)
    for package in PACKAGES:
        if version(package):
            yield package, version(package)
    yield 'MXNet', mxnet()
    yield 'OMP_NUM_THREADS', os.environ.get('OMP_NUM_THREADS', 'not set')
    gpus = output('nvidia-smi', '--query-gpu=name,driver_version,compute_cap,memory.total', '--format=csv,noheader')
    for number, gpu in enumerate(gpus.splitlines()):
        yield 'GPU %d (name, driver, compute capability, memory)' % number, gpu
    if not gpus:
        yield 'GPUs', 'none found by nvidia-smi'


def main():
    for pair in diagnostics():
        print('%s: %s' % pair, flush=True)


if __name__ == '__main__':
    guard()
    run(main)
