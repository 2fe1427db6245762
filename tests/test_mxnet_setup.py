"""What is set right before MXNet is imported, and which devices `--gpus` gives."""
import ctypes
import importlib.metadata
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from yolo3 import mxnet_setup, system


STAND_INS = {'cv2': 'imread = setNumThreads = abs', 'numpy': '__version__ = "1.23.5"'}


@pytest.fixture
def imported(tmp_path):
    """imported(code, mxnet='...') runs `code` where cv2, mxnet, gluoncv and numpy are stand-ins with that source."""
    def run(code, env=None, **modules):
        for name in ('cv2', 'mxnet', 'gluoncv', 'numpy'):
            (tmp_path / (name + '.py')).write_text(modules.get(name, STAND_INS.get(name, '')))
        with open(str(tmp_path / 'mxnet.py'), 'a') as file:
            file.write('\nfrom unittest import mock\nbase = mock.MagicMock()\n')
        if 'torch' in modules:
            (tmp_path / 'torch.py').write_text(modules['torch'])
        environment = {name: value for name, value in os.environ.items() if name != 'OMP_NUM_THREADS'}
        environment.update(env or {}, PYTHONPATH=os.pathsep.join([str(tmp_path), ROOT]))
        return subprocess.run([sys.executable, '-c', code], env=environment, timeout=60,
                              capture_output=True, text=True)
    return run


SHOW_THREADS = 'import os; print(os.environ["OMP_NUM_THREADS"])'


def test_threads_are_set_before_mxnet_is_imported(imported):
    done = imported('import yolo3.mxnet_setup', mxnet=SHOW_THREADS)
    assert done.stdout == '%d\n' % system.usable_cpus()


