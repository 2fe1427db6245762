"""What demo.py writes besides pictures: label files, crops, a table and a contact sheet, of known detections."""
import csv
import os
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

import demo
from conftest import ROOT
from yolo3.boxes import edges
from yolo3.cli import UserError
from yolo3.show import outputs, sheet
from yolo3.show.annotate import OutputFolder
from yolo3.show.crops import folder_name

sys.path.insert(0, os.path.join(ROOT, 'scripts'))
import convert_dataset

CLASSES = ['RBC', 'a/b ../', '狗']
FOUND = [{'class': '狗', 'score': 0.93, 'box': [10.0, 5.0, 29.0, 24.0]},
         {'class': 'RBC', 'score': 0.8, 'box': [-0.0, 31.5, 20.25, 60.0]},  # up to the lower edge
         {'class': 'a/b ../', 'score': 0.7, 'box': [80.0, 60.0, 80.0, 60.0]}]  # clipped to nothing in the corner


def flags(*argv):
    return demo.parse_args(['--params', 'net.params', *map(str, argv)])


def photo(path, seed=0):
    noise = np.random.RandomState(seed).randint(0, 256, (3, 4, 3)).astype('uint8')
    image = cv2.resize(noise, (80, 60), interpolation=cv2.INTER_LINEAR)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return str(path)


def look(paths, *argv):
    """Run demo.py's work on the image files `paths` with the detections FOUND; returns the records."""
    args = flags('--out-dir', os.path.join(os.curdir, 'out'), *argv)
    os.makedirs(args.out_dir, exist_ok=True)
    outputs.check_files(args, paths)
    made = outputs.Outputs(args, CLASSES, paths)
    records, failed = demo.annotate_files(paths, lambda image: FOUND, OutputFolder(args.out_dir, paths), made.extras)
    made.write(records)
    assert not failed
    return records


def files(folder):
    return {os.path.relpath(str(path), str(folder)) for path in folder.rglob('*') if path.is_file()}


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_edges_lie_in_the_image_around_a_pixel_or_more():
    assert edges([10, 5, 29, 24], 80, 60) == (10, 5, 30, 25)  # both ends are in the box
    assert edges([-3, -4, 90, 70], 80, 60) == (0, 0, 80, 60)
    for box in [80, 60, 80, 60], [0, 0, 0, 0], [79.9, 59.9, 80, 60]:
        left, top, right, bottom = edges(box, 80, 60)
        assert 0 <= left <= right - 1 <= 79 and 0 <= top <= bottom - 1 <= 59


def test_label_files_are_read_back_as_the_same_boxes(tmp_path):
    paths = [photo(tmp_path / 'in' / 'a.png'), photo(tmp_path / 'in' / 'b.jpg')]
    look(paths, '--save-txt')
    assert files(tmp_path / 'out/labels') == {'a.txt', 'b.txt', 'classes.txt'}
    assert [len(line.split()) for line in (tmp_path / 'out/labels/a.txt').read_text().splitlines()] == [5, 5, 5]
    os.rename(tmp_path / 'out' / 'labels', tmp_path / 'in' / 'labels')
    os.mkdir(tmp_path / 'in' / 'images')
    for path in paths:
        os.rename(path, tmp_path / 'in' / 'images' / os.path.basename(path))
    images, names, *_ = convert_dataset.read(str(tmp_path / 'in'), None, [])
    assert names == CLASSES and len(images) == 2
    for _, objects in images.values():
        assert [item.name for item in objects] == ['狗', 'RBC']  # the reader leaves out boxes of one pixel
        # VOC's corners count from 1.
        np.testing.assert_allclose(objects[0].corners, [11, 6, 30, 25], atol=1e-3)
        np.testing.assert_allclose(objects[1].corners, [1, 32.5, 21.25, 60], atol=1e-3)


def test_a_picture_without_detections_has_an_empty_label_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'FOUND', [])
    look([photo(tmp_path / 'a.png')], '--save-txt', '--save-crops', '--csv', 'a.csv')
    assert (tmp_path / 'out/labels/a.txt').read_text() == '' and files(tmp_path / 'out/crops') == set()
    assert (tmp_path / 'a.csv').read_text() == 'file,frame,width,height,class,score,xmin,ymin,xmax,ymax\n'


