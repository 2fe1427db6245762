"""check_dataset.py: every row of its table on a set with every flaw, its picture, and errors in one line."""
import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

import check_dataset
from conftest import ANNOTATION, OBJECT

SIDE = 104  # a quarter of the 416 that boxes are measured at
PIXELS = cv2.resize(np.random.RandomState(0).randint(0, 256, (6, 6, 3)).astype('uint8'), (SIDE, SIDE))


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


@pytest.fixture(scope='module')
def flawed(tmp_path_factory):
    """A VOC set in whose training split each image has another flaw."""
    root = tmp_path_factory.mktemp('flawed')
    folder = root / 'VOC2007'
    for name in 'JPEGImages', 'Annotations', 'ImageSets/Main':
        (folder / name).mkdir(parents=True)
    picture, tall = Image.fromarray(PIXELS), Image.fromarray(PIXELS[:, :80])

    def add(name, image, boxes=(('cat', 10, 10, 40, 40),), size=(SIDE, SIDE), **options):
        stem = os.path.splitext(name)[0]
        objects = ''.join(OBJECT % box for box in boxes)
        xml = (ANNOTATION % (stem, *size, objects)).replace(stem + '.jpg', name)
        (folder / 'Annotations' / (stem + '.xml')).write_text(xml)
        if isinstance(image, bytes):
            (folder / 'JPEGImages' / name).write_bytes(image)
        else:
            image.save(str(folder / 'JPEGImages' / name), **options)
    add('plain.jpg', picture, [('cat', 20, 20, 80, 80), ('dog', 20, 20, 35, 35), ('dog', 20, 20, 23, 23),
                               ('cat', 50, 50, 51, 90), ('cow', 1, 1, 9, 9), ('cat', 7, 7, 7, 9)])
    add('bare.jpg', picture, [], quality=50)
    add('grey.jpg', picture.convert('L'))
    add('inks.jpg', picture.convert('CMYK'))
    add('deep.png', cv2.imencode('.png', PIXELS.astype('uint16') * 257)[1].tobytes())
    add('clear.png', picture.convert('RGBA'))
    add('liar.jpg', cv2.imencode('.png', PIXELS)[1].tobytes())
    add('turned.jpg', tall, size=(SIDE, 80), exif=exif(6))
    add('unturned.jpg', tall, size=(80, SIDE), exif=exif(6))
    add('large.jpg', picture, size=(2 * SIDE, 2 * SIDE), quality=60)
    add('broken.jpg', b'no image')
    content = (folder / 'JPEGImages/plain.jpg').read_bytes()
    add('cut.jpg', content[:len(content) * 3 // 4])
    add('copy.jpg', content, [('cat', 20, 20, 80, 80)])
    names = sorted(os.path.splitext(name)[0] for name in os.listdir(str(folder / 'JPEGImages')))
    names.remove('copy')
    (folder / 'ImageSets/Main/trainval.txt').write_text('\n'.join(names))
    (folder / 'ImageSets/Main/test.txt').write_text('copy\ngrey\n')
    return root


FLAGS = '--classes', 'cat,dog', '--train-splits', '2007_trainval', '--val-splits', '2007_test'


def test_every_row(run_process, flawed, tmp_path):
    result = run_process('scripts/check_dataset.py', flawed, *FLAGS, '-j', '1', '--json', tmp_path / 'found.json',
                         '--picture', tmp_path / 'sheet.png')
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / 'found.json').read_text())
    assert content['splits'] == ['2007_trainval', '2007_test'] and content['data_shape'] == 416
    files = {what: [[os.path.basename(path) for path in side] for side in sides]
             for what, sides in content['files'].items()}
    assert files == {
        'images greyscale': [['grey.jpg'], ['grey.jpg']],
        'images CMYK': [['inks.jpg'], []],
        'images 16 bits a colour': [['deep.png'], []],
        'images with transparency': [['clear.png'], []],
        'images of another format than the name says': [['liar.jpg'], []],
        'images turned as EXIF says': [['turned.jpg'], []],
        'images not turned as EXIF says, by its annotation': [['unturned.jpg'], []],
        'images of another size than annotated': [['large.jpg'], []],
        'images unreadable': [['broken.jpg'], []],
        'images truncated or damaged': [['cut.jpg'], []],
        'images with the content of one on the other side': [['grey.jpg', 'plain.jpg'], ['copy.jpg', 'grey.jpg']],
        'images with the name of one on the other side': [['grey.jpg'], ['grey.jpg']],
    }
    # At 416, four times as large, plain.jpg's boxes are 240, 60 and 12 pixels wide and high, 4 x 160 and 0 x 8.
    expected = {'images': [12, 2], 'images without boxes': [1, 0], 'boxes': [14, 2], 'boxes of class cat': [12, 2],
                'boxes of class dog': [2, 0], 'boxes of other class cow': [1, 0],
                'boxes under 8 pixels wide or high': [1, 0], 'boxes under 2 pixels wide or high': [0, 0],
                'boxes dropped of no width': [1, 0], 'boxes dropped of other classes': [1, 0]}
    assert {what: content['counts'][what] for what in expected} == expected
    for what, numbers in content['counts'].items():
        line = next(line for line in result.stdout.splitlines() if line.startswith(what + '  '))
        assert line[len(what):].split()[:2] == [str(number) for number in numbers]
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    assert sheet.shape == (1280, 1600, 3)
    corner = sheet[20:320, :300, ::-1]  # the first sample without boxes, bare.jpg
    assert np.abs(cv2.resize(corner, (SIDE, SIDE)).astype(int) - PIXELS).mean() < 12


