"""VOC and COCO datasets with any classes, read as GluonCV reads them, but so that no image and no box is lost unsaid.

Neither MXNet nor GluonCV is needed: an exported network is evaluated with these too.
"""
import collections
import contextlib
import hashlib
import io
import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from yolo3.cli import UserError, shorten
from yolo3.data.images import BadImage, ImageFile, check

VOC_ROOT = os.path.join('~', '.mxnet', 'datasets', 'voc')
COCO_ROOT = os.path.join('~', '.mxnet', 'datasets', 'coco')
VOC_CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable',
               'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
EXTENSIONS = ('.jpg', '.jpeg', '.JPG', '.JPEG', '.png', '.PNG', '.bmp', '.BMP', '.tif', '.tiff', '.webp')
UNKNOWN, CROWD = 'of other classes', 'around crowds'
MOST_BAD = 0.01  # of the images, unless --on-bad-image skip: more are a mistake rather than bad luck


def open_train(dataset, root=None, classes=None, splits=None, skip_empty=False, on_bad_image=None):
    """The 'voc' or 'coco' dataset to train on; what is not given is as in VOC07+12 and COCO 2017. Raises UserError.

    on_bad_image: see `_Checked`.
    """
    if dataset == 'voc':
        return VOCDetection(root or VOC_ROOT, splits or ['2007_trainval', '2012_trainval'],
                            classes or VOC_CLASSES, skip_empty, on_bad_image)
    return COCODetection(root or COCO_ROOT, splits or ['instances_train2017'], classes, skip_empty,
                         skip_crowd_only=True, on_bad_image=on_bad_image)


def open_val(dataset, root=None, classes=None, splits=None, on_bad_image=None):
    """The 'voc' or 'coco' dataset to evaluate on, with all its images; else as `open_train`. Raises UserError."""
    if dataset == 'voc':
        return VOCDetection(root or VOC_ROOT, splits or ['2007_test'], classes or VOC_CLASSES,
                            on_bad_image=on_bad_image)
    return COCODetection(root or COCO_ROOT, splits or ['instances_val2017'], classes, on_bad_image=on_bad_image)


