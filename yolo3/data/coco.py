"""COCO's form: JSON annotation files, and the images and boxes of a data set of them."""
import collections
import contextlib
import glob
import json
import os
import re
from typing import NamedTuple

import numpy as np

from yolo3.cli import UserError
from yolo3.data.images import BadImage
from yolo3.data.labelled import (UNCERTAIN, LabelledImages, annotated_size, class_key, clean_name, flag, numbers,
                                 whole_number)
from yolo3.data.segmentation import box_of
from yolo3.files import open_input

CROWD = 'around crowds'
# Where a split has its annotation file: as COCO and CVAT, Roboflow, and Label Studio (result.json) have it.
FILES = os.path.join('annotations', '%s.json'), os.path.join('%s', '_annotations.coco.json'), '%s.json'
TRAIN_SPLITS = 'instances_train2017', 'instances_train', 'instances_Train', 'train'
VAL_SPLITS = 'instances_val2017', 'instances_val', 'instances_Validation', 'valid', 'instances_test', 'test'


class Annotations(NamedTuple):
    """What one JSON file says."""
    images: list  # of Entry, by id
    categories: dict  # {category id: name}, by id
    boxes: dict  # {image id: [Box]}


class Entry(NamedTuple):
    """One image."""
    id: object  # all of a file are int, or all are texts
    url: str  # '' without, as the name
    name: str
    size: list  # [width, height] in pixels; None without


class Box(NamedTuple):
    """One annotation."""
    name: str  # of its class
    flaw: str  # why it cannot be trained on, '' if it can
    bbox: list  # [x, y, width, height] in pixels
    area: float


class COCOImages(LabelledImages):
    """Images and boxes in COCO's form.

    splits: annotation files, as in FILES, whose categories are matched with `classes` by name; without `classes` they
    are the files' own, by id. Crowd regions are no boxes to train on. An image without boxes has a label
    of shape (0, 5); `skip_empty` leaves it out, `skip_crowd_only` does so if it has a crowd region.
    For the rest see LabelledImages. Raises UserError.
    """

    LAYOUT = ('annotations/instances_train2017.json and its images for the split instances_train2017, '
              'train/_annotations.coco.json for train, or result.json for result')

    def __init__(self, root, splits, classes=None, skip_empty=False, skip_crowd_only=False, on_bad_image=None):
        super().__init__(root, splits, classes or (), on_bad_image)
        self._folder = os.path.abspath(self._root)
        self._skip_empty, self._skip_crowd_only = skip_empty, skip_crowd_only
        self._ids, self._truths, self._splits = [], [], []
        files = [self._read_json(split) for split in splits]
        if not classes:
            names = {}
            for name in (name for file in files for name in file.categories.values()):
                names.setdefault(class_key(name), name)
            self._set_classes(names.values())
        # Other tools can evaluate with the first file: its category ids are kept. Classes it lacks get free ones.
        ids = {class_key(name): number for number, name in files[0].categories.items()}
        free = max(ids.values(), default=0) + 1
        self._category_ids = {number: ids.get(class_key(name), free + number)
                              for number, name in enumerate(self.classes)}
        for split, file in zip(splits, files):
            for entry in self._reading(file.images):
                with self._leaving_out_bad():
                    # Several files may use the same ids for different images.
                    self._read_image(split, entry, file.boxes.pop(entry.id, []), own_id=len(files) == 1)
            for _ in (box for boxes in file.boxes.values() for box in boxes):
                self._note('dropped', 'box', 'of images not listed', split + '.json')
        self._finish()

    def _read_image(self, split, entry, boxes, own_id):
        """Add the image of an Entry, under the id it has there if `own_id`. Raises BadImage."""
        path = self._picture(split, entry)
        if self._is_listed(path, 'id %s in %s.json' % (entry.id, split)):
            return
        size = self._sound(path, entry.size)
        found = [(box.name, box.flaw, [x, y, x + max(0, width - 1), y + max(0, height - 1)])  # both ends are inside
                 for box in boxes for x, y, width, height in [box.bbox]]
        label = self._usable(path, size, found, 5)
        truth = [[number, box.flaw == CROWD, 0, box.area] + box.bbox for number, box in
                 ((self._numbers.get(class_key(box.name)), box) for box in boxes) if number is not None]
        crowd = self._skip_crowd_only and any(row[1] for row in truth)
        skip = 'with only crowd regions' if crowd else 'without objects' if self._skip_empty else ''
        if self._add(path, size, label, skip):
            self._ids.append(entry.id if own_id else len(self._ids) + 1)
            self._truths.append(np.array(truth, float))
            self._splits.append(split)

    def _read_json(self, split):
        """The Annotations in one file. Raises UserError."""
        path = annotation_file(self._root, split)
        try:
            with open_input(path, 'r', 'utf-8-sig') as file:
                content = json.load(file)
        except OSError as error:
            raise self._unread('annotation file', path, error, found_splits(self._root))
        except (RecursionError, ValueError) as error:
            raise UserError('%s: not a JSON file (%s)' % (path, error))
        try:
            return read_annotations(content)
        except UNCERTAIN as error:
            raise UserError('%s: %s' % (path, error))

    def _picture(self, split, entry):
        """The path of the image of an Entry."""
        for place in places(split, entry):
            path = os.path.normpath(os.path.join(self._folder, place))
            if path.startswith(self._folder + os.sep) and os.path.isfile(path):  # nothing outside is read
                return path
        message = 'no image for id %s of %s: looked in %s for %s' % (
            entry.id, split, self._folder, ', '.join(places(split, entry)) or 'file_name, which is missing')
        raise BadImage(entry.name or '(id %s)' % entry.id, message, 'missing')

    @property
    def contiguous_id_to_json(self):
        """The category id of each class in `coco`."""
        return self._category_ids

    def image_id(self, index):
        """The id of one image in `coco`."""
        return self._ids[index]

    def split(self, index):
        """The split of one image."""
        return self._splits[index]

    def _truth(self, index):
        return self._truths[index]


