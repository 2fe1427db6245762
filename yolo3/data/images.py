"""An image file: its size, and its pixels, at reduced scale if that is enough."""
import contextlib
import io
import os
import warnings

import cv2
import numpy as np
from PIL import Image
from PIL import ImageFile as PILImageFile

from yolo3.cli import UserError
from yolo3.data.jpeg import HEAD, jpeg_size
from yolo3.defaults import MOST_SIDE
from yolo3.files import open_input

# Pillow's names of what is read, by content and whatever the name says. Its other decoders run programs (EPS) or are
# hardly ever tried on damaged files. An MPO, of two pictures, is opened as a JPEG.
FORMATS = 'JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF'
MOST_PIXELS = 2 ** 25  # of two images in one
EXTENSIONS = ('.jpg', '.jpeg', '.JPG', '.JPEG', '.png', '.PNG', '.bmp', '.BMP', '.tif', '.tiff', '.webp')
REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
           8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
# The formats that OpenCV reads right, even in grey, CMYK or with 16 bits a colour, but not with transparency.
OPENCV_FORMATS = 'JPEG', 'MPO', 'PNG', 'BMP'
BACKGROUND = 'white'  # behind transparent pixels, as in browsers; no annotator saw the colours hidden there

# The EXIF tag, and what turns the image upright for each of its values: whether to transpose, then cv2.flip's code.
ORIENTATION = 0x0112
TURNS = {2: (False, 1), 3: (False, -1), 4: (False, 0), 5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)}

# Pillow warns about damaged metadata; if the image itself is damaged, it raises an error, which is reported.
warnings.filterwarnings('ignore', module=r'PIL\.')


class BadImage(UserError):
    """The image file `path` is missing, unreadable, or of another size than annotated; `why` says which."""

    def __init__(self, path, message, why='unreadable'):
        super().__init__(path, message, why)
        self.path, self.why = path, why

    def __str__(self):
        return self.args[1]


def original(path):
    """The path of an image's file without extension, and without what Roboflow adds to each of its augmented copies."""
    folder, name = os.path.split(os.path.splitext(path)[0])
    return os.path.join(folder, name.split('.rf.')[0])


@contextlib.contextmanager
def decoding(path, formats=FORMATS):
    """Make a BadImage of whatever the block raises: at damaged files decoders raise errors of every kind."""
    try:
        yield
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(path, 'no image %s' % path, 'missing')
    except Image.UnidentifiedImageError:
        raise BadImage(path, 'cannot read image %s: it is empty, damaged or none of %s' % (path, ', '.join(formats)))
    except Exception as error:
        raise BadImage(path, 'cannot read image %s: %s' % (path, str(error) or type(error).__name__))


@contextlib.contextmanager
def opened(path, file, formats=FORMATS):
    """The open `file` as a Pillow image, nothing decoded yet. Raises BadImage, which names `path`."""
    with decoding(path, formats), Image.open(file, formats=formats) as image:
        if max(image.size) > MOST_SIDE:
            raise ValueError('%d x %d pixels, and no side may have more than %d' % (image.size + (MOST_SIDE,)))
        yield image


def _sizes(image):
    """(width, height) of the `opened` image as stored and as displayed, and its EXIF orientation, None without."""
    if image.format == 'TIFF':  # from Pillow 11.2 on, image.size is the size after the turn
        stored, orientation = (image.tag_v2[256], image.tag_v2[257]), image.tag_v2.get(ORIENTATION)
    else:  # PNG's own getexif would decode the image to look for EXIF data behind the pixels
        stored, orientation = image.size, Image.Image.getexif(image).get(ORIENTATION)
    return stored, stored[::-1] if TURNS.get(orientation, (False,))[0] else stored, orientation


def displayed_size(path):
    """[width, height] in pixels of the image file `path` as displayed. Only its header is read. Raises BadImage."""
    with decoding(path), open_input(path) as file, opened(path, file) as image:
        return list(map(float, _sizes(image)[1]))


