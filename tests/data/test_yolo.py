"""YOLO's form: rows, class names and splits as the tools write them, and what is refused."""
import os
import time

import pytest

import exports
from yolo3.cli import UserError
from yolo3.data.yolo import (MALFORMED, OUTSIDE, class_names, find_description, in_pixels, label_bases,
                             read_description, read_rows, split_images)
from small_sets import picture, write

# ---- Rows


@pytest.mark.parametrize('row, number, edges', [
    ('1 0.25 0.5 0.3 0.5', 1, [0.1, 0.25, 0.4, 0.75]), ('1.0 .25 5e-1 0.3 0.5', 1, [0.1, 0.25, 0.4, 0.75]),
    ('0.0\t0.25 0.5 0.3  0.5 ', 0, [0.1, 0.25, 0.4, 0.75]),
    ('7 0.1 0.25 0.4 0.5 0.25 0.75', 7, [0.1, 0.25, 0.4, 0.75]),           # a triangle of YOLO's segmentation labels
    ('0 0.4 0.25 0.4 0.75 0.1 0.75 0.1 0.25', 0, [0.1, 0.25, 0.4, 0.75]),  # the corners of an oriented box
    ('0 -0.001 0.25 0.4 0.75 0.1 1.0001', 0, [-0.001, 0.25, 0.4, 1.0001]), ('-1 0.5 0.5 1 1', -1, [0, 0, 1, 1])])
def test_a_row_gives_a_box(tmp_path, row, number, edges):
    found, = read_rows(write(tmp_path / 'a.txt', '\ufeff%s\r\n\n  \n' % row))
    assert found.number == number and not found.flaw and found.edges == pytest.approx(edges)


@pytest.mark.parametrize('row, flaw', [(row, MALFORMED) for row in (
    '0', '0 0.5', '0 0.5 0.5 0.1', '0 0.5 0.5 0.1 0.1 0.9', '0 0.1 0.1 0.2 0.2 0.3 0.3 0.4', 'dog 0.5 0.5 0.1 0.1',
    '0.5 0.5 0.5 0.1 0.1', 'nan 0.5 0.5 0.1 0.1', '1e999 0.5 0.5 0.1 0.1', '0 0.5 0.5 0.1 nan', '0 0.5 0.5 0.1 x',
    '0,0.5,0.5,0.1,0.1', '0 0.5 0.5 0.1 inf', '9' * 400 + ' 0.5 0.5 0.1 0.1')] + [(row, OUTSIDE) for row in (
        '0 50 40 20 20', '0 0.5 0.5 -0.1 0.1', '0 0.5 1.5 0.1 0.1', '0 0.1 0.1 0.2 0.2 0.3 -0.3')])
def test_a_row_that_gives_none_says_why(tmp_path, row, flaw):
    assert read_rows(write(tmp_path / 'a.txt', row)) == [(None, None, flaw)]


def test_keypoints_are_no_polygon(tmp_path):
    path = write(tmp_path / 'a.txt', '0 0.25 0.5 0.3 0.5 0.9 0.9 0.8 0.8\n0 0.25 0.5 0.3 0.5 0.9 0.9 2 0.8 0.8 0\n')
    assert [row.edges for row in read_rows(path, keypoints=True)] == [pytest.approx([0.1, 0.25, 0.4, 0.75])] * 2
    assert read_rows(path)[0].edges == pytest.approx([0.25, 0.5, 0.9, 0.9]) and read_rows(path)[1].flaw == OUTSIDE


def test_pixels_are_inside_the_image_and_both_ends_inside_the_box():
    assert in_pixels([0.1, 0.25, 0.4, 0.75], [100, 80]) == pytest.approx([10, 20, 39, 59])
    assert in_pixels([-0.2, 0, 0.5, 1.005], [100, 80]) == [0, 0, 49, 79]


@pytest.mark.parametrize('image, bases', [
    ('/set/images/train/a.b.jpg', ['/set/labels/train/a.b', '/set/images/train/a.b']), ('/set/a.jpg', ['/set/a']),
    ('/images/set/images/a.jpg', ['/images/set/labels/a', '/images/set/images/a']),
    ('/set/VOC2007/JPEGImages/a.jpg', ['/set/VOC2007/Annotations/a', '/set/VOC2007/JPEGImages/a']),
    ('images.jpg', ['images'])])
def test_labels_are_beside_images_or_in_the_folder_beside(image, bases):
    assert label_bases(image) == bases


# ---- Class names

@pytest.mark.parametrize('content, names', [
    ('names: [yes, no, on, null, 1.0, 010]', ['yes', 'no', 'on', 'null', '1.0', '010']),
    ('names: {0: Yes, 1: ~}', ['Yes', '~']), ('x: &a cat\nnames: [*a, dog]', ['cat', 'dog']),
    ('names: {1: dog, 0: "red  cell"}', ['red cell', 'dog']), ('names:\n- No\n- off', ['No', 'off']), ('nc: 1', [])])
