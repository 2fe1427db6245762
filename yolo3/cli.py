"""What every command shares on the command line: one-line errors and exit codes."""
import argparse
import math
import os
import signal
import sys


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


def whole(text, least):
    """A whole number of at least `least`."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError('%s is not a whole number of at least %d' % (text, least))
    return value


def number(text):
    """A finite number of at least 0."""
    return within(text, 0, math.inf, 'a number of at least 0')


def share(text):
    """A number from 0 to 1."""
    return within(text, 0, 1, 'a number from 0 to 1')


def within(text, least, most, kind):
    """A finite number from `least` to `most`; `kind` describes it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (least <= value <= most and math.isfinite(value)):
        raise argparse.ArgumentTypeError('%s is not %s' % (text, kind))
    return value


def input_size(text):
    """An input size in pixels: a multiple of 32, the largest stride."""
    if not text.strip().isdecimal() or not int(text) or int(text) % 32:
        raise argparse.ArgumentTypeError('%s is not a positive multiple of 32, the largest stride' % text)
    return int(text)


def integers(text):
    """'160,180' -> [160, 180]; '' -> []."""
    try:
        return [int(item) for item in comma_list(text)]
    except ValueError:
        raise argparse.ArgumentTypeError('%s is not a list of whole numbers, such as 160,180' % text) from None


def fail(error, status=2):
    """Print `error` (a UserError) as one line on stderr and leave with the exit code `status`."""
    command = os.path.basename(sys.argv[0]) or 'yolo3'
    print('%s: error: %s' % (command, ' '.join(str(error).split())), file=sys.stderr)
    sys.exit(status)


def run(main):
    """Call `main()` and leave with the project's exit codes.

    0 done; 2 the user's input is at fault, one line on stderr; 130 / 143 after SIGINT / SIGTERM; 1 for anything else,
    with one line for a RunError, else a traceback.
    """
    try:
        main()
    except (UserError, RunError) as error:
        fail(error, status(error))
    except (Interrupted, KeyboardInterrupt) as stop:
        sys.exit(status(stop))


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


def check_output_file(flag, path):
    """Check, before the work, that the file `path` of `flag` can be written; '' is no file. Raises UserError."""
    if path and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path)))):
        raise UserError('%s %s: name a file in a folder that exists' % (flag, path))


def make_output_folder(flag, path):
    """Make the folder `path` of `flag` unless it exists. Raises UserError if nothing can be written there."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError('%s %s: %s' % (flag, path, error.strerror))
    if not os.access(path, os.W_OK):
        raise UserError('%s %s: not writable' % (flag, path))


def comma_list(text):
    """'a, b,c' -> ['a', 'b', 'c']; '' -> []."""
    return [item.strip() for item in text.split(',') if item.strip()]


def shorten(names, most):
    """'a, b, c' with at most `most` of the names, then '...'."""
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')
