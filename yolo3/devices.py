"""MXNet's devices that `--gpus` names, checked before the first operation on them could fail."""
import contextlib

from yolo3.mxnet_setup import mx
from mxnet.contrib import amp
from mxnet.contrib.amp.lists.symbol_bf16 import FP32_FUNCS

from yolo3.cli import RunError, UserError
from yolo3.gpus import driver_version, gpus_found, numbers
from yolo3.system import has_bfloat16

OLDEST_DRIVER = 11000  # any for CUDA 11 runs what was made for 11.2


def gpu_numbers(gpus, found, gpu_build, driver):
    """The numbers in `--gpus`, all of them usable by MXNet, or UserError.

    `found` is what `gpus_found()` said, `driver` what `driver_version()` said; `gpu_build` whether the installed MXNet
    is one that can use a GPU.
    """
    named = numbers(gpus, len(found))
    for number in named:
        problem = None
        if not gpu_build:
            problem = "this MXNet is the CPU build (scripts/setup.sh --gpu for the other); --gpus '' uses the CPU"
        elif driver < OLDEST_DRIVER:
            problem = ("NVIDIA's driver knows CUDA %d.%d, and MXNet needs 11: update it to 450.80.02 or newer; "
                       "--gpus '' uses the CPU" % (driver // 1000, driver % 1000 // 10))
        elif not 5 <= found[number][0] <= 8:
            # It has them for sm_50, 60, 70, 80 and 86, and no PTX to make others from.
            problem = ("GPU %d has compute capability %d.%d, and MXNet 1.9.1 has kernels for 5.0 to 8.9 only "
                       "(Maxwell to Ampere, Ada); --gpus '' uses the CPU" % ((number,) + found[number]))
        if problem:
            raise UserError('--gpus %s: %s' % (gpus, problem))
    return named


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
    named = gpu_numbers(gpus, gpus_found(), mx.runtime.Features().is_enabled('CUDA'), driver_version())
    if local_rank is not None and local_rank >= len(named):
        raise UserError('--gpus %s lists %d GPUs, but this host runs %d processes or more: list one for each'
                        % (gpus, len(named), local_rank + 1))
    return [mx.gpu(number) for number in (named if local_rank is None else [named[local_rank]])] or [mx.cpu()]


def devices_to_train_on(args, group):
    """The contexts that this process trains on by the flags `args`. Raises UserError if they do not suit the flags.

    A part of a batch needs an image for each device of all processes of `group`; --amp needs fast half precision.
    """
    found = contexts(args.gpus, group.backend.local_rank)
    if args.amp and found[0].device_type == 'cpu' and not has_bfloat16():
        raise UserError('--amp needs GPUs, or a processor with bfloat16 (AVX512_BF16): leave it out, or give --gpus')
    count = int(group.sum([len(found)])[0])
    if args.batch_size // args.accumulate < count:
        parts = ' in %d parts (--accumulate)' % args.accumulate if args.accumulate > 1 else ''
        raise UserError('--batch-size %d%s is smaller than the %d devices' % (args.batch_size, parts, count))
    return found


def mix_precision(device):
    """Have networks that are built from now on compute in half precision: float16 on a GPU, bfloat16 on the CPU."""
    if device.device_type == 'gpu':
        amp.init()
    else:  # by its own list, MXNet refuses concat's inputs of two types, and a symbol without inputs
        amp.init('bfloat16', fp32_ops=[*(set(FP32_FUNCS) - {'_arange'}), 'Concat', 'concat'])


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