def test_crops_are_the_images_own_pixels(tmp_path):
    path = photo(tmp_path / 'a.png')
    look([path], '--save-crops')
    assert files(tmp_path / 'out/crops') == {'狗/a.jpg', 'RBC/a.jpg', 'a_b .._/a.jpg'}
    original = cv2.imread(path)
    for name, part in ('狗', original[5:25, 10:30]), ('RBC', original[31:60, 0:22]), ('a_b .._', original[59:, 79:]):
        crop = cv2.imdecode(np.fromfile(tmp_path / 'out/crops' / name / 'a.jpg', 'uint8'), cv2.IMREAD_COLOR)
        assert crop.shape == part.shape
        encoded = cv2.imdecode(cv2.imencode('.jpg', part)[1], cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(crop, encoded)


def test_a_class_cannot_lead_out_of_the_folder():
    assert [folder_name(name) for name in ('..', '.', '', '../../x', 'a\x00b', ' x ', '/')] == [
        '_', '_', '_', '_.._x', 'a_b', 'x', '_']
    assert len(folder_name('狗' * 999).encode()) < 255


def test_the_table_has_a_row_for_each_detection(tmp_path):
    path = photo(tmp_path / 'with "quotes", comma.png')
    look([path], '--csv', 'found.csv')
    with open('found.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['class'] for row in rows] == ['狗', 'RBC', 'a/b ../']
    assert rows[1] == {'file': path, 'frame': '', 'width': '80', 'height': '60', 'class': 'RBC', 'score': '0.8',
                       'xmin': '-0.0', 'ymin': '31.5', 'xmax': '20.25', 'ymax': '60.0'}


@pytest.mark.parametrize('count, size', [(1, (400, 320)), (2, (800, 320)), (5, (1200, 640)), (9, (1200, 960))])
@pytest.mark.parametrize('name', ['sheet.png', 'sheet.JPG'])
def test_a_sheet_shows_all_pictures_with_their_boxes(tmp_path, count, size, name):
    paths = [photo(tmp_path / 'in' / ('%d.png' % number), number) for number in range(count)]
    look(paths, '--sheet', name)
    look(paths, '--sheet', name)  # an earlier sheet is replaced
    with Image.open(name) as picture:
        pixels = np.asarray(picture).astype(int)
        assert picture.size == size
    for number, path in enumerate(paths):
        columns = size[0] // 400
        part = pixels[number // columns * 320:, number % columns * 400:][20:317, :396]
        shown = cv2.resize(cv2.imread(path)[..., ::-1], (396, 297))
        assert np.median(np.abs(part - shown)) < 12  # but for the boxes, and JPEG's losses
        assert (np.abs(part[8:300, 40:156] - shown[8:300, 40:156]).max(axis=2) > 60).mean() > 0.02


def test_a_sheet_has_a_limit_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheet, 'MOST', 2)
    look([photo(tmp_path / ('%d.png' % number)) for number in range(3)], '--sheet', 'sheet.png')
    assert '--sheet has the first 2 of 3 pictures' in capsys.readouterr().err
    assert size_of('sheet.png') == (800, 320)


def test_frames_of_a_video_have_numbers_and_one_tile(tmp_path):
    path = str(tmp_path / 'my.clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 10, (80, 60))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no Motion JPEG')
    for _ in range(3):
        writer.write(np.zeros((60, 80, 3), 'uint8'))
    writer.release()
    look([path], '--save-txt', '--save-crops', '--csv', 'a.csv', '--sheet', 'a.png')
    names = ['my.clip_%d' % number for number in range(3)]
    assert files(tmp_path / 'out/labels') == {'classes.txt', *[name + '.txt' for name in names]}
    assert files(tmp_path / 'out/crops/RBC') == {name + '.jpg' for name in names}
    with open('a.csv', encoding='utf-8') as file:
        assert [row['frame'] for row in csv.DictReader(file)] == ['0'] * 3 + ['1'] * 3 + ['2'] * 3
    assert size_of('a.png') == (400, 320)


def test_a_second_run_replaces_the_first_but_no_labels_of_a_data_set(tmp_path):
    path = photo(tmp_path / 'set' / 'images' / 'a.png')
    (tmp_path / 'set/labels').mkdir()
    (tmp_path / 'set/labels/a.txt').write_text('by hand')
    (tmp_path / 'set/labels/classes.txt').write_text('mine')
    for _ in range(2):
        look([path], '--save-txt', '--save-crops')
    assert files(tmp_path / 'out') == {'a.png', 'labels/a.txt', 'labels/classes.txt', 'crops/RBC/a.jpg',
                                       'crops/狗/a.jpg', 'crops/a_b .._/a.jpg'}
    look([path], '--save-txt', '--out-dir', tmp_path / 'set')
    assert (tmp_path / 'set/labels/a.txt').read_text() == 'by hand'
    assert (tmp_path / 'set/labels/classes.txt').read_text() == 'mine'
    assert files(tmp_path / 'set/labels') == {'a.txt', 'a_2.txt', 'classes.txt', 'classes_2.txt'}


@pytest.mark.parametrize('argv', [
    ('--csv', 'a.png'), ('--csv', 'other.csv'), ('--csv', 'none/a.csv'), ('--sheet', 'a.png'), ('--sheet', 'b.jpg'),
    ('--sheet', 'sheet.txt'), ('--sheet', 'new.gif'), ('--sheet', 'other.csv'),
    ('--csv', 'new.json', '--json', 'new.json'), ('--sheet', 'new.png', '--csv', 'new.png')])
def test_nothing_else_is_overwritten(tmp_path, argv):
    used = [photo(tmp_path / 'a.png')]
    photo(tmp_path / 'b.jpg')  # the name of a photograph where a FILE was forgotten
    (tmp_path / 'other.csv').write_text('mine')
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(UserError, match=argv[0]):
        outputs.check_files(flags(*argv), used)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.mark.parametrize('flag', [['--csv', 'a.csv'], ['--sheet', 'a.png'], ['--save-txt'], ['--save-crops']])
@pytest.mark.parametrize('other', [['--serve'], ['--source', '0']])
def test_flags_for_files_only(flag, other):
    with pytest.raises(UserError, match='%s cannot be combined with %s' % (other[0], flag[0])):
        flags(*flag, *other)


@pytest.mark.parametrize('flag, name', [('--save-txt', 'labels'), ('--save-crops', 'crops')])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, flag, name):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / name).write_text('')
    with pytest.raises(UserError, match='%s .*%s: is not a folder' % (flag, name)):
        look([photo(tmp_path / 'a.png')], flag)
