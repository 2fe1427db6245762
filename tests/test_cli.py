"""Exit codes, one-line errors, the types of flags and the handling of signals."""
import signal
import subprocess
import sys

import pytest

from conftest import ROOT
from yolo3 import cli
from yolo3.cli import ArgumentParser, Interrupted, RunError, UserError, comma_list, run


def exit_code(action):
    with pytest.raises(SystemExit) as end:
        run(action)
    return end.value.code


def raising(error):
    def action():
        raise error
    return action


def test_each_end_of_a_command_has_its_exit_code(capsys):
    run(lambda: None)
    assert exit_code(raising(UserError('data.xml: broken\n  in two lines'))) == 2
    assert capsys.readouterr().err.endswith(': error: data.xml: broken in two lines\n')
    assert exit_code(raising(RunError('no room'))) == 1 and capsys.readouterr().err.endswith(': error: no room\n')
    assert exit_code(raising(Interrupted(signal.SIGTERM))) == 143
    assert exit_code(raising(Interrupted(signal.SIGINT))) == 130
    assert exit_code(raising(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def parse(kind, text):
    """The value of --flag TEXT, of a flag with the type `kind`."""
    parser = ArgumentParser()
    parser.add_argument('--flag', type=kind)
    return parser.parse_args(['--flag=' + text]).flag


@pytest.mark.parametrize('kind, text, value', [
    (cli.positive, '1', 1), (cli.count, '0', 0), (cli.number, '0', 0), (cli.number, '1e3', 1000), (cli.share, '0', 0),
    (cli.share, '1', 1), (cli.input_size, '32', 32), (cli.input_size, '608', 608), (cli.integers, '', []),
    (cli.integers, '160, 180', [160, 180])])
def test_a_flag_of_a_type_has_its_value(kind, text, value):
    assert parse(kind, text) == value


@pytest.mark.parametrize('kind, texts', [
    (int, ['x', '']), (cli.positive, ['0', '-1', '1.5', 'x', '']), (cli.count, ['-1', '1e3', '']),
    (cli.number, ['-0.1', 'nan', 'inf', '1e999', 'x', '']), (cli.share, ['-0.1', '1.1', 'nan', 'x']),
    (cli.input_size, ['0', '-32', '33', '32.0', 'x', '']), (cli.integers, ['1;2', '1.5', 'a,b'])])
def test_a_wrong_value_is_refused_by_a_line_that_names_the_flag(kind, texts):
    for text in texts:
        with pytest.raises(UserError, match=r'^--flag[^\n]*%s[^\n]*\(see --help\)$' % text):
            parse(kind, text)


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_waits_for_the_check_and_a_second_does_not(signum):
    code = """import os, sys
from yolo3.cli import run, stop
def main():
    stop.hold()
    stop.check()
    for _ in range(int(sys.argv[2])):
        os.kill(os.getpid(), int(sys.argv[1]))
        print('held back', flush=True)
    stop.check()
    print('not reached')
run(main)"""
    for signals, code_of_exit in (1, 128 + signum), (2, -signum):
        command = [sys.executable, '-c', code, str(int(signum)), str(signals)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == code_of_exit and done.stdout == 'held back\n', done.stderr
        assert done.stderr == 'stopping; once more to quit at once\n'


def test_a_comma_list_ignores_spaces_and_empty_items():
    assert comma_list(' a, b c,,') == ['a', 'b c'] and comma_list('') == []
