"""convert_dataset.py: our reader finds the boxes where they were, and everything wrong with labels is reported."""
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import convert_dataset
import exports
from yolo3.data.voc import VOCImages

OBJECT = '''<object><name>%s</name><difficult>%d</difficult>
<bndbox><xmin>%s</xmin><ymin>%s</ymin><xmax>%s</xmax><ymax>%s</ymax></bndbox></object>'''
SIZE = '<size><width>%d</width><height>%d</height><depth>3</depth></size>'


def picture(path, width=200, height=100, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, 'uint8')).save(str(path), **options)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding='utf-8')


def labels_of(root, classes, splits=('2007_trainval', '2007_test')):
    """{file: rows xmin, ymin, xmax, ymax, class, difficult}, as training reads them."""
    images = VOCImages(str(root), splits, classes)
    return {os.path.basename(images.image_path(index)): images.label(index).tolist() for index in range(len(images))}


def split(root, name):
    return (root / 'VOC2007/ImageSets/Main' / (name + '.txt')).read_text().split()


@pytest.fixture
def convert(run):
    """convert(source, out, flags) runs the command and returns the two lines it prints."""
    def command(source, out, *flags, run=run):
        result = run('scripts/convert_dataset.py', source, '--out', out, *flags)
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()
    return command


def test_yolo_there_and_back(convert, tmp_path):
    source, out = tmp_path / 'source', tmp_path / 'out'
    lines = '0 0.5 0.5 0.25 0.5\n2 0.05 0.9 0.1 0.2\n'
    for name in 'train/a.png', 'val/a.png', 'train/none.jpg':
        picture(source / 'images' / name)
    text(source / 'labels/train/a.txt', lines + '\n')
    text(source / 'labels/val/a.txt', '1 0.3333333 0.25 0.1 0.1')
    text(source / 'data.yaml', 'names: {0: red cell, 1: "7", 2: 狗}\nnc: 3\n')
    counts, command = convert(source, out)
    assert counts.count('images') == 2 and 'left out' not in counts
    assert command.endswith("--classes 'red cell,7,狗' --train-splits 2007_train --val-splits 2007_val")
    assert split(out, 'train') == ['a', 'none'] and split(out, 'val') == ['a_2']

    # By hand, for 200 x 100 pixels: 0.5 -+ 0.125 are 75 and 125, which is pixels 75 to 124.
    labels = labels_of(out, ['red cell', '7', '狗'], ['2007_train', '2007_val'])
    assert labels['a.png'] == [[75, 25, 124, 74, 0, 0], [0, 80, 19, 99, 2, 0]] and labels['none.jpg'] == []
    np.testing.assert_allclose(labels['a_2.png'], [[200 / 3 - 10, 20, 200 / 3 + 9, 29, 1, 0]], atol=0.01)
    back = ''.join('%d %g %g %g %g\n' % (number, (xmin + xmax + 1) / 400, (ymin + ymax + 1) / 200,
                                         (xmax + 1 - xmin) / 200, (ymax + 1 - ymin) / 100)
                   for xmin, ymin, xmax, ymax, number, _ in labels['a.png'])
    assert back == lines


