"""Draw what a trained detector finds in pictures and videos, live or in a browser: weights -> annotated pictures."""
import contextlib
import functools
import glob
import os
import sys

# FFmpeg, inside OpenCV, would print its own lines beside the one that names an unreadable video.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')

from yolo3 import log
from yolo3.deploy import runtimes, video as live
from yolo3.cli import ArgumentParser, UserError, check_output_file, comma_list, make_output_folder, run
from yolo3.data.images import EXTENSIONS
from yolo3.show.draw import draw, font_file
from yolo3.atomic import replacing, write_json
from yolo3.data.images import ImageFile

import cv2
from tqdm import tqdm

KEPT = ('.jpg', '.jpeg', '.png')  # other pictures are written as .jpg
VIDEO_EXTENSIONS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv')


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('inputs', nargs='*', metavar='IMAGES', help='images, videos, folders, globs, or several with commas between')
    add('--params', '--pretrained', required=True, metavar='FILE', help='the trained weights, a .params or .onnx file')
    add('--images', nargs='+', default=[], help='as IMAGES')
    add('--out-dir', default='detections', help='folder that the annotated pictures are written to')
    add('--thresh', type=float, default=0.5, help='smallest score to show, 0..1')
    add('--json', default='', metavar='FILE', help='write the detections to this file too')
    add('--source', default='', help='instead of IMAGES, live: 0 is the first camera, or a video, or rtsp://...; in a '
        'window, which q ends, or where there is none into a video in --out-dir, which Ctrl-C ends')
    add('--serve', action='store_true', help='instead of IMAGES, a page and a JSON API, see docs/deploy.md')
    add('--host', default='127.0.0.1', help='address that --serve listens at; 0.0.0.0 is all: everybody may use it')
    add('--port', type=int, default=8000, help='port that --serve listens at; 0: any that is free')
    add('--data-shape', type=int, default=0, help="input size of the network, pixels; default: the training's")
    add('--network', default=None, help='for a .params file without sidecar: its backbone; default: mobilenet1_0')
    add('--dataset', default=None, choices=('voc', 'coco'), help='for a .params file without sidecar: its classes')
    add('--classes', default='', help='for a .params file without sidecar: its classes a,b,c')
    add('--gpus', default=None, help="the GPU to run on; '' is the CPU; default: GPU 0 where there is one")
    add('--backend', default='', choices=('',) + runtimes.BACKENDS,
        help='what runs an .onnx file, on the CPU; default: %s' % runtimes.BACKENDS[0])
    args = parser.parse_intermixed_args(argv)
    runtimes.check_flags(args)
    if not 0 <= args.thresh <= 1:
        raise UserError('--thresh %g: must be from 0 to 1' % args.thresh)
    if args.data_shape < 0 or args.data_shape % 32:
        raise UserError('--data-shape %d: must be a positive multiple of 32, the largest stride' % args.data_shape)
    if (args.source or args.serve) and (args.inputs or args.images or args.json or args.source and args.serve):
        raise UserError('%s: not together with %s' % ('--serve' if args.serve else '--source', (
            args.inputs + args.images + ['--json' if args.json else '--source'])[0]))
    if not 0 <= args.port < 2 ** 16:
        raise UserError('--port %d: must be from 0 to 65535' % args.port)
    check_output_file('--json', args.json)
    return args


def expand(name):
    """The files that `name` stands for: a file, a folder, a glob or several of them with commas. Raises UserError."""
    known = EXTENSIONS + VIDEO_EXTENSIONS
    if os.path.isdir(name):
        return [os.path.join(name, entry) for entry in sorted(os.listdir(name)) if entry.lower().endswith(known)]
    if os.path.exists(name):
        return [name]
    matches = sorted(glob.glob(name, recursive=True))
    if matches:
        return [path for match in matches for path in expand(match) if path.lower().endswith(known)]
    if ',' in name:
        return [path for part in comma_list(name) for path in expand(part)]
    raise UserError('no such image, video or folder: %s' % name)


def free_name(out_dir, path, extension, taken):
    """Where the picture of `path` goes: its base name in `out_dir`, numbered where a path in the set `taken` has it."""
    base = os.path.splitext(os.path.basename(path))[0]
    number, target = 1, os.path.join(out_dir, base + extension)
    while os.path.realpath(target) in taken:
        number += 1
        target = os.path.join(out_dir, '%s_%d%s' % (base, number, extension))
    taken.add(os.path.realpath(target))
    return target


def show(name, detections):
    """Print a line for each detection: file, class, score and box, with tabs between."""
    write = tqdm.write if sys.stderr.isatty() else print  # in a log file the bar need not be drawn again
    for found in detections:
        box = ' '.join('%.1f' % value for value in found['box'])
        write('%s\t%s\t%.3f\t%s' % (name, found['class'], found['score'], box))


def picture(path, out_dir, look, taken):
    """Draw what `look` finds in the image `path`. Returns its record for --json, in a list. Raises UserError."""
    image = ImageFile(path).pixels()
    detections = look(image)
    extension = os.path.splitext(path)[1]
    target = free_name(out_dir, path, extension if extension.lower() in KEPT else '.jpg', taken)
    drawn = cv2.cvtColor(draw(image, detections), cv2.COLOR_RGB2BGR)
    with replacing(target) as temporary:
        cv2.imencode(os.path.splitext(target)[1], drawn)[1].tofile(temporary)
    show(path, detections)
    return [{'file': path, 'width': image.shape[1], 'height': image.shape[0], 'picture': target,
             'detections': detections}]