class _Checked:
    """What both datasets share: classes in any spelling, images with labels, and an account of what was dropped.

    on_bad_image: where it is not None, the headers of all image files are read. A bad one (see BadImage) ends in that
    with 'stop', is left out with 'skip', and with '' is left out unless more than MOST_BAD are.
    """

    def _start(self, root, splits, classes, layout, on_bad_image):
        """Take the arguments in; `layout` tells the user what `root` must hold."""
        self._expected = '--dataset-root %s must hold %s' % (root, layout)
        if not os.path.isdir(os.path.expanduser(root)):
            raise UserError('no dataset folder %s: %s' % (root, self._expected))
        self._root = os.path.expanduser(root)
        self._name = '+'.join(splits)
        self._classes = tuple(clean(name) for name in classes)
        self.index_map = {_key(name): index for index, name in enumerate(self._classes)}
        if '' in self.index_map or len(self.index_map) < len(self._classes):
            raise UserError('--classes %s: one is empty or given twice (upper and lower case are the same)'
                            % ','.join(classes))
        self._paths, self._sizes, self._labels = [], [], []
        self._notes, self._found = {}, collections.Counter()
        self.on_bad_image, self._bad = on_bad_image, []

    def _missing(self, what, path):
        return UserError('no %s %s (--train-splits or --val-splits): %s' % (what, path, self._expected))

    def _note(self, done, noun, why, path):
        """Count for the summary that `done` ('dropped') befell one `noun` ('box') of the file `path`."""
        note = self._notes.setdefault((done, noun, why), [0, []])
        note[0] += 1
        if len(note[1]) < 4 and os.path.basename(path) not in note[1]:
            note[1].append(os.path.basename(path))

    def _label(self, path, size, boxes, columns):
        """The label (n, columns) of the sound ones of `boxes`, each class name, flaw or '', four sides, what follows.

        They are clamped to the image of `size` [width, height]; what is wrong with them is noted for the file `path`.
        """
        label = []
        for name, flaw, sides, *rest in boxes:
            self._found[name] += 1
            index = self.index_map.get(_key(name))
            fitted = [min(max(side, 0), limit - 1) for side, limit in zip(sides, size * 2)]
            if index is None:
                flaw = UNKNOWN
            elif not flaw and fitted[0] >= fitted[2]:
                flaw = 'of no width'
            elif not flaw and fitted[1] >= fitted[3]:
                flaw = 'of no height'
            if flaw:
                self._note('dropped', 'box', flaw, path)
                continue
            # Some count pixels from 0, some from 1: one pixel beyond is no flaw.
            if fitted != sides and max(abs(side - inside) for side, inside in zip(sides, fitted)) > 1:
                self._note('clipped', 'box', 'reaching beyond the image', path)
            label.append(fitted + [index] + rest)
        return np.array(label, float).reshape(-1, columns)

    def _take(self, path, size, label, skip):
        """Add an image whose annotation says `size`; or where it has no box and there is a reason `skip`, note that.
        Returns whether it is added."""
        if skip and not len(label):
            self._note('skipped', 'image', skip, path)
            return False
        self._paths.append(path)
        self._sizes.append(size)
        self._labels.append(label)
        return True

    def _check(self, path, size):
        """Raises BadImage where images are to be checked and this one is bad."""
        if self.on_bad_image is not None:
            check(path, size)

    def _leave_out(self, error):
        """Note the BadImage `error`, or raise it where it is not to be left out."""
        if self.on_bad_image in (None, 'stop'):
            raise error
        self._note('skipped', 'image', error.why, error.path)
        self._bad.append(str(error))

    def _finish(self):
        """Raises UserError where there is no box at all, or too many bad images."""
        self.require_few(len(self._bad), self._bad[0] if self._bad else '')
        if not any(map(len, self._labels)):
            found = shorten(['%s (%d)' % pair for pair in self._found.most_common()], 20) or 'none'
            raise UserError('no usable box of --classes %s in %s of %s; classes found there: %s' % (
                ','.join(self._classes), self._name, self._root, found))

    def require_few(self, bad, example):
        """Raise UserError where `bad` images are too many by `on_bad_image`."""
        if self.on_bad_image == '' and bad > MOST_BAD * (len(self) + len(self._bad)):
            raise UserError('%s: %d of %d images are bad, as this one: %s; mend or remove them, or leave them out with '
                            '--on-bad-image skip' % (self._name, bad, len(self) + len(self._bad), example))

    @property
    def classes(self):
        """The names of the classes, in order, as the user spelt them."""
        return self._classes

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, index):
        """The image, uint8 (height, width, 3), RGB, and its `label`. Raises UserError."""
        return self.image_file(index).pixels(), self.label(index)

    def label(self, index):
        """A copy of one image's boxes, float64 (n, 6 VOC or 5 COCO): xmin ymin xmax ymax in pixels from 0, both ends
        included; class; difficult (VOC)."""
        return self._labels[index].copy()

    def extents(self, size):
        """Width and height of all boxes, (n, 2), in pixels of an input of `size` x `size`."""
        return np.concatenate([(label[:, 2:4] - label[:, :2]) * (size / np.array(image))
                               for label, image in zip(self._labels, self._sizes)])

    def image_path(self, index):
        """The file of one image."""
        return self._paths[index]

    def image_file(self, index):
        """The ImageFile of one image, turned as its boxes want it. Raises UserError."""
        return ImageFile(self._paths[index], self._sizes[index])

    def size(self, index):
        """[width, height] of one image as annotated; where that is missing, as its file says."""
        return self._sizes[index]

    @property
    def name(self):
        """The splits, with + between."""
        return self._name

    def notes(self):
        """What was dropped, clipped or skipped: [('dropped', 'box', why, how many, up to 4 of the files)]."""
        return [key + tuple(note) for key, note in self._notes.items()]

    def others(self):
        """The boxes of classes that are not in `classes`: [(class, how many)], the most first."""
        return [pair for pair in self._found.most_common() if _key(pair[0]) not in self.index_map]

    def digest(self):
        """A text that is the same for the same classes, file names, sizes and labels, in any folder."""
        digest = hashlib.sha256(json.dumps(self._classes).encode())
        for path, size, label in zip(self._paths, self._sizes, self._labels):
            digest.update(('\n%s %s ' % (os.path.relpath(path, self._root), list(size))).encode())
            digest.update(label.tobytes())
        return digest.hexdigest()[:16]

    def summary(self):
        """One line: the splits, their images and boxes, and all that was dropped, clipped or skipped."""
        empty = sum(not len(label) for label in self._labels)
        parts = ['%s: %s%s, %s' % (self._name, _count(len(self), 'image'),
                                   ' (%d without objects)' % empty if empty else '',
                                   _count(sum(map(len, self._labels)), 'box'))]
        for done, noun, why, count, names in self.notes():
            if why == UNKNOWN:
                why += ' (%s)' % shorten(["'%s' %d" % pair for pair in self.others()], 10)
            parts.append('%s %s %s: %s' % (done, _count(count, noun), why, shorten(names, 3)))
        used = set(np.concatenate(self._labels)[:, 4])
        unused = [name for index, name in enumerate(self._classes) if index not in used]
        if unused:
            parts.append('no boxes of: %s' % shorten(unused, 10))
        return '; '.join(parts)


