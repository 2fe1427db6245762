"""Images, videos and streams with detections drawn on them: a file in, an annotated file out.

`detect` is everywhere a function: an image (H, W, 3) uint8 RGB -> [{'class', 'score', 'box'}], what `draw` takes.
"""
import contextlib
import os
import stat
import sys

import cv2
from tqdm import tqdm

from yolo3 import log
from yolo3.ahead import ahead
from yolo3.atomic import replacing
from yolo3.cli import UserError
from yolo3.data.images import ImageFile
from yolo3.deploy import video
from yolo3.files import require_regular
from yolo3.show.draw import draw
from yolo3.show.inputs import content, file_name

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png')  # kept; other pictures are written as .jpg
USUAL_RATE = 25  # frames per second, if a source does not say


class OutputFolder:
    """Names in the folder `path`: each only once, and never that of a file `used` or `reserved` ('': none).

    A file of an earlier run is replaced, unless the folder holds some of `used`: its files may be originals.
    """

    def __init__(self, path, used, reserved=()):
        self._path = path
        self._taken = set(map(os.path.realpath, filter(None, used)))
        self._replaces = os.path.realpath(path) not in map(os.path.dirname, self._taken)
        self._taken.update(map(os.path.realpath, filter(None, reserved)))

    def name(self, source, extension):
        """The path of the annotated file `source`: its base name and `extension`, numbered if that is taken."""
        base = os.path.splitext(os.path.basename(source))[0]
        number, target = 1, os.path.join(self._path, base + extension)
        while not self._is_free(target):
            number += 1
            target = os.path.join(self._path, '%s_%d%s' % (base, number, extension))
        self._taken.add(os.path.realpath(target))
        return target

    def _is_free(self, path):
        if os.path.realpath(path) in self._taken:
            return False
        return not os.path.lexists(path) or self._replaces and stat.S_ISREG(os.lstat(path).st_mode)


def look_at(paths, detect, threads):
    """Yield (pixels, detections) of each of the images `paths`, files or as `yolo3.show.inputs` has them.

    If one of them cannot be read, or `detect` fails, its UserError is yielded instead. threads: how many call `detect`.
    """
    def read(path):
        return ImageFile(path, content=content(path)).pixels()
    images = ahead(attempt(read), paths)
    return ahead(attempt(lambda image: (image, detect(image))), images, threads)


def attempt(function):
    """`function`, of one argument, made to return its UserErrors instead of raising them, and to pass given ones on."""
    def call(argument):
        try:
            return argument if isinstance(argument, UserError) else function(argument)
        except UserError as error:
            return error
    return call


def looked(frames, detect, threads):
    """Yield each of `frames` with its detections. threads: how many call `detect`."""
    return ahead(lambda frame: (frame, detect(frame)), frames, threads)


def annotate_image(path, found, folder, extras=()):
    """Draw the image `path`, of which `look_at` has `found` this, into the OutputFolder `folder`.

    extras: functions to call with the image and its record. Returns this record: {'file', 'width', 'height', 'picture',
    'detections'}. Raises UserError.
    """
    if isinstance(found, UserError):
        raise found
    image, detections = found
    name = file_name(path)
    extension = os.path.splitext(name)[1]
    target = folder.name(name, extension if extension.lower() in IMAGE_EXTENSIONS else '.jpg')
    with replacing(target) as temporary, open(temporary, 'wb') as file:
        file.write(cv2.imencode(os.path.splitext(target)[1], annotated(image, detections))[1])
    print_detections(path, detections)
    record = {'file': path, 'width': image.shape[1], 'height': image.shape[0], 'picture': target,
              'detections': detections}
    for extra in extras:
        extra(image, record)
    return record


