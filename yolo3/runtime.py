"""The one place where MXNet is worked round: what it needs before its import, and the devices after it."""
import contextlib
import ctypes
import importlib.metadata
import os
import sys

from yolo3.cli import UserError
from yolo3.libraries import CUDA_LIBRARIES, check_opencv, give_up
from yolo3.limits import usable_cpus

OLDEST_DRIVER = 11000  # any for CUDA 11 runs what was made for 11.2


def load_cuda():
    """Load the libraries of NVIDIA's wheels where the GPU build is installed: MXNet then finds them by name."""
    try:
        wheels = importlib.metadata.distribution('mxnet-cu112').locate_file('nvidia')
    except importlib.metadata.PackageNotFoundError:
        return
    for library in CUDA_LIBRARIES:
        if (wheels / library).exists():  # those of a system-wide CUDA 11 are found without our help
            ctypes.CDLL(str(wheels / library), ctypes.RTLD_GLOBAL)


def keep_memory():
    """Have the C library, where it is glibc, keep freed memory in one heap.

    MXNet takes and frees every array of a step anew. glibc would get the larger ones from the system, as zeroed pages,
    and give them back each time: a step took 6% longer. A user's own settings of glibc win.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt') and not any(name.startswith('MALLOC_') for name in os.environ):
        for option, value in (-8, 1), (-4, 0), (-1, 2 ** 31 - 1):  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD
            libc.mallopt(option, value)


keep_memory()
# MXNet itself would take half of what the machine has. Horovod's processes of one host share it.
os.environ.setdefault('OMP_NUM_THREADS', str(max(1, usable_cpus() // int(os.environ.get('HOROVOD_LOCAL_SIZE', 1)))))
# The first large array that MXNet copies in parallel, in a checkpoint say, gives the main thread OpenMP threads of its
# own. There are then more than processors, so that all of them sleep between two loops: 46 -> 33 images/s from then on.
os.environ.setdefault('MXNET_CPU_PARALLEL_SIZE', str(2 ** 31 - 1))

# GluonCV refuses to be imported beside torch 2. It makes do without, so it does not get to see torch.
torch = sys.modules.get('torch')
sys.modules['torch'] = None
try:
    import numpy as np
    # MXNet and GluonCV use these names, which NumPy deprecated in 1.20 and took away in 1.24.
    for alias, kind in (('bool', bool), ('float', float), ('int', int), ('object', object)):
        if alias not in np.__dict__:
            setattr(np, alias, kind)
    load_cuda()
    check_opencv()
    import cv2
    import mxnet as mx
    import gluoncv
except (ImportError, OSError) as error:
    give_up(error)
finally:
    del sys.modules['torch']
    if torch is not None:
        sys.modules['torch'] = torch

cv2.setNumThreads(0)  # the workers share the processors, and OpenCV's threads do not survive their fork


def driver_version():
    """The newest CUDA that NVIDIA's driver knows, as 11020 for 11.2; 0 without a driver."""
    version = ctypes.c_int()
    with contextlib.suppress(OSError):
        ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(version))
    return version.value


def gpus_found():
    """The compute capability (major, minor) of each GPU, in MXNet's numbering; [] without a GPU or its driver."""
    try:
        cuda = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return []
    count, device, major, minor = (ctypes.c_int() for _ in range(4))
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found = []
    for number in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), number)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # ..._MINOR
        found.append((major.value, minor.value))
    return found


def gpu_numbers(gpus, found, gpu_build, driver):
    """The numbers in `--gpus`, all of them usable, or UserError.

    `found` is what `gpus_found()` said, `driver` what `driver_version()` said; `gpu_build` whether the installed MXNet
    is one that can use a GPU.
    """
    try:
        numbers = [int(number) for number in gpus.split(',') if number.strip()]
    except ValueError:
        raise UserError("--gpus %s: give numbers with commas between, as in --gpus 0,1, or '' for the CPU" % gpus)
    for number in numbers:
        problem = None
        if numbers.count(number) > 1:
            problem = 'GPU %d is named twice' % number
        elif not found:
            problem = "no NVIDIA GPU with its driver found; --gpus '' uses the CPU"
        elif not gpu_build:
            problem = "this MXNet is the CPU build (scripts/setup.sh --gpu for the other); --gpus '' uses the CPU"
        elif driver < OLDEST_DRIVER:
            problem = ("NVIDIA's driver knows CUDA %d.%d, and MXNet needs 11: update it to 450.80.02 or newer; "
                       "--gpus '' uses the CPU" % (driver // 1000, driver % 1000 // 10))
        elif not 0 <= number < len(found):
            problem = 'there is no GPU %d; found: --gpus %s' % (number, ','.join(map(str, range(len(found)))))
        elif not 5 <= found[number][0] <= 8:
            # It has them for sm_50, 60, 70, 80 and 86, and no PTX to make others from.
            problem = ("GPU %d has compute capability %d.%d, and MXNet 1.9.1 has kernels for 5.0 to 8.9 only "
                       "(Maxwell to Ampere, Ada); --gpus '' uses the CPU" % ((number,) + found[number]))
        if problem:
            raise UserError('--gpus %s: %s' % (gpus, problem))
    return numbers


def out_of_memory(error):
    """Whether an error of MXNet says that a GPU's memory or the main memory is too small."""
    return any(word in str(error) for word in ('out of memory', 'CUDNN_STATUS_ALLOC_FAILED', 'bad_alloc',
                                               'Failed to allocate'))


def devices(gpus, local_rank=None):
    """The contexts that `--gpus` names: '0,1' two GPUs, '' the CPU, None the first GPU or, without one, the CPU.

    local_rank: where given, the one whose turn it is, counted from 0. Raises UserError for a GPU that cannot be used.
    """
    if gpus is None:
        try:
            return devices('0')
        except UserError:
            return [mx.cpu()]
    if not gpus.strip():
        return [mx.cpu()]
    numbers = gpu_numbers(gpus, gpus_found(), mx.runtime.Features().is_enabled('CUDA'), driver_version())
    if local_rank is not None and local_rank >= len(numbers):
        raise UserError('--gpus %s: names none for process %d of this host: as many as there are processes'
                        % (gpus, local_rank + 1))
    return [mx.gpu(number) for number in (numbers if local_rank is None else [numbers[local_rank]])] or [mx.cpu()]