class ImageFile:
    """The image file `path`, `width` x `height` pixels as displayed. Raises BadImage.

    annotated: the (width, height) that its boxes were drawn on, if known. Some labelling tools apply the quarter turns
    of EXIF data and some do not: a quarter turn is ignored if the annotated size is the size without it. All other
    turns are applied, as viewers do. `orientation` is the EXIF value, None without; `exif_applied` says whether it is
    applied.

    content: the file's bytes, if they are at hand; `path` is then only for messages. formats: those of FORMATS to read.
    """

    def __init__(self, path, annotated=None, content=None, formats=FORMATS):
        self._path, self._formats = path, formats
        with decoding(path):
            if content is None:
                with open_input(path) as file:
                    content = file.read()
            with opened(path, io.BytesIO(content), formats) as image:
                self._opencv = image.format in OPENCV_FORMATS and not image.has_transparency_data
                tiff = image.format == 'TIFF'
                stored, upright, self.orientation = _sizes(image)
        self._content = content
        self.exif_applied = annotated is None or tuple(annotated) != stored or upright == stored
        self.width, self.height = upright if self.exif_applied else stored
        self._turn = self.orientation if self.exif_applied else None
        if tiff:  # Pillow turns its pixels unasked: undo that
            self._turn = None if self.exif_applied else {6: 8, 8: 6}.get(self.orientation, self.orientation)

    def pixels(self, reduction=1):
        """RGB, uint8 (height, width, 3). Raises BadImage.

        reduction: 2, 4 or 8 gives an image that many times smaller; a JPEG is then decoded faster. Of 16 bits a colour
        the upper 8 are kept, and transparent pixels are laid on white.
        """
        with decoding(self._path):
            opencv = self._opencv and min(self.width, self.height) >= reduction  # it cannot reduce a side to nothing
            image = self._decode(reduction) if opencv else self._convert(reduction)
        if image is None:
            raise BadImage(self._path, 'cannot read image %s: it is damaged' % self._path)
        transpose, flip = TURNS.get(self._turn, (False, None))
        image = cv2.transpose(image) if transpose else image
        return image if flip is None else cv2.flip(image, flip)

    def _decode(self, reduction):
        """The pixels as stored, by OpenCV; None if they are damaged."""
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | REDUCED[reduction]
        return cv2.imdecode(np.frombuffer(self._content, np.uint8), flags)

    def _convert(self, reduction):
        """The pixels by Pillow, which is slower and knows more formats."""
        PILImageFile.LOAD_TRUNCATED_IMAGES = False  # GluonCV's import sets it, and half an image would pass for a whole
        with opened(self._path, io.BytesIO(self._content), self._formats) as image:
            if image.mode in ('I', 'F'):
                raise ValueError('its colours are 32-bit numbers of an unknown range: save it with 8 bits a colour')
            if image.mode.startswith('I;16'):  # Pillow would clip the values
                image = Image.fromarray((np.asarray(image) >> 8).astype('uint8'))
            if image.has_transparency_data:
                image = image.convert('RGBA')
                image = Image.alpha_composite(Image.new('RGBA', image.size, BACKGROUND), image)
            return np.array(image.convert('RGB').reduce(reduction))


class Blend:
    """Two images in one, for mixup: `ratio` of `first` and the rest of `second`, both at the top left, on black.

    Blends as gluoncv.data.MixupDetection does. It is used like an ImageFile.
    """

    def __init__(self, first, second, ratio):
        self._images = first, second
        self._ratio = ratio
        self.width = max(first.width, second.width)
        self.height = max(first.height, second.height)

    def pixels(self, reduction=1):
        """As ImageFile.pixels; smaller if a long picture on a high one would have more than MOST_PIXELS."""
        while reduction < 8 and self.width * self.height > MOST_PIXELS * reduction ** 2:
            reduction *= 2
        first, second = [image.pixels(reduction) for image in self._images]
        height, width = np.maximum(first.shape, second.shape)[:2]
        first, second = [image if image.shape[:2] == (height, width) else cv2.copyMakeBorder(
            image, 0, height - image.shape[0], 0, width - image.shape[1], cv2.BORDER_CONSTANT)
            for image in (first, second)]
        # addWeighted rounds to the nearest, GluonCV truncates: -0.5 makes up for it.
        return cv2.addWeighted(first, self._ratio, second, 1 - self._ratio, -0.5)


def check_header(path, annotated):
    """Raise BadImage unless the file `path` starts as an image of the (width, height) `annotated` does.

    Only the header is read; nothing is decoded. An image that EXIF data turns by a quarter may have either size.
    """
    with decoding(path), open_input(path) as file:
        size, turned = jpeg_size(file.read(HEAD)), False
        if size is None:
            file.seek(0)
            with opened(path, file) as image:
                size = image.size
                turned = image.format != 'PNG' and image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    if tuple(annotated) != size and not (turned and tuple(annotated) == size[::-1]):
        raise BadImage(path, 'image %s has %d x %d pixels, but %s x %s by its annotation' % (
            (path,) + size + tuple(int(side) if side == int(side) else side for side in annotated)),
            'of another size than annotated')
