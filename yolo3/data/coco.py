"""COCO's form: JSON annotation files, and the images and boxes of a data set of them."""
import collections
import contextlib
import io
import json
import math
import os
from typing import NamedTuple

import numpy as np

from yolo3.cli import UserError
from yolo3.data.images import BadImage
from yolo3.data.labelled import LabelledImages, annotated_size, class_key, clean_name

CROWD = 'around crowds'


class Annotations(NamedTuple):
    """What one JSON file says."""
    images: list  # its image entries, by id
    categories: dict  # {category id: name}, by id
    boxes: dict  # {image id: [Box]}


class Box(NamedTuple):
    """One annotation."""
    name: str  # of its class
    flaw: str  # why it cannot be trained on, '' if it can
    bbox: list  # [x, y, width, height] in pixels
    area: float


class COCOImages(LabelledImages):
    """Images and boxes in COCO's form.

    splits: annotation files, root/annotations/SPLIT.json, whose categories are matched with `classes` by name; without
    `classes` they are the files' own, by id. Crowd regions are no boxes to train on. An image without boxes has a label
    of shape (0, 5); `skip_empty` leaves it out, `skip_crowd_only` does so if it has a crowd region.
    `contiguous_id_to_json` gives the category id in `coco` of each class. For the rest see LabelledImages. Raises
    UserError.
    """

    LAYOUT = 'annotations/instances_train2017.json and its images for the split instances_train2017'

    def __init__(self, root, splits, classes=None, skip_empty=False, skip_crowd_only=False, on_bad_image=None):
        super().__init__(root, splits, classes or (), on_bad_image)
        self._skip_empty, self._skip_crowd_only = skip_empty, skip_crowd_only
        self._ids, self._truths, self._coco = [], [], None
        files = [self._read_json(split) for split in splits]
        if not classes:
            names = {}
            for name in (name for file in files for name in file.categories.values()):
                names.setdefault(class_key(name), name)
            self._set_classes(names.values())
        # Other tools can evaluate with the first file: its category ids are kept. Classes it lacks get free ones.
        ids = {class_key(name): number for number, name in files[0].categories.items()}
        free = max(ids.values(), default=0) + 1
        self.contiguous_id_to_json = {number: ids.get(class_key(name), free + number)
                                      for number, name in enumerate(self.classes)}
        for split, file in zip(splits, files):
            for entry in file.images:
                with self._leaving_out_bad():
                    # Several files may use the same ids for different images.
                    self._read_image(split, entry, file.boxes.pop(entry['id'], []), own_id=len(files) == 1)
            for _ in (box for boxes in file.boxes.values() for box in boxes):
                self._note('dropped', 'box', 'of images not listed', split + '.json')
        self._require_boxes()

    def _read_image(self, split, entry, boxes, own_id):
        """Add the image of a JSON entry, under the id it has there if `own_id`. Raises BadImage."""
        path = self._picture(split, entry)
        size = self._sound(path, annotated_size(entry.get('width'), entry.get('height')))
        corners = np.array([box.bbox for box in boxes], float).reshape(-1, 4)
        corners[:, 2:] = corners[:, :2] + np.maximum(0, corners[:, 2:] - 1)  # both ends are inside the box
        found = [(box.name, box.flaw, sides) for box, sides in zip(boxes, corners.tolist())]
        label = self._usable(path, size, found, 5)
        truth = [[number, box.flaw == CROWD, box.area] + box.bbox for number, box in
                 ((self._numbers.get(class_key(box.name)), box) for box in boxes) if number is not None]
        crowd = self._skip_crowd_only and any(row[1] for row in truth)
        skip = 'with only crowd regions' if crowd else 'without objects' if self._skip_empty else ''
        if self._add(path, size, label, skip):
            self._ids.append(entry['id'] if own_id else len(self._ids) + 1)
            self._truths.append(np.array(truth, float))

    def _read_json(self, split):
        """The Annotations in one file. Raises UserError."""
        path = os.path.join(self._root, 'annotations', split + '.json')
        try:
            with open(path, encoding='utf-8-sig') as file:
                content = json.load(file)
            images = sorted(content['images'], key=lambda entry: entry['id'])
            categories = dict(sorted((int(entry['id']), clean_name(entry['name'])) for entry in content['categories']))
            number, count = collections.Counter(entry['id'] for entry in images).most_common(1)[0]
            entries = list(content.get('annotations') or [])
        except OSError:
            raise self._missing('annotation file', path)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UserError('%s: not a COCO annotation file with images and categories (%r)' % (path, error))
        if count > 1:
            raise UserError('%s: %d images have the id %s' % (path, count, number))
        boxes = collections.defaultdict(list)
        for entry in entries:
            try:
                boxes[entry['image_id']].append(_box(entry, categories))
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                raise UserError('%s: an annotation needs image_id, category_id and a bbox of 4 numbers: %.90r'
                                % (path, entry))
        return Annotations(images, categories, boxes)

    def _picture(self, split, entry):
        """The path of the image of a JSON entry."""
        url, name = str(entry.get('coco_url') or ''), str(entry.get('file_name') or '')
        places = [os.path.join(*url.split('/')[-2:])] if '/' in url else []
        if name:
            places += [os.path.join(folder, name) for folder in (split.replace('instances_', '', 1), 'images', '')]
        root = os.path.abspath(self._root)
        for place in places:
            path = os.path.normpath(os.path.join(root, place))
            if not path.startswith(root + os.sep):
                raise UserError('image %s of %s is outside the dataset folder %s' % (place, split, root))
            if os.path.isfile(path):
                return path
        message = 'no image for id %s of %s: looked in %s for %s' % (
            entry['id'], split, root, ', '.join(places) or 'file_name, which is missing')
        raise BadImage(name or '(id %s)' % entry['id'], message, 'missing')

    def image_id(self, index):
        """The id of one image in `coco`."""
        return self._ids[index]

    @property
    def coco(self):
        """A pycocotools COCO object of these images and classes, crowd regions included, for evaluation."""
        if not self._coco:
            from pycocotools.coco import COCO
            coco, annotations = COCO(), []
            for image, truth in zip(self._ids, self._truths):
                for number, crowd, area, *bbox in truth.tolist():
                    # Ids start at 1: pycocotools takes a match with annotation 0 for none.
                    annotations.append({'id': len(annotations) + 1, 'image_id': image, 'bbox': bbox, 'area': area,
                                        'category_id': self.contiguous_id_to_json[number], 'iscrowd': int(crowd)})
            coco.dataset = {
                'images': [{'id': image, 'file_name': os.path.basename(path), 'width': width, 'height': height}
                           for image, path, (width, height) in zip(self._ids, self._paths, self._sizes)],
                'annotations': annotations,
                'categories': [{'id': id_, 'name': self.classes[number]}
                               for number, id_ in self.contiguous_id_to_json.items()]}
            with contextlib.redirect_stdout(io.StringIO()):
                coco.createIndex()
            self._coco = coco
        return self._coco


def _box(entry, categories):
    """The Box of a JSON annotation. Raises an error if it is none."""
    x, y, width, height = [float(number) for number in entry['bbox']]
    area = width * height if entry.get('area') is None else float(entry['area'])
    if not math.isfinite(x + y + width + height + area):
        raise ValueError
    category = int(entry['category_id'])
    flaw = (CROWD if entry.get('iscrowd') else 'marked to be ignored' if entry.get('ignore') else
            '' if area > 0 else 'of no area')
    return Box(categories.get(category, 'category %d' % category), flaw, [x, y, width, height], area)
