"""--save-crops: each detection cut out of its image, in a folder for each class."""
import math
import os
import re

import cv2

from yolo3.atomic import replacing
from yolo3.boxes import edges
from yolo3.show.annotate import OutputFolder, item_name


def crop_writer(folder, used):
    """A function of an image and its record, of `annotate_image`, that writes its detections as JPEG files.

    They go into `folder`/CLASS, which it makes. used: the command's inputs, which are not replaced.
    """
    folders = {}

    def save(image, record):
        for found in record['detections']:
            left, top, right, bottom = edges(found['box'], record['width'], record['height'])
            crop = image[math.floor(top):math.ceil(bottom), math.floor(left):math.ceil(right)]
            place = os.path.join(folder, folder_name(found['class']))
            if place not in folders:
                os.makedirs(place, exist_ok=True)
                folders[place] = OutputFolder(place, used)
            with replacing(folders[place].name(item_name(record), '.jpg')) as temporary, open(temporary, 'wb') as file:
                file.write(cv2.imencode('.jpg', cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[1])
    return save


def folder_name(name):
    """The name of a folder for the class `name`: without what file systems refuse, or read as a path."""
    return re.sub(r'[^\w .-]', '_', name)[:60].strip(' .') or '_'
