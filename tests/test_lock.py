"""One training at a time on a --save-prefix, and no lock outlives its process."""
import os
import signal
import subprocess
import sys

import pytest

from conftest import ROOT
from yolo3.cli import UserError
from yolo3.lock import exclusive

HOLD = '''
import os, sys, time
sys.path.insert(0, sys.argv[1])
from yolo3.lock import exclusive
with exclusive(sys.argv[2]):
    if not os.fork():
        time.sleep(60)  # a worker, which lives on
    print('locked', flush=True)
    time.sleep(60)
'''


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock, with a child that outlives it."""
    with subprocess.Popen([sys.executable, '-c', HOLD, ROOT, str(tmp_path / 'run')], stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        assert process.stdout.readline() == 'locked\n'
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_the_second_is_refused_until_the_first_is_gone(tmp_path, other):
    for prefix in 'run', './run':
        with pytest.raises(UserError, match='process %d on ' % other.pid), exclusive(os.path.join(tmp_path, prefix)):
            pass
    with exclusive(str(tmp_path / 'run2')):
        pass
    other.kill()
    other.wait()
    with exclusive(str(tmp_path / 'run')):
        assert os.listdir(tmp_path) == ['run_train.lock']
    assert not os.listdir(tmp_path)


def test_only_the_first_process_of_a_training_takes_it(tmp_path, other):
    with exclusive(str(tmp_path / 'run'), rank=1):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def none(*args):
        raise OSError(37, 'No locks available')
    monkeypatch.setattr('fcntl.lockf', none)
    with exclusive(str(tmp_path / 'run')):
        assert 'no locks' in caplog.text
