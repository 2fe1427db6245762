"""What VOC, COCO and YOLO data sets share: images with labels, and an account of every box and image left out."""
import collections
import contextlib
import functools
import hashlib
import io
import json
import math
import os
from typing import NamedTuple

import numpy as np

from yolo3 import log
from yolo3.cli import UserError, shorten
from yolo3.data.images import BadImage, ImageFile, check_header, displayed_size
from yolo3.data.packed import Rows, Texts

UNKNOWN_CLASS = 'of other classes'
MAKE_SPLITS = 'scripts/convert_dataset.py makes splits'
MOST = 1e15  # of any number in an annotation: no picture is larger, and products of two are finite
MOST_BAD = 0.01  # share of the images: more bad ones point to a mistake, such as a wrong folder


class Note(NamedTuple):
    """What was left out or changed, and why: ('dropped', 'box', 'of no width', ...)."""
    done: str  # 'dropped', 'clipped', 'skipped' or 'took'
    noun: str  # 'box' or 'image'
    why: str
    count: int
    files: list  # the names of up to 4 files


class LabelledImages:
    """Images, each with a label: an array with one row a box. VOCImages, COCOImages and YOLOImages read them.

    root: the data set's folder; `~` is expanded. classes: class names, compared without regard to case and white space.
    on_bad_image: None reads no image file. Otherwise the header of every file is read; a BadImage is an error with
    'stop', is left out with 'skip', and with '' is left out unless more than MOST_BAD of the images are bad.
    Raises UserError.
    """

    LAYOUT = ''  # what the folder must hold, for error messages

    def __init__(self, root, splits, classes, on_bad_image):
        self._expected = '--dataset-root %s must hold %s' % (root, self.LAYOUT)
        self._root = os.path.expanduser(root)
        try:
            os.stat(os.path.join(self._root, ''))
        except OSError as error:
            raise self._unread('dataset folder', root, error)
        self.name = '+'.join(splits)  # as log lines and tables call the set
        self._set_classes([clean_name(name) for name in classes])
        if '' in self._numbers or len(self._numbers) < len(self._classes):
            raise UserError('--classes %s: a name is empty or given twice (case does not count)' % ','.join(classes))
        # A label's columns: those of `label`, and for VOC the score.
        self._paths, self._sizes, self._labels = [], [], []
        self._sources = {}  # what labels each image file
        self._notes, self._found = {}, collections.Counter()
        self.on_bad_image, self._bad = on_bad_image, []

    def _set_classes(self, classes):
        self._classes = tuple(classes)
        self._numbers = {class_key(name): number for number, name in enumerate(classes)}

    # ---- While reading

    def _unread(self, what, path, error, splits=()):
        """The UserError for an OSError: `what` is at `path`. splits: those that there are instead."""
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            there = '--dataset-root %s has only: %s; %s' % (self._root, shorten(splits, 5), MAKE_SPLITS)
            return UserError('no %s %s (--train-splits or --val-splits): %s' % (
                what, path, there if splits else self._expected))
        return UserError('cannot read %s %s: %s' % (what, path, error.strerror))

    def _note(self, done, noun, why, path):
        """Count one more `noun` that was `done`, found in the file `path`."""
        note = self._notes.get((done, noun, why), Note(done, noun, why, 0, []))
        name = os.path.basename(path)
        files = note.files + [name] if len(note.files) < 4 and name not in note.files else note.files
        self._notes[done, noun, why] = note._replace(count=note.count + 1, files=files)

    def _usable(self, path, size, boxes, columns):
        """The label, (n, columns), of the boxes that can be used; the others are noted.

        boxes: each a class name, a flaw or '', [xmin, ymin, xmax, ymax], and the columns after the class, if any. They
        are clipped to the image of `size` [width, height] pixels. path: the file to name.
        """
        label, (right, bottom) = [], (size[0] - 1, size[1] - 1)
        for name, flaw, corners, *rest in boxes:
            self._found[name] += 1
            number = self._numbers.get(class_key(name))
            xmin, ymin, xmax, ymax = clipped = corners
            if not (0 <= xmin < xmax <= right and 0 <= ymin < ymax <= bottom):
                clipped = [min(max(side, 0), limit) for side, limit in zip(corners, (right, bottom) * 2)]
            if number is None:
                flaw = UNKNOWN_CLASS
            elif not flaw and clipped[0] >= clipped[2]:
                flaw = 'of no width'
            elif not flaw and clipped[1] >= clipped[3]:
                flaw = 'of no height'
            if flaw:
                self._note('dropped', 'box', flaw, path)
                continue
            # Some tools count pixels from 0, some from 1: one pixel outside the image is no flaw.
            if clipped != corners and max(abs(side - inside) for side, inside in zip(corners, clipped)) > 1:
                self._note('clipped', 'box', 'reaching beyond the image', path)
            label.append(clipped + [number] + rest)
        return np.array(label, float).reshape(-1, columns)

    def _is_listed(self, path, source):
        """Note the image `path` as listed by `source`; whether it was before. Raises UserError if another listed it."""
        listed = path in self._sources
        first = self._sources.setdefault(path, source)
        if first != source:
            raise UserError('%s is the image of %s and of %s: which labels are right? Keep one' % (path, first, source))
        if listed:
            self._note('skipped', 'image', 'listed twice', path)
        return listed

    def _add(self, path, size, label, skip=''):
        """Add an image; with a reason to `skip` images without boxes, only if it has one. Returns whether it did."""
        if skip and not len(label):
            self._note('skipped', 'image', skip, path)
            return False
        self._paths.append(path)
        self._sizes.append(size)
        self._labels.append(label)
        return True

    def _sound(self, path, annotated):
        """The [width, height] of the image `path`: as `annotated` if that is a size, else as its file says.

        Raises BadImage if the image is bad, which is looked at only if `on_bad_image` is not None.
        """
        if annotated is None:
            return displayed_size(path)
        if self.on_bad_image is not None:
            check_header(path, annotated)
        return annotated

    @contextlib.contextmanager
    def _leaving_out_bad(self):
        """Leave the image that the block adds out if it is bad, unless `on_bad_image` forbids it."""
        try:
            yield
        except BadImage as error:
            if self.on_bad_image in (None, 'stop'):
                raise
            self._note('skipped', 'image', error.why, error.path)
            self._bad.append(str(error))

    def _require_boxes(self):
        """Raise UserError if too many images are bad, or no box can be used."""
        self.require_few(len(self._bad), self._bad[0] if self._bad else '')
        if not any(map(len, self._labels)):
            found = shorten(['%s (%d)' % pair for pair in self._found.most_common()], 20) or 'none'
            raise UserError('; '.join(['no usable box of --classes %s in %s of %s; classes found there: %s' % (
                ','.join(self.classes), self.name, self._root, found)] + self._account()))

    def _finish(self):
        """To be called once all images are added. Raises UserError if they are of no use."""
        self._require_boxes()
        self._sources.clear()
        self._paths, self._sizes, self._labels = Texts(self._paths), np.array(self._sizes), Rows(self._labels)

    def _reading(self, entries):
        """Yield the `entries` of an annotation file, with a progress bar if they take long."""
        with log.bar(len(entries), 'reading ' + self.name, delay=2) as bar:
            for entry in entries:
                yield entry
                bar.update()

    def require_few(self, bad, example):
        """Raise UserError if `bad` images are too many; `example` names one."""
        total = len(self) + len(self._bad)
        if self.on_bad_image == '' and bad > MOST_BAD * total:
            raise UserError('%s: %d of %d images are bad, for example: %s; repair or remove them, or skip them with '
                            '--on-bad-image skip' % (self.name, bad, total, example))

    # ---- What training and evaluation use

    @property
    def classes(self):
        """The names of the classes in order, as the user spells them: a tuple."""
        return self._classes

    @property
    def contiguous_id_to_json(self):
        """The category id of each class in COCO's formats. Only COCO's own files have ids: otherwise they count from 1.
        """
        return {number: number + 1 for number in range(len(self.classes))}

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, index):
        """The image, uint8 (height, width, 3), RGB, and its `label`. Raises BadImage."""
        return self.image_file(index).pixels(), self.label(index)

    def label(self, index):
        """A copy of the boxes of one image, float64 (n, 6) for VOC, (n, 5) otherwise.

        Columns: xmin, ymin, xmax, ymax in pixels from 0, both ends inside the box; class number; for VOC, difficult.
        """
        return self._labels[index][:, :6].copy()

    def difficult(self, index):
        """Which boxes of one image are marked difficult, bool (n,); only VOC marks any."""
        return (self._labels[index][:, 5:6] > 0).any(axis=1)

    def scores(self, index):
        """How much each box of one image weighs in training, as a mixup ratio does: (n,), 0..1; 1 but for VOC."""
        return self._labels[index][:, 6:].prod(axis=1)

    def image_path(self, index):
        """The file of one image."""
        return self._paths[index]

    def image_file(self, index):
        """The ImageFile of one image, rotated as its boxes need it. Raises BadImage."""
        return ImageFile(self._paths[index], self.size(index))

    def size(self, index):
        """[width, height] of one image in pixels, as annotated; without an annotated size, as its file says."""
        return list(self._sizes[index])

    def extents(self, size):
        """Width and height of all boxes, (n, 2), in pixels of a `size` x `size` input."""
        return np.concatenate([(label[:, 2:4] - label[:, :2]) * (size / np.array(image))
                               for label, image in zip(self._labels, self._sizes)])

    def image_id(self, index):
        """The id of one image in COCO's formats: without one of its own, its file name without the extension, and with
        the folders if several have the same."""
        path = self.image_path(index)
        return _stem(path) if self._stems[_stem(path)] == 1 else os.path.relpath(path, self._root)

    @functools.cached_property
    def _stems(self):
        return collections.Counter(map(_stem, self._paths))

    def _truth(self, index):
        """What `coco` says of one image: (n, 8), class number, crowd or not, difficult or not, area, and x, y, width,
        height."""
        label = self.label(index)
        sides = label[:, 2:4] - label[:, :2] + 1  # a box includes both its ends
        return np.column_stack((label[:, 4], np.zeros(len(label)), self.difficult(index), sides.prod(axis=1),
                                label[:, :2], sides))

    @functools.cached_property
    def coco(self):
        """A pycocotools COCO object of these images and classes, crowd regions included, for evaluation."""
        from pycocotools.coco import COCO
        coco, annotations = COCO(), []
        for image in range(len(self)):
            for number, crowd, difficult, area, *bbox in self._truth(image).tolist():
                # Ids start at 1: pycocotools takes a match with annotation 0 for none.
                annotations.append({'id': len(annotations) + 1, 'image_id': self.image_id(image), 'bbox': bbox,
                                    'area': area, 'category_id': self.contiguous_id_to_json[number],
                                    'iscrowd': int(crowd), 'difficult': int(difficult)})
        coco.dataset = {
            'images': [{'id': self.image_id(image), 'file_name': os.path.basename(self.image_path(image)),
                        **dict(zip(('width', 'height'), self.size(image)))} for image in range(len(self))],
            'annotations': annotations,
            'categories': [{'id': id_, 'name': self.classes[number]}
                           for number, id_ in self.contiguous_id_to_json.items()]}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco

    # ---- The account

    def notes(self):
        """What was dropped, clipped or skipped: a list of Note."""
        return list(self._notes.values())

    def others(self):
        """The classes found that are not in `classes`: [(name, number of boxes)], the most frequent first."""
        return [pair for pair in self._found.most_common() if class_key(pair[0]) not in self._numbers]

    def digest(self):
        """A text that depends on file names, sizes and boxes with their scores and classes' names, and on nothing else.

        Not on the folder, nor on the order and spelling of `classes`, which can be compared for themselves.
        """
        labels = self._labels.all.copy()
        if (labels[:, 6:] == 1).all():  # as without scores
            labels = labels[:, :6]
        numbers, used = np.unique(labels[:, 4], return_inverse=True)
        keys = [class_key(self.classes[int(number)]) for number in numbers]
        labels[:, 4] = np.argsort(np.argsort(keys))[used]
        names = [os.path.relpath(path, self._root) for path in self._paths]
        digest = hashlib.sha256(json.dumps([names, self._labels.counts.tolist(), sorted(keys)]).encode())
        digest.update(np.array(self._sizes, float).tobytes() + labels.tobytes())
        return digest.hexdigest()[:16]

    def _account(self):
        """A phrase for each Note."""
        phrases = []
        for done, noun, why, count, files in self.notes():
            if why == UNKNOWN_CLASS:
                why += ' (%s)' % shorten(["'%s' %d" % pair for pair in self.others()], 10)
            phrases.append('%s %s %s: %s' % (done, _count(count, noun), why, shorten(files, 3)))
        return phrases

    def summary(self):
        """One line: the splits, their images and boxes, and everything dropped, clipped or skipped."""
        empty, labels = int((self._labels.counts == 0).sum()), self._labels.all
        parts = ['%s: %s%s, %s' % (self.name, _count(len(self), 'image'),
                                   ' (%d without objects)' % empty if empty else '',
                                   _count(len(labels), 'box'))]
        parts += self._account()
        weighed = int((labels[:, 6:] < 1).sum())
        if weighed:
            parts.append('%s with scores below 1, which count in training only' % _count(weighed, 'box'))
        used = set(labels[:, 4])
        unused = [name for number, name in enumerate(self.classes) if number not in used]
        if unused:
            parts.append('no boxes of: %s' % shorten(unused, 10))
        return '; '.join(parts)


