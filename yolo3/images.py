"""An image file: its size, and its pixels, at reduced scale where that will do."""
import io

import cv2
import numpy as np
from PIL import Image

from yolo3.cli import UserError

REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
           8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 are the quarter turns


class ImageFile:
    """The image file `path`, `width` x `height` pixels as it is to be looked at. Raises UserError."""

    def __init__(self, path):
        self._path = path
        try:
            with open(path, 'rb') as file:
                self._content = file.read()
            with Image.open(io.BytesIO(self._content)) as image:
                self.width, self.height = image.size
                if image.getexif().get(ORIENTATION, 1) >= 5:
                    self.width, self.height = self.height, self.width
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError('cannot read image %s: %s' % (path, 'it is empty, damaged or no image'
                            if isinstance(error, Image.UnidentifiedImageError) else error))

    def pixels(self, reduction=1):
        """RGB, uint8 (height, width, 3); with a `reduction` of 2, 4 or 8 that many times smaller, a JPEG then being
        decoded faster. Raises UserError."""
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_COLOR | REDUCED[reduction]
        try:
            image = cv2.imdecode(np.frombuffer(self._content, np.uint8), flags)
        except cv2.error as error:
            raise UserError('cannot read image %s: %s' % (self._path, error))
        if image is None:
            raise UserError('cannot read image %s: it is damaged' % self._path)
        return image


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
