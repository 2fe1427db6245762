"""What every command shares on the command line: the types of flags, one-line errors and exit codes."""
import argparse
import contextlib
import errno
import math
import os
import re
import resource
import signal
import sys
import threading
import warnings

from yolo3 import streams

MOST = 10 ** 6  # of whatever a flag counts
MOST_PIXELS = 2 ** 13  # of a side of the input
MOST_PROCESSES = 2 ** 10  # or threads
LEAST_MEMORY = 2 * 10 ** 9  # bytes of address space, without which the libraries crash at their import
LIMITS = {errno.EMFILE: 'ulimit -n allows no more', errno.EFBIG: 'ulimit -f, or the file system, allows no more',
          errno.ENOSPC: 'make room', errno.EDQUOT: 'make room'}


class UserError(Exception):
    """The user's input is at fault: the message names the file or flag and the remedy, in one line."""


class RunError(Exception):
    """The run cannot go on, though its input may be sound (a dead worker, a full disk): one line, with the remedy."""


class Interrupted(BaseException):
    """A signal asked the command to stop. `signum` is SIGINT or SIGTERM."""

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


class ArgumentParser(argparse.ArgumentParser):
    """argparse with its errors as one line instead of the whole usage."""

    def error(self, message):
        start = 'argument '
        raise UserError('%s (see --help)' % (message[len(start):] if message.startswith(start) else message))


# ---- What `type=` of a flag can be: text -> value, or the error that names the flag

def positive(text):
    """A whole number of at least 1."""
    return whole(text, 1)


def count(text):
    """A whole number of at least 0."""
    return whole(text, 0)


def epochs(text):
    """'backbone': all epochs, infinity; or how many."""
    return math.inf if text == 'backbone' else count(text)


def processes(text):
    """A number of processes or threads, 0 for none."""
    return whole(text, 0, MOST_PROCESSES)


def seed(text):
    """A seed of random numbers."""
    return whole(text, 0, 2 ** 31 - 1)


def port(text):
    """A port of TCP, 0 for any free one."""
    return whole(text, 0, 2 ** 16 - 1)


def whole(text, least, most=MOST):
    """A whole number from `least` to `most`, in the digits 0 to 9."""
    # The length is limited too: Python takes quadratic time for a long number, or refuses it.
    if not re.fullmatch(r'\s*[+-]?[0-9]{1,99}\s*', text) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError('%s is not a whole number from %d to %d' % (brief(text), least, most))
    return int(text)


def number(text):
    """A number of at least 0."""
    return within(text, 0, MOST)


def share(text):
    """A number from 0 to 1."""
    return within(text, 0, 1)


def below_one(text):
    """A number from 0 to less than 1."""
    value = share(text)
    if value == 1:
        raise argparse.ArgumentTypeError('%s is not less than 1' % brief(text))
    return value


def within(text, least, most):
    """A number from `least` to `most`."""
    try:
        value = float(text) if re.fullmatch(r'[-+.0-9eE\s]+', text) else math.nan
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError('%s is not a number from %d to %d' % (brief(text), least, most))
    return value


def input_size(text):
    """An input size in pixels: a multiple of 32, the largest stride."""
    value = whole(text, 32, MOST_PIXELS)
    if value % 32:
        raise argparse.ArgumentTypeError('%d is not a multiple of 32, the largest stride' % value)
    return value


def integers(text):
    """'160,180' -> [160, 180]; '' -> []. Whole numbers of at least 0."""
    return [count(item) for item in comma_list(text)]


def variable(name, kind, default=None):
    """The value of the environment variable `name`, `default` if it is not set or empty. Raises UserError.

    kind: what `type=` of a flag can be.
    """
    text = os.environ.get(name, '')
    try:
        return kind(text) if text else default
    except argparse.ArgumentTypeError as error:
        raise UserError('the environment variable %s: %s' % (name, error))


# ---- A process from its first line to its exit code

def start(name, parse_args=None):
    """Prepare the process of a command, whose `__name__` is `name`, before the imports that take long.

    parse_args: to be called once now, so that --help and a wrong flag end here.
    """
    if name != '__main__':
        return
    if sys.flags.optimize > 1:  # MXNet and GluonCV are not to be imported without docstrings
        os.environ.pop('PYTHONOPTIMIZE', None)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    streams.guard()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not so in the background
        signal.signal(signal.SIGINT, leave)
    if any(action == 'error' for action, *_ in warnings.filters):
        warnings.simplefilter('default')  # with -W error MXNet cannot be imported
    memory = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= memory < LEAST_MEMORY:
        fail('ulimit -v allows %d kB of memory: at least %d are needed' % (memory / 1024, LEAST_MEMORY / 1024))
    if parse_args:
        try:
            parse_args()
        except UserError as error:
            fail(error)


@contextlib.contextmanager
def ending_at_interrupt():
    """Let Ctrl-C end the process at once, with exit code 130: for imports, which may swallow a KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def leave(signum, frame):
    """A handler of signals that ends the process at once."""
    os._exit(128 + signum)


def fail(error, status=2):
    """Print `error`, an exception or its text, as one line on stderr and leave with the exit code `status`."""
    command = os.path.basename(sys.argv[0]) or 'yolo3'
    print('%s: error: %s' % (command, ' '.join(str(error).split())), file=sys.stderr)
    sys.exit(status)


def run(main):
    """Call `main()` and leave with the project's exit codes.

    0 done; 2 the user's input is at fault, one line on stderr; 130 / 143 after SIGINT / SIGTERM; 1 for anything else,
    with one line for a RunError, what the system refuses, or a stdout that did not take everything; else a traceback.
    """
    if signal.getsignal(signal.SIGINT) is leave:  # by `start`: the imports are done
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
        if streams.lost():
            raise RunError('stdout did not take all of the output: %s' % streams.lost().strerror)
    except (UserError, RunError) as error:
        fail(error, status(error))
    except (Interrupted, KeyboardInterrupt) as stop:
        sys.exit(status(stop))
    except MemoryError as error:
        fail('out of memory: %s' % (str(error) or 'the system has no more'), 1)
    except OSError as error:
        reasons = filter(None, [error.filename, error.strerror or str(error), LIMITS.get(error.errno)])
        fail(': '.join(map(str, reasons)), 1)


def status(error):
    """The exit code after `error`."""
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return 128 + getattr(error, 'signum', signal.SIGINT)
    return 2 if isinstance(error, UserError) else 1


class StopSignal:
    """SIGINT and SIGTERM held back until `check()`, where the work can be stopped without losing anything.

    A second signal ends the process at once: by the system, since Python's own handlers wait while MXNet computes.
    """

    signum = 0  # the signal that has come

    def hold(self):
        """From now on note a signal instead of letting it end the process."""
        self.signum = 0
        for signum in signal.SIGINT, signal.SIGTERM:
            signal.signal(signum, self._note)

    def _note(self, signum, frame):
        self.signum = signum
        for number in signal.SIGINT, signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
        print('stopping; once more to quit at once', file=sys.stderr)

    def check(self):
        """Raise Interrupted if a signal has come."""
        if self.signum:
            raise Interrupted(self.signum)


stop = StopSignal()  # signals are the process's own, so there is one


def comma_list(text):
    """'a, b,c' -> ['a', 'b', 'c']; '' -> []."""
    return [item.strip() for item in text.split(',') if item.strip()]


def shorten(names, most):
    """'a, b, c' with at most `most` of the names, then '...'."""
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')


def brief(text):
    """The first characters of a text that may be long."""
    return text if len(text) <= 40 else text[:40] + '...'