def video(path, out_dir, look, taken):
    """As `picture` for a video, its sound left out: as many frames a second, and a record for each."""
    capture = cv2.VideoCapture(path)
    rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    records, writer = [], None
    try:
        with log.bar(max(0, count) or None, os.path.basename(path), 'frame') as bar, \
                contextlib.closing(live.frames(capture)) as images:
            for number, image in enumerate(images):
                height, width = image.shape[:2]
                if not writer:
                    writer, target = open_writer(out_dir, path, rate if rate > 0 else 25, (width, height), taken)
                detections = look(image)
                writer.write(cv2.cvtColor(draw(image, detections), cv2.COLOR_RGB2BGR))
                show('%s:%d' % (path, number), detections)
                records.append({'file': path, 'frame': number, 'width': width, 'height': height, 'picture': target,
                                'detections': detections})
                bar.update()
    finally:
        if writer:
            writer.release()  # what was written so far can be played, even after Ctrl-C
    if not records:
        raise UserError('cannot read video %s: not a video, or of a kind that this OpenCV cannot decode' % path)
    return records


def open_writer(out_dir, path, rate, size, taken):
    """A cv2.VideoWriter for `size`, (width, height), and the file it writes. Raises UserError."""
    for extension, code in ('.mp4', 'mp4v'), ('.avi', 'MJPG'):
        target = free_name(out_dir, path, extension, taken)
        writer = cv2.VideoWriter(target, cv2.VideoWriter_fourcc(*code), rate, size)
        if writer.isOpened():
            return writer, target
    raise UserError('%s: this OpenCV can write a video neither as MPEG-4 nor as Motion JPEG' % path)


def watch(source, out_dir, look):
    """Draw what `look` finds in the frames of --source as they come, and the frame rate. Raises UserError."""
    capture = live.open_source(source)
    is_file = os.path.exists(source) and not source.isdigit()
    name = source if is_file else 'live'  # an address may have a password in it
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else 25  # some cameras do not know
    measured, screen, windowed = live.Rate(), None, live.has_window()
    try:
        with contextlib.closing(live.frames(capture, newest=not is_file)) as images:
            for number, image in enumerate(images):
                if not screen and windowed:
                    screen = live.Window(name, rate if is_file else 0)
                elif not screen:
                    writer, target = open_writer(out_dir, name, rate, image.shape[1::-1], {os.path.realpath(source)})
                    screen = live.Recording(writer, rate, timed=not is_file)
                    print('no window here: drawing into %s' % target, file=sys.stderr)
                detections = look(image)
                show('%s:%d' % (name, number), detections)
                drawn = cv2.cvtColor(draw(image, detections), cv2.COLOR_RGB2BGR)
                live.write_rate(drawn, measured.tick())
                if not screen.show(drawn):
                    break
    finally:
        if screen:
            screen.close()
    if not screen:
        raise UserError('--source %s: not a single frame came' % source)


def detector(args):
    """A function (images, size) -> detections, see `detect.detect`, and the info of the file `--params`."""
    if runtimes.is_exported(args.params):
        net, info = runtimes.load(args.params, args.backend)
        return functools.partial(runtimes.detect, net), info
    # Here, as an .onnx file needs no MXNet.
    from yolo3 import detect, weights
    from yolo3.devices import contexts
    devices = contexts(args.gpus)
    net, info = weights.load_detector(args.params, args.network, args.dataset, comma_list(args.classes), devices)
    detect.prepare(net)
    return functools.partial(detect.detect, net, devices=devices), info


def main():
    args = parse_args()
    names = args.inputs + args.images
    paths = list(dict.fromkeys(path for name in names for path in expand(name)))
    if not (paths or args.source or args.serve):
        raise UserError('no images in %s' % ', '.join(names) if names else 'name the images to look at (see --help)')
    detect, info = detector(args)

    def look(image, thresh=args.thresh):
        """Detections in an RGB image, the best first: [{'class', 'score', 'box'}], the box in the image's pixels."""
        ids, scores, boxes = detect([image], args.data_shape or info['data_shape'])[0]
        return [{'class': info['classes'][number], 'score': round(float(score), 4),
                 'box': [round(float(value), 2) for value in box]}
                for number, score, box in zip(ids, scores, boxes) if score >= thresh]

    sys.stdout.reconfigure(errors='backslashreplace')  # for names that the terminal's encoding lacks
    if args.serve:
        from yolo3.deploy import serve  # here, as the others need no web framework
        serve.run(look, os.path.basename(args.params), args.thresh, args.host, args.port)
        return
    make_output_folder('--out-dir', args.out_dir)
    escaped = [name for name in info['classes'] if not font_file(name)]
    if escaped:
        print('no font here has the letters of %s: drawn as escapes; install one, such as fonts-noto-cjk'
              % ', '.join(escaped), file=sys.stderr)
    if args.source:
        watch(args.source, args.out_dir, look)
        return
    taken = {os.path.realpath(path) for path in paths}  # no input is written over
    records, failed = [], False
    with log.bar(len(paths), 'demo', 'file') as files:
        for path in paths:
            annotate = video if path.lower().endswith(VIDEO_EXTENSIONS) else picture
            try:
                records += annotate(path, args.out_dir, look, taken)
            except UserError as error:
                tqdm.write('demo.py: error: %s' % error, file=sys.stderr)
                failed = True
            files.update()
    if args.json:
        write_json(args.json, records)
    print('%d detections in %d images, drawn into %s' % (sum(len(record['detections']) for record in records),
                                                         len(records), args.out_dir), file=sys.stderr)
    if failed:
        sys.exit(2)


if __name__ == '__main__':
    run(main)
