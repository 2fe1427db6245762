"""The processors that this process may use, affinity and control groups heeded."""
import math
import os
import pathlib


def cgroup_quota(root='/sys/fs/cgroup', membership='/proc/self/cgroup'):
    """The CPUs that this process's control groups (version 1 or 2) grant it; infinity where none sets a limit."""
    def read(*path):
        try:
            return pathlib.Path(*path).read_text()
        except OSError:
            return ''

    quota = math.inf
    for line in read(membership).splitlines():
        _, controllers, group = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        folder = pathlib.PurePath(root, 'cpu' if controllers else '', group.strip('/'))
        # Any group on the way up may hold the limit; inside a container often only the topmost is to be seen.
        for level in (folder, *folder.parents):
            limit = (read(level, 'cpu.max') or
                     read(level, 'cpu.cfs_quota_us') + read(level, 'cpu.cfs_period_us')).split()
            if len(limit) == 2 and limit[0] not in ('max', '-1'):
                quota = min(quota, int(limit[0]) / int(limit[1]))
    return quota


def usable_cpus():
    """The logical processors this process may use."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, math.ceil(min(affinity, cgroup_quota())))
