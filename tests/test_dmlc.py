"""Each DMLC_* variable is checked before MXNet, which would wait forever, reads it."""
import subprocess
import sys
import time

import pytest

from conftest import ROOT

from yolo3.cli import UserError
from yolo3.distributed import backends
from yolo3.dmlc import check_environment

RIGHT = {'DMLC_ROLE': 'worker', 'DMLC_PS_ROOT_URI': '127.0.0.1', 'DMLC_PS_ROOT_PORT': '9091', 'DMLC_NUM_WORKER': '2',
         'DMLC_NUM_SERVER': '1'}
WRONG = [('DMLC_ROLE', 'boss'), ('DMLC_PS_ROOT_URI', 'host1'), ('DMLC_PS_ROOT_PORT', 'abc'),
         ('DMLC_PS_ROOT_PORT', '65536'), ('DMLC_PS_ROOT_PORT', '0'), ('DMLC_NUM_WORKER', 'x'),
         ('DMLC_NUM_WORKER', '0'), ('DMLC_NUM_SERVER', '1.5'), ('DMLC_PS_ROOT_PORT', '９０９１'),
         ('DMLC_NUM_WORKER', '1' + '0' * 21), ('DMLC_NUM_SERVER', '1_0'), ('DMLC_NODE_HOST', 'host1'),
         ('DMLC_NODE_HOST', ''), ('DMLC_INTERFACE', 'eth99')]


@pytest.fixture
def variables(monkeypatch):
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)
    check_environment()
    return monkeypatch


@pytest.mark.parametrize('name, value', WRONG)
def test_a_wrong_variable_is_named(name, value, variables):
    variables.setenv(name, value)
    with pytest.raises(UserError, match="^--kv-store dist_sync: %s must be .*, but is '%s'" % (name, value)):
        backends.join(False, 'dist_sync')


@pytest.mark.parametrize('name', RIGHT)
def test_a_missing_variable_is_named(name, variables):
    variables.delenv(name)
    with pytest.raises(UserError, match='^--kv-store dist_sync: %s must be .*, but is not set' % name):
        backends.join(False, 'dist_sync')


@pytest.mark.parametrize('role, name, value', [('server', 'DMLC_NUM_WORKER', 'x'), ('boss', 'DMLC_ROLE', 'boss')])
def test_a_process_that_is_no_worker_ends_with_one_line(role, name, value, variables):
    variables.setenv('DMLC_ROLE', role)
    variables.setenv(name, value)
    start = time.time()
    done = subprocess.run([sys.executable, 'train_yolo3_mobilenet.py'], cwd=ROOT, timeout=60, stderr=subprocess.PIPE,
                          text=True)
    assert done.returncode == 2 and time.time() - start < 20
    assert done.stderr.startswith('train_yolo3_mobilenet.py: error: %s must be ' % name)
    assert done.stderr.count('\n') == 1
