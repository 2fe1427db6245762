"""What NVIDIA's driver says of the GPUs, and the numbers in `--gpus`."""
import ctypes

import pytest

from yolo3 import gpus
from yolo3.cli import UserError


@pytest.mark.parametrize('text, count, words', [
    ('a', 1, ['0,1']), ('0', 0, ['no NVIDIA GPU', "--gpus ''"]), ('0,2', 2, ['no GPU 2', '--gpus 0,1']),
    ('-1', 1, ['no GPU -1']), ('0,0', 1, ['GPU 0', 'twice'])])
def test_numbers_that_name_no_gpu(text, count, words):
    with pytest.raises(UserError) as error:
        gpus.numbers(text, count)
    for word in ['--gpus %s:' % text] + words:
        assert word in str(error.value)


class Driver:
    """Stands in for libcuda.so.1: a Volta and a Hopper GPU."""
    ATTRIBUTES = {75: [7, 9], 76: [0, 0]}

    def __init__(self, status=0):
        self.status = status

    def cuInit(self, flags):
        return self.status

    def cuDeviceGetCount(self, count):
        count._obj.value = 2

    def cuDriverGetVersion(self, version):
        version._obj.value = 11080

    def cuDeviceGet(self, device, number):
        device._obj.value = number

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.ATTRIBUTES[attribute][device.value]


def test_gpus_are_asked_of_the_driver(monkeypatch):
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: Driver())
    assert gpus.gpus_found() == [(7, 0), (9, 0)] and gpus.driver_version() == 11080


def test_no_gpus_without_a_driver_that_starts(monkeypatch):
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: Driver(status=100))
    assert gpus.gpus_found() == []

    def absent(name):
        raise OSError(name)
    monkeypatch.setattr(ctypes, 'CDLL', absent)
    assert gpus.gpus_found() == [] and gpus.driver_version() == 0
