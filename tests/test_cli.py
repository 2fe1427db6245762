"""Exit codes, one-line errors and held-back signals."""
import os
import signal

import pytest

from yolo3.cli import ArgumentParser, Interrupted, RunError, StopSignal, UserError, comma_list, run, status


def exit_code(action):
    with pytest.raises(SystemExit) as end:
        run(action)
    return end.value.code


def raising(error):
    def action():
        raise error
    return action


def test_exit_codes(capsys):
    run(lambda: None)
    assert exit_code(raising(UserError('data.xml: broken\n  in two lines'))) == 2
    assert capsys.readouterr().err.endswith(': error: data.xml: broken in two lines\n')
    assert exit_code(raising(RunError('no room'))) == 1 and capsys.readouterr().err.endswith(': error: no room\n')
    assert exit_code(raising(Interrupted(signal.SIGTERM))) == 143
    assert exit_code(raising(Interrupted(signal.SIGINT))) == 130
    assert exit_code(raising(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_a_wrong_flag_is_one_line():
    parser = ArgumentParser()
    parser.add_argument('--size', type=int)
    with pytest.raises(UserError, match='--size'):
        parser.parse_args(['--size', 'x'])


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_check_and_a_second_does_not(signum):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = StopSignal()
    stop.hold()
    stop.check()
    os.kill(os.getpid(), signum)
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    with pytest.raises(Interrupted) as error:
        stop.check()
    assert error.value.signum == signum and status(error.value) == 128 + signum
    for number, handler in before.items():
        signal.signal(number, handler)


def test_comma_list():
    assert comma_list(' a, b c,,') == ['a', 'b c'] and comma_list('') == []