def places(split, entry):
    """Yield where the image of an Entry may be, seen from the data set's folder."""
    if '/' in entry.url:
        yield os.path.join(*entry.url.split('/')[-2:])
    if entry.name:
        subset = split.replace('instances_', '', 1)
        names = [entry.name]
        if entry.name.startswith(('..', '/')) or '\\' in entry.name:  # Label Studio names its server's folders
            names.append(re.split(r'[/\\]', entry.name)[-1])
        for name in names:
            for folder in subset, os.path.join('images', subset), 'images', '':
                yield os.path.join(folder, name)


# ---- Annotation files

def annotation_file(root, split):
    """The path of the annotation file of a split: of those in FILES the first that is there, else the first."""
    paths = [os.path.join(root, file % split) for file in FILES]
    return next(filter(os.path.lexists, paths), paths[0])


def usual_split(root, names):
    """The first of the splits `names` that the folder `root` has, else the first."""
    root = os.path.expanduser(root)
    return next((name for name in names if os.path.lexists(annotation_file(root, name))), names[0])


def found_splits(root):
    """The splits whose annotation files are where COCO, CVAT, Roboflow or Label Studio put them in `root`."""
    root = os.path.expanduser(root)
    found = [glob.glob(os.path.join(glob.escape(root), file % stem))
             for file, stem in zip(FILES, ('instances_*', '*', 'result'))]
    annotations, beside_images, single = [sorted(paths) for paths in found]
    return [os.path.splitext(os.path.basename(path))[0] for path in annotations + single] + [
        os.path.basename(os.path.dirname(path)) for path in beside_images]


# ---- A JSON file's content

