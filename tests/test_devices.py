"""The devices that `--gpus` gives, and what is said of those that MXNet cannot use."""
import pytest

from yolo3 import devices
from yolo3.mxnet_setup import mx
from yolo3.cli import UserError


@pytest.mark.parametrize('gpus, numbers', [('', []), ('0', [0]), ('1, 0', [1, 0]), ('0,1,', [0, 1])])
def test_gpus_that_can_be_used(gpus, numbers):
    assert devices.gpu_numbers(gpus, [(5, 0), (8, 9)], True, 11000) == numbers


@pytest.mark.parametrize('gpus, found, gpu_build, words', [
    ('0', [], False, ['no NVIDIA GPU', "--gpus ''"]),
    ('0', [(7, 0)], False, ['CPU build', 'setup.sh --gpu', "--gpus ''"]),
    ('0,1', [(8, 0), (9, 0)], True, ['GPU 1', '9.0', "--gpus ''"]),
    ('0', [(12, 0)], True, ['12.0']),
    ('0', [(3, 7)], True, ['3.7']),
])
def test_gpus_that_cannot_be_used(gpus, found, gpu_build, words):
    with pytest.raises(UserError) as error:
        devices.gpu_numbers(gpus, found, gpu_build, 12040)
    for word in ['--gpus %s:' % gpus] + words:
        assert word in str(error.value)


def test_an_old_driver_is_named():
    with pytest.raises(UserError, match=r'--gpus 0: .* CUDA 10\.2, .* 450\.80\.02 .*--gpus'):
        devices.gpu_numbers('0', [(7, 0)], True, 10020)


@pytest.fixture
def two_gpus(monkeypatch):
    class Features:
        def is_enabled(self, name):
            return name == 'CUDA'
    monkeypatch.setattr(mx.runtime, 'Features', Features)
    monkeypatch.setattr(devices, 'gpus_found', lambda: [(7, 0), (8, 6)])
    monkeypatch.setattr(devices, 'driver_version', lambda: 11040)


def test_devices_with_gpus(two_gpus):
    assert devices.contexts('1,0') == [mx.gpu(1), mx.gpu(0)]
    assert devices.contexts(None) == [mx.gpu(0)]
    assert devices.contexts('') == devices.contexts(' ') == [mx.cpu()]


def test_each_process_of_a_host_has_the_gpu_of_its_turn(two_gpus):
    assert [devices.contexts('1,0', turn) for turn in (0, 1)] == [[mx.gpu(1)], [mx.gpu(0)]]
    assert devices.contexts('', 5) == [mx.cpu()]
    with pytest.raises(UserError, match='--gpus 1,0 lists 2 GPUs, but this host runs 3 processes'):
        devices.contexts('1,0', 2)


def test_devices_without_gpus(monkeypatch):
    monkeypatch.setattr(devices, 'gpus_found', lambda: [])
    assert devices.contexts('') == devices.contexts(None) == [mx.cpu()]
    with pytest.raises(UserError):
        devices.contexts('0')


@pytest.mark.parametrize('message, told', [
    ('cudaMalloc retry failed: out of memory', True), ('CUDNN_STATUS_ALLOC_FAILED', True), ('std::bad_alloc', True),
    ('Check failed: e == cudaSuccess: CUDA: out of memory', True), ('Shape inconsistent', False)])
def test_out_of_memory_is_recognised(message, told):
    assert devices.out_of_memory(mx.base.MXNetError(message)) is told
