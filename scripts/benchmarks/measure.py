"""How the benchmarks measure: times, by turns in processes of their own, work and memory."""
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

# What stock MXNet runs with: its own choices and glibc's.
STOCK = {'OMP_NUM_THREADS': str(max(1, os.cpu_count() // 2)), 'MXNET_CPU_PARALLEL_SIZE': '200000',
         'MALLOC_ARENA_TEST': '8'}


def by_turns(args, runs, settings=()):
    """The JSON that each of `runs` prints when run alone, with the flags `settings` too, args.rounds times:
    {run: [figures, ...]}."""
    results = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name in runs:
            env = dict(os.environ, **(STOCK if name.endswith('stock') else {}))
            with tempfile.NamedTemporaryFile(suffix='.json') as file:
                command = [*args.command, *settings, '--only', name, '--json', file.name]
                status = subprocess.run(command, env=env, stdout=subprocess.DEVNULL).returncode
                if status:
                    sys.exit(status if status > 0 else 1)  # it has said why
                with open(file.name, encoding='utf-8') as figures:
                    results[name].append(json.load(figures))
    return results


def medians(results):
    """{figure of each run: its median}."""
    return {'%s: %s' % (key, name): statistics.median(figures[key] for figures in rounds)
            for name, rounds in results.items() for key in rounds[0]}


def ratio(results, key, over, under):
    """The median over the rounds of one run's figure over another's."""
    return statistics.median(a[key] / b[key] for a, b in zip(results[over], results[under]))


def seconds(action, count):
    """The median time that `action` takes, the first two times left out."""
    times = []
    for _ in range(count + 2):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def product_speed():
    """FLOP/s of a 2048 x 2048 float32 product by oneDNN, as the convolutions use it: mx.nd.dot takes one thread."""
    from yolo3.mxnet_setup import mx
    matrix = mx.nd.random.uniform(shape=(2048, 2048))
    return 2 * 2048 ** 3 / seconds(
        lambda: mx.nd.FullyConnected(matrix, matrix, None, num_hidden=2048, no_bias=True).wait_to_read(), 9)


def flop(net, size):
    """Multiplications and additions in the convolutions for one image."""
    from yolo3.mxnet_setup import mx
    from mxnet.gluon.nn import Conv2D
    counted, hooks = [], []

    def count(block, inputs, output):
        counted.append(2 * output.size * block.weight.data()[0].size)

    def visit(block):
        if isinstance(block, Conv2D):
            hooks.append(block.register_forward_hook(count))
    net.apply(visit)
    net.hybridize(False)
    net(mx.nd.zeros((1, 3, size, size)))
    for hook in hooks:
        hook.detach()
    return sum(counted)


def resident(pid, which='VmRSS'):
    """The resident set of a process, MB (Linux): now, or with 'VmHWM' the largest it ever was."""
    with open('/proc/%s/status' % pid) as file:
        return int(re.search(which + r':\s+(\d+)', file.read()).group(1)) / 1024


def private(pid):
    """The memory that a process has written and shares with none, MB (Linux)."""
    with open('/proc/%s/smaps_rollup' % pid) as file:
        return int(re.search(r'Private_Dirty:\s+(\d+)', file.read()).group(1)) / 1024


def age():
    """Seconds since this process was started (Linux)."""
    with open('/proc/self/stat') as file:
        started = int(file.read().rsplit(')', 1)[1].split()[19]) / os.sysconf('SC_CLK_TCK')
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
