"""The machine: the processors and memory that this process may use, and the libraries that are missing."""
import math
import os
import pathlib
import re

from yolo3.cli import MOST_PROCESSES, UserError, fail, variable, whole

# What libmxnet and opencv-python take from the system, and the Debian / Ubuntu package that has it.
SYSTEM_LIBRARIES = {'libgomp.so.1': 'libgomp1', 'libquadmath.so.0': 'libquadmath0',
                    'libGL.so.1': 'libgl1', 'libgthread-2.0.so.0': 'libglib2.0-0'}

# What the GPU build of MXNet takes from NVIDIA's wheels, each after those it needs itself.
CUDA_LIBRARIES = ('cuda_runtime/lib/libcudart.so.11.0', 'cuda_nvrtc/lib/libnvrtc.so.11.2',
                  'nvtx/lib/libnvToolsExt.so.1', 'cublas/lib/libcublasLt.so.11', 'cublas/lib/libcublas.so.11',
                  'cufft/lib/libcufft.so.10', 'curand/lib/libcurand.so.10', 'cusparse/lib/libcusparse.so.11',
                  'cusolver/lib/libcusolver.so.11', 'nccl/lib/libnccl.so.2', 'cudnn/lib/libcudnn.so.8')


def read(*path):
    """The text of a file; '' if it cannot be read."""
    try:
        return pathlib.Path(*path).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return ''


def groups(controller, root, membership):
    """Yield the folders below `root` of this process's control groups (version 1 or 2) for 'cpu' or 'memory'.

    Any group on the way up may hold the limit; inside a container often only the topmost is visible.
    """
    for line in read(membership).splitlines():
        _, controllers, group = line.split(':', 2)
        if controllers and controller not in controllers.split(','):
            continue
        folder = pathlib.PurePath(root, controller if controllers else '', group.strip('/'))
        yield from (folder, *folder.parents)


def cgroup_quota(root='/sys/fs/cgroup', membership='/proc/self/cgroup'):
    """The CPUs that this process's control groups grant it; infinity if none sets a limit."""
    quota = math.inf
    for level in groups('cpu', root, membership):
        limit = (read(level, 'cpu.max') or
                 read(level, 'cpu.cfs_quota_us') + read(level, 'cpu.cfs_period_us')).split()
        if len(limit) == 2 and limit[0] not in ('max', '-1'):
            quota = min(quota, int(limit[0]) / int(limit[1]))
    return quota


def usable_cpus():
    """The logical processors this process may use."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, math.ceil(min(affinity, cgroup_quota())))


def has_bfloat16(cpuinfo='/proc/cpuinfo'):
    """Whether the processor multiplies bfloat16 numbers faster than float32."""
    return bool(re.search(r'^flags\b.*\bavx512_bf16\b', read(cpuinfo), re.M))


def threads():
    """How many threads a network takes: as many as OMP_NUM_THREADS says, else this process's share of the processors.

    Raises UserError.
    """
    def number(text):
        return whole(text.partition(',')[0], 1, MOST_PROCESSES)  # OpenMP also takes a number for each level: 4,2
    sharing = variable('HOROVOD_LOCAL_SIZE', number, 1)  # processes of this host
    return variable('OMP_NUM_THREADS', number) or max(1, usable_cpus() // sharing)


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


def explained(error):
    """The UserError for a Python module or shared library that an import lacked; None for any other error."""
    if isinstance(error, ModuleNotFoundError):
        return UserError('Python has no module %s here; bash scripts/setup.sh makes .venv, whose .venv/bin/python has '
                         'everything (or: pip install -r requirements/cpu.txt; for .onnx files '
                         'requirements/deploy.txt)' % error.name)
    if type(error).__name__ == 'MXNetError':  # its module may not be there
        return UserError('MXNet cannot start (%s): is an MXNET_... variable wrong, or ulimit too low?'
                         % str(error).splitlines()[-1])
    name = str(error).split(':')[0]
    if name in SYSTEM_LIBRARIES:
        return UserError('the system lacks %s (Debian package %s); all that is needed: apt-get install -y %s'
                         % (name, SYSTEM_LIBRARIES[name], ' '.join(SYSTEM_LIBRARIES.values())))
    if name == 'libcuda.so.1' or any(library.endswith('/' + name) for library in CUDA_LIBRARIES):
        return UserError('the installed MXNet is the GPU build and lacks %s (%s); scripts/setup.sh --cpu installs the '
                         'CPU build' % (name, 'part of the NVIDIA driver' if name == 'libcuda.so.1' else
                                        'it comes with pip install -r requirements.txt'))
    return None


def give_up(error):
    """Leave with the one line of `explained`; raise an `error` that it does not know."""
    if explained(error) is None:
        raise error
    fail(explained(error))


def check_opencv():
    """Exit with one line if OpenCV cannot be imported whole."""
    try:
        import cv2
    except (ImportError, OSError) as error:
        give_up(error)
    if not hasattr(cv2, 'imread'):
        fail(UserError('the cv2 module is incomplete, as when opencv-python and opencv-python-headless were '
                       'installed over each other or pip was stopped: pip uninstall both, then pip install '
                       'opencv-python==4.11.0.86'))
