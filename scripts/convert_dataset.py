"""Convert YOLO, LabelImg or Labelme labels into a data set in VOC's form, for training."""
import json
import math
import os
import shlex
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import start

start(__name__)

import numpy as np
import yaml
from tqdm import tqdm

from yolo3.cli import ArgumentParser, UserError, comma_list, run, seed, share, shorten
from yolo3.data.images import EXTENSIONS, ImageFile
from yolo3.data.labelled import annotated_size, class_key, clean_name
from yolo3.data.voc import Object, read_annotation
from yolo3.data.voc_writer import VOCWriter, check_names, whole
from yolo3.files import files_below, open_input

SHAPES = 'rectangle', 'polygon'  # Labelme's shapes whose points give a box


class BadLabels(Exception):
    """A label file that cannot be used; the message completes 'left out 3 ...'."""


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('source', metavar='DIR', help='images with .txt, .xml or .json labels beside them, or images/ and labels/')
    add('--out', required=True, metavar='DIR', help="folder to make, then training's --dataset-root")
    add('--classes', default='', type=comma_list,
        help="class names a,b,c: for YOLO, those its numbers stand for (default: from classes.txt or data.yaml); "
             'otherwise those to keep (default: all)')
    add('--test-share', type=share, default=0.2, help='share of the images in the split 2007_test, 0..1')
    add('--seed', type=seed, default=0, help='choose other images for the split 2007_test')
    add('--link', action='store_true', help='hard-link the images instead of copying them')
    args = parser.parse_args(argv)
    try:
        os.scandir(args.source).close()
    except OSError as error:
        raise UserError('cannot read folder %s: %s' % (args.source, error.strerror))
    if args.test_share in (0, 1):
        raise UserError('--test-share %g: must be more than 0 and less than 1' % args.test_share)
    source, out = [os.path.join(os.path.realpath(path), '') for path in (args.source, args.out)]
    try:
        free = not os.path.lexists(args.out) or not os.listdir(out)
    except OSError:
        free = False
    if not free or out.startswith(source):
        raise UserError('--out %s: name a new or empty folder outside %s' % (args.out, args.source))
    return args


# ---- Readers: a label file -> (size or None, [Object])

