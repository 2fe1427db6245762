"""--sheet: a contact sheet, small pictures side by side with their boxes and file names."""
import itertools
import math
import os

import cv2
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from yolo3.atomic import replacing
from yolo3.cli import UserError
from yolo3.files import check_output
from yolo3.show.draw import FONT, draw, font_file

TILE = 400, 320  # pixels
CAPTION = 20  # pixels of a tile for the file's name
MOST = 100  # pictures
KINDS = '.png', '.jpg', '.jpeg'
MARK = 'yolo3 contact sheet'  # in the file, which tells a sheet from a photograph


def check_sheet(path, used):
    """As `check_output` for the file of --sheet: only an earlier sheet is replaced."""
    path = check_output('--sheet', path, used, kinds=KINDS)
    if path and not path.lower().endswith(KINDS):
        raise UserError('--sheet %s: the name must end in %s' % (path, ', '.join(KINDS)))
    if path and os.path.exists(path) and not is_sheet(path):
        raise UserError('--sheet %s: exists, and is no contact sheet: name another file, or remove it' % path)
    return path


def is_sheet(path):
    """Whether the file `path` was written by a Sheet."""
    try:
        with Image.open(path) as image:
            return image.info.get('comment') in (MARK, MARK.encode())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


class Sheet:
    """The first MOST pictures that `add` is given; of a video, its first frame."""

    def __init__(self):
        self._tiles, self._seen = [], 0

    def add(self, image, record):
        """Take in an image, (H, W, 3) uint8 RGB, and its record of `annotate_image`."""
        if record.get('frame', 0) == 0:
            self._seen += 1
            if self._seen <= MOST:
                self._tiles.append(tile(os.path.basename(record['picture']), image, record['detections']))

    def write(self, path):
        """Write the sheet to `path`, replacing it whole, unless it is empty. Returns what to tell the user, or ''."""
        if not self._tiles:
            return 'no picture for --sheet'
        picture = grid(self._tiles, math.ceil(len(self._tiles) ** 0.5))
        info = PngInfo()
        info.add_text('comment', MARK)
        with replacing(path) as temporary:
            if path.lower().endswith('.png'):
                picture.save(temporary, 'PNG', pnginfo=info)
            else:
                picture.save(temporary, 'JPEG', quality=90, comment=MARK)
        return '--sheet has the first %d of %d pictures' % (MOST, self._seen) if self._seen > MOST else ''


def grid(tiles, columns):
    """The `tiles` in rows of so many, as a Pillow image."""
    rows = math.ceil(len(tiles) / columns)
    picture = Image.new('RGB', (columns * TILE[0], rows * TILE[1]), 'white')
    places = itertools.product(range(0, picture.height, TILE[1]), range(0, picture.width, TILE[0]))
    for small, (y, x) in zip(tiles, places):
        picture.paste(small, (x, y))
    return picture


def tile(name, image, boxes):
    """A TILE, as a Pillow image, of `image`, (H, W, 3) uint8 RGB, with its `boxes` under its file `name`.

    boxes: as `draw` takes them. Without an image, None, it has the name only.
    """
    result = Image.new('RGB', TILE, 'white')
    if image is not None:
        height, width = image.shape[:2]
        scale = min((TILE[0] - 4) / width, (TILE[1] - CAPTION) / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        sides = [size[0] / width, size[1] / height] * 2
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        scaled = [dict(found, box=[value * side for value, side in zip(found['box'], sides)]) for found in boxes]
        result.paste(Image.fromarray(draw(small, scaled)), (0, CAPTION))
    ImageDraw.Draw(result).text((2, 3), name, 'black', ImageFont.truetype(font_file(name) or FONT, 12))
    return result
