"""PASCAL VOC's form: XML annotations, and the images and boxes of a data set of them."""
import glob
import os
import re
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

from yolo3.cli import UserError
from yolo3.data.images import EXTENSIONS, BadImage
from yolo3.data.labelled import UNCERTAIN, LabelledImages, annotated_size, clean_name, flag, numbers, weight
from yolo3.files import open_input

VOC_CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable',
               'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
SIDES = 'xmin', 'ymin', 'xmax', 'ymax'
# Of `own_splits` the usual ones to train and to validate on; Train and Validation are CVAT's subsets.
OWN_SPLITS = ('train', 'Train'), ('val', 'Validation', 'test', 'Test')
# What may have parts or attributes in a file without objects; anything else may be another tool's objects.
ABOUT_THE_IMAGE = {'source', 'owner', 'size'}


class Annotation(NamedTuple):
    """What one XML file says of its image."""
    filename: str  # of the image; '' without
    size: list  # [width, height] in pixels; None without
    objects: list  # of Object


class Object(NamedTuple):
    """One <object>."""
    name: str
    corners: list  # [xmin, ymin, xmax, ymax]: pixels counted from 1, both ends inside the box
    difficult: bool
    score: float = 1.  # more than 0, at most 1: how much it weighs in training


def read_annotation(path):
    """The Annotation in the XML file `path`, as VOC, LabelImg and others write them. Raises UserError.

    Namespaces and the case of tags do not count.
    """
    root = _parse(path)
    if root.tag != 'annotation':
        raise UserError("%s: the root is <%s>, not VOC's <annotation>" % (path, root.tag))
    objects = []
    for item in root.iter('object'):
        try:
            objects.append(_object(item))
        except UNCERTAIN as error:
            raise UserError('%s: <object> %d: %s' % (path, len(objects) + 1, error))
    try:
        size = _only(root, 'size', optional=True)
        size = None if size is None else annotated_size(_text(size, 'width', ''), _text(size, 'height', ''))
        filename = _text(root, 'filename', '')
        _require_all(root, objects)
    except UNCERTAIN as error:
        raise UserError('%s: %s' % (path, error))
    return Annotation(filename, size, objects)


def _object(item):
    """The Object of an <object>. Raises ValueError, which says what is wrong with it."""
    name, box = clean_name(_text(item, 'name')), _only(item, 'bndbox')
    if not name:
        raise ValueError('its <name> is empty')
    corners = [_text(box, side) for side in SIDES]
    try:
        corners = numbers(corners)
    except UNCERTAIN:
        raise ValueError('its <bndbox> has %s, not four numbers' % corners)
    difficult = _text(item, 'difficult', '')
    try:
        difficult = flag(difficult)
    except UNCERTAIN:
        raise ValueError('<difficult> is %s, not 0 or 1' % difficult)
    score = _text(item, 'score', '')
    try:
        return Object(name, corners, difficult, weight(score))
    except UNCERTAIN:
        raise ValueError('<score> is %s, not more than 0 and at most 1' % score)


def _only(element, tag, optional=False):
    """The child `tag`, of which there must be exactly one; None if there is none and it is `optional`."""
    found = element.findall(tag)
    if not found and optional:
        return None
    if len(found) != 1:
        raise ValueError('<%s> has %d <%s> instead of one' % (element.tag, len(found), tag))
    return found[0]


def _text(element, tag, default=None):
    """The text of the child `tag`, of which there must be exactly one; `default`, if given, without it."""
    child = _only(element, tag, default is not None)
    if child is None:
        return default
    if len(child):
        raise ValueError('<%s> has <%s>, not just text' % (tag, child[0].tag))
    return child.text or ''


def _require_all(root, objects):
    """Raise ValueError if there seem to be objects that are no <object>, as other tools write them."""
    parts = sum(len(part.findall('bndbox')) for part in root.iter('part'))  # VOC's heads, hands and feet
    if sum(1 for _ in root.iter('bndbox')) != len(objects) + parts:
        raise ValueError('a <bndbox> is outside an <object>')
    for child in root if not objects else ():
        if (len(child) or child.attrib) and child.tag not in ABOUT_THE_IMAGE:
            raise ValueError("<%s> is not VOC's, and there is no <object>" % child.tag)


def usual_classes(root):
    """The class names in CVAT's labelmap.txt in the folder `root`; VOC's 20 without it. Raises UserError.

    Its lines are name:colour:parts:actions.
    """
    path = os.path.join(os.path.expanduser(root), 'labelmap.txt')
    if not os.path.lexists(path):
        return VOC_CLASSES
    try:
        with open_input(path, 'r', 'utf-8-sig') as file:
            names = [line.split(':')[0].strip() for line in file if not line.startswith('#')]
    except (OSError, ValueError) as error:
        raise UserError('cannot read %s: %s; give --classes' % (path, getattr(error, 'strerror', None) or 'not text'))
    return [name for name in names if name not in ('', 'background')]


def own_splits(root):
    """The splits in the folder `root` that has ImageSets/ itself, without VOC2007/, as CVAT exports it."""
    folder = os.path.join(glob.escape(os.path.expanduser(root)), 'ImageSets', 'Main')
    return sorted(os.path.splitext(os.path.basename(path))[0] for path in glob.glob(os.path.join(folder, '*.txt')))


