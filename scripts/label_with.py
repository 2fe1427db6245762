"""Label pictures with a detector: its detections become a data set in VOC's form, with scores, for training."""
import argparse
import collections
import logging
import os
import re
import shlex
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import ArgumentParser, UserError, input_size, positive, processes, run, share, shorten, start
from yolo3.detector import add_detector_flags, open_detector
from yolo3.files import files_below


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('images', nargs='+', metavar='IMAGES', help='images, and folders of them at any depth')
    add_detector_flags(parser)
    add('--out', required=True, metavar='DIR', help="folder to write to, training's --dataset-root; it may hold "
        'labelled images in VOC form, which stay as they are')
    add('--split', type=split, default='unlabelled_train', metavar='A_B', help='name for --train-splits: the images go '
        'into the new folder VOCA of --out, and their list is B.txt; default: %(default)s')
    add('--thresh', type=share, default=0.3, metavar='SCORE', help='lowest score of a box, 0..1; default: %(default)s')
    add('--data-shape', type=input_size, metavar='SIZE', help='input size, pixels; default: as in training')
    add('--batch-size', type=positive, default=16, metavar='N', help='images; default: %(default)s')
    add('--num-workers', '-j', type=processes, default=4, metavar='N',
        help='processes that prepare the batches; default: %(default)s')
    add('--on-bad-image', default='', choices=('', 'skip', 'stop'),
        help='as in training: an unreadable image is skipped with a warning, up to 1%% of them; any number; none')
    add('--link', action='store_true', help='hard-link the images instead of copying them')
    return parser.parse_intermixed_args(argv)


def split(text):
    """The name of a split, 'A_B'."""
    if not re.fullmatch(r'[A-Za-z0-9-]+_[A-Za-z0-9_-]+', text):
        raise argparse.ArgumentTypeError('%.40s is not two words of letters and digits with a _ between, such as '
                                         'unlabelled_train' % text)
    return text


start(__name__, parse_args)

from yolo3 import log
from yolo3.data.images import EXTENSIONS
from yolo3.data.labelled import LabelledImages
from yolo3.data.voc import Object
from yolo3.data.voc_writer import VOCWriter, check_names, whole

logger = logging.getLogger('yolo3')

# If --out has this split, it holds labelled images, too.
LABELLED_SPLIT, LABELLED = '2007_trainval', os.path.join('VOC2007', 'ImageSets', 'Main', 'trainval.txt')


def find(names):
    """The image files `names`, and those in the folders `names`, each file once. Raises UserError."""
    paths = {}
    for name in names:
        if not os.path.exists(name):
            raise UserError('no such image or folder: %s' % name)
        for path in files_below(name) if os.path.isdir(name) else [name]:
            if path == name or path.lower().endswith(EXTENSIONS):
                paths.setdefault(os.path.realpath(path), path)
    if not paths:
        raise UserError('no images in %s' % ', '.join(names))
    return list(paths.values())


def check_place(folder, args, paths):
    """Raise UserError unless the new `folder` may be written: into no folder of the images `paths`, over nothing."""
    if os.path.lexists(folder):
        raise UserError('--out %s: it has %s already: name another --split, or remove that folder'
                        % (args.out, os.path.basename(folder)))
    inputs = {os.path.realpath(name) for name in args.images if os.path.isdir(name)}
    for used in sorted(inputs.union(os.path.realpath(os.path.dirname(path)) for path in paths)):
        if os.path.realpath(folder).startswith(os.path.join(used, '')):
            raise UserError('--out %s: is in %s, which holds the images: name another folder' % (args.out, used))


class Pictures(LabelledImages):
    """The image files `paths`, without labels, for a detector of `classes`. Bad ones are left out; see LabelledImages.

    Raises UserError.
    """

    def __init__(self, paths, classes, on_bad_image):
        super().__init__(os.curdir, ['IMAGES'], classes, on_bad_image)
        with log.bar(len(paths), 'images') as bar:
            for path in paths:
                with self._leaving_out_bad():
                    self._add(path, self._sound(path, None), [])
                bar.update()
        for error in self._bad:
            logger.warning('skipped image: %s', error)
        self.require_few(len(self._bad), self._bad[0] if self._bad else '')
        if not len(self):
            raise UserError('no image is left: %s' % self._bad[0])


