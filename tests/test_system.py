"""The processors and the memory that affinity and control groups leave to a process."""
import math
import os

import pytest

from yolo3 import system


@pytest.mark.parametrize('membership, files, quota', [
    ('0::/\n', {'cpu.max': 'max 100000\n'}, math.inf),
    ('0::/\n', {'cpu.max': '150000 100000\n'}, 1.5),
    ('0::/a/b\n', {'a/cpu.max': '200000 100000\n', 'a/b/cpu.max': 'max 100000\n'}, 2),
    ('0::/a/b\n', {'a/cpu.max': '200000 100000\n', 'a/b/cpu.max': '100000 100000\n'}, 1),
    # Version 1 in a container: the path is the host's; only its top is mounted.
    ('5:cpu,cpuacct:/docker/c0ffee\n3:cpuset:/\n0::/\n',
     {'cpu/cpu.cfs_quota_us': '300000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 3),
    ('5:cpu,cpuacct:/\n', {'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, math.inf),
    ('5:cpuacct:/\n', {'cpu/cpu.cfs_quota_us': '100000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, math.inf),
    (None, {}, math.inf),
])
def test_the_quota_is_the_smallest_of_the_control_groups(tmp_path, membership, files, quota):
    if membership is not None:
        (tmp_path / 'membership').write_text(membership)
    for name, text in files.items():
        path = tmp_path / 'cgroup' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert system.cgroup_quota(str(tmp_path / 'cgroup'), str(tmp_path / 'membership')) == quota


@pytest.mark.parametrize('affinity, quota, cpus', [(8, math.inf, 8), (8, 2.5, 3), (2, 16, 2), (8, 0.2, 1)])
def test_affinity_and_quota_both_limit_the_processors(monkeypatch, affinity, quota, cpus):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(affinity)), raising=False)
    monkeypatch.setattr(system, 'cgroup_quota', lambda: quota)
    assert system.usable_cpus() == cpus


def test_all_processors_count_without_affinity_as_on_macos(monkeypatch):
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 6)
    monkeypatch.setattr(system, 'cgroup_quota', lambda: math.inf)
    assert system.usable_cpus() == 6


@pytest.mark.parametrize('cpuinfo, known', [
    ('processor: 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n', True), ('flags: fpu avx512_bf16x avx512f\n', False),
    ('bugs: avx512_bf16\n', False), ('', False)])
def test_bfloat16_is_told_by_the_processors_flags(tmp_path, cpuinfo, known):
    (tmp_path / 'cpuinfo').write_text(cpuinfo)
    assert system.has_bfloat16(tmp_path / 'cpuinfo') is known


@pytest.mark.parametrize('files, available', [
    ({'meminfo': 'MemFree: 1 kB\nMemAvailable:   2000 kB\n'}, 2048000),
    ({'meminfo': 'MemAvailable: 2000 kB\n', 'membership': '0::/a/b\n', 'a/memory.max': '900000\n',
      'a/memory.current': '500000\n', 'a/memory.stat': 'anon 1\ninactive_file 70000\n', 'a/b/memory.max': 'max\n',
      'a/b/memory.current': '3\n'}, 470000),
    ({'meminfo': 'MemAvailable: 2000 kB\n', 'membership': '4:memory:/x\n2:cpu:/\n',
      'memory/x/memory.limit_in_bytes': '1000', 'memory/x/memory.usage_in_bytes': '400'}, 600),
    ({}, float('inf'))])
def test_the_control_groups_limit_the_available_memory(tmp_path, files, available):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert system.available_memory(tmp_path / 'meminfo', tmp_path, tmp_path / 'membership') == available