class VOCImages(LabelledImages):
    """Images and boxes in VOC's form.

    splits: '2007_trainval' stands for root/VOC2007/ImageSets/Main/trainval.txt, and so on; 'train' for
    root/ImageSets/Main/train.txt, as CVAT exports it. An image without objects
    has a label of shape (0, 6); `skip_empty` leaves it out. For the rest see LabelledImages. Raises UserError.
    """

    LAYOUT = ('VOC2007/ImageSets/Main/trainval.txt, VOC2007/Annotations and VOC2007/JPEGImages for the split '
              '2007_trainval')

    def __init__(self, root, splits, classes, skip_empty=False, on_bad_image=None):
        super().__init__(root, splits, classes, on_bad_image)
        skip = 'without objects' if skip_empty else ''
        for split in splits:
            self._read_split(*self._place(split), skip)
        self._finish()

    def _place(self, split):
        """The folder that holds ImageSets/ for a split, and its name there."""
        if os.path.lexists(os.path.join(self._root, 'ImageSets', 'Main', split + '.txt')):
            return self._root, split
        year, _, name = split.partition('_')
        return os.path.join(self._root, 'VOC' + year), name

    def _read_split(self, folder, name, skip):
        """Add the images that `folder`/ImageSets/Main/`name`.txt lists."""
        path = os.path.join(folder, 'ImageSets', 'Main', name + '.txt')
        lines = self._lines(path)
        # Listing the folders once is faster than asking for each of many thousand files.
        annotations, pictures = [self._names(os.path.join(folder, part)) for part in ('Annotations', 'JPEGImages')]
        for line in self._reading(lines):
            # In VOC's files for a single class -1, 0 or 1 follows the stem; a stem may contain spaces.
            stems = line, re.sub(r'\s+(-1|0|1)$', '', line)
            stem = next((stem for stem in stems if stem + '.xml' in annotations), None)
            if stem is None:
                raise UserError('%s lists %s, but there is no file %s (an image without objects needs one without '
                                '<object>)' % (path, line, os.path.join(folder, 'Annotations', line + '.xml')))
            with self._leaving_out_bad():
                self._read_image(folder, stem, pictures, skip)

    def _lines(self, path):
        """The lines of a split file that are not blank."""
        try:
            with open_input(path, 'r', 'utf-8-sig') as file:
                lines = [line.strip() for line in file if line.strip()]
        except OSError as error:
            raise self._unread('split file', path, error, own_splits(self._root))
        except UnicodeDecodeError:
            raise UserError('%s is not UTF-8 text' % path)
        if not lines:
            raise UserError('%s lists no image' % path)
        return lines

    def _names(self, folder):
        """The names of the files in `folder`."""
        try:  # isfile() is also for a link that leads nowhere, at which is_file() may raise
            return {entry.name for entry in os.scandir(folder)
                    if (os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file())}
        except OSError as error:
            raise self._unread('folder', folder, error)

    def _read_image(self, folder, stem, pictures, skip):
        """Add the image of one annotation. Raises BadImage."""
        path = os.path.join(folder, 'Annotations', stem + '.xml')
        annotation = read_annotation(path)
        image = self._picture(folder, stem, annotation.filename, pictures)
        if self._is_listed(image, path):
            return
        size = self._sound(image, annotation.size)
        boxes = [(item.name, '', [side - 1 for side in item.corners], item.difficult, item.score)
                 for item in annotation.objects]
        self._add(image, size, self._usable(path, size, boxes, 7), skip)

    def _picture(self, folder, stem, filename, pictures):
        """The path of an annotation's image: its <filename>, else the file with the annotation's own name."""
        # Only the last part of <filename>: it often names another machine's folders, and must not lead elsewhere.
        named = re.split(r'[/\\]', filename.strip())[-1]
        own = [stem + extension for extension in EXTENSIONS if stem + extension in pictures]
        if named in pictures:
            if own and named not in own:
                self._note('took', 'image', 'by <filename>, though another has the name of the annotation',
                           stem + '.xml')
            return os.path.join(folder, 'JPEGImages', named)
        if own:
            return os.path.join(folder, 'JPEGImages', own[0])
        path = os.path.join(folder, 'Annotations', stem + '.xml')
        raise BadImage(path, 'no image for %s: neither <filename> %s nor %s.jpg, .png, ... in %s' % (
            path, named or '(none)', stem, os.path.join(folder, 'JPEGImages')), 'missing')


class _SafeBuilder(ElementTree.TreeBuilder):
    """Refuses DOCTYPE, and with it the entities that blow up a small file."""

    def doctype(self, name, pubid, system):
        """Raises ValueError."""
        raise ValueError('DOCTYPE is not allowed')


def _parse(path):
    """The root element of an XML file, its tags lower case and without namespaces. Raises UserError."""
    parser = ElementTree.XMLParser(target=_SafeBuilder())
    try:
        with open_input(path) as file:
            parser.feed(file.read())
        root = parser.close()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError('cannot read annotation %s: %s' % (path, error))
    for element in root.iter():
        element.tag = element.tag.rpartition('}')[2].lower()
    return root
