"""Frames of a camera, a stream or a video file, which a thread reads ahead; and the window or video that shows them."""
import collections
import contextlib
import os
import queue
import re
import subprocess
import sys
import threading
import time

import cv2

from yolo3.cli import UserError
from yolo3.files import require_regular

PATIENCE = 2  # seconds to wait for the reading thread: a stream that has stopped blocks it for up to 30
AVERAGED = 30  # frames that the frame rate is a mean over


def is_camera(source):
    """Whether --source is a camera's number."""
    return re.fullmatch('[0-9]{1,4}', source) is not None


def is_live(source):
    """Whether --source is a camera or a stream, as opposed to a file."""
    return is_camera(source) or not os.path.exists(source)


def open_source(source):
    """A cv2.VideoCapture of --source: a camera's number, a file or an address. Raises UserError."""
    if not (is_camera(source) or re.match(r'(?!file)[a-z0-9]+://', source)):
        try:
            require_regular(source)
        except OSError as error:
            raise UserError('--source %s: %s; 0 is the first camera, rtsp://... a stream' % (source, error.strerror))
    capture = cv2.VideoCapture(int(source) if is_camera(source) else source)
    if not capture.isOpened():
        raise UserError('--source %s: cannot open it: not a camera, video or stream that this OpenCV can read' % source)
    return capture


def frames(capture, newest=False):
    """Yield the frames of a cv2.VideoCapture, (H, W, 3) uint8 RGB. Close it if you do not take all.

    A thread reads one frame ahead. With `newest` it reads all that come and keeps the last: a camera does not wait.
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
        forget()  # the thread may be waiting for room
        thread.join(PATIENCE)


def has_window():
    """Whether OpenCV can open a window here. Another process tries, as a failure may end the process."""
    return not subprocess.run([sys.executable, '-c', 'import cv2; cv2.namedWindow("probe")'],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


class FrameRate:
    """Frames per second, a mean over the last AVERAGED ones."""

    def __init__(self):
        self._times = collections.deque(maxlen=AVERAGED)

    def tick(self):
        """Count one frame. Returns the rate, 0 at the first."""
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
    """Shows frames in a window until it is closed, or q or Escape pressed; `rate` frames per second, 0: at once."""

    def __init__(self, name, rate=0):
        self._name, self._pause, self._due = name, 1 / rate if rate else 0, 0
        cv2.namedWindow(name, cv2.WINDOW_NORMAL)

    def show(self, image):
        """Show `image`, BGR. Returns whether to continue."""
        cv2.imshow(self._name, image)
        key = cv2.waitKey(max(1, round(1000 * (self._due - time.monotonic()))))
        self._due = max(self._due, time.monotonic()) + self._pause
        return key & 0xff not in (ord('q'), 27) and cv2.getWindowProperty(self._name, cv2.WND_PROP_VISIBLE) >= 1

    def close(self):
        """Close the window."""
        cv2.destroyWindow(self._name)


class Recording:
    """Writes frames by a cv2.VideoWriter of `rate` frames per second; if `timed`, it plays at the speed they came."""

    def __init__(self, writer, rate, timed):
        self._writer, self._rate, self._timed = writer, rate, timed
        self._start, self._written = None, 0

    def show(self, image):
        """Write `image`, BGR, as often as its time requires. Returns True: continue."""
        self._start = self._start or time.monotonic()
        due = (time.monotonic() - self._start) * self._rate if self._timed else self._written
        while self._written <= due:
            self._writer.write(image)
            self._written += 1
        return True

    def close(self):
        """Finish the file."""
        self._writer.release()