class VOCDetection(_Checked):
    """Images and boxes in VOC form.

    `splits` are '2007_trainval' for root/VOC2007/ImageSets/Main/trainval.txt and so on. An image without objects has a
    label of shape (0, 6), or is left out where `skip_empty`. Raises UserError.
    """

    def __init__(self, root, splits, classes, skip_empty=False, on_bad_image=None):
        self._start(root, splits, classes, 'VOC2007/ImageSets/Main/trainval.txt, VOC2007/Annotations and '
                                           'VOC2007/JPEGImages for a split 2007_trainval', on_bad_image)
        years_and_names = [split.partition('_')[::2] for split in splits]
        skip = 'without objects' if skip_empty else ''
        self._items = [item for item in self._load_items(years_and_names) if self._add(item, skip)]
        self._finish()
        del self._pictures

    def _add(self, item, skip):
        """Add the image of an item; returns whether it was."""
        try:
            return self._take(*self._read(*item), skip)
        except BadImage as error:
            return self._leave_out(error)

    @property
    def contiguous_id_to_json(self):
        """The category id of each class in COCO's formats: its number from 1, as VOC has none."""
        return {index: index + 1 for index in range(len(self._classes))}

    def image_id(self, index):
        """The id of one image in COCO's formats: its file name without extension."""
        return os.path.splitext(os.path.basename(self._paths[index]))[0]

    def _load_items(self, splits):
        """The (folder, stem) of each image of `splits`, pairs of year and name."""
        items, self._pictures = [], {}
        for year, name in splits:
            folder = os.path.join(self._root, 'VOC' + year)
            path = os.path.join(folder, 'ImageSets', 'Main', name + '.txt')
            try:
                with open(path, encoding='utf-8-sig') as file:
                    lines = [line.strip() for line in file if line.strip()]
            except OSError:
                raise self._missing('split file', path)
            except UnicodeDecodeError:
                raise UserError('%s is not UTF-8 text' % path)
            if not lines:
                raise UserError('%s lists no image' % path)
            # Listing both folders once is quicker than asking for each of many thousand files.
            stems = self._list(os.path.join(folder, 'Annotations'))
            self._pictures[folder] = self._list(os.path.join(folder, 'JPEGImages'))
            for line in lines:
                # VOC's files for one class have a column -1, 0 or 1 behind the stem; stems may contain spaces.
                stem = next((stem for stem in (line, line.rsplit(None, 1)[0]) if stem + '.xml' in stems), None)
                if stem is None:
                    raise UserError('%s lists %s, but there is no %s (where an image has no objects, one without '
                                    '<object>)' % (path, line, os.path.join(folder, 'Annotations', line + '.xml')))
                items.append((folder, stem))
        return items

    def _list(self, folder):
        """The names of the files in `folder`."""
        try:
            return {entry.name for entry in os.scandir(folder) if entry.is_file()}
        except OSError:
            raise self._missing('folder', folder)

    def _read(self, folder, stem):
        """The path of the image, its annotated [width, height] and the label (n, 6) of one annotation."""
        path = os.path.join(folder, 'Annotations', stem + '.xml')
        root = parse_xml(path)
        image = self._picture(folder, stem, root.findtext('filename', ''))
        boxes = []
        try:
            for item in root.iter('object'):
                box = item.find('bndbox')
                # VOC counts pixels from 1.
                sides = [float(box.find(side).text) - 1 for side in ('xmin', 'ymin', 'xmax', 'ymax')]
                if not math.isfinite(sum(sides)):
                    raise ValueError
                difficult = item.findtext('difficult', '').strip() == '1'
                boxes.append((clean(item.find('name').text), '', sides, difficult))
        except (AttributeError, TypeError, ValueError):
            raise UserError('%s: each <object> needs a <name> and a <bndbox> of numbers xmin, ymin, xmax, ymax' % path)
        size = _size(root.findtext('size/width'), root.findtext('size/height'), image)
        self._check(image, size)
        return image, size, self._label(path, size, boxes, 6)

    def _picture(self, folder, stem, filename):
        """The path of the image of an annotation: as its <filename> says, else by the annotation's own name."""
        # Only the last part of <filename>: it often holds another machine's folders, and must not lead elsewhere.
        named = re.split(r'[/\\]', filename.strip())[-1]
        own = [stem + extension for extension in EXTENSIONS if stem + extension in self._pictures[folder]]
        if named in self._pictures[folder]:
            if own and named not in own:
                self._note('took', 'image', 'by <filename>, though one has the name of the annotation', stem + '.xml')
            return os.path.join(folder, 'JPEGImages', named)
        if own:
            return os.path.join(folder, 'JPEGImages', own[0])
        path = os.path.join(folder, 'Annotations', stem + '.xml')
        raise BadImage(path, 'no image for %s: neither <filename> %s nor %s.jpg, .png, ... in %s' % (
            path, named or '(none)', stem, os.path.join(folder, 'JPEGImages')), 'missing')


