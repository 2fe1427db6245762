"""A small TCP proxy, in threads of the process that makes it: it delays what it passes on, stalls, or cuts."""
import contextlib
import socket
import threading
import time


class Proxy:
    """Passes on what comes to `address` to the address `target`, and back, `delay` seconds late.

    flowing: an Event; while it is cleared, everything waits.
    """

    def __init__(self, target, delay=0):
        self._target, self._delay, self._ends = target, delay, []
        self.flowing = threading.Event()
        self.flowing.set()
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            ends = self._listener.accept()[0], socket.create_connection(self._target)
            self._ends += ends
            for source, sink in ends, ends[::-1]:
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source, sink):
        piece = True
        with contextlib.suppress(OSError):  # one end hung up
            while piece:
                piece = source.recv(65536)
                time.sleep(self._delay)
                self.flowing.wait()
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def cut(self):
        """End all connections."""
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
