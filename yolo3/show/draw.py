"""Draw detections on an image: boxes with labels that are readable at any image size and in any script."""
import functools
import math
import os
import zlib

import cv2
import matplotlib
import numpy as np
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

FONT = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
SEED = 50755  # spreads the colours of VOC's classes, BCCD's and the digits apart; any other works, less well


def draw(image, detections):
    """Return a copy of `image` with `detections` drawn on it, the best on top.

    image: (H, W, 3) uint8, RGB. detections: list of {'class': str, 'score': 0..1, 'box': (xmin, ymin, xmax, ymax)},
    boxes in the image's pixels; 'score' may be missing. A label is left out if the labels of better detections leave
    no place for it; its box is still drawn.
    """
    image = np.array(image, order='C')
    height, width = image.shape[:2]
    size = max(10, round((height * width) ** 0.5 / 40))
    line = max(1, round(size / 7))
    rim = (line + 1) // 3  # dark, so that a box shows on any background
    best_first = sorted(detections, key=lambda detection: -detection.get('score', 1))
    boxes = [outline(detection['box'], line, width, height) for detection in best_first]
    for detection, (xmin, ymin, xmax, ymax) in reversed(list(zip(best_first, boxes))):
        fill = colour(detection['class'])
        cv2.rectangle(image, (xmin, ymin), (xmax, ymax), tuple(value // 4 for value in fill), line + 2 * rim)
        cv2.rectangle(image, (xmin, ymin), (xmax, ymax), fill, line)
    taken, room = [], height * width / 3  # or labels could cover a small image
    for detection, box in zip(best_first, boxes):
        score = round(detection['score'], 2) if 'score' in detection else None
        plate = label(detection['class'], score, size, width)
        rows, columns = plate.shape[:2]
        spot = place(plate, box, line, image.shape, taken) if rows * columns <= room or not taken else None
        if spot:
            x, y = spot
            image[y:y + rows, x:x + columns] = plate[:height, :width]
            taken.append((x, y, x + columns, y + rows))
            room -= rows * columns
    return image


def outline(box, line, width, height):
    """`box` in whole pixels, moved so that its outline, `line` pixels wide, lies inside the image."""
    edge = line // 2
    xmin, ymin, xmax, ymax = (int(round(value)) for value in box)
    return max(xmin, edge), max(ymin, edge), min(xmax, width - 1 - edge), min(ymax, height - 1 - edge)


def place(plate, box, line, image_shape, taken):
    """The corner (x, y) where a label fits at its box without hiding one of the labels `taken`, or None."""
    rows, columns = plate.shape[:2]
    height, width = image_shape[:2]
    xmin, ymin, xmax, ymax = box
    left, right = xmin - line // 2, xmax + line // 2 + 1 - columns
    above, below = ymin - line // 2 - rows, ymax + line // 2 + 1
    inside_top, inside_bottom = ymin + line // 2 + 1, ymax - line // 2 - rows
    for x, y in [(left, above), (right, above), (left, inside_top), (left, below), (right, below), (right, inside_top),
                 (left, inside_bottom)]:
        x, y = max(0, min(x, width - columns)), max(0, min(y, height - rows))
        if all(x >= x2 or x + columns <= x1 or y >= y2 or y + rows <= y1 for x1, y1, x2, y2 in taken):
            return x, y
    return None


@functools.lru_cache(maxsize=None)
def colour(name):
    """The (red, green, blue), 0..255, of class `name`: the same in every run and data set, in upper or lower case."""
    code = zlib.crc32(name.lower().encode('utf-8'), SEED)
    hue, light = math.radians(code % 360), (48, 66, 84)[code // 360 % 3]
    lab = np.float32([[[light, 62 * math.cos(hue), 62 * math.sin(hue)]]])  # equal steps look equally different
    rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)[0, 0]
    return tuple(int(value) for value in (255 * rgb).clip(0, 255))


@functools.lru_cache(maxsize=256)
def label(name, score, size, width):
    """A filled plate (h, w, 3) uint8: `name` and `score`, if any, `size` pixels high, smaller to fit `width`."""
    file = font_file(name)
    text = name if file else name.encode('unicode_escape').decode()
    if score is not None:
        text += ' %.2f' % score
    font = ImageFont.truetype(file or FONT, size)
    padding = max(1, size // 5)
    while size > 7 and font.getlength(text) + 2 * padding > width:
        size -= 1
        font = ImageFont.truetype(file or FONT, size)
    ascent, descent = font.getmetrics()
    fill = colour(name)
    bright = np.dot((np.array(fill) / 255) ** 2.2, (0.2126, 0.7152, 0.0722)) > 0.18  # black contrasts more than white
    plate = Image.new('RGB', (int(font.getlength(text)) + 2 * padding, ascent + descent + padding), fill)
    ImageDraw.Draw(plate).text((padding, padding // 2), text, font=font, fill=(0, 0, 0) if bright else (255, 255, 255))
    return np.asarray(plate)


@functools.lru_cache(maxsize=None)
def font_file(text):
    """A font file that has every character of `text` and the digits; None if this machine has none."""
    needed = {ord(character) for character in text + ' .0123456789'}
    for file in fonts():
        try:
            ImageFont.truetype(file, 16)  # raises for fonts that cannot be scaled, such as coloured emoji
            if needed <= set(FT2Font(file).get_charmap()):
                return file
        except (OSError, RuntimeError):
            continue
    return None


def fonts():
    """Paths of font files: the one that Matplotlib brings, then this machine's."""
    yield FONT
    yield from sorted(findSystemFonts())