def annotate_video(path, detect, folder, extras=(), threads=1):
    """Draw the detections in a video file, without its sound: the same frame rate, and a record for each frame.

    threads: how many call `detect`. The rest as in `annotate_image`. Raises UserError.
    """
    try:
        require_regular(path)
    except OSError as error:
        raise UserError('cannot read video %s: %s' % (path, error.strerror))
    capture = cv2.VideoCapture(path)
    rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    records, writer = [], None
    try:
        with log.bar(max(0, count) or None, os.path.basename(path), 'frame') as bar, \
                contextlib.closing(video.frames(capture)) as frames, \
                contextlib.closing(looked(frames, detect, threads)) as found:
            for number, (frame, detections) in enumerate(found):
                height, width = frame.shape[:2]
                if not writer:
                    writer, target = open_writer(path, folder, rate if rate > 0 else USUAL_RATE, (width, height))
                writer.write(annotated(frame, detections))
                print_detections('%s:%d' % (path, number), detections)
                records.append({'file': path, 'frame': number, 'width': width, 'height': height, 'picture': target,
                                'detections': detections})
                for extra in extras:
                    extra(frame, records[-1])
                bar.update()
    finally:
        if writer:
            writer.release()  # so that the frames written so far can be played, even after Ctrl-C
    if not records:
        raise UserError('cannot read video %s: not a video, or of a kind that this OpenCV cannot decode' % path)
    return records


def item_name(record):
    """The name of the picture that a record describes or, in a video, with the number of its frame."""
    base, extension = os.path.splitext(os.path.basename(record['picture']))
    return base + ('_%d' % record['frame'] if 'frame' in record else '') + extension


def annotate_stream(source, detect, out_dir, threads=1):
    """Draw the detections and the frame rate on the frames of --source as they come.

    They go into a window or, if this machine has none, into a video in `out_dir`. threads: how many call `detect` on
    a file's frames. Raises UserError.
    """
    capture = video.open_source(source)
    is_file = not video.is_live(source)
    name = source if is_file else 'live'  # an address may contain a password
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else USUAL_RATE  # some cameras do not know theirs
    measured, screen, has_window = video.FrameRate(), None, video.has_window()
    try:
        with contextlib.closing(video.frames(capture, newest=not is_file)) as frames, \
                contextlib.closing(looked(frames, detect, threads if is_file else 0)) as found:
            for number, (frame, detections) in enumerate(found):
                if not screen and has_window:
                    screen = video.Window(name, rate if is_file else 0)
                elif not screen:
                    writer, target = open_writer(name, OutputFolder(out_dir, [source]), rate, frame.shape[1::-1])
                    screen = video.Recording(writer, rate, timed=not is_file)
                    print('no display here: writing to %s' % target, file=sys.stderr)
                print_detections('%s:%d' % (name, number), detections)
                drawn = annotated(frame, detections)
                video.write_rate(drawn, measured.tick())
                if not screen.show(drawn):
                    break
    finally:
        if screen:
            screen.close()
    if not screen:
        raise UserError('--source %s: no frame came' % source)


def annotated(image, detections):
    """`image` with its detections drawn, as OpenCV takes it: BGR."""
    return cv2.cvtColor(draw(image, detections), cv2.COLOR_RGB2BGR)


def print_detections(name, detections):
    """Print a line for each detection: file, class, score and box, separated by tabs."""
    write = tqdm.write if sys.stderr.isatty() else print  # in a log file the bar need not be redrawn
    for found in detections:
        box = ' '.join('%.1f' % side for side in found['box'])
        write('%s\t%s\t%.3f\t%s' % (name, found['class'], found['score'], box))


def open_writer(source, folder, rate, size):
    """A cv2.VideoWriter for frames of `size`, (width, height), and the file it writes. Raises UserError."""
    for extension, code in ('.mp4', 'mp4v'), ('.avi', 'MJPG'):
        target = folder.name(source, extension)
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)  # OpenCV would write into it, and so into all files that are hard links to it
        writer = cv2.VideoWriter(target, cv2.VideoWriter_fourcc(*code), rate, size)
        if writer.isOpened():
            return writer, target
    raise UserError('%s: this OpenCV can write videos neither as MPEG-4 nor as Motion JPEG' % source)