def read_annotations(content):
    """The Annotations in the `content` of a JSON file. Raises ValueError, which says what is wrong."""
    images = [Entry(id_, url, name, annotated_size(width, height))
              for id_, url, name, width, height in _entries(content, 'images', IMAGE)]
    categories = sorted(_entries(content, 'categories', CATEGORY))
    if not images:
        raise ValueError('images is empty')
    texts = isinstance(images[0].id, str)
    if any(isinstance(image.id, str) != texts for image in images):
        raise ValueError('the ids of some images are texts, of others numbers')
    images.sort(key=lambda image: image.id)
    _require_once('images have the id', [image.id for image in images])
    _require_once('categories have the id', [number for number, *_ in categories])

    names, boxes, used = {number: name for number, name, _ in categories}, collections.defaultdict(list), set()
    image_id = (lambda value: str(_id(value))) if texts else whole_number
    content = dict(content, annotations=_with_boxes(content.get('annotations')))
    for image, number, bbox, area, crowd, ignore in _entries(content, 'annotations', dict(BOX, image_id=image_id)):
        used.add(number)
        area = bbox[2] * bbox[3] if area is None else area
        flaw = CROWD if crowd else 'marked to be ignored' if ignore else '' if area > 0 else 'of no area'
        boxes[image].append(Box(names.get(number) or 'category %d' % number, flaw, bbox, area))
    _require_once('categories with boxes have the name',
                  [class_key(name) for number, name, _ in categories if number in used])
    # Roboflow lists the name of the whole project as a category, too: the supercategory of the others, without boxes.
    groups = {group for _, name, group in categories if group != name}
    return Annotations(images, {number: name for number, name in names.items() if number in used or name not in groups},
                       boxes)


def _with_boxes(annotations):
    """The `annotations`, with a bbox made of the segmentation of each that has only that."""
    if not isinstance(annotations, list):
        return annotations
    result = []
    for entry in annotations:
        if isinstance(entry, dict) and entry.get('bbox') in (None, []) and entry.get('segmentation'):
            with contextlib.suppress(*UNCERTAIN):  # without a bbox it is refused
                entry = dict(entry, bbox=box_of(entry['segmentation']))
        result.append(entry)
    return result


def _entries(content, part, readers):
    """Yield, for each entry of a `part` of the content, the values that `readers` {field: function} make of it.

    Raises ValueError at the first that is not certain.
    """
    entries = content.get(part) if isinstance(content, dict) else None
    if entries is None and part == 'annotations':
        entries = []
    if not isinstance(entries, list):
        raise ValueError("not in COCO's form: it has no list %s" % part)
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError('%s[%d] is %.60r, no object' % (part, number, entry))
        values = []
        for field, read in readers.items():
            try:
                values.append(read(entry.get(field)))
            except UNCERTAIN as error:
                raise ValueError('%s[%d]: its %s is %.60r: %s' % (part, number, field, entry.get(field), error))
        yield values


def _require_once(what, values):
    """Raise ValueError if a value comes twice; `what` is for the message."""
    for value, count in collections.Counter(values).most_common(1):
        if count > 1:
            raise ValueError('%d %s %s' % (count, what, value))


# ---- What is meant by the value of a field, None without it; one of UNCERTAIN if that is not certain

def _id(value):
    return value if isinstance(value, str) and value.strip() else whole_number(value)


def _text(value):
    if not isinstance(value, (str, type(None))):
        raise TypeError('no text')
    return value or ''


def _name(value):
    if not clean_name(_text(value)):
        raise ValueError('no name')
    return clean_name(value)


def _bbox(value):
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError('no list of x, y, width and height, and its segmentation gives none')
    return numbers(value)


def _group(value):
    return clean_name(value) if isinstance(value, str) else ''


def _area(value):
    return None if value is None else numbers([value])[0]


def _any(value):
    return value


IMAGE = {'id': _id, 'coco_url': _text, 'file_name': _text, 'width': _any, 'height': _any}
CATEGORY = {'id': whole_number, 'name': _name, 'supercategory': _group}
BOX = {'image_id': None, 'category_id': whole_number, 'bbox': _bbox, 'area': _area, 'iscrowd': flag, 'ignore': flag}
