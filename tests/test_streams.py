"""Whatever stdout and stderr do not take or cannot print, the work is done."""
import os
import shlex
import subprocess
import sys

import pytest

from conftest import ROOT, slow
from yolo3.streams import Output

# Prints more than a pipe holds, opens a file, and says at its end that it came so far.
CODE = """import sys
from yolo3.cli import run, start
start(__name__)
def main():
    with open(sys.argv[1], 'w', encoding='utf-8') as file:
        for number in range(9999):
            print('\\u6570', number, '\\udcff')
        print('stderr \\u6570', file=sys.stderr)
        file.write('done')
run(main)"""


def run(redirection, path, *flags, **settings):
    """Run CODE by a shell, with its output redirected."""
    line = ' '.join(map(shlex.quote, [sys.executable, *flags, '-c', CODE, str(path)]))
    return subprocess.run(['bash', '-o', 'pipefail', '-c', '%s %s' % (line, redirection)], cwd=ROOT, text=True,
                          capture_output=True, timeout=60, encoding='utf-8', env=dict(os.environ, **settings))


LOST = 'stderr 数\n-c: error: stdout did not take all of the output: No space left on device\n'


@pytest.mark.parametrize('redirection, code, printed, said', [
    ('| true', 0, 0, 'stderr 数\n'), ('>&-', 0, 0, 'stderr 数\n'), ('2>&-', 0, 9999, ''), ('<&- >&- 2>&-', 0, 0, ''),
    ('2>/dev/full', 0, 9999, ''), ('> /dev/full', 1, 0, LOST), slow('-u | true', 0, 0, 'stderr 数\n'),
    slow('-u > /dev/full', 1, 0, LOST)])
def test_the_work_is_done_whatever_takes_the_output(redirection, code, printed, said, tmp_path):
    flags, redirection = (['-u'], redirection[3:]) if redirection.startswith('-u') else ([], redirection)
    done = run(redirection, tmp_path / 'file', *flags)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (code, printed, said)
    assert (tmp_path / 'file').read_text(encoding='utf-8') == 'done'


@pytest.mark.parametrize('settings, line', [
    ({'PYTHONIOENCODING': 'ascii'}, '\\u6570 0 \\udcff'), ({'PYTHONUTF8': '1'}, '数 0 \\udcff'),
    ({'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}, '\\u6570 0 \\udcff')], ids=str)
def test_what_the_encoding_lacks_is_escaped(settings, line, tmp_path):
    done = run('', tmp_path / 'file', **settings)
    assert done.returncode == 0 and done.stdout.splitlines()[0] == line


def test_the_first_error_is_kept_unless_the_reader_left():
    with open('/dev/full', 'wb', buffering=0) as full:
        output = Output(full.fileno(), 'w', closefd=False)
        assert output.write(b'abc') == 3 and output.error.strerror == 'No space left on device'
    reader, writer = os.pipe()
    os.close(reader)
    output = Output(writer, 'w')
    with output:
        assert output.write(b'abc') == 3 and output.error is None
