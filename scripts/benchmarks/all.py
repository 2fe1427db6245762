"""Every benchmark, each in a process of its own, and all their ratios in one table beside those of the last release."""
import json
import os
import subprocess
import sys
import tempfile

QUICK = 'step', 'loader', 'infer', 'start'
ALL = *QUICK, 'runtimes', 'epoch', 'eval', 'scale'
RELEASE = os.path.join(os.path.dirname(__file__), '..', '..', 'docs', 'benchmark.json')


def figures(args):
    """A row for each ratio: its benchmark, its name, its value now and in the last release, and what moved, in %."""
    with open(RELEASE, encoding='utf-8') as file:
        release = {(row['benchmark'], row['ratio']): row['now'] for row in json.load(file)}
    rows = []
    for benchmark in QUICK if args.quick else ALL:
        if benchmark == 'eval' and not args.params:
            print('eval: left out: it needs --params FILE', flush=True)
            continue
        print('%s ...' % benchmark, flush=True)
        for name, now in ratios(measured(args, benchmark)).items():
            then = release.get((benchmark, name))
            rows.append({'benchmark': benchmark, 'ratio': name, 'now': now, 'release': then,
                         'moved, %': then and 100 * (now / then - 1)})
    return rows


def measured(args, benchmark):
    """What `benchmark` writes as JSON with the same flags."""
    flags = args.command[2:]
    flags[flags.index(args.what)] = benchmark
    with tempfile.NamedTemporaryFile(suffix='.json') as file:
        done = subprocess.run([*args.command[:2], *flags, '--json', file.name], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, encoding='utf-8')
        if done.returncode:
            sys.stderr.write(done.stderr)
            sys.exit(done.returncode if done.returncode > 0 else 1)
        with open(file.name, encoding='utf-8') as written:  # the benchmark has replaced the file
            return json.load(written)


def ratios(found):
    """{name: value} of the ratios in a benchmark's figures, a dict or a table: those called 'a / b' or 'share of c'."""
    if isinstance(found, list):
        found = {', '.join(str(value) for value in row.values() if isinstance(value, (str, int))) + ': ' + name: value
                 for row in found for name, value in row.items()}
    return {name: value for name, value in found.items()
            if value is not None and (' / ' in name or 'share of' in name)}
