"""The NVIDIA GPUs of this machine, as their driver numbers them, and the numbers in `--gpus`. Needs no MXNet."""
import contextlib
import ctypes

from yolo3.cli import UserError


def driver_version():
    """The newest CUDA that NVIDIA's driver knows, as 11020 for 11.2; 0 without a driver."""
    version = ctypes.c_int()
    with contextlib.suppress(OSError):
        ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(version))
    return version.value


def gpus_found():
    """The compute capability (major, minor) of each GPU, in CUDA's numbering; [] without a GPU or its driver."""
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


def numbers(gpus, count, kind='NVIDIA GPU with its driver'):
    """The numbers in `--gpus`, each of one of the `count` GPUs of this `kind` on the machine. Raises UserError."""
    try:
        named = [int(number) for number in gpus.split(',') if number.strip()]
    except ValueError:
        raise UserError("--gpus %s: give numbers with commas between, as in --gpus 0,1, or '' for the CPU" % gpus)
    for number in named:
        problem = None
        if named.count(number) > 1:
            problem = 'GPU %d is named twice' % number
        elif not count:
            problem = "no %s found; --gpus '' uses the CPU" % kind
        elif not 0 <= number < count:
            problem = 'there is no GPU %d; found: --gpus %s' % (number, ','.join(map(str, range(count))))
        if problem:
            raise UserError('--gpus %s: %s' % (gpus, problem))
    return named
