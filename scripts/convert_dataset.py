"""Convert YOLO, COCO, LabelImg or Labelme labels into a data set in VOC's form, for training."""
import itertools
import json
import math
import os
import re
import shlex
import sys
from typing import NamedTuple

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import ArgumentParser, UserError, comma_list, run, seed, share, shorten, start
from yolo3.files import files_below, open_input


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('source', metavar='SOURCE', help='folder of images with .txt, .xml or .json labels beside them, or of images/ '
        'and labels/; a data.yaml; or a folder with COCO annotation files')
    add('--out', required=True, metavar='DIR', help="folder to make, then training's --dataset-root")
    add('--classes', default='', type=comma_list,
        help="class names a,b,c: for YOLO, those its numbers stand for (default: from data.yaml or classes.txt); "
             'otherwise those to keep (default: all)')
    add('--test-share', type=share, default=0.2,
        help='share of the images in the split 2007_test, 0..1; without effect if the data set has its own splits')
    add('--seed', type=seed, default=0, help='choose other images for the split 2007_test')
    add('--link', action='store_true', help='hard-link the images instead of copying them')
    args = parser.parse_args(argv)
    if args.test_share in (0, 1):
        raise UserError('--test-share %g: must be more than 0 and less than 1' % args.test_share)
    return args


start(__name__, parse_args)

import numpy as np
from tqdm import tqdm

from yolo3.data.coco import COCOImages, found_splits
from yolo3.data.images import displayed_size, original
from yolo3.data.labelled import annotated_size, class_key, clean_name
from yolo3.data.voc import Object, read_annotation
from yolo3.data.voc_writer import VOCWriter, check_names, whole
from yolo3.data.yolo import (SPLITS, class_names, find_description, in_pixels, is_image, label_bases, read_description,
                             read_rows, split_images)

SHAPES = 'rectangle', 'polygon', 'oriented_rectangle'  # Labelme's shapes whose points give a box


class BadLabels(Exception):
    """A label file that cannot be used; the message completes 'left out 3 ...'."""


class Names(NamedTuple):
    """What the rows of YOLO's labels hold."""
    classes: list  # that their numbers stand for
    keypoints: bool  # whether these follow the box


# ---- Readers: a label file -> (size or None, [Object])

def read_yolo(path, size, names, note):
    """YOLO's rows for an image of `size` pixels, whose classes are numbers of `names`."""
    try:
        rows = read_rows(path, names.keypoints)
    except (OSError, ValueError):
        raise BadLabels('label files that are not text')
    boxes = []
    for row in rows:
        if row.flaw:
            note('boxes ' + row.flaw, path)
        elif not 0 <= row.number < len(names.classes):
            note('boxes of an unknown class', path)
        else:
            corners = [edge + 1 for edge in in_pixels(row.edges, size)]
            boxes.append(Object(names.classes[row.number], corners, False))
    return None, boxes


def read_labelme(path, size, note):
    """Labelme's JSON: rectangles, and the bounding boxes of polygons and oriented rectangles."""
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

def label_of(image):
    """The label file of an image; None without one."""
    places = [base + kind for kind in ('.xml', '.json', '.txt') for base in label_bases(image)]
    return next(filter(os.path.lexists, places), None)


def lone_labels(files, used):
    """Those of `files` that could be labels, by folder and extension, but are not among the ones `used`."""
    places = {(os.path.dirname(label), os.path.splitext(label)[1]) for label in used}
    return [path for path in files if (os.path.dirname(path), os.path.splitext(path)[1]) in places
            and path not in used and os.path.basename(path) != 'classes.txt']


def own_splits(description, note):
    """The splits of a data.yaml: {name: paths of images}. Raises UserError."""
    splits = {}
    for name in description.splits:
        try:
            splits[name] = split_images(description, name)
        except UserError:
            if name != 'test':
                raise
            note('splits without images', name)  # Roboflow names it even if it made none
    return splits