def test_yaml_gives_class_names_as_they_are_written(tmp_path, content, names):
    assert read_description(write(tmp_path / 'data.yaml', content)).names == names


LAUGHS = 'a: &a [ha, ha]\n' + ''.join('%s: &%s [%s]\n' % (b, b, ', '.join(['*' + a] * 9)) for a, b in zip(
    'abcdefghijk', 'bcdefghijkl'))


@pytest.mark.parametrize('name, content', [('data.yaml', content) for content in (
    LAUGHS + 'names: *l', LAUGHS + 'names: {0: *l}', 'names: &a [*a]', 'names: [cat, [dog]]', 'names: {a: cat}',
    'names: {0: cat, 2: dog}', '[' * 10000, 'names: cat', '- cat', '', b'names: [\xff]', b'\0', '? [a]\n: b',
    '!!python/object/apply:os.system [ls]', 'a: b: c')] + [
        ('classes.txt', b'\xff\xfe'), ('obj.data', 'names = none.names'), ('obj.data', b'\xff'),
        ('obj.data', 'names = a\0b')], ids=lambda value: str(value)[:20])
def test_class_names_that_are_none_are_refused_at_once(tmp_path, name, content):
    path, start = write(tmp_path / name, content), time.time()
    with pytest.raises(UserError, match=': not a list of class names') as caught:
        class_names(str(tmp_path)) if name == 'classes.txt' else read_description(path)
    assert time.time() - start < 5 and len(str(caught.value)) < 1000 and str(tmp_path) in str(caught.value)


def test_a_blank_line_between_class_names_does_not_renumber_them(tmp_path):
    write(tmp_path / 'classes.txt', 'cat\n\ndog\n\n')
    assert class_names(str(tmp_path)) == ['cat', '', 'dog']


# ---- Splits

@pytest.mark.parametrize('export', exports.YOLO, ids=lambda export: export.__name__)
@pytest.mark.parametrize('by_file', [False, True])
def test_the_splits_of_an_export_are_found(tmp_path, monkeypatch, export, by_file):
    root = str(export(tmp_path / 'pets'))
    monkeypatch.chdir(tmp_path)
    description = read_description(find_description(find_description('pets') if by_file else root))
    assert description.names == exports.CLASSES and not description.keypoints
    images = {split: split_images(description, split) for split in ('train', 'val')}
    assert {split: [os.path.basename(path) for path in paths] for split, paths in images.items()} == {
        'train': ['a.jpg', 'b.jpg'], 'val': ['c.jpg']}
    assert all(os.path.isfile(path) and path.startswith(root + os.sep) for paths in images.values() for path in paths)


def test_splits_may_be_elsewhere_and_have_other_names(tmp_path):
    for place in 'there/images/a.jpg', 'there/more/deep/b.PNG'.lower(), 'far/c.jpg', 'far/notes.txt':
        picture(tmp_path / place) if place[-3:] != 'txt' else write(tmp_path / place, 'notes')
    path = write(tmp_path / 'here/data.yaml', 'path: %s\ntrain: [images, more]\nvalidation: %s\ntest: null\n'
                 'kpt_shape: [17, 3]\nnames: [cat]' % (tmp_path / 'there', tmp_path / 'far'))
    description = read_description(path)
    assert description.keypoints and sorted(description.splits) == ['train', 'val']
    assert split_images(description, 'train') == [str(tmp_path / 'there' / name) for name in (
        'images/a.jpg', 'more/deep/b.png')]
    assert split_images(description, 'val') == [str(tmp_path / 'far/c.jpg')]


@pytest.mark.parametrize('value, why', [
    ('{a: b}', 'train is neither a path nor a list'), ('[[a]]', 'train is neither a path nor a list'),
    ('none', "train: .*none is neither a folder nor a list of images .No such file"), ('empty', 'train: no image in'),
    ('blank.txt', 'train: no image in blank.txt'), ('bad.txt', 'train: .*bad.txt is neither .*not text'),
    ('pipe', 'train: .*pipe is neither .*not a regular file'), ('"a\\0b"', 'train: .*neither')])
def test_a_split_that_is_none_is_refused(tmp_path, value, why):
    (tmp_path / 'empty').mkdir()
    os.mkfifo(str(tmp_path / 'pipe'))
    write(tmp_path / 'blank.txt', '\n \n')
    write(tmp_path / 'bad.txt', b'\xff\xfe')
    path = write(tmp_path / 'data.yaml', 'names: [cat]\ntrain: %s' % value)
    with pytest.raises(UserError, match='data.yaml: ' + why):
        split_images(read_description(path), 'train')


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_a_description_that_cannot_be_read_is_refused(tmp_path, make):
    make(str(tmp_path / 'data.yaml'))
    with pytest.raises(UserError, match='cannot read .*data.yaml: '):
        read_description(find_description(str(tmp_path)))