@pytest.mark.parametrize('places', [('', ''), ('images', 'labels'), ('train/images', 'train/labels')])
@pytest.mark.parametrize('names', ['file', 'flag'])
def test_yolo_in_other_folders_and_with_flaws(convert, tmp_path, places, names):
    source, out = tmp_path / 'source', tmp_path / 'out'
    images, labels = [source / place for place in places]
    for stem in 'abcd':
        picture(images / (stem + '.jpg'))
    text(labels / 'a.txt', '0 0.5 0.5 0.25 0.5\n1 1.5 0.5 0.2 0.2\n0 0.5 0.5 0.1 -0.1\n2 0.5 0.5 0.1 0.1\n0 0.5 0.5\n')
    text(labels / 'b.txt', '1 0.5 0.5 0.25 0.5\n-1 0.5 0.5 0.1 0.1\nx 0.5 0.5 0.1 0.1\n0 0.5 0.5 nan 0.1\n'
         '1 0.2 0.2 0 0.1')
    text(labels / 'e.txt', '0 0.5 0.5 0.1 0.1')
    (labels / 'c.txt').write_bytes(b'\xff\xfe\x00')
    (images / 'd.jpg').write_bytes(b'no image')
    if names == 'file':
        text(source / 'classes.txt', 'cat\nGuinea pig\n')
    counts, _ = convert(source, out, *([] if names == 'file' else ['--classes', 'cat,Guinea pig']))
    assert labels_of(out, ['cat', 'Guinea pig']) == {'a.jpg': [[75, 25, 124, 74, 0, 0]],
                                                     'b.jpg': [[75, 25, 124, 74, 1, 0]]}
    assert sorted(part for part in counts.split('; ') if part.startswith('left out')) == [
        'left out 1 boxes of no size: b.txt', 'left out 1 label files that are not text: c.txt',
        'left out 1 label files without an image: e.txt', 'left out 1 unreadable images: d.jpg',
        'left out 2 boxes of an unknown class: a.txt, b.txt',
        'left out 2 boxes outside 0..1: a.txt',
        'left out 3 boxes neither: class cx cy w h, nor: class and the corners of a polygon: a.txt, b.txt']


