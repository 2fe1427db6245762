"""YOLO's form: label rows, the splits in a data.yaml or an obj.data, and the images and boxes of a data set of them."""
import os
from typing import NamedTuple

import yaml

from yolo3.cli import UserError
from yolo3.data.images import EXTENSIONS
from yolo3.data.labelled import (MAKE_SPLITS, UNCERTAIN, LabelledImages, class_key, clean_name, numbers,
                                 whole_number)
from yolo3.files import files_below, open_input

DESCRIPTIONS = 'data.yaml', 'data.yml', 'dataset.yaml', 'obj.data'
NAMES = 'classes.txt', os.path.join('labels', 'classes.txt'), 'obj.names'
SPLITS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}  # and their keys in the files
NOTHING = '', '~', 'null'  # as YAML writes it
# Beside a folder of images; annotations/ as Label Studio's VOC and users of LabelImg have it
LABEL_FOLDERS = {'images': ('labels', 'Annotations', 'annotations'), 'JPEGImages': ('Annotations',)}
BEYOND = 0.01  # of the image's width or height: so far rounding may lead outside of it
# Why a row cannot be used
MALFORMED = 'neither: class cx cy w h, nor: class and the corners of a polygon'
OUTSIDE = 'outside 0..1'


class Row(NamedTuple):
    """One row of a label file."""
    number: int  # of the class; None with a flaw
    edges: list  # left, top, right, bottom: shares of the image's width and height; None with a flaw
    flaw: str  # '', MALFORMED or OUTSIDE


class Description(NamedTuple):
    """What a data.yaml or an obj.data says."""
    path: str
    folder: str  # where its paths start
    names: list  # of the classes; [] without them
    splits: dict  # {'train', 'val' or 'test': paths as they are written}, those that it names
    keypoints: bool  # whether these follow the box in each row


# ---- Images and labels

