"""YOLO's form: rows, class names, splits and data sets as the tools write them, and what is refused."""
import os
import pickle
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from yolo3.mxnet_setup import mx  # before GluonCV
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultValTransform

import exports
from yolo3 import metrics, sidecar, weights
from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS
from yolo3.data.datasets import open_train, open_val
from yolo3.data.unlabelled import open_unlabelled
from yolo3.data.yolo import (MALFORMED, OUTSIDE, class_names, find_description, in_pixels, label_bases,
                             read_description, read_rows, split_images)
from small_sets import picture, rows, write

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
    assert read_rows(path)[0].edges == pytest.approx([0.25, 0.5, 0.9, 0.9])


@pytest.mark.parametrize('keypoints', [
    '0.9 0.9 2 0 0 0', '0.0 0.0 0 0.0 0.0 0', '0.9 0.9 2', '0.9 0.9 1 0.8 0.8 2 0 0 0'])
def test_keypoints_that_nothing_announces_are_no_polygon(tmp_path, keypoints):  # as Label Studio exports them
    row, = read_rows(write(tmp_path / 'a.txt', '0 0.25 0.5 0.3 0.5 ' + keypoints))
    assert row.edges == pytest.approx([0.1, 0.25, 0.4, 0.75])


def test_a_polygon_may_touch_the_edges(tmp_path):
    row, = read_rows(write(tmp_path / 'a.txt', '0 0.5 0.5 0.9 0.6 1 0.8 1 1 0.7 1'))
    assert row.edges == pytest.approx([0.5, 0.5, 1, 1])


def test_pixels_are_inside_the_image_and_both_ends_inside_the_box():
    assert in_pixels([0.1, 0.25, 0.4, 0.75], [100, 80]) == pytest.approx([10, 20, 39, 59])
    assert in_pixels([-0.2, 0, 0.5, 1.005], [100, 80]) == [0, 0, 49, 79]


