"""What is set right before MXNet is imported, and which devices `--gpus` gives."""
import ctypes
import importlib.metadata
import os
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT
from yolo3 import libraries, runtime
from yolo3.cli import UserError
from yolo3.runtime import mx


@pytest.fixture
def imported(tmp_path):
    """imported(code, mxnet='...') runs `code` where cv2, mxnet, gluoncv and numpy are stand-ins with that source."""
    def run(code, env=None, **modules):
        for name in ('cv2', 'mxnet', 'gluoncv', 'numpy'):
            source = modules.get(name, 'imread = setNumThreads = abs' if name == 'cv2' else '')
            (tmp_path / (name + '.py')).write_text(source)
        if 'torch' in modules:
            (tmp_path / 'torch.py').write_text(modules['torch'])
        environment = {name: value for name, value in os.environ.items() if name != 'OMP_NUM_THREADS'}
        environment.update(env or {}, PYTHONPATH=os.pathsep.join([str(tmp_path), ROOT]))
        return subprocess.run([sys.executable, '-c', code], env=environment, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    return run


SHOW_THREADS = 'import os; print(os.environ["OMP_NUM_THREADS"])'


def test_threads_are_set_before_mxnet_is_imported(imported):
    done = imported('import yolo3.runtime', mxnet=SHOW_THREADS)
    assert done.stdout == '%d\n' % runtime.usable_cpus()


def test_processes_of_a_host_share_its_processors(imported):
    done = imported('import yolo3.runtime', env={'HOROVOD_LOCAL_SIZE': '2'}, mxnet=SHOW_THREADS)
    assert done.stdout == '%d\n' % max(1, runtime.usable_cpus() // 2)


def test_threads_that_the_user_set_stay(imported):
    done = imported('import yolo3.runtime', env={'OMP_NUM_THREADS': '7'}, mxnet=SHOW_THREADS)
    assert done.stdout == '7\n'


def test_numpy_names_are_there_before_mxnet_is_imported(imported):
    done = imported('import yolo3.runtime', mxnet='import numpy as np; print(np.bool, np.float, np.int, np.object)')
    assert done.stdout == "<class 'bool'> <class 'float'> <class 'int'> <class 'object'>\n"


def test_numpy_names_that_are_there_stay(imported):
    done = imported('import yolo3.runtime', numpy='bool = "kept"', mxnet='import numpy as np; print(np.bool)')
    assert done.stdout == 'kept\n'


# As gluoncv/check.py does.
NO_TORCH_2 = '''
try:
    import torch
    raise RuntimeError('Legacy torch detected')
except ImportError:
    pass
'''


@pytest.mark.parametrize('first', ['', 'import torch; '])
def test_torch_is_hidden_from_gluoncv_and_then_there(imported, first):
    # Loading torch twice would break it, hence the print.
    done = imported(first + 'import yolo3.runtime, torch; print(torch.name)', gluoncv=NO_TORCH_2,
                    torch='name = "torch 2"; print("loaded")')
    assert (done.stdout, done.returncode) == ('loaded\ntorch 2\n', 0), done.stderr


NOT_FOUND = ': cannot open shared object file: No such file or directory'


@pytest.mark.parametrize('modules, words', [
    ({'cv2': 'raise ImportError("libGL.so.1%s")' % NOT_FOUND}, ['libGL.so.1', 'apt-get install', 'libgl1']),
    ({'cv2': 'raise ImportError("libgthread-2.0.so.0%s")' % NOT_FOUND}, ['libgthread-2.0.so.0', 'libglib2.0-0']),
    ({'mxnet': 'raise OSError("libgomp.so.1%s")' % NOT_FOUND}, ['libgomp.so.1', 'libgomp1']),
    ({'mxnet': 'raise OSError("libquadmath.so.0%s")' % NOT_FOUND}, ['libquadmath.so.0', 'libquadmath0']),
    ({'mxnet': 'raise OSError("libcuda.so.1%s")' % NOT_FOUND}, ['libcuda.so.1', 'NVIDIA driver', 'setup.sh --cpu']),
    ({'mxnet': 'raise OSError("libcudnn.so.8%s")' % NOT_FOUND}, ['libcudnn.so.8', 'requirements.txt']),
    ({'mxnet': 'import distutils_of_old'}, ['distutils_of_old', 'scripts/setup.sh']),
    ({'cv2': ''}, ['cv2', 'opencv-python-headless', 'uninstall']),
])
def test_what_is_missing_is_one_line(imported, modules, words):
    done = imported('import yolo3.runtime', **modules)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    for word in words:
        assert word in done.stderr


def test_without_mxnet_too(imported):
    done = imported('import yolo3.deploy', cv2='raise ImportError("libGL.so.1%s")' % NOT_FOUND)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'libgl1' in done.stderr


def test_any_other_error_keeps_its_traceback(imported):
    done = imported('import yolo3.runtime', mxnet='raise OSError("libmxnet.so: file too short")')
    assert done.returncode == 1
    assert 'Traceback' in done.stderr and 'file too short' in done.stderr


def test_cuda_wheels_are_loaded_in_order(tmp_path, monkeypatch):
    (tmp_path / 'mxnet_cu112-1.9.1.dist-info').mkdir()
    (tmp_path / 'mxnet_cu112-1.9.1.dist-info' / 'METADATA').write_text('Name: mxnet-cu112\nVersion: 1.9.1\n')
    there = [library for library in libraries.CUDA_LIBRARIES if 'nccl' not in library]
    for library in there:
        path = tmp_path / 'nvidia' / library
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    loaded = []
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ctypes, 'CDLL', lambda path, mode: loaded.append((path, mode)))
    runtime.load_cuda()
    assert loaded == [(str(tmp_path / 'nvidia' / library), ctypes.RTLD_GLOBAL) for library in there]
    names = [os.path.basename(library) for library in there]
    assert names.index('libcublasLt.so.11') < names.index('libcublas.so.11') < names.index('libcusolver.so.11')


def test_the_cpu_build_loads_no_cuda(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(importlib.metadata, 'distribution', absent)
    monkeypatch.setattr(ctypes, 'CDLL', lambda *args: pytest.fail('loaded %s' % (args,)))
    runtime.load_cuda()


@pytest.mark.parametrize('gpus, numbers', [('', []), ('0', [0]), ('1, 0', [1, 0]), ('0,1,', [0, 1])])
def test_gpus_that_can_be_used(gpus, numbers):
    assert runtime.gpu_numbers(gpus, [(5, 0), (8, 9)], True, 11000) == numbers


@pytest.mark.parametrize('gpus, found, gpu_build, words', [
    ('a', [(7, 0)], True, ['0,1']),
    ('0', [], True, ['no NVIDIA GPU', "--gpus ''"]),
    ('0', [], False, ['no NVIDIA GPU', "--gpus ''"]),
    ('0', [(7, 0)], False, ['CPU build', 'setup.sh --gpu', "--gpus ''"]),
    ('0,2', [(7, 0), (7, 0)], True, ['no GPU 2', '--gpus 0,1']),
    ('-1', [(7, 0)], True, ['no GPU -1']),
    ('0,0', [(7, 0)], True, ['GPU 0', 'twice']),
    ('0,1', [(8, 0), (9, 0)], True, ['GPU 1', '9.0', "--gpus ''"]),
    ('0', [(12, 0)], True, ['12.0']),
    ('0', [(3, 7)], True, ['3.7']),
])
def test_gpus_that_cannot_be_used(gpus, found, gpu_build, words):
    with pytest.raises(UserError) as error:
        runtime.gpu_numbers(gpus, found, gpu_build, 12040)
    for word in ['--gpus %s:' % gpus] + words:
        assert word in str(error.value)


def test_an_old_driver_is_named():
    with pytest.raises(UserError, match=r'--gpus 0: .* CUDA 10\.2, .* 450\.80\.02 .*--gpus'):
        runtime.gpu_numbers('0', [(7, 0)], True, 10020)


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
    assert runtime.gpus_found() == [(7, 0), (9, 0)] and runtime.driver_version() == 11080


def test_no_gpus_without_a_driver_that_starts(monkeypatch):
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: Driver(status=100))
    assert runtime.gpus_found() == []

    def absent(name):
        raise OSError(name)
    monkeypatch.setattr(ctypes, 'CDLL', absent)
    assert runtime.gpus_found() == [] and runtime.driver_version() == 0


@pytest.fixture
def two_gpus(monkeypatch):
    class Features:
        def is_enabled(self, name):
            return name == 'CUDA'
    monkeypatch.setattr(mx.runtime, 'Features', Features)
    monkeypatch.setattr(runtime, 'gpus_found', lambda: [(7, 0), (8, 6)])
    monkeypatch.setattr(runtime, 'driver_version', lambda: 11040)


def test_devices_with_gpus(two_gpus):
    assert runtime.devices('1,0') == [mx.gpu(1), mx.gpu(0)]
    assert runtime.devices(None) == [mx.gpu(0)]
    assert runtime.devices('') == runtime.devices(' ') == [mx.cpu()]


def test_each_process_of_a_host_has_the_gpu_of_its_turn(two_gpus):
    assert [runtime.devices('1,0', turn) for turn in (0, 1)] == [[mx.gpu(1)], [mx.gpu(0)]]
    assert runtime.devices('', 5) == [mx.cpu()]
    with pytest.raises(UserError, match='--gpus 1,0: names none for process 3'):
        runtime.devices('1,0', 2)


def test_devices_without_gpus(monkeypatch):
    monkeypatch.setattr(runtime, 'gpus_found', lambda: [])
    assert runtime.devices('') == runtime.devices(None) == [mx.cpu()]
    with pytest.raises(UserError):
        runtime.devices('0')


def test_copies_take_no_threads_unless_the_user_says_so(imported):
    code = 'import os, yolo3.runtime; print(os.environ["MXNET_CPU_PARALLEL_SIZE"])'
    assert imported(code).stdout == '2147483647\n'
    assert imported('import os; os.environ["MXNET_CPU_PARALLEL_SIZE"] = "7"; ' + code).stdout == '7\n'


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'mallinfo'), reason='the C library is not glibc')
def test_large_arrays_come_from_the_heap_not_the_system(imported):
    code = '''import ctypes
class MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in 'arena ordblks smblks hblks a b c d e f'.split()]
mallinfo = ctypes.CDLL(None).mallinfo
mallinfo.restype = MallInfo
before = mallinfo().hblks  # blocks that the system gave one by one
block = bytes(2 ** 27)
print(mallinfo().hblks - before)'''
    assert imported(code).stdout == '1\n'
    assert imported('import yolo3.runtime; ' + code).stdout == '0\n'
    assert imported('import yolo3.runtime; ' + code, env={'MALLOC_ARENA_TEST': '8'}).stdout == '1\n'


@pytest.mark.parametrize('message, told', [
    ('cudaMalloc retry failed: out of memory', True), ('CUDNN_STATUS_ALLOC_FAILED', True), ('std::bad_alloc', True),
    ('Check failed: e == cudaSuccess: CUDA: out of memory', True), ('Shape inconsistent', False)])
def test_out_of_memory_is_recognised(message, told):
    assert runtime.out_of_memory(mx.base.MXNetError(message)) is told