def test_boxes_go_to_the_strides_of_their_sizes(run, tmp_path):
    """Boxes of exactly an anchor's shape, in COCO form, and one whose image is not square."""
    pictures = tmp_path / 'images'
    pictures.mkdir()
    shapes = [(10, 13), (33, 23), (30, 61), (59, 119), (116, 90), (373, 326), (1.5, 30), (7, 9)]
    images = [{'id': 1, 'file_name': 'a.png', 'width': 416, 'height': 416},
              {'id': 2, 'file_name': 'b.png', 'width': 832, 'height': 208}]
    for image in images:
        cv2.imwrite(str(pictures / image['file_name']), np.zeros((image['height'], image['width'], 3), 'uint8'))
    # One pixel is taken off widths and heights, as GluonCV reads COCO's boxes.
    boxes = [(1, width + 1, height + 1) for width, height in shapes] + [(2, 232 + 1, 45 + 1)]
    annotations = [{'id': number, 'image_id': image, 'category_id': 7, 'bbox': [1, 1, width, height]}
                   for number, (image, width, height) in enumerate(boxes)]
    (tmp_path / 'annotations').mkdir()
    for split in 'instances_train2017', 'instances_val2017':
        (tmp_path / 'annotations' / (split + '.json')).write_text(json.dumps(
            {'images': images, 'annotations': annotations, 'categories': [{'id': 7, 'name': 'thing'}]}))
    result = run('scripts/check_dataset.py', tmp_path, '--dataset', 'coco', '-j', '0', '--json',
                 tmp_path / 'found.json')
    assert result.returncode == 0, result.stderr
    counts = json.loads((tmp_path / 'found.json').read_text())['counts']
    assert {what: side[0] for what, side in counts.items() if 'stride' in what or 'under' in what} == {
        'boxes for stride 8': 4, 'boxes for stride 16': 2, 'boxes for stride 32': 3,  # 232 x 45 is 116 x 90 at 416
        'boxes under 8 pixels wide or high': 2, 'boxes under 2 pixels wide or high': 1}


def test_files_that_are_not_regular_are_unreadable(tmp_path):
    os.mkfifo(str(tmp_path / 'pipe.jpg'))
    os.symlink('/dev/zero', str(tmp_path / 'zero.jpg'))
    for name in 'pipe.jpg', 'zero.jpg', 'none.jpg':
        assert check_dataset.inspect((str(tmp_path / name), [8., 8.])) == (['unreadable'], None)


def test_errors_are_one_line(run, flawed, tmp_path):
    for arguments, named in (((tmp_path / 'none',), 'none'), ((flawed, '--classes', 'horse') + FLAGS[2:], 'horse'),
                             ((flawed,) + FLAGS + ('--json', tmp_path / 'no' / 'x.json'), '--json'),
                             ((flawed,) + FLAGS + ('--picture', 'x.jpg'), '--picture'),
                             ((flawed,) + FLAGS + ('--json', 'a.png', '--picture', 'a.png'), '--picture'),
                             ((flawed,) + FLAGS + ('--picture', flawed / 'VOC2007/JPEGImages/deep.png'), '--picture'),
                             ((flawed,) + FLAGS + ('--data-shape', '100'), '--data-shape'),
                             ((flawed,) + FLAGS + ('--data-shape', 32 * 10 ** 21), '--data-shape'),
                             ((flawed,) + FLAGS + ('-j', 10 ** 9), '-j')):
        result = run('scripts/check_dataset.py', *arguments)
        assert result.returncode == 2 and named in result.stderr and len(result.stderr.splitlines()) == 1
