"""stdout and stderr of a command: what they do not take stops nothing, and what their encoding lacks is escaped."""
import errno
import io
import os
import sys


class Output(io.FileIO):
    """The open file of a number, as a file that takes everything: what cannot be written is lost.

    `error` is the first OSError, None if there was none or only that nobody reads on.
    """
    error = None

    def write(self, content):
        try:
            return super().write(content)
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.error = self.error or error
            return len(content)


def guard():
    """Make sys.stdout and sys.stderr such files. Of stdin, stdout and stderr, those that are closed become /dev/null.

    Otherwise the next file that is opened would take the number of a closed one, and libraries would print into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    sys.stdout, sys.stderr = [_guarded(number, stream) for number, stream in ((1, sys.stdout), (2, sys.stderr))]
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr


def _guarded(number, stream):
    """Python's `stream`, None if it was closed, as a text file over Output."""
    output = Output(number, 'w', closefd=False)
    unbuffered = stream is not None and isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(output if unbuffered else io.BufferedWriter(output), stream.encoding if stream else 'utf-8',
                            'backslashreplace', line_buffering=number == 2 or output.isatty(),
                            write_through=unbuffered)


def lost():
    """Flush stdout; the OSError by which a part of it was lost, None if there was none."""
    sys.stdout.flush()
    buffer = getattr(sys.stdout, 'buffer', None)
    return getattr(getattr(buffer, 'raw', buffer), 'error', None)