def read_yolo(path, size, names, note):
    """YOLO's lines 'class cx cy w h', shares of the width and height of an image of `size` pixels."""
    try:
        with open_input(path, 'r', 'utf-8-sig') as file:
            lines = [line.split() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise BadLabels('label files that are not text')
    boxes = []
    for line in lines:
        try:
            number, cx, cy, width, height = int(line[0]), *map(float, line[1:])
        except ValueError:
            note('boxes that are not: class cx cy w h', path)
            continue
        if not all(0 <= value <= 1 for value in (cx, cy, width, height)):
            note('boxes outside 0..1', path)
        elif not 0 <= number < len(names):
            note('boxes of an unknown class', path)
        else:
            edges = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
            corners = to_voc([edge * side for edge, side in zip(edges, size * 2)], size)
            boxes.append(Object(names[number], corners, False))
    return None, boxes


def read_labelme(path, size, note):
    """Labelme's JSON: rectangles, and the bounding boxes of polygons."""
    boxes = []
    try:
        with open_input(path, 'r', 'utf-8-sig') as file:
            content = json.load(file)
        annotated = annotated_size(content.get('imageWidth'), content.get('imageHeight')) or size
        for shape in content['shapes']:
            if shape.get('shape_type', 'polygon') not in SHAPES:
                note('shapes that are neither rectangle nor polygon', path)
                continue
            if not isinstance(shape['label'], str) or not clean_name(shape['label']):
                note('shapes without a label', path)
                continue
            (left, top), (right, bottom) = [ends(np.array(shape['points'], float), 0) for ends in (np.min, np.max)]
            corners = to_voc([left, top, right, bottom], annotated)
            boxes.append(Object(clean_name(shape['label']), corners, False))
    except (OSError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise BadLabels('label files that are not Labelme JSON')
    return annotated, boxes


def read_labelimg(path):
    """LabelImg's XML, which is VOC's."""
    try:
        annotation = read_annotation(path)
    except UserError:
        raise BadLabels('label files that are not VOC XML')
    return annotation.size, annotation.objects


def to_voc(edges, size):
    """Left, top, right, bottom -> VOC's corners: inside the image, pixels counted from 1, both ends inside the box."""
    left, top, right, bottom = [min(max(edge, 0), side) for edge, side in zip(edges, list(size) * 2)]
    return [left + 1, top + 1, right, bottom]


# ---- Finding and reading all of them

def find(source):
    """The images below `source`, sorted, each with its label file or None; and the label files without an image."""
    paths = files_below(source)
    known, pairs = set(paths), []
    for path in paths:
        stem, extension = os.path.splitext(path)
        if extension.lower() in EXTENSIONS:
            # YOLO's convention: the labels of images/a/b.jpg are in labels/a/b.txt, or beside it.
            parts = os.path.relpath(stem, source).split(os.sep)
            if 'images' in parts[:-1]:
                parts[len(parts) - 1 - parts[::-1].index('images', 1)] = 'labels'
            bases = os.path.join(source, *parts), stem
            places = [base + kind for kind in ('.xml', '.json', '.txt') for base in bases]
            pairs.append((path, next((place for place in places if place in known), None)))
    used = {label for _, label in pairs if label}
    places = {(os.path.dirname(label), os.path.splitext(label)[1]) for label in used}
    lone = [path for path in paths if (os.path.dirname(path), os.path.splitext(path)[1]) in places
            and path not in used and os.path.basename(path) != 'classes.txt']
    return pairs, lone


def class_names(source):
    """YOLO's class names, from classes.txt or data.yaml in `source`; [] without them."""
    for name in 'classes.txt', os.path.join('labels', 'classes.txt'), 'data.yaml':
        path = os.path.join(source, name)
        if os.path.lexists(path):
            try:
                with open_input(path, 'r', 'utf-8-sig') as file:
                    if name.endswith('.txt'):  # a blank line between others is a class, too
                        names = file.read().rstrip().split('\n')
                    else:
                        names = yaml.load(file, yaml.BaseLoader)['names']  # all texts: yes, no and 1.0 are names
                if isinstance(names, dict):
                    names = [names[str(number)] for number in range(len(names))]
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise TypeError('no list of texts')
                return list(map(clean_name, names))
            except (OSError, LookupError, RecursionError, TypeError, ValueError, yaml.YAMLError) as error:
                raise UserError('%s: not a list of class names (%s); correct it or give --classes' % (path, error))
    return []


def read(source, classes):
    """All of `source`: [(image path, size, [Object])], class names, {what is wrong: files}."""
    pairs, lone = find(source)
    yolo = any(label and label.endswith('.txt') for _, label in pairs)
    names = list(map(clean_name, classes)) or (class_names(source) if yolo else [])
    check_names(names, '--classes' if classes else source)
    if yolo and not names:
        raise UserError('%s: YOLO labels have no class names: give --classes a,b,c, or add a classes.txt or '
                        'data.yaml' % source)
    spellings = {class_key(name): name for name in names}
    notes = {'label files without an image': lone} if lone else {}

    def note(what, path):
        notes.setdefault(what, []).append(path)
    images = []
    for path, label in tqdm(pairs, desc='labels', unit='image', disable=None):
        try:
            image = ImageFile(path)
            if label is None and not yolo:
                raise BadLabels('images without labels')
            size, found = read_labels(label, [image.width, image.height], names, note)
        except UserError:
            note('unreadable images', path)
            continue
        except BadLabels as error:
            note(str(error), label or path)
            continue
        boxes = []
        for item in found:
            corners, key = item.corners, class_key(item.name)
            if names and key not in spellings:
                note('boxes of an unknown class', label)
            elif not (math.isfinite(sum(corners)) and corners[0] < corners[2] and corners[1] < corners[3]):
                note('boxes of no size', label)
            else:
                boxes.append(item._replace(name=spellings.setdefault(key, item.name)))
        images.append((path, size or [image.width, image.height], boxes))
    names = names or sorted(spellings.values())
    check_names(names, source)
    return images, names, notes


def read_labels(label, size, names, note):
    """What the reader for the file `label` gives; None is an image without objects."""
    if label is None:
        return None, []
    if label.endswith('.txt'):
        return read_yolo(label, size, names, note)
    return read_labelme(label, size, note) if label.endswith('.json') else read_labelimg(label)


# ---- Writing

def write(voc, images, test_share, seed, link):
    """Write `images` into the new folder `voc`. Returns the name, the number of images and of boxes of each split."""
    writer = VOCWriter(voc, link)
    stems = [writer.add(*image) for image in tqdm(images, desc='images', unit='image', disable=None)]
    order = np.random.RandomState(seed).permutation(len(images))
    tests = min(max(1, round(len(images) * test_share)), len(images) - 1)
    splits = []
    for name, numbers in ('trainval', order[tests:]), ('test', order[:tests]):
        writer.split(name, [stems[number] for number in sorted(numbers)])
        splits.append(('2007_' + name, len(numbers), sum(len(images[number][2]) for number in numbers)))
    return splits


def main(argv=None):
    args = parse_args(argv)
    images, classes, notes = read(args.source, args.classes)
    wrong = ['%d %s: %s' % (len(paths), what, shorten(list(dict.fromkeys(map(os.path.basename, paths))), 3))
             for what, paths in notes.items()]
    if len(images) < 2 or not any(boxes for _, _, boxes in images):
        raise UserError('%s: needs at least two labelled images and a box among them%s' % (
            args.source, '; '.join([''] + wrong)))
    try:
        with whole(os.path.join(args.out, 'VOC2007')) as folder:
            splits = write(folder, images, args.test_share, args.seed, args.link)
    except OSError as error:
        raise UserError('--out %s: %s%s' % (args.out, error, '; try without --link' if args.link else ''))
    print('; '.join(['%s: %d images, %d boxes' % split for split in splits]
                    + ['left out ' + each for each in wrong]))
    print('train with --dataset voc --dataset-root %s --classes %s --train-splits 2007_trainval --val-splits 2007_test'
          % (shlex.quote(args.out), shlex.quote(','.join(classes))))


if __name__ == '__main__':
    run(main)