def _stem(path):
    return os.path.splitext(os.path.basename(path))[0]


def clean_name(name):
    """A class name without surrounding white space or line breaks."""
    return ' '.join(name.split())


@functools.lru_cache(1000)  # it is asked for each box
def class_key(name):
    """What all spellings of a class name have in common."""
    return clean_name(name).casefold()


# ---- The values in annotations, XML's texts and JSON's values: one that is not certain raises one of these

UNCERTAIN = ArithmeticError, LookupError, TypeError, ValueError


def numbers(values):
    """A list of floats from numbers or their texts, less than MOST; a boolean is no number."""
    if bool in map(type, values):
        raise TypeError('a boolean is no number')
    result = list(map(float, values))
    if not math.hypot(*result) < MOST:
        raise ValueError('no finite numbers')
    return result


def whole_number(value):
    """The int that `value` or its text is; 1.0 is 1."""
    if type(value) is not int:
        if not (isinstance(value, str) or isinstance(value, float) and value.is_integer()):
            raise TypeError('no whole number')
        value = int(value)
    if abs(value) >= 2 ** 63:  # NumPy would make a float of it
        raise ValueError('too large')
    return value


def flag(value):
    """Whether a mark is set, by a boolean, 0, 1 or their texts; nothing is no."""
    value = value.strip().lower() if isinstance(value, str) else value
    if value in (False, None, '', '0', 'false', 'no'):
        return False
    if value in (True, '1', 'true', 'yes'):
        return True
    raise ValueError('neither yes nor no')


def weight(value):
    """The number more than 0 and at most 1 that a text gives; nothing is 1."""
    if not value.strip():
        return 1.
    number, = numbers([value])
    if not 0 < number <= 1:
        raise ValueError('outside 0..1')
    return number


def annotated_size(width, height):
    """[width, height] in pixels from an annotation's texts or numbers; None if they are no size."""
    with contextlib.suppress(*UNCERTAIN):
        size = numbers([width, height])
        return size if min(size) >= 1 else None


def _count(number, noun):
    return '%d %s%s' % (number, noun, '' if number == 1 else 'es' if noun == 'box' else 's')
