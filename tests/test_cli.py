"""Exit codes, one-line errors, the types of flags and the handling of signals."""
import errno
import os
import shlex
import signal
import subprocess
import sys
import time

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
    (cli.integers, '160, 180', [160, 180]), (cli.seed, '2147483647', 2 ** 31 - 1), (cli.port, '65535', 65535),
    (cli.count, '1000000', 10 ** 6)])
def test_a_flag_of_a_type_has_its_value(kind, text, value):
    assert parse(kind, text) == value


@pytest.mark.parametrize('kind, texts', [
    (int, ['x', '']), (cli.positive, ['0', '-1', '1.5', 'x', '', '1000001', '1' + '0' * 21, '1_0', '١٢', '１２', '²']),
    (cli.count, ['-1', '1e3', '', '1000001']), (cli.seed, ['-1', '2147483648']), (cli.port, ['-1', '65536']),
    (cli.processes, ['-1', '1025']), (cli.number, ['-0.1', 'nan', 'inf', '1e999', 'x', '', '1e7', '1_0', '１.５']),
    (cli.share, ['-0.1', '1.1', 'nan', 'x']), (cli.input_size, ['0', '-32', '33', '32.0', 'x', '', '8224', '3_2']),
    (cli.integers, ['1;2', '1.5', '-1', '1000001'])])
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


def test_a_number_of_a_million_digits_is_refused_at_once_and_in_short():
    with pytest.raises(UserError, match='^--flag: 1{40}[.]{3} is not') as error:
        parse(cli.positive, '1' * 10 ** 6)
    assert len(str(error.value)) < 200


def test_a_wrong_environment_variable_is_named(monkeypatch):
    monkeypatch.setenv('SOME_NUMBER', 'x')
    with pytest.raises(UserError, match='^the environment variable SOME_NUMBER: x is not'):
        cli.variable('SOME_NUMBER', cli.count)
    monkeypatch.setenv('SOME_NUMBER', '')
    assert cli.variable('SOME_NUMBER', cli.count, 3) == 3


@pytest.mark.parametrize('error, said', [
    (OSError(errno.EMFILE, 'Too many open files', 'a.jpg'), 'a.jpg: Too many open files: ulimit -n allows no more'),
    (OSError('no reason'), 'no reason'), (MemoryError(), 'out of memory: the system has no more')])
def test_what_the_system_refuses_is_one_line(error, said, capsys):
    assert exit_code(raising(error)) == 1
    assert capsys.readouterr().err.endswith(': error: %s\n' % said)


def command(code, *flags, limit='', **settings):
    """Run a script of a command that begins with `start` and then has this `code`, by a shell with a `limit`."""
    script = 'from yolo3.cli import run, start\nstart(__name__)\n' + code
    line = ' '.join(map(shlex.quote, [sys.executable, *flags, '-c', script]))
    return subprocess.run(['bash', '-c', '%s exec %s' % (limit, line)], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, env=dict(os.environ, **settings), preexec_fn=heed_interrupts)


def heed_interrupts():
    """As in the foreground: a background job of a shell script, which the tests may be, ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_process_with_too_little_memory_ends_with_one_line():
    done = command('print(1)', limit='ulimit -v 1000000;')
    assert (done.returncode, done.stdout) == (2, '')
    assert 'ulimit -v allows 1000000 kB' in done.stderr and done.stderr.count('\n') == 1


def test_warnings_are_no_errors_in_a_command():
    done = command('import warnings; warnings.warn("old", DeprecationWarning)', '-W', 'error')
    assert done.returncode == 0 and 'DeprecationWarning: old' in done.stderr


def test_a_command_has_docstrings_whatever_python_is_told(tmp_path):
    script = tmp_path / 'command.py'
    script.write_text('"""A docstring."""\nimport sys\nsys.path.insert(0, %r)\nfrom yolo3.cli import start\n'
                      'start(__name__)\nprint(__doc__, sys.argv[1:])\n' % ROOT, encoding='utf-8')
    for flags, settings in (['-OO'], {}), ([], {'PYTHONOPTIMIZE': '2'}):
        done = subprocess.run([sys.executable, *flags, str(script), 'a b'], env=dict(os.environ, **settings),
                              capture_output=True, text=True, timeout=60)
        assert done.stdout == "A docstring. ['a b']\n", done.stderr


@pytest.mark.parametrize('importing', ['', 'from yolo3 import cli\nwith cli.ending_at_interrupt():\n    '])
def test_ctrl_c_ends_imports_that_would_swallow_it(importing):
    swallow = importing + 'exec("import os, time, signal\\ntry:\\n os.kill(os.getpid(), 2); time.sleep(9)' \
                          '\\nexcept BaseException: print(1)")'
    code = swallow if not importing else 'import signal; signal.signal(2, signal.default_int_handler)\n' + swallow
    done = command(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, '', '')


def test_ctrl_c_is_a_keyboard_interrupt_once_the_work_begins():
    done = command('import os\ndef main():\n  try: os.kill(os.getpid(), 2)\n  finally: print("saved")\nrun(main)')
    assert (done.returncode, done.stdout, done.stderr) == (130, 'saved\n', '')


@pytest.mark.slow
@pytest.mark.parametrize('delay', [0.3, 0.6, 1])
def test_ctrl_c_while_a_training_imports_ends_it_quietly(delay):
    with subprocess.Popen([sys.executable, 'train_yolo3_mobilenet.py'], cwd=ROOT, stderr=subprocess.PIPE, text=True,
                          preexec_fn=heed_interrupts) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), process.stderr.read()) == (130, '')


@pytest.mark.slow
@pytest.mark.parametrize('flag', ['-OO', '-Werror'])
def test_mxnet_is_imported_whatever_python_is_told(flag):
    done = subprocess.run([sys.executable, flag, 'train_yolo3_mobilenet.py', '--gpus', '', '--dataset-root', 'none'],
                          cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and 'none' in done.stderr.splitlines()[-1]


def test_a_comma_list_ignores_spaces_and_empty_items():
    assert comma_list(' a, b c,,') == ['a', 'b c'] and comma_list('') == []


COMMANDS = ['train_yolo3_mobilenet.py', 'demo.py', 'eval_yolo3.py'] + sorted(
    os.path.join('scripts', name) for name in os.listdir(os.path.join(ROOT, 'scripts')) if name.endswith('.py'))
HEAVY = ('numpy', 'cv2', 'PIL', 'matplotlib', 'mxnet', 'gluoncv', 'pycocotools', 'sklearn', 'onnx', 'onnxruntime',
         'openvino', 'torch')


@pytest.mark.parametrize('script', COMMANDS)
@pytest.mark.parametrize('flags, code', [('--help', 0), ('--no-such-flag', 2)])
def test_flags_are_read_before_anything_heavy_is_imported(script, flags, code):
    path = os.path.join(ROOT, script)
    done = subprocess.run([sys.executable, '-c', 'import runpy, sys\n'
                           'sys.modules.update(dict.fromkeys(%r))\n'
                           'sys.argv = %r\nsys.path.insert(0, %r)\nrunpy.run_path(%r, run_name="__main__")'
                           % (HEAVY, [path, flags], ROOT, path)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert '--help' in done.stdout + done.stderr and len(done.stderr.splitlines()) == code // 2
