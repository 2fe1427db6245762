"""Where an .onnx file runs: --gpus and what is installed -> ONNX Runtime's execution providers, OpenVINO's device.

`gpus` is everywhere as in --gpus: the number of a GPU, '' for the CPU, None for GPU 0 if there is one.
"""
from yolo3 import gpus as nvidia
from yolo3.cli import UserError

CPU = 'CPUExecutionProvider'
ON_GPU = 'TensorrtExecutionProvider', 'CUDAExecutionProvider'  # the faster first


def providers(gpus, available, count):
    """The providers for a session of ONNX Runtime, [(name, options)]: it takes the first that starts.

    available: names of those that this ONNX Runtime was built with. count: of NVIDIA GPUs. Raises UserError.
    """
    names = [name for name in ON_GPU if name in available]
    if gpus is None:
        gpus = '0' if names and count else ''
    number = gpu_number(gpus, count, 'NVIDIA GPU with its driver')
    if number is None:
        return [(CPU, {})]
    if not names:
        raise UserError("--gpus %s: this ONNX Runtime runs on the CPU only: install onnxruntime-gpu in place of "
                        "onnxruntime; --gpus '' uses the CPU" % gpus)
    return [(name, {'device_id': number}) for name in names] + [(CPU, {})]


def openvino_device(gpus, available):
    """The name of the device for OpenVINO, out of those `available` on this machine. Raises UserError."""
    found = [name for name in available if name.split('.')[0] == 'GPU']
    if gpus is None:
        return 'AUTO' if found else 'CPU'
    number = gpu_number(gpus, len(found), 'GPU that OpenVINO can use')
    return 'CPU' if number is None else found[number]


def gpu_number(gpus, count, kind):
    """The only number in `gpus`, None for the CPU; count, kind: see `yolo3.gpus.numbers`. Raises UserError."""
    numbers = nvidia.numbers(gpus, count, kind)
    if len(numbers) > 1:
        raise UserError('--gpus %s: an .onnx file runs on a single GPU' % gpus)
    return numbers[0] if numbers else None
