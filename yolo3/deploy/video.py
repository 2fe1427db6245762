"""Frames as they come: from a camera, a stream or a video file, read by a thread while the one before is looked at."""
import collections
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time

import cv2

from yolo3.cli import UserError

PATIENCE = 2  # seconds for a read to end; that of a stream which has stopped takes up to 30
OVER = 30  # frames that the frame rate is a mean over


def open_source(source):
    """A cv2.VideoCapture of --source: a camera's number, a file or an address. Raises UserError."""
    if not (source.isdigit() or '://' in source or os.path.exists(source)):
        raise UserError('--source %s: no such file; 0 is the first camera, rtsp://... a stream' % source)
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise UserError('--source %s: cannot be opened: no camera, video or stream that this OpenCV can read' % source)
    return capture


def frames(capture, newest=False):
    """The frames of a cv2.VideoCapture, (H, W, 3) uint8 RGB; to be closed where not all are taken.

    A thread reads ahead: one frame, or where `newest` as many as come, of which only the last is kept: a camera does
    not wait.
    """
    waiting, stopped = queue.Queue(maxsize=1), threading.Event()

    def read():
        try:
            good, frame = capture.read()
            while good and not stopped.is_set():
                if newest:
                    forget()
                waiting.put(frame)
                good, frame = capture.read()
        finally:
            if not stopped.is_set():
                waiting.put(None)

    def forget():
        with contextlib.suppress(queue.Empty):
            waiting.get_nowait()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        frame = waiting.get()
        while frame is not None:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            frame = waiting.get()
    finally:
        stopped.set()
        forget()  # the thread may wait for room
        thread.join(PATIENCE)


def has_window():
    """Whether OpenCV can show a window here. Where it cannot, it may end the process: so another one tries."""
    return not subprocess.run([sys.executable, '-c', 'import cv2; cv2.namedWindow("probe")'],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


class Rate:
    """Frames a second, over the last ones."""

    def __init__(self):
        self._times = collections.deque(maxlen=OVER)

    def tick(self):
        """Count a frame in. Returns the rate, 0 before the second."""
        self._times.append(time.monotonic())
        passed = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / passed if passed else 0.


def write_rate(image, rate):
    """Write the frame rate into the lower left corner of `image`, (H, W, 3) uint8, in place."""
    size = max(0.4, min(image.shape[:2]) / 600)
    place = round(10 * size), image.shape[0] - round(12 * size)
    for colour, width in ((0, 0, 0), 4), ((255, 255, 255), 1):
        cv2.putText(image, '%.1f frames/s' % rate, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour,
                    max(1, round(width * size)), cv2.LINE_AA)


class Window:
    """Frames shown in a window until it is closed or q or Escape is pressed; `rate` frames a second, 0 at once."""

    def __init__(self, name, rate=0):
        self._name, self._pause, self._due = name, 1 / rate if rate else 0, 0
        cv2.namedWindow(name, cv2.WINDOW_NORMAL)

    def show(self, image):
        """Show `image`, BGR. Returns whether to go on."""
        cv2.imshow(self._name, image)
        key = cv2.waitKey(max(1, round(1000 * (self._due - time.monotonic()))))
        self._due = max(self._due, time.monotonic()) + self._pause
        return key & 0xff not in (ord('q'), 27) and cv2.getWindowProperty(self._name, cv2.WND_PROP_VISIBLE) >= 1

    def close(self):
        """Take the window away."""
        cv2.destroyWindow(self._name)


class Recording:
    """Frames written by a cv2.VideoWriter of `rate` frames a second; where `timed`, so that it plays as it happened."""

    def __init__(self, writer, rate, timed):
        self._writer, self._rate, self._timed = writer, rate, timed
        self._start, self._written = None, 0

    def show(self, image):
        """Write `image`, BGR, as often as its time needs. Returns True: go on."""
        self._start = self._start or time.monotonic()
        due = (time.monotonic() - self._start) * self._rate if self._timed else self._written
        while self._written <= due:
            self._writer.write(image)
            self._written += 1
        return True

    def close(self):
        """Make what was written playable."""
        self._writer.release()
