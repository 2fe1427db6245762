"""An image file: its size, and its pixels, at reduced scale where that will do."""
import io

import cv2
import numpy as np
from PIL import Image
from PIL import ImageFile as Loading

from yolo3.cli import UserError

REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
           8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
OPENCV = 'JPEG', 'MPO', 'PNG', 'BMP'  # it reads these right, be they grey, CMYK or 16 bits deep, but for transparency
PAPER = 'white'  # behind what is transparent, as browsers show it; the colours hidden there were seen by nobody

# The EXIF tag, and what brings its values upright: whether to transpose, then cv2.flip's code.
ORIENTATION = 0x0112
TURNS = {2: (False, 1), 3: (False, -1), 4: (False, 0), 5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)}


class BadImage(UserError):
    """The image file `path` is missing, cannot be read or is of another size than annotated: `why`, as in 'missing'."""

    def __init__(self, path, message, why='unreadable'):
        super().__init__(path, message, why)
        self.path, self.why = path, why

    def __str__(self):
        return self.args[1]


class ImageFile:
    """The image file `path`, `width` x `height` pixels as it is to be looked at. Raises BadImage.

    annotated: the (width, height) that its boxes were drawn on, where known. Some labelling tools heed the quarter
    turns of EXIF data and some do not: one is left undone where that is the size without it. Otherwise all turns are
    heeded, as viewers do. `orientation` is the EXIF value, None without; `heeded` says whether it counts.

    content: the file's bytes where they are here already, `path` being only what messages call it. formats: Pillow's
    names of those to read, None for all: some decoders are better kept from what strangers send.
    """

    def __init__(self, path, annotated=None, content=None, formats=None):
        self._path, self._content, self._formats = path, content, formats
        try:
            if content is None:
                with open(path, 'rb') as file:
                    self._content = file.read()
            with Image.open(io.BytesIO(self._content), formats=formats) as image:
                self._opencv = image.format in OPENCV and not image.has_transparency_data
                tiff = image.format == 'TIFF'
                if tiff:  # its size is the turned one from Pillow 11.2 on
                    stored = image.tag_v2[256], image.tag_v2[257]
                    self.orientation = image.tag_v2.get(ORIENTATION)
                else:  # PNG's own getexif would decode the image, to look for EXIF data behind the pixels
                    stored = image.size
                    self.orientation = Image.Image.getexif(image).get(ORIENTATION)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadImage(path, 'cannot read image %s: %s' % (
                path, 'it is empty, damaged or no image' if isinstance(error, Image.UnidentifiedImageError) else error))
        upright = stored[::-1] if TURNS.get(self.orientation, (False,))[0] else stored
        self.heeded = annotated is None or tuple(annotated) != stored or upright == stored
        self.width, self.height = upright if self.heeded else stored
        self._turn = self.orientation if self.heeded else None
        if tiff:  # Pillow turns its pixels unasked
            self._turn = None if self.heeded else {6: 8, 8: 6}.get(self.orientation, self.orientation)

    def pixels(self, reduction=1):
        """RGB, uint8 (height, width, 3); with a `reduction` of 2, 4 or 8 that many times smaller, a JPEG then being
        decoded faster. Of 16 bits a colour the upper 8; what is transparent on white. Raises BadImage."""
        try:
            image = self._decode(reduction) if self._opencv else self._convert(reduction)
        except (cv2.error, OSError, SyntaxError, ValueError) as error:
            raise BadImage(self._path, 'cannot read image %s: %s' % (self._path, error))
        if image is None:
            raise BadImage(self._path, 'cannot read image %s: it is damaged' % self._path)
        transpose, flip = TURNS.get(self._turn, (False, None))
        image = cv2.transpose(image) if transpose else image
        return image if flip is None else cv2.flip(image, flip)

    def _decode(self, reduction):
        """The pixels as they are stored, by OpenCV; None where they are damaged."""
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | REDUCED[reduction]
        return cv2.imdecode(np.frombuffer(self._content, np.uint8), flags)

    def _convert(self, reduction):
        """As `_decode`, by Pillow, which is slower and knows more."""
        Loading.LOAD_TRUNCATED_IMAGES = False  # GluonCV's import turns it on: half an image without a word
        with Image.open(io.BytesIO(self._content), formats=self._formats) as image:
            if image.mode in ('I', 'F'):
                raise ValueError('its colours are 32-bit numbers of an unknown range: save it with 8 bits a colour')
            if image.mode.startswith('I;16'):  # Pillow would clip it
                image = Image.fromarray((np.asarray(image) >> 8).astype('uint8'))
            if image.has_transparency_data:
                image = image.convert('RGBA')
                image = Image.alpha_composite(Image.new('RGBA', image.size, PAPER), image)
            return np.array(image.convert('RGB').reduce(reduction))


class Blend:
    """Two images in one, for mixup: `ratio` of `first` and the rest of `second`, from the top left corner on black.

    As gluoncv.data.MixupDetection blends them. It is used like an ImageFile.
    """

    def __init__(self, first, second, ratio):
        self._images = first, second
        self._ratio = ratio
        self.width = max(first.width, second.width)
        self.height = max(first.height, second.height)

    def pixels(self, reduction=1):
        """As ImageFile's."""
        first, second = [image.pixels(reduction) for image in self._images]
        height, width = np.maximum(first.shape, second.shape)[:2]
        first, second = [cv2.copyMakeBorder(image, 0, height - image.shape[0], 0, width - image.shape[1],
                                            cv2.BORDER_CONSTANT) for image in (first, second)]
        # addWeighted rounds to the nearest; GluonCV cuts off.
        return cv2.addWeighted(first, self._ratio, second, 1 - self._ratio, -0.5)


def check(path, annotated):
    """Raise BadImage unless the file `path` begins as an image does that has the (width, height) `annotated`.

    Only its header is read, and nothing decoded. What EXIF data turns by a quarter may have either size.
    """
    try:
        with Image.open(path) as image:
            size, turned = image.size, image.format != 'PNG' and image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise BadImage(path, 'no image %s' % path, 'missing')
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(path, 'cannot read image %s: %s' % (path, error))
    if tuple(annotated) != size and not (turned and tuple(annotated) == size[::-1]):
        raise BadImage(path, 'image %s has %d x %d pixels, but %d x %d by its annotation'
                       % ((path,) + size + tuple(annotated)), 'of another size than annotated')
