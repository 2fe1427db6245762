"""The one place where MXNet is worked round: what must happen before it is imported."""
import ctypes
import importlib.metadata
import os
import sys

from yolo3.cli import UserError, ending_at_interrupt, fail, processes, variable
from yolo3.dmlc import check_environment
from yolo3.system import CUDA_LIBRARIES, check_opencv, give_up, threads


def load_cuda():
    """Load the libraries of NVIDIA's wheels if the GPU build is installed: MXNet then finds them by name."""
    try:
        wheels = importlib.metadata.distribution('mxnet-cu112').locate_file('nvidia')
    except importlib.metadata.PackageNotFoundError:
        return
    for library in CUDA_LIBRARIES:
        if (wheels / library).exists():  # those of a system-wide CUDA 11 are found without our help
            ctypes.CDLL(str(wheels / library), ctypes.RTLD_GLOBAL)


def keep_memory():
    """Have the C library, if it is glibc, keep freed memory in one heap.

    MXNet allocates and frees every array in each step. glibc would get the larger ones from the system, as zeroed
    pages, and give them back each time: a step took 6% longer. A user's own settings of glibc win.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt') and not any(name.startswith('MALLOC_') for name in os.environ):
        for option, value in (-8, 1), (-4, 0), (-1, 2 ** 31 - 1):  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD
            libc.mallopt(option, value)


keep_memory()
try:
    if os.environ.get('DMLC_ROLE', 'worker') != 'worker':  # importing MXNet then runs a server or scheduler to its end
        check_environment()
    # MXNet itself would take half of what the machine has.
    os.environ['OMP_NUM_THREADS'] = str(threads())
    for name in os.environ:
        if name.startswith('MXNET_') and name.endswith('_NTHREADS'):  # it aborts, or takes all memory
            variable(name, processes)
except UserError as error:
    fail(error)
# What MXNet does in parallel in the main thread, in a checkpoint say, gives that thread OpenMP threads of its own.
# There are then more than processors, so all of them sleep between two loops: 46 -> 33 images/s from then on. This
# setting is for large copies; for oneDNN's, which change the layout, see the end.
os.environ.setdefault('MXNET_CPU_PARALLEL_SIZE', str(2 ** 31 - 1))
# Training uses ten input sizes. On a GPU blocks of rounded sizes serve all of them, while MXNet's default pool reuses a
# block for its exact size only. Not measured: no GPU was available.
os.environ.setdefault('MXNET_GPU_MEM_POOL_TYPE', 'Round')

# GluonCV refuses to be imported beside torch 2. It makes do without, so it does not get to see torch.
torch = sys.modules.get('torch')
sys.modules['torch'] = None
try:
    with ending_at_interrupt():
        import numpy as np
        if int(np.__version__.partition('.')[0]) > 1:
            fail('MXNet does not work with NumPy %s: pip install "numpy<2"' % np.__version__)
        # MXNet and GluonCV use these names, which NumPy deprecated in 1.20 and took away in 1.24.
        for alias, kind in (('bool', bool), ('float', float), ('int', int), ('object', object)):
            if alias not in np.__dict__:
                setattr(np, alias, kind)
        load_cuda()
        check_opencv()
        import cv2
        import mxnet as mx
        import gluoncv
except Exception as error:
    give_up(error)
finally:
    del sys.modules['torch']
    if torch is not None:
        sys.modules['torch'] = torch

if hasattr(mx.base._LIB, 'omp_set_num_threads'):
    mx.base._LIB.omp_set_num_threads(1)  # of this thread: MXNet's own threads set theirs
cv2.setNumThreads(0)  # the workers share the processors, and OpenCV's threads do not survive their fork