def voc_splits(images, files):
    """The splits of VOC's ImageSets/Main/train.txt, val.txt and test.txt among `files`, as CVAT writes them.

    {name: those of `images` that it lists}; {} if train.txt or all others list none. Raises UserError.
    """
    stems, splits = {os.path.splitext(os.path.basename(path))[0]: path for path in images}, {}
    for path in files:
        name = split_name(os.path.splitext(os.path.basename(path))[0])
        if name in SPLITS and os.path.dirname(path).endswith(os.path.join('ImageSets', 'Main')):
            try:
                with open_input(path, 'r', 'utf-8-sig') as lines:
                    listed = [line.strip() for line in lines]
            except (OSError, ValueError) as error:
                raise UserError('cannot read %s: %s' % (path, getattr(error, 'strerror', None) or 'not text'))
            splits.setdefault(name, []).extend(stems[stem] for stem in listed if stem in stems)
    return with_validation(splits)


def read(source, description, classes):
    """All of `source`: {image path: (size, [Object])}, class names, {split: image paths}, {what is wrong: files}.

    description: of its data.yaml, None without one.
    """
    files = files_below(os.path.abspath(source))  # as the paths of a data.yaml
    notes = {}

    def note(what, *paths):
        if paths:
            notes.setdefault(what, []).extend(paths)
    splits = own_splits(description, note) if description else voc_splits(filter(is_image, files), files)
    listed = set(itertools.chain(*splits.values()))
    labels = {path: label_of(path) for path in itertools.chain(*splits.values(), filter(is_image, files))}
    used = set(labels.values()) - {None}
    if not used and not description and found_splits(source):
        return read_coco(source, classes)
    yolo = any(label.endswith('.txt') for label in used)
    classes = list(map(clean_name, classes))
    known = (description and description.names) or (class_names(source) if yolo else [])
    names = Names(classes or known, bool(description) and description.keypoints)
    check_names(names.classes, '--classes' if classes else source)
    if yolo and not names.classes:
        raise UserError('%s: YOLO labels have no class names: give --classes a,b,c, or add a classes.txt or '
                        'data.yaml' % source)
    note('label files without an image', *lone_labels(files, used))
    if splits:
        note('images of no split', *sorted(set(labels) - listed))
        labels = {path: label for path, label in labels.items() if path in listed}
    if not yolo:  # its images without objects need no label file
        note('images without labels', *[path for path, label in labels.items() if label is None])
        labels = {path: label for path, label in labels.items() if label}
    images, classes = read_images(labels, names, note)
    check_names(classes, source)
    return images, classes, splits or folder_splits(images, os.path.abspath(source)), notes


def folder_splits(paths, source):
    """{split: paths} if each of `paths` is in a folder named after one split, as train/ or images/val/; else {}."""
    splits = {}
    for path in paths:
        names = set(SPLITS).intersection(map(split_name, os.path.relpath(path, source).split(os.sep)[:-1]))
        if len(names) != 1:
            return {}
        splits.setdefault(names.pop(), []).append(path)
    return splits


def read_coco(source, classes):
    """What `read` gives, of a folder with COCO annotation files. Prints what the reader of training says of it."""
    everything = COCOImages(source, found_splits(source), classes, on_bad_image='skip')
    print(everything.summary())
    images, splits = {}, {}
    for index in range(len(everything)):
        boxes = [Object(everything.classes[int(number)], [side + 1 for side in corners], False)
                 for *corners, number in everything.label(index).tolist()]
        images[everything.image_path(index)] = everything.size(index), boxes
        splits.setdefault(split_name(everything.split(index)), []).append(everything.image_path(index))
    check_names(everything.classes, source)
    return images, everything.classes, splits, {}


def split_name(name):
    """'instances_train2017' -> 'train', 'valid' -> 'val'."""
    name = re.sub('^instances_|20[0-9][0-9]$', '', name).lower()
    return {'valid': 'val', 'validation': 'val'}.get(name, name)


def read_images(labels, names, note):
    """The images and labels of {image path: label file or None}: {image path: (size, [Object])}, and class names."""
    spellings, images = {class_key(name): name for name in names.classes}, {}
    for path, label in tqdm(labels.items(), desc='labels', unit='image', disable=None):
        try:
            own_size = displayed_size(path)
            size, found = read_labels(label, own_size, names, note)
        except UserError:
            note('unreadable images', path)
            continue
        except BadLabels as error:
            note(str(error), label)
            continue
        boxes = []
        for item in found:
            corners, key = item.corners, class_key(item.name)
            if names.classes and key not in spellings:
                note('boxes of an unknown class', label)
            elif not (math.isfinite(sum(corners)) and corners[0] < corners[2] and corners[1] < corners[3]):
                note('boxes of no size', label)
            else:
                boxes.append(item._replace(name=spellings.setdefault(key, item.name)))
        images[path] = size or own_size, boxes
    return images, names.classes or sorted(spellings.values())


