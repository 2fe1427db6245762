"""Where an .onnx file runs, by --gpus and what is installed: no GPU is needed to decide it."""
import pytest

from yolo3.cli import UserError
from yolo3.deploy import accelerators

CPU, CUDA, TENSORRT = 'CPUExecutionProvider', 'CUDAExecutionProvider', 'TensorrtExecutionProvider'
CPU_BUILD, GPU_BUILD = ['AzureExecutionProvider', CPU], [TENSORRT, CUDA, CPU]


@pytest.mark.parametrize('gpus, available, count, names', [
    ('', GPU_BUILD, 2, [CPU]), (' ', GPU_BUILD, 2, [CPU]), ('', CPU_BUILD, 0, [CPU]),
    (None, GPU_BUILD, 1, [TENSORRT, CUDA, CPU]), (None, GPU_BUILD, 0, [CPU]), (None, CPU_BUILD, 1, [CPU]),
    ('0', GPU_BUILD, 1, [TENSORRT, CUDA, CPU]), ('0', [CPU, CUDA, TENSORRT], 1, [TENSORRT, CUDA, CPU]),
    ('0', [CUDA, CPU], 1, [CUDA, CPU]), ('1', GPU_BUILD, 2, [TENSORRT, CUDA, CPU])])
def test_providers(gpus, available, count, names):
    on_gpu = {'device_id': 1 if gpus == '1' else 0}
    assert accelerators.providers(gpus, available, count) == [(name, {} if name == CPU else on_gpu) for name in names]


@pytest.mark.parametrize('gpus, available, count, words', [
    ('0', GPU_BUILD, 0, 'no NVIDIA GPU'), ('0', CPU_BUILD, 1, 'onnxruntime-gpu'), ('2', GPU_BUILD, 2, '--gpus 0,1'),
    ('0,1', GPU_BUILD, 2, 'a single GPU'), ('x', GPU_BUILD, 2, 'give numbers')])
def test_providers_that_cannot_be_had(gpus, available, count, words):
    with pytest.raises(UserError, match='^--gpus %s: .*%s' % (gpus, words)):
        accelerators.providers(gpus, available, count)


@pytest.mark.parametrize('gpus, available, device', [
    ('', ['CPU', 'GPU'], 'CPU'), (None, ['CPU'], 'CPU'), (None, ['CPU', 'NPU'], 'CPU'), (None, ['CPU', 'GPU'], 'AUTO'),
    ('0', ['CPU', 'GPU'], 'GPU'), ('0', ['CPU', 'GPU.0', 'GPU.1'], 'GPU.0'), ('1', ['CPU', 'GPU.0', 'GPU.1'], 'GPU.1')])
def test_openvino_device(gpus, available, device):
    assert accelerators.openvino_device(gpus, available) == device


@pytest.mark.parametrize('gpus, available, words', [
    ('0', ['CPU', 'NPU'], 'no GPU that OpenVINO can use'), ('1', ['CPU', 'GPU'], '--gpus 0'),
    ('0,1', ['CPU', 'GPU.0', 'GPU.1'], 'a single GPU')])
def test_openvino_devices_that_cannot_be_had(gpus, available, words):
    with pytest.raises(UserError, match='^--gpus %s: .*%s' % (gpus, words)):
        accelerators.openvino_device(gpus, available)
