"""--save-txt: detections as YOLO's label files, a text file for each picture or frame."""
import os

from yolo3.atomic import replacing
from yolo3.boxes import edges
from yolo3.data.yolo import label_bases
from yolo3.show.annotate import OutputFolder, item_name


def label_writer(folder, classes, used):
    """A function of an image and its record, of `annotate_image`, that writes a label file into the new `folder`.

    classes: all names of the detector, which go into classes.txt beside the labels. used: the command's inputs.
    """
    own = [base + '.txt' for path in used for base in label_bases(os.path.abspath(path))]  # a data set's own labels
    folder = OutputFolder(folder, [*used, *own])
    numbers = {name: number for number, name in enumerate(classes)}
    write(folder.name('classes', '.txt'), classes)

    def save(image, record):
        lines = ['%d %s' % (numbers[found['class']], shares(found['box'], record['width'], record['height']))
                 for found in record['detections']]
        write(folder.name(item_name(record), '.txt'), lines)
    return save


def shares(box, width, height):
    """'cx cy w h' of a detection's box, as shares of the width and height of the image."""
    left, top, right, bottom = edges(box, width, height)
    return '%.6f %.6f %.6f %.6f' % ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width,
                                    (bottom - top) / height)


def write(path, lines):
    """Write a text file, replacing it whole."""
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.writelines(line + '\n' for line in lines)
