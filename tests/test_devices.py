"""The devices that `--gpus` gives, and what is said of those that MXNet cannot use."""
import argparse
import contextlib
from unittest import mock

import numpy as np
import pytest

from steps import freeze
from yolo3 import devices, network
from yolo3.mxnet_setup import mx
from mxnet.contrib.amp import amp
from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS
from yolo3.data.augment import normalize
from yolo3.data.targets import sparse_targets
from yolo3.distributed import backends
from yolo3.loss import DetectionLoss, set_loss
from yolo3.system import has_bfloat16


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


@pytest.mark.parametrize('able', [True, False])
def test_mixed_precision_on_a_cpu_needs_bfloat16(monkeypatch, able):
    monkeypatch.setattr(devices, 'has_bfloat16', lambda: able)
    args = argparse.Namespace(gpus='', amp=True, batch_size=4, accumulate=1)
    with backends.join(horovod=False, kv_store='device') as group:
        if able:
            assert devices.devices_to_train_on(args, group) == [mx.cpu()]
        else:
            with pytest.raises(UserError, match='--amp'):
                devices.devices_to_train_on(args, group)


@pytest.fixture
def amp_undone():
    """Take back what amp.init does to MXNet's operators."""
    with contextlib.ExitStack() as stack:
        for package in mx.nd, mx.sym:
            for name in 'op', '_internal', 'contrib', 'linalg', 'sparse', 'image', 'random':
                stack.enter_context(mock.patch.dict(vars(getattr(package, name))))
            stack.enter_context(mock.patch.dict(vars(package)))
        stack.enter_context(mock.patch.object(amp, '_amp_initialized', False))
        yield


@pytest.mark.skipif(not has_bfloat16(), reason='the processor has no bfloat16')
def test_gradients_in_bfloat16_are_those_in_float32(amp_undone):
    images = mx.nd.random.uniform(0, 255, (2, 96, 96, 3)).astype('uint8')
    boxes = mx.nd.array([[[10, 10, 40, 40]], [[30, 5, 90, 60]]])
    rows = mx.nd.array([sparse_targets(box, [1], [1], 96, ANCHORS) for box in boxes.asnumpy()])
    gradients, detected = [], []
    for mixed in False, True:
        if mixed:
            devices.mix_precision(mx.cpu())
        mx.random.seed(1)
        net = network.build('mobilenet0_25', ['a', 'b'])
        freeze(net)  # the statistics of few small maps would turn roundings into other gradients
        set_loss(net, DetectionLoss(2))
        net.hybridize()
        with mx.autograd.record():
            total = sum(net(normalize(images), boxes, rows))
        total.backward()
        arrays = [parameter.grad() for parameter in net.collect_params().values() if parameter.grad_req != 'null']
        assert all(array.dtype == np.float32 for array in arrays)
        gradients.append(np.concatenate([array.asnumpy().ravel() for array in arrays]))
        net.hybridize()
        detected.append(net(normalize(images))[1].asnumpy())
    norm = np.linalg.norm(gradients[0])
    assert 0 < np.linalg.norm(gradients[1] - gradients[0]) < 0.02 * norm
    np.testing.assert_allclose(detected[1], detected[0], atol=0.02)
