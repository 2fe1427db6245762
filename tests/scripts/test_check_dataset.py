"""check_dataset.py: every row of its table on a set with every flaw, its picture, and errors in one line."""
import glob
import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

import check_dataset
import exports
from conftest import ANNOTATION, OBJECT
from yolo3.cli import UserError
from yolo3.data.datasets import form_of, open_train

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
        'images nearly the same as one on the other side': [
            ['bare.jpg', 'clear.png', 'deep.png', 'grey.jpg', 'inks.jpg', 'large.jpg', 'liar.jpg', 'plain.jpg'],
            ['copy.jpg', 'grey.jpg']],
        'images with the content of one on the other side': [['grey.jpg', 'plain.jpg'], ['copy.jpg', 'grey.jpg']],
        'images with the name of one on the other side': [['grey.jpg'], ['grey.jpg']],
    }
    # At 416, four times as large, plain.jpg's boxes are 240, 60 and 12 pixels wide and high, 4 x 160 and 0 x 8.
    expected = {'images': [12, 2], 'images without boxes': [1, 0], 'boxes': [14, 2], 'boxes of class cat': [12, 2],
                'boxes of class dog': [2, 0], 'boxes of other class cow': [1, 0],
                'boxes under 8 pixels wide or high': [1, 0], 'boxes under 2 pixels wide or high': [0, 0],
                'boxes dropped of no width': [1, 0], 'boxes dropped of other classes': [1, 0]}
    assert {what: content['counts'][what] for what in expected} == expected
    assert content['warnings'] == [
        '2 of 2 images of 2007_test are in 2007_trainval too, or nearly: its mAP says little about new images']
    assert result.stdout.endswith('warning: %s\n' % content['warnings'][0])
    for what, numbers in content['counts'].items():
        line = next(line for line in result.stdout.splitlines() if line.startswith(what + '  '))
        assert line[len(what):].split()[:2] == [str(number) for number in numbers]
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    assert sheet.shape == (960, 1600, 3)  # three rows of four
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
        assert check_dataset.inspect((str(tmp_path / name), [8., 8.])) == (['unreadable'], None, [])


def saved(pixels, quality=50, scale=0.5):
    """The pixels after they were saved as a smaller JPEG."""
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imdecode(cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_near_duplicates_are_found_and_other_photographs_are_not(data):
    paths = sorted(glob.glob(os.path.join(data, 'coco-mini/val2017/*.jpg')))[:12]
    photographs = {path: cv2.imread(path) for path in paths}
    train = {path: (path, check_dataset.fingerprints(pixels)) for path, pixels in photographs.items()}
    for change in saved, lambda pixels: cv2.flip(saved(pixels), 1), lambda pixels: saved(pixels, 95, 1):
        val = {'new ' + path: ('', check_dataset.fingerprints(change(pixels))) for path, pixels in photographs.items()}
        assert sorted(check_dataset.near_pairs(train, val)) == [(path, 'new ' + path) for path in paths]


def test_images_of_one_grey_are_no_near_duplicates():
    pixels = np.random.RandomState(0).randint(100, 104, (64, 64, 3)).astype('uint8')
    assert check_dataset.fingerprints(pixels) == []


def test_roboflows_augmented_copies_have_the_name_of_their_original():
    train = {'train/cat_jpg.rf.0123.jpg': ('a', []), 'train/cow_jpg.rf.89.jpg': ('b', [])}
    val = {'valid/cat_jpg.rf.4567.jpg': ('c', []), 'valid/dog.png': ('d', [])}
    assert check_dataset.duplicates(train, val) == {check_dataset.NAMED: [[list(train)[0]], [list(val)[0]]]}


@pytest.mark.parametrize('boxes, whole, expected', [
    ({'cat': [100, 5], 'dog': [6, 0]}, 0, []),
    ({'cat': [100, 5], 'dog': [5, 9], 'cow': [0, 0]}, 0, ['cat has 100 boxes in t, but few are of: dog 5, cow 0']),
    ({'cat': [9, 5]}, 4, ['4 of 9 boxes of t cover over 95% of their image: are these labels of whole images?'])])
def test_warnings_of_rare_classes_and_of_boxes_over_whole_images(boxes, whole, expected):
    rows = [('images', [9, 9], ''), ('boxes', [sum(side) for side in zip(*boxes.values())], ''),
            ('boxes over nearly the whole image', [whole, 0], '')]
    rows += [('boxes of class ' + name, counts, '') for name, counts in boxes.items()]
    assert check_dataset.warnings(rows, {}, ['t', 'v'], list(boxes)) == expected


def test_boxes_over_nearly_the_whole_image_are_counted(tmp_path):
    root = exports.roboflow(tmp_path)
    for stem, rows in ('a', '1 0.5 0.5 1 1\n0 0.5 0.5 0.99 0.97'), ('b', '1 0.5 0.5 0.99 0.94'):
        (root / 'train/labels' / (stem + '.txt')).write_text(rows)
    assert check_dataset.count_boxes(open_train('yolo', str(root)), 416)['boxes over nearly the whole image'] == 2


@pytest.mark.parametrize('export, form', [(export, 'yolo') for export in exports.YOLO] + [
    (export, 'coco') for export in (*exports.COCO, exports.label_studio_coco)] + [(exports.cvat_voc, 'voc')])
def test_the_form_of_a_data_set_is_found(tmp_path, export, form):
    assert form_of(str(export(tmp_path / 'a [b] *'))) == form
    with pytest.raises(UserError, match='images: not a data set in .*scripts/convert_dataset.py'):
        form_of(str(tmp_path / 'images'))


@pytest.mark.parametrize('export', [exports.roboflow, exports.roboflow_coco, exports.cvat_voc],
                         ids=lambda export: export.__name__)
def test_exports_are_checked_without_flags(run, tmp_path, export):
    result = run('scripts/check_dataset.py', export(tmp_path / 'set'), '-j', '0', '--picture', tmp_path / 'sheet.png')
    assert result.returncode == 0, result.stderr
    assert 'warning: 1 of 1 images of val' in result.stdout  # all exports hold one picture
    assert (tmp_path / 'sheet.png').exists()


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
