"""What this process may take of the machine, control groups heeded: processors and memory."""
import math
import os
import pathlib
import re


def read(*path):
    """The text of a file; '' where there is none to be read."""
    try:
        return pathlib.Path(*path).read_text()
    except OSError:
        return ''


def groups(controller, root, membership):
    """Yield the folders below `root` of this process's control groups (version 1 or 2) for 'cpu' or 'memory'.

    Any group on the way up may hold the limit; inside a container often only the topmost is to be seen.
    """
    for line in read(membership).splitlines():
        _, controllers, group = line.split(':', 2)
        if controllers and controller not in controllers.split(','):
            continue
        folder = pathlib.PurePath(root, controller if controllers else '', group.strip('/'))
        yield from (folder, *folder.parents)


def cgroup_quota(root='/sys/fs/cgroup', membership='/proc/self/cgroup'):
    """The CPUs that this process's control groups grant it; infinity where none sets a limit."""
    quota = math.inf
    for level in groups('cpu', root, membership):
        limit = (read(level, 'cpu.max') or
                 read(level, 'cpu.cfs_quota_us') + read(level, 'cpu.cfs_period_us')).split()
        if len(limit) == 2 and limit[0] not in ('max', '-1'):
            quota = min(quota, int(limit[0]) / int(limit[1]))
    return quota


def usable_cpus():
    """The logical processors this process may use."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, math.ceil(min(affinity, cgroup_quota())))


def available_memory(meminfo='/proc/meminfo', root='/sys/fs/cgroup', membership='/proc/self/cgroup'):
    """The bytes of memory that this process could still take, its control groups (version 1 or 2) heeded."""
    available = math.inf
    for line in read(meminfo).splitlines():
        if line.startswith('MemAvailable:'):
            available = int(line.split()[1]) * 1024
    for level in groups('memory', root, membership):
        limit = (read(level, 'memory.max') or read(level, 'memory.limit_in_bytes')).strip()
        used = (read(level, 'memory.current') or read(level, 'memory.usage_in_bytes')).strip()
        if limit.isdigit() and used.isdigit():
            cache = re.search(r'^inactive_file (\d+)', read(level, 'memory.stat'), re.M)  # given back when needed
            available = min(available, int(limit) - int(used) + int(cache.group(1) if cache else 0))
    return available
