"""Image files: their size without decoding them, their pixels at reduced scale, two in one; and what is none."""
import io
import os
import pickle
import struct
import zlib

import cv2
import gluoncv
import numpy as np
import pytest
from PIL import Image

from yolo3.mxnet_setup import mx

from yolo3.cli import UserError
from yolo3.data.images import MOST_SIDE, BadImage, Blend, ImageFile, check_header


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


def smooth(width=64, height=48):
    """A picture that survives being compressed."""
    noise = np.random.RandomState(0).randint(0, 256, (6, 8, 3)).astype('uint8')
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def stored(picture, extension, **options):
    """`picture`, a Pillow image, as the content of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, Image.registered_extensions()[extension], **options)
    return buffer.getvalue()


def deep(extension, pixels):
    """uint8 `pixels` with 16 bits a colour, the lower 8 at odds with the upper."""
    pixels = pixels.astype('uint16') * 256 + 255 - pixels
    return cv2.imencode(extension, pixels if pixels.ndim == 2 else pixels[:, :, [2, 1, 0, 3][:pixels.shape[2]]])[1]


RGB = smooth()
GREY = np.asarray(Image.fromarray(RGB).convert('L'))
ALPHA = np.tile(np.linspace(0, 255, 64).astype('uint8'), (48, 1))
# What Photoshop writes: inverted inks. As CMYK they are just the RGB, without black; as YCCK, what a JPEG of it holds.
INKS = np.dstack((RGB, np.full_like(GREY, 255)))
YCCK = np.dstack((cv2.cvtColor(255 - RGB, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]], np.full_like(GREY, 255)))


def cmyk_jpeg(inks, transform):
    """A JPEG of four channels as they are, whose Adobe marker calls them CMYK (0) or YCCK (2)."""
    content = stored(Image.fromarray(255 - inks, 'CMYK'), '.jpg', quality=100)  # Pillow inverts what it writes
    marker = content.index(b'Adobe') + 11
    assert content[marker] == 0
    return content[:marker] + bytes([transform]) + content[marker + 1:]


def on_white(pixels):
    """`pixels` where ALPHA is 255, white where it is 0."""
    return 255 - (255. - pixels) * ALPHA[:, :, None] / 255


COLOUR, PALE = Image.fromarray(RGB), Image.fromarray(GREY)
CLEAR, PALE_CLEAR = COLOUR.copy(), PALE.copy()
CLEAR.putalpha(Image.fromarray(ALPHA))
PALE_CLEAR.putalpha(Image.fromarray(ALPHA))
PALETTE = COLOUR.quantize(16)
PALETTE_RGB = np.asarray(PALETTE.convert('RGB'))
HOLE = np.asarray(PALETTE)[:, :, None] == 5  # the pixels of one colour
DOTS = COLOUR.convert('1')
DOTS_RGB = np.asarray(DOTS.convert('RGB'))
GREY_RGB = GREY[:, :, None].repeat(3, 2)


# What it is: the file's extension, its content, the picture it shows, how far a pixel may be off.
ODD = {
    'grey': ('.png', stored(PALE, '.png'), GREY_RGB, 0),
    'grey JPEG': ('.jpg', stored(PALE, '.jpg', quality=95), GREY_RGB, 4),
    'alpha': ('.png', stored(CLEAR, '.png'), on_white(RGB), 1),
    'alpha TIFF': ('.tif', stored(CLEAR, '.tif'), on_white(RGB), 1),
    'alpha WebP': ('.webp', stored(CLEAR, '.webp', lossless=True), on_white(RGB), 1),
    'grey and alpha': ('.png', stored(PALE_CLEAR, '.png'), on_white(GREY_RGB), 1),
    'palette': ('.png', stored(PALETTE, '.png'), PALETTE_RGB, 0),
    'palette GIF': ('.gif', stored(PALETTE, '.gif'), PALETTE_RGB, 0),
    'palette TIFF': ('.tif', stored(PALETTE, '.tif'), PALETTE_RGB, 0),
    'palette BMP': ('.bmp', stored(PALETTE, '.bmp'), PALETTE_RGB, 0),
    'palette and hole': ('.png', stored(PALETTE, '.png', transparency=5), np.where(HOLE, 255, PALETTE_RGB), 0),
    '1 bit': ('.png', stored(DOTS, '.png'), DOTS_RGB, 0),
    '1 bit BMP': ('.bmp', stored(DOTS, '.bmp'), DOTS_RGB, 0),
    '1 bit fax': ('.tif', stored(DOTS, '.tif', compression='group4'), DOTS_RGB, 0),
    'CMYK': ('.jpg', cmyk_jpeg(INKS, 0), RGB, 3),
    'YCCK': ('.jpg', cmyk_jpeg(YCCK, 2), RGB, 5),
    'CMYK TIFF': ('.tif', stored(Image.fromarray(255 - INKS, 'CMYK'), '.tif'), RGB, 1),
    '16 bit grey': ('.png', deep('.png', GREY), GREY_RGB, 0),
    '16 bit grey TIFF': ('.tif', deep('.tiff', GREY), GREY_RGB, 0),
    '16 bit': ('.png', deep('.png', RGB), RGB, 0),
    '16 bit TIFF': ('.tif', deep('.tiff', RGB), RGB, 0),
    '16 bit alpha': ('.png', deep('.png', np.dstack((RGB, ALPHA))), on_white(RGB), 1),
}


@pytest.mark.parametrize('kind', ODD)
def test_odd_images(tmp_path, kind):
    extension, content, expected, error = ODD[kind]
    image = ImageFile(write(tmp_path / ('odd' + extension), bytes(content)))
    pixels = image.pixels()
    assert (image.width, image.height) == (64, 48) and pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels - np.asarray(expected, float)).max() <= error
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    half = cv2.resize(np.asarray(expected, 'float32'), (32, 24), interpolation=cv2.INTER_AREA)
    assert np.abs(image.pixels(2) - half).mean() < 3 and image.pixels(8).shape == (6, 8, 3)


def test_32_bits_are_refused(tmp_path):
    path = write(tmp_path / 'float.tif', stored(Image.fromarray(GREY.astype('float32')), '.tif'))
    with pytest.raises(UserError, match='float.tif: its colours are 32-bit .* save it with 8 bits'):
        ImageFile(path).pixels()


@pytest.mark.parametrize('extension', ['.jpg', '.png', '.webp', '.tif'])
def test_turns_in_exif(tmp_path, extension):
    for turn, method in enumerate([None, Image.FLIP_LEFT_RIGHT, Image.ROTATE_180, Image.FLIP_TOP_BOTTOM,
                                   Image.TRANSPOSE, Image.ROTATE_270, Image.TRANSVERSE, Image.ROTATE_90], 1):
        exif = Image.Exif()
        exif[0x0112] = turn
        path = write(tmp_path / ('turned' + extension), stored(COLOUR, extension, exif=exif))
        upright = np.asarray(COLOUR if method is None else COLOUR.transpose(method))
        height, width = upright.shape[:2]
        unturned = RGB if turn > 4 else upright  # what has the annotated size even so
        for annotated, expected in ((None, upright), ((width, height), upright), ([64., 48.], unturned),
                                    ((10, 10), upright)):
            image = ImageFile(path, annotated)
            pixels = image.pixels()
            assert (image.width, image.height) == expected.shape[1::-1] and pixels.shape == expected.shape
            assert np.abs(pixels.astype(int) - expected).mean() < 4
            assert image.pixels(2).shape == (expected.shape[0] // 2, expected.shape[1] // 2, 3)


def test_a_square_is_turned_though_the_annotation_cannot_tell(tmp_path):
    square = smooth(48, 48)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / 'square.png', stored(Image.fromarray(square), '.png', exif=exif))
    assert (ImageFile(path, (48, 48)).pixels() == np.rot90(square, -1)).all()


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
    for path in paths:
        with pytest.raises(UserError) as caught:
            ImageFile(path)
        said = str(pickle.loads(pickle.dumps(caught.value)))  # as it comes from a worker
        assert path in said and 'OpenCV' not in said and 'BytesIO' not in said
    png = encoded('.png', np.zeros((40, 60, 3), np.uint8))
    broken = ImageFile(write(tmp_path / 'broken.png', png[:45] + b'\xff' * 30))  # a sound header, nothing behind it
    with pytest.raises(UserError, match='broken.png'):
        broken.pixels()


@pytest.mark.parametrize('broken', [b'IHDR', b'IDAT'])
def test_broken_png_chunks_are_named(tmp_path, broken):
    content = stored(CLEAR, '.png')
    where = content.index(broken)
    for replaced in content[:where - 1] + b'\1' + content[where:], content[:where] + b'\0' + content[where + 1:]:
        with pytest.raises(UserError, match='chunk.png'):
            ImageFile(write(tmp_path / 'chunk.png', replaced)).pixels()


@pytest.mark.parametrize('extension', ['.jpg', '.png', '.bmp', '.tif', '.gif'])
@pytest.mark.parametrize('picture', [COLOUR, CLEAR], ids=['opaque', 'clear'])
def test_half_a_file_is_no_image(tmp_path, extension, picture):
    content = stored(picture.convert('RGB') if extension == '.jpg' else picture, extension)
    with pytest.raises(UserError, match='half'):
        ImageFile(write(tmp_path / ('half' + extension), content[:len(content) * 3 // 4])).pixels()


def refused(path, why):
    """Both ways to open the file `path` say that it is a bad image, and `why`."""
    for read in (lambda: ImageFile(path).pixels()), (lambda: check_header(path, (64, 48))):
        with pytest.raises(BadImage, match='%s.*%s' % (os.path.basename(path), why)) as caught:
            read()
        assert caught.value.path == path


@pytest.mark.parametrize('kind', ['EPS', 'DDS', 'AVIF', 'PPM', 'TGA', 'ICO', 'PDF', 'JPEG2000'])
def test_other_formats_are_not_decoded_whatever_the_name(tmp_path, kind):
    buffer = io.BytesIO()
    try:
        COLOUR.save(buffer, kind)
    except (KeyError, OSError) as error:  # this Pillow cannot write it
        pytest.skip(str(error))
    refused(write(tmp_path / 'a.jpg', buffer.getvalue()), 'none of JPEG, PNG')


@pytest.mark.parametrize('extension', ['.jpg', '.png', '.bmp', '.tif', '.webp', '.gif'])
@pytest.mark.parametrize('error', [struct.error, IndexError, OverflowError, MemoryError, RecursionError, KeyError,
                                   AssertionError, cv2.error])
def test_any_error_of_a_decoder_is_a_bad_image(tmp_path, monkeypatch, extension, error):
    path = write(tmp_path / ('a' + extension), stored(COLOUR, extension))
    image = ImageFile(path)

    def fail(*args, **options):
        raise error('odd')
    monkeypatch.setattr(cv2, 'imdecode', fail)
    monkeypatch.setattr(Image.Image, 'convert', fail)
    with pytest.raises(BadImage, match='cannot read image .*odd'):
        image.pixels()
    monkeypatch.setattr(Image, 'open', fail)
    monkeypatch.setattr('yolo3.data.images.jpeg_size', lambda head: None)  # as for what it does not know
    refused(path, 'odd')


@pytest.mark.parametrize('make, why', [
    (os.mkfifo, 'not a regular file'), (os.mkdir, 'Is a directory'), (lambda path: os.symlink(path, path), 'Too many'),
    (lambda path: os.symlink('/dev/zero', path), 'not a regular file')])
def test_only_regular_files_are_opened(tmp_path, make, why):
    make(str(tmp_path / 'a.jpg'))
    refused(str(tmp_path / 'a.jpg'), why)


def png_header(width, height):
    """A PNG file that declares `width` x `height` grey pixels, and has none."""
    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)) + chunk(
        b'IDAT', zlib.compress(b''))


@pytest.mark.parametrize('size', [(65500, 65500), (1, 60000), (MOST_SIDE + 1, 1), (2 ** 31 - 1, 2 ** 31 - 1)])
def test_too_large_pictures_are_bad_before_they_are_decoded(tmp_path, size):
    refused(write(tmp_path / 'a.png', png_header(*size)), 'pixels')


def test_long_pictures_are_read_right(tmp_path):
    line = np.random.RandomState(0).randint(0, 256, (1, MOST_SIDE, 3)).astype('uint8')
    for name, pixels in ('wide', line), ('high', line.transpose(1, 0, 2)):
        image = ImageFile(write(tmp_path / (name + '.png'), encoded('.png', np.ascontiguousarray(pixels))))
        np.testing.assert_array_equal(image.pixels(), pixels)
        assert image.pixels(8).shape[:2] == tuple(-(-side // 8) for side in pixels.shape[:2])
    assert Blend(image, ImageFile(str(tmp_path / 'wide.png')), 0.5).pixels().shape == (4096, 4096, 3)  # not 3 GB


@pytest.mark.parametrize('annotated, text', [
    ((640.4, 48), '640.4 x 48 by'), ((64, 48.000001), '64 x 48.000001 by'), ((65., 48.), '65 x 48 by')])
def test_sizes_that_differ_are_said_with_the_digits_that_differ(tmp_path, annotated, text):
    path = write(tmp_path / 'a.png', stored(COLOUR, '.png'))
    with pytest.raises(BadImage, match='has 64 x 48 pixels, but ' + text):
        check_header(path, annotated)