@pytest.mark.parametrize('image, bases', [
    ('/set/images/train/a.b.jpg', [
        '/set/labels/train/a.b', '/set/Annotations/train/a.b', '/set/annotations/train/a.b', '/set/images/train/a.b']),
    ('/set/a.jpg', ['/set/a']),
    ('/images/VOC2007/JPEGImages/a.jpg', ['/images/VOC2007/Annotations/a', '/images/VOC2007/JPEGImages/a']),
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
    path, start = write(tmp_path / name, content), time.process_time()
    with pytest.raises(UserError, match=': not a list of class names') as caught:
        class_names(str(tmp_path)) if name == 'classes.txt' else read_description(path)
    assert time.process_time() - start < 5 and len(str(caught.value)) < 1000 and str(tmp_path) in str(caught.value)


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


@pytest.mark.parametrize('name, content', [
    ('data.yaml', 'Train: Train.txt\nValidation: Validation.txt\nnames: [cat, dog]'),
    ('obj.data', 'Train = data/Train.txt\nValidation = data/Validation.txt\nnames = data/obj.names')])
def test_cvats_subsets_are_splits(tmp_path, name, content):
    exports.cvat_yolo(tmp_path)
    (tmp_path / 'obj.data').unlink()
    for old, new in ('train', 'Train'), ('valid', 'Validation'):
        (tmp_path / (old + '.txt')).rename(tmp_path / (new + '.txt'))
    write(tmp_path / name, content)
    assert rows(open_train('yolo', str(tmp_path))) + rows(open_val('yolo', str(tmp_path))) == [[exports.DOG]] * 3


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


# ---- The data set

@pytest.mark.parametrize('export', exports.YOLO, ids=lambda export: export.__name__)
def test_an_export_is_a_data_set(tmp_path, export):
    train = open_train('yolo', str(export(tmp_path)), on_bad_image='')
    val = open_val('yolo', find_description(str(tmp_path)), train.classes, on_bad_image='')
    assert train.classes == val.classes == ('cat', 'dog')
    assert [os.path.basename(images.image_path(index)) for images in (train, val) for index in range(len(images))] == [
        'a.jpg', 'b.jpg', 'c.jpg']
    np.testing.assert_allclose(rows(train) + rows(val), [[exports.DOG]] * 3, atol=1e-9)
    assert train.size(0) == [100, 80] and train[0][0].shape == (80, 100, 3)
    assert train.summary() == 'train: 2 images, 2 boxes; no boxes of: cat'
    assert not train.difficult(0).any() and train.scores(0).tolist() == [1]
    again = pickle.loads(pickle.dumps(train))
    assert again.digest() == train.digest() != val.digest() and rows(again) == rows(train)


def test_gluoncvs_tools_take_it(tmp_path):
    images = open_train('yolo', str(exports.roboflow(tmp_path)))
    assert isinstance(images, mx.gluon.data.Dataset) and images.num_class == 2 and images.CLASSES == images.classes
    assert str(images) == 'YOLODetection(train)' and images.get_im_aspect_ratio() == [1.25, 1.25]
    image, label = images.transform(YOLO3DefaultValTransform(64, 64))[0]
    assert image.shape == (3, 64, 64) and label.shape == (1, 5)


def test_the_digest_stays_when_the_folder_moves(tmp_path):
    digests = [open_train('yolo', str(exports.roboflow(tmp_path / 'one'))).digest()]
    shutil.copytree(str(tmp_path / 'one'), str(tmp_path / 'two'))
    digests.append(open_train('yolo', str(tmp_path / 'two/data.yaml')).digest())
    write(tmp_path / 'two/train/labels/a.txt', exports.BOX * 2)
    digests.append(open_train('yolo', str(tmp_path / 'two')).digest())
    assert digests[0] == digests[1] != digests[2]


def test_classes_are_matched_by_name_and_what_is_left_out_is_told(tmp_path):
    root = exports.roboflow(tmp_path)
    write(root / 'train/labels/a.txt', exports.BOX + '0 0.5 0.5 0.1 0.1\n5 0.5 0.5 0.1 0.1\n1 0.5 0.5 0 0.1\n'
          '1 0.95 0.5 0.3 0.5\n')
    (root / 'train/labels/b.txt').unlink()
    images = open_train('yolo', str(root), ['ant', 'DOG'])
    assert images.classes == ('ant', 'DOG') and len(images) == 2 and rows(images)[1] == []
    np.testing.assert_allclose(rows(images)[0], [exports.DOG, [80, 20, 99, 59, 1]], atol=1e-9)
    assert images.summary() == (
        "train: 2 images (1 without objects), 2 boxes; dropped 2 boxes of other classes ('cat' 1, 'number 5' 1): "
        'a.txt; dropped 1 box of no width: a.txt; took 1 image without a label file, as background: b.jpg; '
        'no boxes of: ant')
    assert len(open_train('yolo', str(root), skip_empty=True)) == 1
    assert len(open_val('yolo', str(root), splits=['val', 'train'])) == 3


def test_exif_turns_an_image_as_viewers_do(tmp_path):
    root, exif = exports.roboflow(tmp_path), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((100, 80, 3), 'uint8')).save(str(root / 'valid/images/c.jpg'), exif=exif)
    images = open_val('yolo', str(root))
    assert images.size(0) == [100, 80] and images[0][0].shape == (80, 100, 3)
    np.testing.assert_allclose(rows(images), [[exports.DOG]], atol=1e-9)


@pytest.mark.parametrize('name', ['voc07', 'voc'])
def test_its_labels_evaluate_as_right_detections(tmp_path, name):
    images = open_val('yolo', str(exports.ultralytics(tmp_path)))
    metric = metrics.make_metric(name, images)
    label = images.label(0)
    metric.update(0, label[:, 4], np.ones(1), label[:, :4])
    assert metrics.default_metric('yolo') == 'voc07' and metric.get()['mAP'] == 1
    result, = metrics.coco_results(images, metric.detections)
    assert result['image_id'] == 'c' and result['category_id'] == 2
    assert result['bbox'] == pytest.approx([10, 20, 30, 40]) == images.coco.loadAnns(1)[0]['bbox']


def test_images_of_one_name_have_ids_of_their_own(tmp_path):
    root = exports.roboflow(tmp_path)
    exports.yolo(root, {'train/images/more/a.jpg': 'train/labels/more/a.txt'})
    images = open_train('yolo', str(root))
    assert sorted(map(images.image_id, range(3))) == ['b', 'train/images/a.jpg', 'train/images/more/a.jpg']


def test_a_split_is_detected_on_without_its_labels(tmp_path):
    root = exports.roboflow(tmp_path)
    write(root / 'valid/labels/c.txt', b'\xff')
    images = open_unlabelled('yolo', str(root), ['dog'], ['val'])
    assert images.image_id(0) == 'c' and images.size(0) == [100, 80] and rows(images) == [[]]


def test_a_detector_may_be_trained_on_it_but_the_form_alone_names_no_classes(tmp_path):
    facts = {'network': 'mobilenet0_25', 'classes': ['a'], 'data_shape': 64, 'dataset': 'yolo', 'anchors': ANCHORS}
    assert sidecar.checked(dict(facts)) == facts
    with pytest.raises(UserError, match='has no sidecar .*--classes a,b,c'):
        weights.load_detector(write(tmp_path / 'a.params', ''), dataset='yolo')


@pytest.mark.parametrize('row', [
    'dog 0.5 0.5 0.1 0.1', '1 50 40 30 20', '1 0.5 0.5 0.1', b'\xff\xfe', '1 nan 0.5 0.1 0.1', os.mkfifo])
def test_a_malformed_label_file_is_refused(tmp_path, row):
    root = exports.roboflow(tmp_path)
    (root / 'valid/labels/c.txt').unlink()
    row(str(root / 'valid/labels/c.txt')) if callable(row) else write(
        root / 'valid/labels/c.txt', row if isinstance(row, bytes) else exports.BOX + row)
    with pytest.raises(UserError, match='c.txt: (row 2 is .*convert_dataset.py|not text|not a regular file)'):
        open_val('yolo', str(root))


@pytest.mark.parametrize('root, split, why', [
    ('', 'train', '--dataset yolo: --dataset-root .* must hold a data.yaml'),
    ('none', 'train', '--dataset-root none must hold'), ('none.yaml', 'train', 'cannot read none.yaml: No such file'),
    ('pets/valid', 'train', '--dataset-root pets/valid must hold'),
    ('pets', 'trainval', 'no split trainval .--train-splits or --val-splits., only: train, val, test; scripts/conv'),
    ('pets', 'test', 'data.yaml: test: .*test/images is neither'), ('same', 'train', 'same.data.yaml: a class name is'),
    ('blank', 'train', 'a class name is empty'), ('nameless', 'train', 'data.yaml: it names no classes')])
def test_a_set_that_is_not_there_is_refused(tmp_path, monkeypatch, root, split, why):
    exports.roboflow(tmp_path / 'pets')
    for name, names in ('same', 'names: [dog, Dog]'), ('blank', 'names: [dog, " "]'), ('nameless', 'nc: 2'):
        write(tmp_path / name / 'data.yaml', names)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=why):
        open_train('yolo', root, splits=[split])


def test_bad_images_and_images_listed_twice_are_left_out(tmp_path):
    root = exports.ultralytics_lists(tmp_path)
    write(root / 'one.txt', './images/a.jpg\nimages/a.jpg\nimages/gone.jpg\n')
    with pytest.raises(UserError, match='gone.jpg'):
        open_train('yolo', str(root))
    images = open_train('yolo', str(root), on_bad_image='skip')
    assert len(images) == 2 and images.summary().startswith(
        'train: 2 images, 2 boxes; skipped 1 image listed twice: a.jpg; skipped 1 image missing: gone.jpg')