def test_labelimg(convert, tmp_path):
    source, out = tmp_path / 'source', tmp_path / 'out'
    for name in 'a b.jpg', 'c.png', 'later.jpg', 'broken.jpg':
        picture(source / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(source / 'turned.jpg', exif=exif)
    text(source / 'a b.xml', '<annotation><filename>old.jpg</filename>%s%s%s</annotation>' % (
        SIZE % (200, 100), OBJECT % ('Tom &amp; Jerry', 1, 1, 1, 200, 100), OBJECT % ('cat', 0, 20, 30, 20.5, 60)))
    text(source / 'c.xml', '<annotation>%s%s</annotation>' % (OBJECT % ('CAT', 0, 11, 21, 31, 41),
                                                              OBJECT % ('cat', 0, 50, 50, 50, 60)))
    text(source / 'turned.xml', '<annotation>%s%s</annotation>' % (SIZE % (200, 100), OBJECT % (
        'cat', 0, 150, 1, 190, 50)))
    text(source / 'broken.xml', '<annotation>')
    counts, command = convert(source, out)
    assert "--classes 'Tom & Jerry,cat'" in command
    assert sorted(part for part in counts.split('; ') if part.startswith('left out')) == [
        'left out 1 boxes of no size: c.xml', 'left out 1 images without labels: later.jpg',
        'left out 1 label files that are not VOC XML: broken.xml']
    expected = {'a b.jpg': [[0, 0, 199, 99, 0, 1], [19, 29, 19.5, 59, 1, 0]], 'c.png': [[10, 20, 30, 40, 1, 0]],
                'turned.jpg': [[149, 0, 189, 49, 1, 0]]}
    assert labels_of(out, ['Tom & Jerry', 'cat']) == expected
    images = VOCImages(str(out), ['2007_trainval', '2007_test'], ['cat'])
    sizes = {os.path.basename(images.image_path(index)): images.size(index) for index in range(len(images))}
    assert sizes == {'a b.jpg': [200, 100], 'c.png': [200, 100], 'turned.jpg': [200, 100]}

    counts, command = convert(source, tmp_path / 'cats', '--classes', 'Cat')
    assert '--classes Cat ' in command and 'left out 1 boxes of an unknown class: a b.xml' in counts


def test_bccd_as_a_bare_folder(convert, run_process, data, tmp_path):
    source = tmp_path / 'source'
    source.mkdir()
    for kind in 'JPEGImages', 'Annotations':
        for entry in os.scandir(os.path.join(data, 'bccd', 'VOC2007', kind)):
            os.symlink(entry.path, str(source / entry.name))
    counts, command = convert(source, tmp_path / 'out', '--test-share', '0.25', run=run_process)
    assert '--classes Platelets,RBC,WBC' in command and counts == (
        '2007_trainval: 273 images, %s boxes; 2007_test: 91 images, %s boxes; left out 2 boxes of no size: '
        'BloodImage_00338.xml, BloodImage_00343.xml' % tuple(
            sum(len(path.read_text().split('<object>')) - 1 for path in (
                tmp_path / 'out/VOC2007/Annotations' / (stem + '.xml') for stem in split(tmp_path / 'out', name)))
            for name in ('trainval', 'test')))
    classes = ['Platelets', 'RBC', 'WBC']
    assert labels_of(tmp_path / 'out', classes) == labels_of(os.path.join(data, 'bccd'), classes)


def test_labelme(convert, tmp_path):
    source, out = tmp_path / 'source', tmp_path / 'out'
    for name in 'a.jpg', 'b.jpg', 'c.jpg', 'd.jpg':
        picture(source / name)

    def shapes(*shapes):
        return json.dumps({'imageWidth': 200, 'imageHeight': 100, 'imagePath': 'x.jpg', 'shapes': [
            {'label': label, 'shape_type': kind, 'points': points} for label, kind, points in shapes]})
    text(source / 'a.json', shapes(('cat', 'rectangle', [[60.5, 80], [10, 20.25]]),
                                   ('dog', 'polygon', [[150, 50], [210, 20], [180, 70]]),
                                   ('dog', 'oriented_rectangle', [[50, 10], [60, 20], [50, 30], [40, 20]])))
    text(source / 'b.json', shapes(('dog', 'rectangle', [[0, 0], [200, 100]]), ('dog', 'circle', [[50, 50], [60, 60]])))
    text(source / 'c.json', '{"shapes": [{"label": "cat", "points": [[1]]}]}')
    text(source / 'd.json', '[]')
    counts, _ = convert(source, out)
    assert sorted(part for part in counts.split('; ') if part.startswith('left out')) == [
        'left out 1 shapes that are neither rectangle nor polygon: b.json',
        'left out 2 label files that are not Labelme JSON: c.json, d.json']
    assert labels_of(out, ['cat', 'dog']) == {
        'a.jpg': [[10, 20.25, 59.5, 79, 0, 0], [150, 20, 199, 69, 1, 0], [40, 10, 59, 29, 1, 0]],
        'b.jpg': [[0, 0, 199, 99, 1, 0]]}


@pytest.mark.parametrize('export', exports.YOLO, ids=lambda export: export.__name__)
def test_the_splits_of_a_data_yaml_are_kept(convert, tmp_path, export):
    source, out = export(tmp_path / 'pets'), tmp_path / 'out'
    counts, command = convert(source, out)
    assert counts.split('; left')[0] == '2007_train: 2 images, 2 boxes; 2007_val: 1 images, 1 boxes'
    assert ('left out 1 splits without images: test' in counts) == (export is exports.roboflow)
    assert command.endswith(' --classes cat,dog --train-splits 2007_train --val-splits 2007_val')
    for name, stems in ('2007_train', 'ab'), ('2007_val', 'c'):
        images = VOCImages(str(out), [name], exports.CLASSES)
        assert [images.image_id(index) for index in range(len(images))] == list(stems)
        assert [images.label(index).tolist() for index in range(len(images))] == [[[*exports.DOG, 0]]] * len(stems)


@pytest.mark.parametrize('export', exports.COCO, ids=lambda export: export.__name__)
def test_the_splits_of_coco_files_are_kept(run, tmp_path, export):
    result = run('scripts/convert_dataset.py', export(tmp_path / 'pets'), '--out', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    _, counts, command = result.stdout.splitlines()
    assert counts == '2007_train: 2 images, 2 boxes; 2007_val: 1 images, 1 boxes'
    assert command.endswith(' --classes cat,dog --train-splits 2007_train --val-splits 2007_val')
    for name, count in ('2007_train', 2), ('2007_val', 1):
        images = VOCImages(str(tmp_path / 'out'), [name], exports.CLASSES)
        assert [images.label(index).tolist() for index in range(len(images))] == [[[*exports.DOG, 0]]] * count


def test_folders_are_splits_if_each_image_is_in_one(convert, tmp_path):
    source = exports.roboflow_voc(tmp_path / 'pets')
    counts, command = convert(source, tmp_path / 'out')
    assert counts == '2007_train: 2 images, 2 boxes; 2007_val: 1 images, 1 boxes'
    assert split(tmp_path / 'out', 'train') == ['a_jpg.rf.0123', 'b_jpg.rf.0123'] and '--val-splits 2007_val' in command
    exports.roboflow_voc(source / 'more', ['.'])
    assert convert(source, tmp_path / 'random')[0].startswith('2007_trainval: ')


@pytest.mark.parametrize('folder', ['Annotations', 'annotations'])
def test_annotations_may_be_in_a_folder_beside_the_images(convert, tmp_path, folder):
    source = exports.label_studio_voc(tmp_path / 'pets', folder)
    assert convert(source, tmp_path / 'out')[0] == '2007_trainval: 2 images, 2 boxes; 2007_test: 1 images, 1 boxes'
    assert list(labels_of(tmp_path / 'out', ['dog']).values()) == [[[*exports.DOG[:4], 0, 0]]] * 3


@pytest.mark.parametrize('seed', range(5))
def test_augmented_copies_of_one_picture_are_not_divided(seed):
    paths = ['set/%s_jpg.rf.%d.jpg' % (name, copy) for name in 'abcd' for copy in range(3)] + ['set/e.jpg']
    sides = convert_dataset.divided(paths, 4, seed)
    assert sorted(sides['trainval'] + sides['test']) == sorted(paths) and 4 <= len(sides['test']) <= 6
    names = [{path.split('.')[0] for path in side} for side in sides.values()]
    assert not names[0] & names[1]
    assert [len(side) for side in convert_dataset.divided(paths[:3], 1, seed).values()] == [2, 1]


def test_a_single_coco_file_is_divided(run, tmp_path):
    result = run('scripts/convert_dataset.py', exports.label_studio_coco(tmp_path / 'pets'), '--out', tmp_path / 'out')
    assert result.stdout.splitlines()[1] == '2007_trainval: 2 images, 2 boxes; 2007_test: 1 images, 1 boxes'
    text(tmp_path / 'pets/result.json', '{}')
    result = run('scripts/convert_dataset.py', tmp_path / 'pets', '--out', tmp_path / 'again')
    assert result.returncode == 2 and 'result.json' in result.stderr and len(result.stderr.splitlines()) == 1


def test_cvats_voc_export_is_converted_with_its_splits(convert, run, tmp_path):
    source = exports.cvat_voc(tmp_path / 'pets')
    counts, command = convert(source, tmp_path / 'out')
    assert counts == '2007_train: 2 images, 2 boxes; 2007_val: 1 images, 1 boxes' and '--classes dog ' in command
    assert split(tmp_path / 'out', 'train') == ['a', 'b'] and split(tmp_path / 'out', 'val') == ['c']
    lists = source / 'ImageSets/Main'
    text(lists / 'train.txt', 'a\n')
    assert convert(source, tmp_path / 'less')[0].endswith('; left out 1 images of no split: b.jpg')
    (lists / 'val.txt').write_bytes(b'\xff\xfe\x00')
    done = run('scripts/convert_dataset.py', source, '--out', tmp_path / 'none')
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'val.txt: not text' in done.stderr
    text(lists / 'val.txt', '')  # nothing to validate on: divided
    assert convert(source, tmp_path / 'empty')[0] == '2007_trainval: 2 images, 2 boxes; 2007_test: 1 images, 1 boxes'
    (lists / 'val.txt').unlink()
    assert convert(source, tmp_path / 'random')[0] == '2007_trainval: 2 images, 2 boxes; 2007_test: 1 images, 1 boxes'


def test_a_data_yaml_is_a_source_and_what_it_leaves_out_is_told(convert, tmp_path):
    source = exports.roboflow(tmp_path / 'pets')
    exports.yolo(source, {'old/images/d.jpg': 'old/labels/d.txt'})
    text(source / 'more.txt', './train/images/b.jpg\n./valid/images/c.jpg\ntrain/images/gone.jpg\n')
    text(source / 'data.yaml', 'train: ../train/images\ntest: more.txt\nnames: [cat, dog]')
    counts, command = convert(source / 'data.yaml', tmp_path / 'out')
    assert counts == ('2007_train: 2 images, 2 boxes; 2007_test: 2 images, 2 boxes; '
                      '1 images are in more than one split; left out 1 images of no split: d.jpg; '
                      'left out 1 unreadable images: gone.jpg')
    assert '--train-splits 2007_train --val-splits 2007_test' in command

    text(source / 'data.yaml', 'train: train/images\nnames: [cat, dog]')
    counts, command = convert(source, tmp_path / 'random')  # a single split is divided
    assert counts.startswith('2007_trainval: 1 images, 1 boxes; 2007_test: 1 images, 1 boxes; left out 2 images of no')


def test_the_seed_decides_the_splits_and_images_are_copied_or_linked(convert, tmp_path):
    source = tmp_path / 'source'
    for number in range(20):
        picture(source / ('%02d.jpg' % number))
        text(source / ('%02d.txt' % number), '0 0.5 0.5 0.5 0.5')
    tests = []
    for out, flags in ('one', ()), ('again', ('--link',)), ('other', ('--seed', 1, '--test-share', 0.4)):
        convert(source, tmp_path / out, '--classes', 'cat', *flags)
        tests.append(split(tmp_path / out, 'test'))
        assert sorted(tests[-1] + split(tmp_path / out, 'trainval')) == ['%02d' % number for number in range(20)]
    assert tests[0] == tests[1] and len(tests[0]) == 4 and len(tests[2]) == 8 and not set(tests[0]) <= set(tests[2])
    linked = [os.path.samefile(str(source / '07.jpg'), str(tmp_path / out / 'VOC2007/JPEGImages/07.jpg'))
              for out in ('one', 'again')]
    assert linked == [False, True]
    assert (tmp_path / 'one/VOC2007/JPEGImages/07.jpg').read_bytes() == (source / '07.jpg').read_bytes()


def test_errors_are_one_line(run, tmp_path):
    source, full = tmp_path / 'source', tmp_path / 'full'
    picture(source / 'a.jpg')
    picture(source / 'b.jpg')
    text(source / 'a.txt', '0 0.5 0.5 0.5 0.5')
    text(full / 'mine.txt', 'keep')
    for arguments, named in ((['none', '--out', 'o'], 'none'), ([source, '--out', tmp_path / 'o'], '--classes'),
                             ([source, '--out', full, '--classes', 'cat'], '--out'),
                             ([source, '--out', source / 'o', '--classes', 'cat'], '--out'),
                             ([source, '--out', tmp_path / 'o', '--test-share', '1'], '--test-share'),
                             ([source, '--out', tmp_path / 'o', '--test-share', 'nan'], '--test-share'),
                             ([source, '--out', tmp_path / 'o', '--seed', '9' * 5000], '--seed'),
                             ([full, '--out', tmp_path / 'o', '--classes', 'cat'], 'full')):
        result = run('scripts/convert_dataset.py', *arguments)
        assert result.returncode == 2 and named in result.stderr and len(result.stderr.splitlines()) == 1
    text(source / 'data.yaml', 'names: 7')
    result = run('scripts/convert_dataset.py', source, '--out', tmp_path / 'o')
    assert result.returncode == 2 and 'data.yaml' in result.stderr and not (tmp_path / 'o').exists()


def yolo(folder, stems=('a', 'b')):
    """Pictures with a YOLO label beside each; the folder."""
    for stem in stems:
        picture(folder / (stem + '.png'), 20, 10)
        text(folder / (stem + '.txt'), '0 0.5 0.5 0.5 0.5')
    return folder


ODD_NAMES = ['caf\udce9', 'a\x01b', 'tab\tand\nline', '\ufeffmark', r'back\slash', 'slash', ' ', 'a 1', '图', '\x85',
             'x\uffff']


def test_any_file_name_gives_a_set_that_can_be_read(convert, tmp_path):
    source, out = yolo(tmp_path / 'source', ODD_NAMES), tmp_path / 'out'
    convert(source, out, '--classes', 'cat')
    labels = labels_of(out, ['cat'])
    assert len(labels) == len(ODD_NAMES) and all(map(len, labels.values()))
    assert {'a 1.png', '图.png', 'back_slash.png', 'slash.png', 'tab and line.png'} < set(labels)


def test_linked_folders_are_followed_once(convert, tmp_path):
    source = yolo(tmp_path / 'source')
    yolo(tmp_path / 'elsewhere', ['c'])
    for name, target in ('again', '.'), ('there', '../elsewhere'), ('there2', '../elsewhere'), ('nowhere', 'none'):
        os.symlink(target, str(source / name))
    os.symlink('loop.jpg', str(source / 'loop.jpg'))
    os.symlink('../elsewhere/c.png', str(source / 'd.png'))
    text(source / 'd.txt', '0 0.5 0.5 0.5 0.5')
    os.mkfifo(str(source / 'pipe.jpg'))
    os.mkfifo(str(source / 'b2.txt'))
    picture(source / 'b2.png', 20, 10)
    counts, _ = convert(source, tmp_path / 'out', '--classes', 'cat', '--link')
    assert set(labels_of(tmp_path / 'out', ['cat'])) == {'a.png', 'b.png', 'c.png', 'd.png'}
    assert 'left out 2 unreadable images: loop.jpg, pipe.jpg' in counts
    assert 'left out 1 label files that are not text: b2.txt' in counts
    assert os.path.samefile(str(tmp_path / 'out/VOC2007/JPEGImages/d.png'), str(tmp_path / 'elsewhere/c.png'))
    assert not os.path.islink(str(tmp_path / 'out/VOC2007/JPEGImages/d.png'))


def test_labelme_shapes_without_a_label_are_left_out(tmp_path):
    source = tmp_path / 'source'
    for stem in 'ab':
        picture(source / (stem + '.jpg'))
    shape = {'label': 'cat', 'points': [[1, 2], [30, 40]]}
    without = [dict(shape, label=label) for label in (None, 3, '', ' ')]
    text(source / 'a.json', json.dumps({'shapes': [shape] + without}))
    text(source / 'b.json', json.dumps({'shapes': [dict(shape, points=[1, 2, 30, 40])]}))
    images, classes, _, notes = convert_dataset.read(str(source), None, [])
    assert classes == ['cat'] and [len(boxes) for _, boxes in images.values()] == [1]
    assert {what: len(files) for what, files in notes.items()} == {
        'shapes without a label': 4, 'label files that are not Labelme JSON': 1}


@pytest.mark.parametrize('place', ['out', 'new/folders/out', 'empty'])
@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()], ids=repr)
def test_nothing_is_left_of_a_conversion_that_fails(run, monkeypatch, tmp_path, place, error):
    source = yolo(tmp_path / 'source')
    (tmp_path / 'empty').mkdir()
    before = sorted(tmp_path.rglob('*'))

    def fail(*arguments):
        raise error
    monkeypatch.setattr(shutil, 'copyfile', fail)
    result = run('scripts/convert_dataset.py', source, '--out', tmp_path / place, '--classes', 'cat')
    assert result.returncode == (2 if isinstance(error, OSError) else 130) and sorted(tmp_path.rglob('*')) == before
    monkeypatch.undo()
    assert run('scripts/convert_dataset.py', source, '--out', tmp_path / place, '--classes', 'cat').returncode == 0
    assert os.listdir(str(tmp_path / place)) == ['VOC2007'] and len(labels_of(tmp_path / place, ['cat'])) == 2
