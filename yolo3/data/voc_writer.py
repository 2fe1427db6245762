"""A data set in PASCAL VOC's form, written: a new folder that is there whole or not at all."""
import collections
import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import xml.etree.ElementTree as ElementTree

from yolo3.cli import UserError
from yolo3.data.labelled import class_key, clean_name
from yolo3.data.voc import SIDES

# What XML in UTF-8 cannot hold: control characters, and those of a name in another encoding. A split file in UTF-8 may
# not begin with the last one.
UNSTORABLE = '[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\ufeff'


def check_names(names, source):
    """Raise UserError unless the class `names` found in `source` can be written, and given to --classes of training."""
    for name, number in collections.Counter(map(class_key, names)).items():
        why = ('empty' if not name else 'there %d times (case does not count)' % number if number > 1 else
               'with a control character' if re.search(UNSTORABLE, name) else
               'with a comma, at which --classes splits names' if ',' in name else '')
        if why:
            raise UserError("%s: the class name '%s' is %s: rename it" % (source, name, why))


@contextlib.contextmanager
def whole(path):
    """Yield the path of a new folder, which becomes `path` when the block ends well. Otherwise nothing is left of it.

    `path` must not exist; the folders above it are made if need be.
    """
    path = pathlib.Path(path).resolve()
    with contextlib.ExitStack() as undo:
        for folder in reversed(path.parents):
            if not folder.is_dir():
                folder.mkdir()
                undo.callback(folder.rmdir)
        with tempfile.TemporaryDirectory(prefix='.new-', dir=str(path.parent)) as temporary:
            folder = os.path.join(temporary, path.name)
            os.mkdir(folder)
            yield folder
            os.sync()  # the folder's new name says that all is there, so all must be on disk before it
            os.rename(folder, str(path))
        undo.pop_all()


class VOCWriter:
    """Writes images, annotations and splits into `folder`, the new VOC2007 of a data set.

    link: hard-link the images instead of copying them. source: what made the annotations, '' to leave that out.
    """

    def __init__(self, folder, link=False, source=''):
        self._folder, self._link, self._source = folder, link, source
        self._taken = set()
        for part in 'JPEGImages', 'Annotations', os.path.join('ImageSets', 'Main'):
            os.makedirs(os.path.join(folder, part))

    def add(self, path, size, objects):
        """Add the image file `path` of `size` [width, height] with its `objects`, a list of Object; returns its stem.

        Raises OSError.
        """
        # A backslash, too: readers take <filename> for a path of Windows.
        base, extension = [re.sub(UNSTORABLE + r'|\\', '_', clean_name(part))
                           for part in os.path.splitext(os.path.basename(path))]
        name = stem = base or '_'
        number = 1
        while stem.casefold() in self._taken:
            number += 1
            stem = '%s_%d' % (name, number)
        self._taken.add(stem.casefold())
        target = os.path.join(self._folder, 'JPEGImages', stem + extension)
        os.link(os.path.realpath(path), target) if self._link else shutil.copyfile(path, target)
        with open(os.path.join(self._folder, 'Annotations', stem + '.xml'), 'wb') as file:
            file.write(annotation(stem + extension, size, objects, self._source))
        return stem

    def split(self, name, stems):
        """Write the split `name` of the images `stems`, in order."""
        with open(os.path.join(self._folder, 'ImageSets', 'Main', name + '.txt'), 'w', encoding='utf-8') as file:
            file.writelines(stem + '\n' for stem in stems)


def annotation(filename, size, objects, source=''):
    """The VOC XML of one image of `size` [width, height] with its `objects`, a list of Object."""
    root = ElementTree.Element('annotation')

    def add(parent, tag, text=None):
        element = ElementTree.SubElement(parent, tag)
        element.text = text
        return element
    add(root, 'filename', filename)
    if source:
        add(add(root, 'source'), 'annotation', re.sub(UNSTORABLE, '_', source))
    element = add(root, 'size')
    for tag, number in zip(('width', 'height', 'depth'), [*size, 3]):
        add(element, tag, '%d' % number)
    for item in objects:
        element = add(root, 'object')
        add(element, 'name', item.name)
        add(element, 'difficult', str(int(item.difficult)))
        if item.score < 1:
            add(element, 'score', '%.4g' % item.score)
        box = add(element, 'bndbox')
        for tag, side in zip(SIDES, item.corners):
            add(box, tag, ('%.2f' % side).rstrip('0').rstrip('.'))
    return ElementTree.tostring(root, 'utf-8')