def is_image(path):
    """Whether `path` has the extension of an image."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def label_bases(image):
    """Where the label of the file `image` may be, without the extension: images/ is beside labels/, or both are one."""
    stem = os.path.splitext(image)[0]
    parts = stem.split(os.sep)
    for number in reversed(range(len(parts) - 1)):
        if parts[number] in LABEL_FOLDERS:
            return [os.sep.join([*parts[:number], folder, *parts[number + 1:]])
                    for folder in LABEL_FOLDERS[parts[number]]] + [stem]
    return [stem]


def read_rows(path, keypoints=False):
    """The Rows of a label file, each a box or a polygon, whose box is taken. Raises OSError, ValueError.

    keypoints: these follow the box in each row.
    """
    with open_input(path, 'r', 'utf-8-sig') as file:
        return [_row(words[:5] if keypoints else words) for words in map(str.split, file) if words]


def _row(words):
    try:
        number, values = whole_number(float(words[0])), numbers(words[1:])
    except UNCERTAIN:
        return Row(None, None, MALFORMED)
    if len(values) > 4 and _are_keypoints(values[4:]):
        values = values[:4]
    if len(values) == 4:
        x, y, width, height = values
        edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    elif len(values) >= 6 and len(values) % 2 == 0:
        edges = [pick(values[start::2]) for pick in (min, max) for start in (0, 1)]
    else:
        return Row(None, None, MALFORMED)
    if min(values) < -BEYOND or max(values) > 1 + BEYOND:
        return Row(None, None, OUTSIDE)
    return Row(number, edges, '')


def _are_keypoints(values):
    """Whether `values` are keypoints' x, y and visibility, as Label Studio writes them without saying so.

    They are for certain with a visibility of 2, or if all are absent: no polygon has a 2 or only corners 0, 0.
    """
    visibilities = values[2::3]
    return len(values) % 3 == 0 and {0, 1, 2}.issuperset(visibilities) and (2 in visibilities or not any(values))


def in_pixels(edges, size):
    """Left, top, right, bottom in pixels of an image of `size` [width, height], inside it, both ends inside the box.

    edges: shares of the width and height.
    """
    left, top, right, bottom = [min(max(edge, 0), 1) * side for edge, side in zip(edges, [*size, *size])]
    return [left, top, right - 1, bottom - 1]


# ---- Class names and splits

def class_names(folder):
    """The class names in a text file of NAMES in `folder`; [] without one. Raises UserError."""
    path = next(filter(os.path.lexists, (os.path.join(folder, name) for name in NAMES)), '')
    return _names_in(path) if path else []


def _names_in(path):
    """The class names in a text file, a line each; a blank line between others is a class, too. Raises UserError."""
    try:
        with open_input(path, 'r', 'utf-8-sig') as file:
            return list(map(clean_name, file.read().rstrip().split('\n')))
    except (OSError, ValueError) as error:
        raise _no_names(path, error)


def _no_names(path, error):
    return UserError('%s: not a list of class names (%s): correct it' % (path, error))


def find_description(root):
    """The data.yaml or obj.data that `root` is, or that is in the folder `root`; '' without one."""
    root = os.path.expanduser(root)
    if not os.path.isdir(root):
        return root if root.lower().endswith(('.yaml', '.yml', '.data')) else ''
    return next((path for path in (os.path.join(root, name) for name in DESCRIPTIONS) if os.path.lexists(path)), '')


def read_description(path):
    """The Description in the file `path`. Raises UserError."""
    own = os.path.dirname(os.path.abspath(path))
    darknet = path.endswith('.data')
    try:
        with open_input(path, 'r', 'utf-8-sig') as file:
            if darknet:
                content = dict(map(str.strip, line.split('=', 1)) for line in file if '=' in line)
            else:
                content = yaml.load(file, yaml.BaseLoader)  # all texts: yes, no and 1.0 are names
        if not isinstance(content, dict):
            raise TypeError('it holds no table')
        names = content.get('names', [])
        names = _listed_names(names) if not darknet else _names_in(found(names, [own])) if names else []
    except OSError as error:
        raise UserError('cannot read %s: %s' % (path, error.strerror))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError, yaml.YAMLError) as error:
        raise _no_names(path, error)
    entries = {key.lower(): value for key, value in content.items()}  # CVAT's subsets are Train and Validation
    splits = {}
    for split, keys in SPLITS.items():
        value = next((entries[key] for key in keys if entries.get(key)), [])
        places = value if isinstance(value, list) else [value]
        if not all(isinstance(place, str) for place in places):
            raise UserError('%s: %s is neither a path nor a list of paths' % (path, split))
        places = [place for place in places if place.lower() not in NOTHING]
        if places:
            splits[split] = places
    root = content.get('path', '')
    root = os.path.join(own, root) if isinstance(root, str) else own
    # Where `path` leads nowhere, the folder has come from another machine.
    return Description(path, os.path.normpath(root if os.path.isdir(root) else own), names, splits,
                       bool(content.get('kpt_shape')))


def _listed_names(names):
    """The class names in a list, or in a mapping from 0, 1, ...; raises LookupError or TypeError."""
    if isinstance(names, dict):
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError('no list of texts')
    return list(map(clean_name, names))


def found(place, folders):
    """The path that `place` is, seen from the first of `folders` in which it exists; else from the first.

    Roboflow writes ../train/images, and CVAT data/train.txt as Darknet has it, for what is beside the file.
    """
    first, _, rest = place.partition('/')
    places = [place, rest] if first in ('..', 'data') else [place]
    paths = [os.path.normpath(os.path.join(folder, each)) for folder in folders for each in places]
    return next((path for path in paths if os.path.exists(path)), paths[0])


def split_images(description, split):
    """The paths of the images of a split: in its folders, at any depth, and in its lists. Raises UserError."""
    images = []
    for place in description.splits[split]:
        path = found(place, [description.folder, os.path.dirname(os.path.abspath(description.path))])
        if os.path.isdir(path):
            images += filter(is_image, files_below(path))
            continue
        try:
            with open_input(path, 'r', 'utf-8-sig') as file:
                lines = [line.strip() for line in file if line.strip()]
        except (OSError, ValueError) as error:
            raise UserError('%s: %s: %s is neither a folder nor a list of images (%s): correct it' % (
                description.path, split, path, getattr(error, 'strerror', None) or 'not text'))
        images += [found(line, [os.path.dirname(path), description.folder]) for line in lines]
    if not images:
        raise UserError('%s: %s: no image in %s' % (description.path, split, ', '.join(description.splits[split])))
    return images


class YOLOImages(LabelledImages):
    """Images and boxes in YOLO's form.

    root: a data.yaml (Ultralytics, Roboflow) or an obj.data (Darknet, CVAT), or the folder with one. splits: 'train',
    'val' or 'test', of those that it names. Its class names are matched with `classes`; without these they are the
    classes. An image without a label file has no objects: its label has the shape (0, 5); `skip_empty` leaves it out.
    For the rest see LabelledImages. Raises UserError.
    """

    LAYOUT = 'a data.yaml or an obj.data, or be one'

    def __init__(self, root, splits, classes=None, skip_empty=False, on_bad_image=None):
        path = find_description(root)
        if not path:
            raise UserError('--dataset yolo: --dataset-root %s must hold %s' % (root or "''", self.LAYOUT))
        self._description = description = read_description(path)
        self._require_names()
        super().__init__(description.folder, splits, classes or description.names, on_bad_image)
        for split in splits:
            if split not in description.splits:
                raise UserError('%s has no split %s (--train-splits or --val-splits), only: %s; %s' % (
                    path, split, ', '.join(description.splits) or 'none', MAKE_SPLITS))
            for image in self._reading(split_images(description, split)):
                with self._leaving_out_bad():
                    self._read_image(os.path.abspath(image), 'without objects' if skip_empty else '')
        self._finish()

    def _require_names(self):
        """Raise UserError unless the data.yaml has class names that can be told apart."""
        names = list(map(class_key, self._description.names))
        if not names or '' in names or len(set(names)) < len(names):
            why = 'a class name is empty or there twice (case does not count)' if names else 'it names no classes'
            raise UserError('%s: %s' % (self._description.path, why))

    def _read_image(self, image, skip):
        """Add an image. Raises BadImage, and UserError for a label file that is not certain."""
        path = next((base + '.txt' for base in label_bases(image) if os.path.lexists(base + '.txt')), '')
        if self._is_listed(image, path):
            return
        size = self._sound(image, None)
        if not path:
            self._note('took', 'image', 'without a label file, as background', image)
        boxes = [(name, '', in_pixels(edges, size)) for name, edges in (self._boxes(path) if path else ())]
        self._add(image, size, self._usable(path, size, boxes, 5), skip)

    def _boxes(self, path):
        """Yield the class name and the edges of each row of a label file. Raises UserError."""
        names = self._description.names
        try:
            rows = read_rows(path, self._description.keypoints)
        except (OSError, ValueError) as error:
            raise UserError('cannot read label file %s: %s' % (path, getattr(error, 'strerror', None) or 'not text'))
        for number, row in enumerate(rows, 1):
            if row.flaw:
                raise UserError('%s: row %d is %s; correct it, or leave it out with scripts/convert_dataset.py' % (
                    path, number, row.flaw))
            yield names[row.number] if 0 <= row.number < len(names) else 'number %d' % row.number, row.edges
