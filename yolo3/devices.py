"""The devices that `--gpus` names, checked before the first operation on them could fail."""
import contextlib
import ctypes

from yolo3.mxnet_setup import mx

from yolo3.cli import RunError, UserError

OLDEST_DRIVER = 11000  # any for CUDA 11 runs what was made for 11.2


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


def contexts(gpus, local_rank=None):
    """The contexts that `--gpus` names: '0,1' two GPUs, '' the CPU, None the first GPU or, without one, the CPU.

    local_rank: if given, only the GPU at that place, counted from 0. Raises UserError for a GPU that cannot be used.
    """
    if gpus is None:
        try:
            return contexts('0')
        except UserError:
            return [mx.cpu()]
    if not gpus.strip():
        return [mx.cpu()]
    numbers = gpu_numbers(gpus, gpus_found(), mx.runtime.Features().is_enabled('CUDA'), driver_version())
    if local_rank is not None and local_rank >= len(numbers):
        raise UserError('--gpus %s lists %d GPUs, but this host runs %d processes or more: list one for each'
                        % (gpus, len(numbers), local_rank + 1))
    return [mx.gpu(number) for number in (numbers if local_rank is None else [numbers[local_rank]])] or [mx.cpu()]


def devices_to_train_on(args, group):
    """The contexts that this process trains on by the flags `args`. Raises UserError if they do not suit the flags.

    A part of a batch needs an image for each device of all processes of `group`; mixed precision needs GPUs.
    """
    found = contexts(args.gpus, group.backend.local_rank)
    if args.amp and found[0].device_type == 'cpu':
        raise UserError('--amp needs GPUs: leave it out, or give --gpus')
    count = int(group.sum([len(found)])[0])
    if args.batch_size // args.accumulate < count:
        parts = ' in %d parts (--accumulate)' % args.accumulate if args.accumulate > 1 else ''
        raise UserError('--batch-size %d%s is smaller than the %d devices' % (args.batch_size, parts, count))
    return found


@contextlib.contextmanager
def explain_memory(args):
    """Turn MXNet's error for a GPU or a machine with too little memory into a RunError that says what helps.

    args: the flags of the training.
    """
    try:
        yield
    except mx.base.MXNetError as error:
        if not out_of_memory(error):
            raise
        raise RunError('out of memory on %s with --batch-size %d at inputs up to %d pixels: --accumulate %d computes '
                       'the same batch in parts, a smaller --max-shape needs less too; --resume auto goes on from the '
                       'last checkpoint' % (args.gpus and '--gpus ' + args.gpus or 'the CPU', args.batch_size,
                                            max(args.sizes + [args.data_shape]), 2 * args.accumulate))


def out_of_memory(error):
    """Whether an error of MXNet says that a GPU's memory or the main memory is too small."""
    return any(word in str(error) for word in ('out of memory', 'CUDNN_STATUS_ALLOC_FAILED', 'bad_alloc',
                                               'Failed to allocate'))