class COCODetection(_Checked):
    """Images and boxes in COCO form.

    `splits` are annotation files, root/annotations/SPLIT.json, whose categories are matched with `classes` by name;
    without `classes` they are the files' own, by id. Crowd regions are no boxes here. An image without any box has a
    label of shape (0, 5), or is left out where `skip_empty`, or where `skip_crowd_only` and it has a crowd region.
    `contiguous_id_to_json` gives the category id in `coco` of each class. Raises UserError.
    """

    def __init__(self, root, splits, classes=None, skip_empty=False, skip_crowd_only=False, on_bad_image=None):
        self._start(root, splits, classes or (), 'annotations/%s.json and its images' % splits[0], on_bad_image)
        self._skip_empty, self._skip_crowd_only = skip_empty, skip_crowd_only
        self._coco = None
        self._load_jsons(splits)

    def _load_jsons(self, splits):
        """Take in the images and boxes of all annotation files."""
        files = [self._read_json(split) for split in splits]
        if not self._classes:
            names = {}
            for _, categories, _ in files:
                for name in categories.values():
                    names.setdefault(_key(name), name)
            self._classes = tuple(names.values())
        self.index_map = {_key(name): index for index, name in enumerate(self._classes)}
        # A file keeps its ids, so that others can evaluate with it. Classes it does not know get free ones.
        ids = {_key(name): number for number, name in files[0][1].items()}
        free = max(ids.values(), default=0) + 1
        self.contiguous_id_to_json = {i: ids.get(_key(name), free + i) for i, name in enumerate(self._classes)}
        self.json_id_to_contiguous = {number: i for i, number in self.contiguous_id_to_json.items()}
        self._ids, self._truths = [], []
        for split, (images, categories, annotations) in zip(splits, files):
            known = {name: self.index_map[_key(name)] for name in categories.values() if _key(name) in self.index_map}
            for entry in images:
                boxes = annotations.pop(entry['id'], [])
                try:
                    path = self._picture(split, entry)
                    size = _size(entry.get('width'), entry.get('height'), path)
                    self._check(path, size)
                except BadImage as error:
                    self._leave_out(error)
                    continue
                sides = np.array([box for _, _, box, _ in boxes], float).reshape(-1, 4)
                sides[:, 2:] = sides[:, :2] + np.maximum(0, sides[:, 2:] - 1)  # both ends are in the box
                label = self._label(path, size, [box[:2] + (side,) for box, side in zip(boxes, sides.tolist())], 5)
                truth = [[known[name], flaw == CROWD, area] + box for name, flaw, box, area in boxes if name in known]
                crowd = self._skip_crowd_only and any(box[1] for box in truth)
                skip = 'with only crowd regions' if crowd else 'without objects' if self._skip_empty else ''
                if self._take(path, size, label, skip):
                    # Several files may use the same ids for different images.
                    self._ids.append(entry['id'] if len(files) == 1 else len(self._ids) + 1)
                    self._truths.append(np.array(truth, float))
            for _ in (box for boxes in annotations.values() for box in boxes):
                self._note('dropped', 'box', 'of images not listed', split + '.json')
        self._finish()

    def _read_json(self, split):
        """One file's image entries by id, its {category id: name} by id, and {image id: annotations}, each the class
        name, a flaw or '', [x, y, width, height] in pixels and the area. Raises UserError."""
        path = os.path.join(self._root, 'annotations', split + '.json')
        try:
            with open(path, encoding='utf-8-sig') as file:
                content = json.load(file)
            images = sorted(content['images'], key=lambda entry: entry['id'])
            categories = dict(sorted((int(entry['id']), clean(entry['name'])) for entry in content['categories']))
            number, count = collections.Counter(entry['id'] for entry in images).most_common(1)[0]
            entries = list(content.get('annotations') or [])
        except OSError:
            raise self._missing('annotation file', path)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UserError('%s: no COCO annotation file with images and categories (%r)' % (path, error))
        if count > 1:
            raise UserError('%s: %d images have the id %s' % (path, count, number))
        annotations = collections.defaultdict(list)
        for entry in entries:
            try:
                box = x, y, width, height = [float(number) for number in entry['bbox']]
                area = width * height if entry.get('area') is None else float(entry['area'])
                if not math.isfinite(sum(box) + area):
                    raise ValueError
                category = int(entry['category_id'])
                flaw = (CROWD if entry.get('iscrowd') else 'marked to be ignored' if entry.get('ignore') else
                        '' if area > 0 else 'of no area')
                annotations[entry['image_id']].append(
                    (categories.get(category, 'category %d' % category), flaw, box, area))
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                raise UserError('%s: an annotation needs image_id, category_id and a bbox of 4 numbers: %.90r'
                                % (path, entry))
        return images, categories, annotations

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
            entry['id'], split, root, ', '.join(places) or 'file_name, which it lacks')
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
                for index, crowd, area, *box in truth.tolist():
                    # Numbered from 1, as pycocotools takes a match with annotation 0 for none.
                    annotations.append({'id': len(annotations) + 1, 'image_id': image, 'bbox': box, 'area': area,
                                        'category_id': self.contiguous_id_to_json[index], 'iscrowd': int(crowd)})
            coco.dataset = {
                'images': [{'id': image, 'file_name': os.path.basename(path), 'width': width, 'height': height}
                           for image, path, (width, height) in zip(self._ids, self._paths, self._sizes)],
                'annotations': annotations,
                'categories': [{'id': number, 'name': self._classes[index]}
                               for index, number in self.contiguous_id_to_json.items()]}
            with contextlib.redirect_stdout(io.StringIO()):
                coco.createIndex()
            self._coco = coco
        return self._coco


class _Plain(ElementTree.TreeBuilder):
    """A builder of XML trees that refuses DOCTYPE, and with it the entities that blow a small file up."""

    def doctype(self, name, pubid, system):
        """Raises ValueError."""
        raise ValueError('DOCTYPE is not allowed')


def parse_xml(path):
    """The root element of an XML file. Raises UserError."""
    parser = ElementTree.XMLParser(target=_Plain())
    try:
        with open(path, 'rb') as file:
            parser.feed(file.read())
        return parser.close()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError('cannot read annotation %s: %s' % (path, error))


def _size(width, height, path):
    """[width, height] in pixels as annotated (texts or numbers), or where that is no size, as the image file says."""
    with contextlib.suppress(TypeError, ValueError):
        size = [float(width), float(height)]
        if min(size) > 0 and math.isfinite(sum(size)):
            return size
    image = ImageFile(path)
    return [float(image.width), float(image.height)]


def clean(name):
    """A class name without the white space around it or line breaks in it."""
    return ' '.join(name.split())


def _key(name):
    """What two spellings of a class have in common."""
    return clean(name).casefold()


def _count(number, noun):
    return '%d %s%s' % (number, noun, '' if number == 1 else 'es' if noun == 'box' else 's')
