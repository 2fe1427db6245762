"""The one place where MXNet is worked round: what it needs before its import, and the devices after it."""
import contextlib
import ctypes
import importlib.metadata
import math
import os
import pathlib
import re
import sys

from yolo3.cli import UserError, fail

# What libmxnet and opencv-python take from the system, and the Debian / Ubuntu package that has it.
SYSTEM_LIBRARIES = {'libgomp.so.1': 'libgomp1', 'libquadmath.so.0': 'libquadmath0',
                    'libGL.so.1': 'libgl1', 'libgthread-2.0.so.0': 'libglib2.0-0'}

# What the GPU build of MXNet takes from NVIDIA's wheels, each after those it needs itself.
CUDA_LIBRARIES = ('cuda_runtime/lib/libcudart.so.11.0', 'cuda_nvrtc/lib/libnvrtc.so.11.2',
                  'nvtx/lib/libnvToolsExt.so.1', 'cublas/lib/libcublasLt.so.11', 'cublas/lib/libcublas.so.11',
                  'cufft/lib/libcufft.so.10', 'curand/lib/libcurand.so.10', 'cusparse/lib/libcusparse.so.11',
                  'cusolver/lib/libcusolver.so.11', 'nccl/lib/libnccl.so.2', 'cudnn/lib/libcudnn.so.8')

OLDEST_DRIVER = 11000  # any for CUDA 11 runs what was made for 11.2


def read(*path):
    """The text of a file; '' where there is none to be read."""
    try:
        return pathlib.Path(*path).read_text()
    except OSError:
        return ''


def groups(controller, root, membership):
    """Yield the folders below `root` of this process's control groups (version 1 or 2) for 'cpu' or 'memory'.

    Any group on the way up may hold the limit; inside a container often only the topmost is to be seen.
    """
    for line in read(membership).splitlines():
        _, controllers, group = line.split(':', 2)
        if controllers and controller not in controllers.split(','):
            continue
        folder = pathlib.PurePath(root, controller if controllers else '', group.strip('/'))
        yield from (folder, *folder.parents)


def cgroup_quota(root='/sys/fs/cgroup', membership='/proc/self/cgroup'):
    """The CPUs that this process's control groups grant it; infinity where none sets a limit."""
    quota = math.inf
    for level in groups('cpu', root, membership):
        limit = (read(level, 'cpu.max') or
                 read(level, 'cpu.cfs_quota_us') + read(level, 'cpu.cfs_period_us')).split()
        if len(limit) == 2 and limit[0] not in ('max', '-1'):
            quota = min(quota, int(limit[0]) / int(limit[1]))
    return quota


def usable_cpus():
    """The logical processors this process may use. MXNet itself would take half of what the machine has."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, math.ceil(min(affinity, cgroup_quota())))


def available_memory(meminfo='/proc/meminfo', root='/sys/fs/cgroup', membership='/proc/self/cgroup'):
    """The bytes of memory that this process could still take, its control groups (version 1 or 2) heeded."""
    available = math.inf
    for line in read(meminfo).splitlines():
        if line.startswith('MemAvailable:'):
            available = int(line.split()[1]) * 1024
    for level in groups('memory', root, membership):
        limit = (read(level, 'memory.max') or read(level, 'memory.limit_in_bytes')).strip()
        used = (read(level, 'memory.current') or read(level, 'memory.usage_in_bytes')).strip()
        if limit.isdigit() and used.isdigit():
            cache = re.search(r'^inactive_file (\d+)', read(level, 'memory.stat'), re.M)  # given back when needed
            available = min(available, int(limit) - int(used) + int(cache.group(1) if cache else 0))
    return available


def load_cuda():
    """Load the libraries of NVIDIA's wheels where the GPU build is installed: MXNet then finds them by name."""
    try:
        wheels = importlib.metadata.distribution('mxnet-cu112').locate_file('nvidia')
    except importlib.metadata.PackageNotFoundError:
        return
    for library in CUDA_LIBRARIES:
        if (wheels / library).exists():  # those of a system-wide CUDA 11 are found without our help
            ctypes.CDLL(str(wheels / library), ctypes.RTLD_GLOBAL)


def explained(error):
    """The UserError for a Python module or shared library that an import lacked; None for any other error."""
    if isinstance(error, ModuleNotFoundError):
        return UserError('Python has no module %s here; bash scripts/setup.sh makes .venv, where .venv/bin/python has '
                         'all that is needed (or: pip install -r requirements-cpu.txt)' % error.name)
    name = str(error).split(':')[0]
    if name in SYSTEM_LIBRARIES:
        return UserError('the system lacks %s (Debian package %s); all that is needed: apt-get install -y %s'
                         % (name, SYSTEM_LIBRARIES[name], ' '.join(SYSTEM_LIBRARIES.values())))
    if name == 'libcuda.so.1' or any(library.endswith('/' + name) for library in CUDA_LIBRARIES):
        return UserError('the installed MXNet is the GPU build and lacks %s (%s); scripts/setup.sh --cpu installs the '
                         'CPU build' % (name, 'part of the NVIDIA driver' if name == 'libcuda.so.1' else
                                        'it comes with pip install -r requirements.txt'))
    return None


os.environ.setdefault('OMP_NUM_THREADS', str(usable_cpus()))
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
    import cv2
    import mxnet as mx
    import gluoncv
except (ImportError, OSError) as error:
    if explained(error) is None:
        raise
    fail(explained(error))
finally:
    del sys.modules['torch']
    if torch is not None:
        sys.modules['torch'] = torch

if not hasattr(cv2, 'imread'):
    fail(UserError('the cv2 module is in pieces, as where opencv-python and opencv-python-headless were installed '
                   'over each other or pip was stopped: pip uninstall both, then pip install opencv-python==4.11.0.86'))
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

    `found` is what `gpus_found()` said, `driver` what `driver_version()` said; `gpu_build` whether the installed MXNet is
    one that can use a GPU.
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


def memory(array):
    """The memory of an NDArray on the CPU as a NumPy array, to be filled before the NDArray is used.

    MXNet's own way in copies element by element, which for bytes takes three times as long.
    """
    pointer = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    kind = np.ctypeslib.as_ctypes_type(array.dtype)
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(kind)), array.shape)


def devices(gpus):
    """The contexts that `--gpus` names: '0,1' two GPUs, '' the CPU, None the first GPU or, without one, the CPU.

    Raises UserError for a GPU that cannot be used.
    """
    if gpus is None:
        try:
            return devices('0')
        except UserError:
            return [mx.cpu()]
    if not gpus.strip():
        return [mx.cpu()]
    numbers = gpu_numbers(gpus, gpus_found(), mx.runtime.Features().is_enabled('CUDA'), driver_version())
    return [mx.gpu(number) for number in numbers] or [mx.cpu()]
