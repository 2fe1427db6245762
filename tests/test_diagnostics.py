"""`python -m yolo3`: what it prints with everything installed, and with next to nothing."""
import os
import subprocess
import sys

import numpy as np

from conftest import ROOT
from yolo3.__main__ import diagnostics


def test_versions_processors_memory_and_features():
    found = dict(diagnostics())
    assert found['Python'].endswith('.'.join(map(str, sys.version_info[:3])))
    assert found['numpy'] == np.__version__
    assert {'commit', 'system', 'processors', 'memory', 'gluoncv', 'opencv-python'} <= set(found)
    assert found['MXNet'].startswith('loads, with ') and 'OPENMP' in found['MXNet']
    assert found['OMP_NUM_THREADS'] == os.environ['OMP_NUM_THREADS']


def test_gpus_are_those_of_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / 'nvidia-smi'
    program.write_text('#!/bin/sh\necho "V100, 470.57, 7.0, 16160 MiB"\necho "T4, 470.57, 7.5, 15109 MiB"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    found = dict(diagnostics())
    gpus = [value for name, value in found.items() if name.startswith('GPU ')]
    assert gpus == ['V100, 470.57, 7.0, 16160 MiB', 'T4, 470.57, 7.5, 15109 MiB']
    assert found['commit'] == 'unknown'  # no git on this PATH
    program.write_text('#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n')
    assert dict(diagnostics())['GPUs'] == 'none found by nvidia-smi'


def test_without_any_package():
    done = subprocess.run([sys.executable, '-S', '-m', 'yolo3'], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, '')
    found = dict(line.split(': ', 1) for line in done.stdout.splitlines())
    assert 'no module numpy' in found['MXNet'] and 'scripts/setup.sh' in found['MXNet']
    assert 'numpy' not in found
    assert {'Python', 'system', 'processors', 'memory'} <= set(found)
