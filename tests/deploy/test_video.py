"""Frames read ahead, the newest frame of a camera, and demo.py --source on a video that the test makes."""
import os
import sys
import threading

import cv2
import numpy as np
import pytest

import demo  # noqa: F401, it quiets FFmpeg, whose log level is read at the first video
from yolo3.cli import UserError
from yolo3.deploy import video
from yolo3.show.annotate import annotate_video


def write_video(path, count, size=(96, 64)):
    """A video of plain grey frames, each a little brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, size)
    for number in range(count):
        writer.write(np.full(size[::-1] + (3,), 40 + 10 * number, np.uint8))
    writer.release()
    return str(path)


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    return [frame for good, frame in iter(capture.read, (False, None)) if good]


class Camera:
    """Stands in for cv2.VideoCapture: frame k is all k; each comes once `ready` is released for it."""

    def __init__(self, count):
        self.ready, self.reads = threading.Semaphore(0), [threading.Event() for _ in range(count + 2)]
        self._count, self._number = count, -1

    def read(self):
        self._number += 1
        self.reads[self._number].set()
        self.ready.acquire()
        return self._number < self._count, np.full((2, 2, 3), self._number, np.uint8)


def test_all_frames_of_a_file_come_in_order(tmp_path):
    path = write_video(tmp_path / 'grey.avi', 12)
    found = list(video.frames(cv2.VideoCapture(path)))
    assert [int(image[:, :, 0].mean()) // 10 for image in found] == list(range(4, 16))
    capture = cv2.VideoCapture(path)
    for image in found:
        assert (image == capture.read()[1][:, :, ::-1]).all()


def test_the_next_frame_is_read_while_one_is_in_use():
    camera = Camera(5)
    images = video.frames(camera)
    camera.ready.release(2)
    assert next(images).max() == 0
    assert camera.reads[2].wait(30)  # frame 1 is waiting
    camera.ready.release(9)
    assert [image.max() for image in images] == [1, 2, 3, 4]


def test_of_a_camera_only_the_newest_frame_counts():
    camera = Camera(9)
    images = video.frames(camera, newest=True)
    camera.ready.release()
    assert next(images).max() == 0
    camera.ready.release(4)
    assert camera.reads[5].wait(30)
    assert next(images).max() == 4
    camera.ready.release(99)
    images.close()


def test_closing_ends_the_thread(tmp_path):
    before = threading.active_count()
    for newest in False, True:
        images = video.frames(cv2.VideoCapture(write_video(tmp_path / 'grey.avi', 12)), newest)
        next(images)
        assert threading.active_count() > before or newest  # a fast reader may be done
        images.close()
        assert threading.active_count() == before


@pytest.mark.parametrize('source, why', [
    ('fifo', 'not a regular file'), ('/dev/zero', 'not a regular file'), ('.', 'directory'), ('none.mp4', 'No such'),
    ('file:///dev/zero', 'No such'), ('٣', 'No such'), ('9' * 400, 'too long')])
def test_what_may_never_end_is_no_source(source, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo('fifo')
    with pytest.raises(UserError, match='^--source .*%s' % why):
        video.open_source(source)
    if os.path.exists(source):
        with pytest.raises(UserError, match='^cannot read video %s: .*%s' % (source, why)):
            annotate_video(source, None, None)


def test_rate(monkeypatch):
    times = iter([5, 5.1, 5.2, 5.3])
    monkeypatch.setattr(video.time, 'monotonic', lambda: next(times))
    rate = video.FrameRate()
    assert [rate.tick() for _ in range(4)] == pytest.approx([0, 10, 10, 10])


@pytest.mark.parametrize('timed, counts', [(True, [1, 3, 3, 11]), (False, [1, 2, 3, 4])])
def test_a_recording_plays_at_the_speed_of_the_source(monkeypatch, timed, counts):
    class Writer(list):
        write, release = list.append, list.clear
    writer = Writer()
    recording = video.Recording(writer, 10, timed)
    found = []
    for now in 7, 7.2, 7.21, 8.001:
        monkeypatch.setattr(video.time, 'monotonic', lambda: now)
        assert recording.show(now)
        found.append(len(writer))
    assert found == counts


@pytest.mark.parametrize('key, visible, goes_on', [(-1, 1, True), (ord('q'), 1, False), (27, 1, False), (-1, 0, False)])
def test_a_window_ends_with_a_key_or_when_closed(monkeypatch, key, visible, goes_on):
    shown = []
    monkeypatch.setattr(cv2, 'namedWindow', lambda *args: None)
    monkeypatch.setattr(cv2, 'imshow', lambda name, image: shown.append(image))
    monkeypatch.setattr(cv2, 'waitKey', lambda milliseconds: key)
    monkeypatch.setattr(cv2, 'getWindowProperty', lambda *args: visible)
    assert video.Window('a', 25).show('image') is goes_on and shown == ['image']


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='other systems need no DISPLAY for a window')
def test_without_a_display_there_is_no_window(monkeypatch):
    for name in 'DISPLAY', 'WAYLAND_DISPLAY', 'QT_QPA_PLATFORM':
        monkeypatch.delenv(name, raising=False)
    assert not video.has_window()
    monkeypatch.setenv('DISPLAY', ':987')  # OpenCV ends the process
    assert not video.has_window()


def stream(run, params, *flags, cwd=None):
    """demo.py without a display."""
    return run('demo.py', '--params', params, '--gpus', '', *flags, cwd=cwd, env={'DISPLAY': '', 'WAYLAND_DISPLAY': ''})


def test_a_streamed_video_shows_the_frame_rate(run, params, tmp_path):
    source = write_video(tmp_path / 'grey.avi', 8, (320, 240))
    done = stream(run, params, '--source', source, '--thresh', 1, '--out-dir', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    target, = (tmp_path / 'out').iterdir()
    assert str(target) in done.stderr and done.stdout == ''
    drawn, frames = read_video(target), read_video(source)
    assert len(drawn) == len(frames) == 8
    for image, frame in zip(drawn, frames):
        change = np.abs(image.astype(int) - frame).max(axis=2) > 40
        rows, columns = np.nonzero(change)
        assert len(rows) > 50 and rows.min() > 200 and columns.max() < 120  # lower left


def test_detections_of_a_stream_are_printed_and_drawn(run, params, tmp_path):
    source = write_video(tmp_path / 'grey.avi', 3, (320, 240))
    done = stream(run, params, '--source', source, '--thresh', 0.1, '--out-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split('\t') for line in done.stdout.splitlines()]
    assert {file for file, *_ in lines} == {'%s:%d' % (source, number) for number in range(3)}
    assert os.path.exists(source) and (tmp_path / 'grey.mp4').exists()
    same = run('demo.py', '--params', params, '--gpus', '', source, '--thresh', 0.1, '--out-dir', tmp_path)
    assert same.stdout == done.stdout


@pytest.mark.parametrize('flags, said', [
    (['--source', 'gone.mp4'], 'gone.mp4'), (['--source', __file__], __file__), (['--source', '9999'], '9999'),
    (['--source', 'http://127.0.0.1:9/a.mp4'], 'http://127.0.0.1:9/a.mp4'), (['--source', '0', 'a.jpg'], 'a.jpg'),
    (['--source', '0', '--json', 'a.json'], '--json'), (['--source', '0', '--serve'], '--source')])
def test_mistakes_end_in_one_line(run, params, tmp_path, flags, said):
    (tmp_path / 'a.jpg').write_bytes(b'')
    done = stream(run, params, *flags, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and said in done.stderr