def read_labels(label, size, names, note):
    """What the reader for the file `label` gives; None is an image without objects."""
    if label is None:
        return None, []
    if label.endswith('.txt'):
        return read_yolo(label, size, names, note)
    return read_labelme(label, size, note) if label.endswith('.json') else read_labelimg(label)


# ---- Splitting and writing

def usable_splits(splits, images, test_share, seed):
    """{split: paths of `images`}: the `splits` of the data set itself, if one is to train on and one for validation."""
    kept = {name: [path for path in dict.fromkeys(paths) if path in images] for name, paths in splits.items()}
    return with_validation(kept) or divided(list(images), max(1, round(len(images) * test_share)), seed)


def with_validation(splits):
    """Those of `splits`, {name: paths}, that list images; {} unless 'train' and another one do."""
    listed = {name: paths for name, paths in splits.items() if paths}
    return listed if 'train' in listed and len(listed) > 1 else {}


def divided(paths, tests, seed):
    """{'trainval' and 'test': some of `paths`}, about `tests` for 'test', at random; neither is empty.

    Roboflow's augmented copies of one picture stay together, unless all are of one.
    """
    groups = {}
    for path in paths:
        groups.setdefault(original(path) if '.rf.' in path else path, []).append(path)
    groups = list(groups.values()) if len(groups) > 1 else [[path] for path in paths]
    test = set()
    for number in np.random.RandomState(seed).permutation(len(groups))[:-1]:
        if len(test) < tests:
            test.update(groups[number])
    return {'trainval': [path for path in paths if path not in test], 'test': [path for path in paths if path in test]}


def write(voc, images, splits, link):
    """Write `images` into the new folder `voc`, with their `splits`."""
    writer = VOCWriter(voc, link)
    stems = {path: writer.add(path, *image)
             for path, image in tqdm(images.items(), desc='images', unit='image', disable=None)}
    for name, paths in splits.items():
        writer.split(name, [stems[path] for path in paths])


def check_folders(args):
    """Set args.source to the folder to read and args.description to what its data.yaml says, if it has one.

    Raises UserError, too if --out is no new or empty folder outside it.
    """
    description = find_description(args.source)
    folder = os.path.dirname(args.source) or os.curdir if description == args.source else args.source
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise UserError('cannot read folder %s: %s' % (folder, error.strerror))
    args.description = read_description(description) if description else None
    source, out = [os.path.join(os.path.realpath(path), '') for path in (folder, args.out)]
    try:
        free = not os.path.lexists(args.out) or not os.listdir(out)
    except OSError:
        free = False
    if not free or out.startswith(source):
        raise UserError('--out %s: name a new or empty folder outside %s' % (args.out, folder))
    args.source = folder


def main(argv=None):
    args = parse_args(argv)
    check_folders(args)
    images, classes, splits, notes = read(args.source, args.description, args.classes)
    wrong = ['left out %d %s: %s' % (len(paths), what, shorten(list(dict.fromkeys(map(os.path.basename, paths))), 3))
             for what, paths in notes.items()]
    if len(images) < 2 or not any(boxes for _, boxes in images.values()):
        raise UserError('%s: needs at least two labelled images and a box among them, in a form that docs/data.md lists'
                        '%s' % (args.source, '; '.join(['', *wrong])))
    splits = usable_splits(splits, images, args.test_share, args.seed)
    try:
        with whole(os.path.join(args.out, 'VOC2007')) as folder:
            write(folder, images, splits, args.link)
    except OSError as error:
        raise UserError('--out %s: %s%s' % (args.out, error, '; try without --link' if args.link else ''))
    counts = ['2007_%s: %d images, %d boxes' % (name, len(paths), sum(len(images[path][1]) for path in paths))
              for name, paths in splits.items()]
    shared = sum(map(len, splits.values())) - len(images)
    if shared:
        counts.append('%d images are in more than one split' % shared)
    print('; '.join(counts + wrong))
    train, val = [next(name for name in names if name in splits) for names in (('train', 'trainval'), ('val', 'test'))]
    print('train with --dataset voc --dataset-root %s --classes %s --train-splits 2007_%s --val-splits 2007_%s'
          % (shlex.quote(args.out), shlex.quote(','.join(classes)), train, val))


if __name__ == '__main__':
    run(main)