def test_processes_of_a_host_share_its_processors(imported):
    done = imported('import yolo3.mxnet_setup', env={'HOROVOD_LOCAL_SIZE': '2'}, mxnet=SHOW_THREADS)
    assert done.stdout == '%d\n' % max(1, system.usable_cpus() // 2)


def test_threads_that_the_user_set_stay(imported):
    done = imported('import yolo3.mxnet_setup', env={'OMP_NUM_THREADS': '7'}, mxnet=SHOW_THREADS)
    assert done.stdout == '7\n'


def test_of_a_list_of_threads_the_first_counts_as_mxnet_takes_no_list(imported):
    assert imported('import yolo3.mxnet_setup', env={'OMP_NUM_THREADS': '3,2'}, mxnet=SHOW_THREADS).stdout == '3\n'


@pytest.mark.parametrize('name, value', [
    ('OMP_NUM_THREADS', 'x'), ('OMP_NUM_THREADS', '0'), ('OMP_NUM_THREADS', '1' + '0' * 21), ('OMP_NUM_THREADS', ',2'),
    ('HOROVOD_LOCAL_SIZE', 'x'), ('HOROVOD_LOCAL_SIZE', '0'), ('MXNET_CPU_WORKER_NTHREADS', '1.5')])
def test_a_wrong_number_in_the_environment_is_one_line(imported, name, value):
    done = imported('import yolo3.mxnet_setup', env={name: value})
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'variable %s: ' % name in done.stderr and 'is not a whole number' in done.stderr


def test_numpy_2_is_one_line(imported):
    done = imported('import yolo3.mxnet_setup', numpy='__version__ = "2.1.0"', mxnet='raise SystemError')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'NumPy 2.1.0' in done.stderr and 'pip install "numpy<2"' in done.stderr


def test_what_mxnet_says_at_its_start_is_one_line(imported):
    error = 'class MXNetError(Exception): pass\nraise MXNetError("Traceback:\\n  x.cc\\nMXNetError: no engine")'
    done = imported('import yolo3.mxnet_setup', mxnet=error)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'MXNetError: no engine' in done.stderr


def test_numpy_names_are_there_before_mxnet_is_imported(imported):
    done = imported('import yolo3.mxnet_setup', mxnet='import numpy as np; print(np.bool, np.float, np.int, np.object)')
    assert done.stdout == "<class 'bool'> <class 'float'> <class 'int'> <class 'object'>\n"


def test_numpy_names_that_are_there_stay(imported):
    done = imported('import yolo3.mxnet_setup', numpy='__version__ = "1.26.4"; bool = "kept"',
                    mxnet='import numpy as np; print(np.bool)')
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
    done = imported(first + 'import yolo3.mxnet_setup, torch; print(torch.name)', gluoncv=NO_TORCH_2,
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
    done = imported('import yolo3.mxnet_setup', **modules)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    for word in words:
        assert word in done.stderr


def test_without_mxnet_too(imported):
    done = imported('import yolo3.deploy.runtimes', cv2='raise ImportError("libGL.so.1%s")' % NOT_FOUND)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'libgl1' in done.stderr


def test_any_other_error_keeps_its_traceback(imported):
    done = imported('import yolo3.mxnet_setup', mxnet='raise OSError("libmxnet.so: file too short")')
    assert done.returncode == 1
    assert 'Traceback' in done.stderr and 'file too short' in done.stderr


def test_cuda_wheels_are_loaded_in_order(tmp_path, monkeypatch):
    (tmp_path / 'mxnet_cu112-1.9.1.dist-info').mkdir()
    (tmp_path / 'mxnet_cu112-1.9.1.dist-info' / 'METADATA').write_text('Name: mxnet-cu112\nVersion: 1.9.1\n')
    there = [library for library in system.CUDA_LIBRARIES if 'nccl' not in library]
    for library in there:
        path = tmp_path / 'nvidia' / library
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    loaded = []
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ctypes, 'CDLL', lambda path, mode: loaded.append((path, mode)))
    mxnet_setup.load_cuda()
    assert loaded == [(str(tmp_path / 'nvidia' / library), ctypes.RTLD_GLOBAL) for library in there]
    names = [os.path.basename(library) for library in there]
    assert names.index('libcublasLt.so.11') < names.index('libcublas.so.11') < names.index('libcusolver.so.11')


def test_the_cpu_build_loads_no_cuda(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(importlib.metadata, 'distribution', absent)
    monkeypatch.setattr(ctypes, 'CDLL', lambda *args: pytest.fail('loaded %s' % (args,)))
    mxnet_setup.load_cuda()


def test_copies_take_no_threads_unless_the_user_says_so(imported):
    code = 'import os, yolo3.mxnet_setup; print(os.environ["MXNET_CPU_PARALLEL_SIZE"])'
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
    assert imported('import yolo3.mxnet_setup; ' + code).stdout == '0\n'
    assert imported('import yolo3.mxnet_setup; ' + code, env={'MALLOC_ARENA_TEST': '8'}).stdout == '1\n'


# More threads than processors would have all of them sleep between two loops.
@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='it counts threads as Linux lists them')
def test_a_checkpoint_does_not_give_the_main_thread_threads_of_its_own():
    code = '''if True:
        import os
        from yolo3.mxnet_setup import mx
        net = mx.gluon.nn.Conv2D(256, 3, in_channels=256)
        net.initialize()
        net.hybridize()
        for _ in range(3):
            with mx.autograd.record():
                loss = net(mx.nd.ones((4, 256, 20, 20))).sum()
            loss.backward()
            mx.nd.waitall()
        before = len(os.listdir('/proc/self/task'))
        with mx.autograd.pause():  # oneDNN keeps the weights in a layout of its own
            net(mx.nd.ones((4, 256, 20, 20))).wait_to_read()
        net.weight.data().asnumpy()
        print(before, len(os.listdir('/proc/self/task')))'''
    done = subprocess.run([sys.executable, '-c', code], env=dict(os.environ, OMP_NUM_THREADS='2', PYTHONPATH=ROOT),
                          capture_output=True, text=True, timeout=120, check=True)
    before, after = done.stdout.split()
    assert before == after
