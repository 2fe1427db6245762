"""Image files: their size without decoding them, their pixels at reduced scale, two in one; and what is none."""
import multiprocessing

import cv2
import gluoncv
import numpy as np
import pytest

from yolo3.runtime import mx

from yolo3.cli import UserError
from yolo3.images import Blend, ImageFile


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def encoded(extension, image):
    return cv2.imencode(extension, image[:, :, ::-1] if image.ndim == 3 else image)[1].tobytes()


def test_any_name_and_grey_images(tmp_path):
    red = np.zeros((4, 6, 3), np.uint8)
    red[:, :, 0] = 200
    image = ImageFile(write(tmp_path / '图 片' / "a'b.png", encoded('.png', red)))
    assert (image.width, image.height) == (6, 4)
    pixels = image.pixels()
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and (pixels == red).all()
    grey = ImageFile(write(tmp_path / 'grey.png', encoded('.png', red[:, :, 0])))
    assert grey.pixels().shape == (4, 6, 3) and (grey.pixels() == 200).all()


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_reduced_scale_is_the_same_picture(tmp_path, extension):
    smooth = cv2.resize(np.random.RandomState(0).randint(0, 256, (6, 8, 3)).astype('uint8'), (163, 121))
    image = ImageFile(write(tmp_path / ('a' + extension), encoded(extension, smooth)))
    assert (image.width, image.height) == (163, 121)
    for reduction in 2, 4, 8:
        reduced = image.pixels(reduction)
        height, width = reduced.shape[:2]
        assert abs(width - 163 / reduction) < 1 and abs(height - 121 / reduction) < 1
        assert np.abs(cv2.resize(reduced, (163, 121)) - smooth.astype(int)).mean() < 3 * reduction


def test_quarter_turns_in_exif(tmp_path):
    from PIL import Image
    picture = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    for orientation, size in (1, (6, 4)), (3, (6, 4)), (6, (4, 6)), (8, (4, 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(tmp_path / 'turned.jpg', exif=exif)
        image = ImageFile(str(tmp_path / 'turned.jpg'))
        assert (image.width, image.height) == size and image.pixels().shape == size[::-1] + (3,)


def test_blend_is_gluoncvs_mixup(data):
    names = ['BloodImage_00007', 'BloodImage_00011']
    paths = [data + '/bccd/VOC2007/JPEGImages/%s.jpg' % name for name in names]
    first, second = [ImageFile(path).pixels() for path in paths]
    first = first[:300]  # of two sizes
    images = [mx.nd.array(image, dtype='uint8') for image in (first, second[:, :500])]
    stock = gluoncv.data.MixupDetection([(image, np.zeros((0, 5))) for image in images])

    class Pixels:
        def __init__(self, image):
            self.height, self.width = image.shape[:2]
            self.pixels = lambda reduction: image.asnumpy()

    for ratio in 0.1, 0.37, 0.8:
        stock.set_mixup(lambda: ratio)
        blend = Blend(Pixels(images[0]), Pixels(images[1]), ratio)
        theirs = stock[0][0].asnumpy()
        ours = blend.pixels()
        assert (blend.height, blend.width) == ours.shape[:2] == theirs.shape[:2] == (480, 640)
        difference = ours.astype(int) - theirs
        assert np.abs(difference).max() <= 1 and np.abs(difference.mean()) < 0.15


def test_files_that_are_no_image(tmp_path):
    paths = [str(tmp_path / 'missing.jpg'), str(tmp_path), write(tmp_path / 'empty.jpg', b''),
             write(tmp_path / 'text.jpg', b'no image')]
    with multiprocessing.get_context('fork').Pool(1) as pool:
        for path in paths:
            with pytest.raises(UserError) as caught:
                pool.apply(ImageFile, (path,))
            assert path in str(caught.value) and 'OpenCV' not in str(caught.value) and 'BytesIO' not in str(
                caught.value)
    png = encoded('.png', np.zeros((40, 60, 3), np.uint8))
    broken = ImageFile(write(tmp_path / 'broken.png', png[:45] + b'\xff' * 30))  # a sound header, nothing behind it
    with pytest.raises(UserError, match='broken.png'):
        broken.pixels()
