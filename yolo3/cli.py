"""What every command shares on the command line: one-line errors and exit codes."""
import argparse
import os
import signal
import sys


class UserError(Exception):
    """The user's input is at fault: the message names the file or flag and the remedy, in one line."""


class Interrupted(BaseException):
    """A signal asked the command to stop. `signum` is SIGINT or SIGTERM."""

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


class ArgumentParser(argparse.ArgumentParser):
    """argparse with its errors as one line instead of the whole usage."""

    def error(self, message):
        raise UserError('%s (see --help)' % message)


def fail(error):
    """Print `error` (a UserError) as one line on stderr and leave with exit code 2."""
    command = os.path.basename(sys.argv[0]) or 'yolo3'
    print('%s: error: %s' % (command, ' '.join(str(error).split())), file=sys.stderr)
    sys.exit(2)


def run(main):
    """Call `main()` and leave with the project's exit codes.

    0 done; 2 the user's input is at fault, one line on stderr; 130 / 143 after SIGINT / SIGTERM; 1 and a
    traceback for anything else.
    """
    try:
        main()
    except UserError as error:
        fail(error)
    except Interrupted as stop:
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


class StopSignal:
    """Holds back SIGINT and SIGTERM until `check()`, where the run can be stopped without losing anything.

    A second signal acts at once, as it would without this class.
    """

    def __init__(self):
        self._process = os.getpid()
        self._signum = None
        self._previous = {signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, signum, frame):
        if os.getpid() != self._process:  # a data worker, forked with this handler: nothing to save there
            os._exit(128 + signum)
        self._signum = signum
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        print('stopping after this batch; once more to quit at once', file=sys.stderr)

    def check(self):
        """Raise Interrupted where a signal has come."""
        if self._signum:
            raise Interrupted(self._signum)

    def watch(self, iterable):
        """Yield from `iterable`, checking between the items."""
        for item in iterable:
            self.check()
            yield item
        self.check()


def check_output_file(flag, path):
    """Make sure, before the work, that the file `path` of `flag` can be written, '' being none. Raises UserError."""
    if path and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path)))):
        raise UserError('%s %s: name a file in a folder that exists' % (flag, path))


def make_output_folder(flag, path):
    """Make the folder `path` of `flag` where it is missing. Raises UserError where nothing can be written there."""
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