class Labels:
    """Writes the detections in `images` with a VOCWriter. In the form of a metric, see `yolo3.metrics`.

    thresh: the lowest score of a box. stems: of the images written; empty: how many of them have no box; boxes: how
    many boxes each class has; left_out: how many detections are none.
    """

    def __init__(self, images, writer, thresh):
        self.images = images
        self._writer, self._thresh = writer, thresh
        self.reset()

    def reset(self):
        self.stems, self.empty, self.boxes, self.left_out = [], 0, collections.Counter(), 0

    def update(self, index, ids, scores, boxes):
        size = self.images.size(index)
        # The best comes last: of two boxes in one cell, training takes the later one.
        found = zip(ids[::-1], scores[::-1].tolist(), boxes[::-1].tolist())
        objects = [Object(self.images.classes[id_], to_voc(box, size), False, score) for id_, score, box in found]
        objects = [item for item in objects if item.score >= self._thresh and has_area(item.corners)]
        self.stems.append(self._writer.add(self.images.image_path(index), size, objects))
        self.empty += not objects
        self.boxes.update(item.name for item in objects)
        self.left_out += len(ids) - len(objects)

    def get(self):
        return self


def to_voc(box, size):
    """VOC's corners of a detection's `box` in an image of `size` [width, height]: pixels counted from 1.

    Both have both ends inside the box.
    """
    return [round(min(side + 1, limit), 2) for side, limit in zip(box, size * 2)]


def has_area(corners):
    return corners[0] < corners[2] and corners[1] < corners[3]


def print_results(args, labels, unreadable):
    """What was written, and the flags to train with."""
    classes = shorten(['%s %d' % pair for pair in labels.boxes.most_common()], 20)
    print('%s: %d images (%d without boxes), %d boxes: %s; left out %d boxes below --thresh %g or without area, '
          '%d unreadable images' % (args.split, len(labels.stems), labels.empty, sum(labels.boxes.values()), classes,
                                    labels.left_out, args.thresh, unreadable))
    splits = [LABELLED_SPLIT, args.split] if os.path.exists(os.path.join(args.out, LABELLED)) else [args.split]
    print('train with --dataset voc --dataset-root %s --classes %s --train-splits %s' % (
        shlex.quote(args.out), shlex.quote(','.join(labels.images.classes)), ','.join(dict.fromkeys(splits))))


def main(argv=None):
    args = parse_args(argv)
    log.start_log()
    paths = find(args.images)
    part, name = args.split.split('_', 1)
    folder = os.path.join(args.out, 'VOC' + part)
    check_place(folder, args, paths)
    detector = open_detector(args)
    check_names(detector.info['classes'], args.params)
    size = args.data_shape or detector.info['data_shape']
    source = 'label_with.py %s, input %d, from score %g' % (os.path.basename(args.params), size, args.thresh)
    try:
        with whole(folder) as new:
            writer = VOCWriter(new, args.link, source)
            images = Pictures(paths, detector.info['classes'], args.on_bad_image)
            batches, = detector.loaders(images, [size], args.batch_size, args.num_workers)
            with log.bar(len(images), 'labels') as bar:
                labels = detector.evaluate(log.advancing(bar, batches), Labels(images, writer, args.thresh), size)
            if not labels.boxes:
                raise UserError('--thresh %g: no box in %d images scores as much' % (args.thresh, len(images)))
            writer.split(name, labels.stems)
    except OSError as error:
        raise UserError('--out %s: %s%s' % (args.out, error, '; try without --link' if args.link else ''))
    print_results(args, labels, len(paths) - len(labels.stems))


if __name__ == '__main__':
    run(main)
