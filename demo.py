"""Show what a trained detector finds in pictures, videos, a camera's stream or a web page: weights -> drawn boxes."""
import contextlib
import itertools
import os
import sys

from yolo3.cli import ArgumentParser, UserError, input_size, port, run, share, start
from yolo3.detector import ZOO_DETECTOR, add_detector_flags
from yolo3.show.flags import add_finder_flags, add_output_flags, flags_given


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('inputs', nargs='*', metavar='IMAGES', help='images, videos, folders, globs, several joined by commas; an '
        'http:// or https:// address of an image; - for an image from stdin')
    add_detector_flags(parser, default=ZOO_DETECTOR)
    add('--images', nargs='+', default=[], metavar='IMAGES', help='as IMAGES')
    add('--out-dir', default='detections', metavar='DIR', help='folder for the annotated files; default: %(default)s')
    add('--thresh', type=score, default=0.5, metavar='SCORE', help='lowest score to show, 0..1, or auto: where F1 was '
        'best in the validation; default: %(default)s')
    add('--data-shape', type=input_size, metavar='SIZE', help='input size, pixels; default: as in training')
    add_finder_flags(parser)
    add_output_flags(parser)
    add('--source', default='', help='instead of IMAGES: a camera (0 is the first), a video or rtsp://..., shown in a '
        'window (q closes it) or, if there is no display, written to a video in --out-dir (Ctrl-C ends it)')
    add('--serve', action='store_true', help='instead of IMAGES: serve a web page and a JSON API, see docs/deploy.md')
    add('--host', default='127.0.0.1', help='address of --serve; 0.0.0.0 lets every machine in; default: %(default)s')
    add('--port', type=port, default=8000, metavar='N',
        help='port of --serve; 0 takes any free one; default: %(default)s')
    args = parser.parse_intermixed_args(argv)
    if args.source or args.serve:
        flag, others = ('--serve', ['--source']) if args.serve else ('--source', [])
        others = args.inputs + args.images + [other for other in others if vars(args)[other[2:]]] + flags_given(args)
        if others:
            raise UserError('%s cannot be combined with %s' % (flag, others[0]))
    return args


def score(text):
    """'auto', or a number 0..1."""
    return text if text == 'auto' else share(text)


start(__name__, parse_args)

# FFmpeg, inside OpenCV, would print lines of its own beside the one that names an unreadable video.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')

from tqdm import tqdm

from yolo3 import log
from yolo3.deploy.video import is_live
from yolo3.files import make_output_folder
from yolo3.show.annotate import OutputFolder, annotate_image, annotate_stream, annotate_video, look_at
from yolo3.show.draw import font_file
from yolo3.show.finder import choose, detections, open_finder
from yolo3.show.inputs import expand, is_file, is_video
from yolo3.show.outputs import Outputs, check_files


def annotate_files(paths, detect, folder, extras, threads=1):
    """Annotate the images and videos `paths` in an OutputFolder; extras: see `annotate_image`.

    threads: how many call `detect`. Returns the records of all and whether a file was unreadable.
    """
    records, failed = [], False
    images = itertools.filterfalse(is_video, paths)
    with log.bar(len(paths), 'demo', 'file') as bar, contextlib.closing(look_at(images, detect, threads)) as found:
        for path in paths:
            try:
                if is_video(path):
                    records += annotate_video(path, detect, folder, extras, threads)
                else:
                    records.append(annotate_image(path, next(found), folder, extras))
            except UserError as error:
                tqdm.write('demo.py: error: %s' % error, file=sys.stderr)
                failed = True
            bar.update()
    return records, failed


def at_once(args, paths):
    """How many pictures can be looked at side by side; a live one must not wait for the next."""
    if args.serve or args.source and is_live(args.source):
        return 1
    return sys.maxsize if args.source or any(map(is_video, paths)) else len(paths)


def warn_of_missing_fonts(names):
    missing = [name for name in names if not font_file(name)]
    if missing:
        print('no font on this machine has all letters of %s: drawn as escapes; install one, such as fonts-noto-cjk'
              % ', '.join(missing), file=sys.stderr)


def main(argv=None):
    args = parse_args(argv)
    names = args.inputs + args.images
    paths = list(dict.fromkeys(path for name in names for path in expand(name)))
    if not (paths or args.source or args.serve):
        raise UserError('no images in %s' % ', '.join(names) if names else 'name the images to look at (see --help)')
    used = list(filter(is_file, paths))
    check_files(args, [args.params, *used])
    detector = open_finder(args, at_once(args, paths))
    if args.thresh == 'auto':
        if 'threshold' not in detector.info:
            raise UserError('--thresh auto: %s says none: give a number; eval_yolo3.py prints the best one'
                            % args.params)
        args.thresh = detector.info['threshold']
    classes = choose(detector.info['classes'], args.only, args.params)
    size = args.data_shape or detector.info['data_shape']
    most = None if args.tiles else args.max_detections  # --tiles limits each window, not the image

    def detect(image, thresh=args.thresh):
        """Detections in an RGB image, the best first: [{'class', 'score', 'box'}], boxes in the image's pixels."""
        found, = detector.detect([image], size)
        return detections(found, classes, thresh, most)

    if args.serve:
        from yolo3.deploy import serve  # here because nothing else needs a web framework
        app = serve.make_app(detect, os.path.basename(args.params), list(classes.values()), args.thresh)
        serve.run(app, args.host, args.port)
        return
    make_output_folder('--out-dir', args.out_dir)
    warn_of_missing_fonts(classes.values())
    if args.source:
        annotate_stream(args.source, detect, args.out_dir, detector.streams)
        return
    outputs = Outputs(args, detector.info['classes'], used)
    folder = OutputFolder(args.out_dir, used, reserved=[args.json, args.csv, args.sheet])
    records, failed = annotate_files(paths, detect, folder, outputs.extras, detector.streams)
    outputs.write(records)
    print('%d detections in %d images, drawn into %s' % (sum(len(record['detections']) for record in records),
                                                         len(records), args.out_dir), file=sys.stderr)
    if failed:
        sys.exit(2)


if __name__ == '__main__':
    run(main)
