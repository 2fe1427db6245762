"""The size in a JPEG's first bytes is Pillow's, or it is left to Pillow."""
import io

import numpy as np
import pytest
from PIL import Image

from yolo3.data.jpeg import HEAD, jpeg_size


def encoded(size=(70, 30), mode='RGB', kind='JPEG', **settings):
    content = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, size[::-1] + (3,)).astype('uint8')).convert(mode).save(
        content, kind, **settings)
    return content.getvalue()


@pytest.mark.parametrize('settings', [
    {}, {'mode': 'L'}, {'mode': 'CMYK'}, {'progressive': True}, {'optimize': True}, {'comment': 'x' * 1000},
    {'icc_profile': b'x' * 2000}, {'size': (1, 1)}, {'size': (300, 7)}, {'dpi': (72, 72)},
    {'restart_marker_blocks': 4}])
def test_usual_headers(settings):
    content = encoded(**settings)
    assert jpeg_size(content[:HEAD]) == Image.open(io.BytesIO(content)).size


def test_all_else_is_left_to_pillow():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded()
    frame = plain.index(b'\xff\xc0')
    for content in (encoded(exif=exif), encoded(icc_profile=b'x' * HEAD), encoded(kind='PNG'), b'', b'\xff\xd8\xff',
                    plain[:frame], plain[:plain.index(b'\xff\xda')], plain.replace(b'\xff\xc0', b'\xff\xc3', 1),
                    plain[:frame + 5] + bytes(4) + plain[frame + 9:]):
        assert jpeg_size(content[:HEAD]) is None
