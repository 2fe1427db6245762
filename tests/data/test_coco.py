"""COCO's form: GluonCV's labels, pycocotools' numbers, and what happens to every flaw in a user's files."""
import json
import os

import cv2
import numpy as np
import pytest

from yolo3.mxnet_setup import gluoncv
from yolo3.cli import UserError
from yolo3.data.coco import CROWD, COCOImages, read_annotations
from yolo3.data.datasets import open_train, open_val
import exports
from small_sets import box, coco, picture, rows, write


@pytest.fixture
def crowded(data, tmp_path):
    """coco-mini's train split with every 7th annotation a crowd, the first three images only crowds; and its root."""
    with open(os.path.join(data, 'coco-mini', 'annotations', 'instances_train2017.json')) as file:
        content = json.load(file)
    first = sorted({annotation['image_id'] for annotation in content['annotations']})[:3]
    for i, annotation in enumerate(content['annotations']):
        annotation['iscrowd'] = int(i % 7 == 0 or annotation['image_id'] in first)
    write(tmp_path / 'annotations' / 'instances_train2017.json', json.dumps(content))
    os.symlink(os.path.join(data, 'coco-mini', 'train2017'), str(tmp_path / 'train2017'))
    return content, str(tmp_path)


def test_coco_is_as_gluoncv_reads_it_plus_the_negatives(crowded):
    content, root = crowded
    theirs = gluoncv.data.COCODetection(root, ['instances_train2017'], use_crowd=False)
    ours = open_train('coco', root)
    assert list(ours.classes) == theirs.classes
    assert ours.contiguous_id_to_json == theirs.contiguous_id_to_json
    boxed = [i for i in range(len(ours)) if len(ours.label(i))]
    assert [ours.image_path(i) for i in boxed] == theirs._items
    for i, label in zip(boxed, theirs._labels):
        np.testing.assert_array_equal(ours.label(i), label)
    np.testing.assert_array_equal(ours[boxed[5]][0].asnumpy(), theirs[5][0].asnumpy())
    annotated = {annotation['image_id'] for annotation in content['annotations']}
    negatives = [i for i in range(len(ours)) if i not in boxed]
    assert {ours.image_id(i) for i in negatives} == {entry['id'] for entry in content['images']} - annotated
    assert all(ours.label(i).shape == (0, 5) for i in negatives) and len(negatives) == 2


def test_coco_crowds_and_empty_images(crowded):
    content, root = crowded
    crowds = sum(annotation['iscrowd'] for annotation in content['annotations'])
    only = {a['image_id'] for a in content['annotations']} - {a['image_id'] for a in content['annotations']
                                                              if not a['iscrowd']}
    train, val = open_train('coco', root), open_val('coco', root, splits=['instances_train2017'])
    skipping = open_train('coco', root, skip_empty=True)
    assert len(val) == 128 and len(train) == 128 - len(only) and len(skipping) == len(train) - 2
    assert 'dropped %d boxes around crowds: ' % crowds in train.summary()
    assert 'skipped %d images with only crowd regions: 0' % len(only) in train.summary()
    assert 'skipped 2 images without objects: 0' in skipping.summary()
    assert '(2 without objects)' in train.summary() and 'without' not in skipping.summary().split(';')[0]
    assert 'skipped' not in val.summary() and '(%d without objects)' % (2 + len(only)) in val.summary()


def test_coco_crowd_of_another_class_hides_nothing(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg', 2: 'b.jpg', 3: 'c.jpg'}, [box(1), box(2, 2, iscrowd=1), box(3, 1, iscrowd=1)])
    dataset = open_train('coco', root, ['cat'], ['instances_train'])
    assert [dataset.image_id(i) for i in range(len(dataset))] == [1, 2]
    assert len(open_train('coco', root, None, ['instances_train'])) == 1


def coco_numbers(truth, detections, capsys):
    from pycocotools.cocoeval import COCOeval
    evaluation = COCOeval(truth, truth.loadRes(detections), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    return evaluation.stats


def test_coco_object_evaluates_as_the_file_itself(crowded, capsys):
    from pycocotools.coco import COCO
    content, root = crowded
    dataset = open_val('coco', root, splits=['instances_train2017'])
    truth = dataset.coco
    assert capsys.readouterr() == ('', '')
    random = np.random.RandomState(0)
    detections = [{'image_id': a['image_id'], 'category_id': a['category_id'], 'score': random.rand(),
                   'bbox': list(np.array(a['bbox']) * random.uniform(0.8, 1.2, 4))} for a in content['annotations'] * 2]
    theirs = coco_numbers(COCO(os.path.join(root, 'annotations', 'instances_train2017.json')), detections, capsys)
    assert 0.1 < theirs[0] < 0.9
    np.testing.assert_array_equal(coco_numbers(truth, detections, capsys), theirs)
    assert [dataset.image_id(i) for i in range(len(dataset))] == sorted(truth.getImgIds())
    assert dataset.coco is truth


def test_coco_own_file_with_little_in_it(tmp_path):
    root = coco(tmp_path, {70: 'sub/a.png', 7: 'b.jpg', 900: 'c d.jpg'},
                [box(70, 44, area=None), box(70, 3), box(7, 44, (-5, 0, 400, 5), iscrowd=None)],
                {44: 'Zebra', 3: 'ape'})
    dataset = open_train('coco', root, splits=['instances_train'])
    assert dataset.classes == ('ape', 'Zebra')       # by category id
    assert rows(dataset) == [[[0, 0, 99, 4, 1]], [[10, 20, 39, 59, 1], [10, 20, 39, 59, 0]], []]
    assert [dataset.image_id(i) for i in range(3)] == [7, 70, 900] and dataset.label(2).shape == (0, 5)
    assert dataset.contiguous_id_to_json == {0: 3, 1: 44}
    assert [(a['id'], a['area'], a['iscrowd']) for a in dataset.coco.loadAnns([1, 2, 3])] == [
        (1, 2000, 0), (2, 1200, 0), (3, 1200, 0)]
    assert dataset.coco.loadCats([44])[0]['name'] == 'Zebra' and dataset.coco.loadImgs([900])[0]['height'] == 80
    assert dataset[1][0].shape == (80, 100, 3)
    assert 'clipped 1 box reaching beyond the image: b.jpg' in dataset.summary()


@pytest.mark.parametrize('folder', ['train', 'images', '.'])
def test_coco_images_are_found(tmp_path, folder):
    root = coco(tmp_path, {1: 'sub/a.jpg'}, [box(1)], folder=folder)
    dataset = COCOImages(root, ['instances_train'])
    assert dataset.image_path(0) == os.path.normpath(os.path.join(root, folder, 'sub', 'a.jpg'))


@pytest.mark.parametrize('export', exports.COCO, ids=lambda export: export.__name__)
def test_exports_are_data_sets_without_renaming(tmp_path, export):
    train = open_train('coco', str(export(tmp_path)), on_bad_image='stop')
    val = open_val('coco', str(tmp_path), train.classes, on_bad_image='stop')
    assert train.classes == ('cat', 'dog') and 'dropped' not in train.summary() + val.summary()
    paths = [images.image_path(index) for images in (train, val) for index in range(len(images))]
    assert [os.path.basename(path)[0] for path in paths] == ['a', 'b', 'c']
    assert rows(train) + rows(val) == [[exports.DOG]] * 3


def test_a_split_may_be_a_file_beside_its_images(tmp_path):
    images = open_train('coco', str(exports.label_studio_coco(tmp_path)), splits=['result'], on_bad_image='stop')
    assert images.classes == ('cat', 'dog') and rows(images) == [[exports.DOG]] * 3


@pytest.mark.parametrize('folder', ['../../upload/1/', '/data/upload/1/', 'images\\', r'..\..\media\upload\1' + '\\'])
def test_label_studio_may_name_folders_of_its_server(tmp_path, folder):
    path = exports.label_studio_coco(tmp_path) / 'result.json'
    write(path, path.read_text().replace('images/', json.dumps(folder)[1:-1]))
    images = open_train('coco', str(tmp_path), splits=['result'], on_bad_image='stop')
    assert [images.image_path(index) for index in range(3)] == [
        str(tmp_path / ('images/%s.jpg' % stem)) for stem in 'abc']


def test_a_supercategory_is_a_class_only_if_it_has_boxes_or_names_itself():
    categories = [{'id': 0, 'name': 'pets', 'supercategory': 'none'}, {'id': 1, 'name': 'cat', 'supercategory': 'pets'},
                  {'id': 2, 'name': 'person', 'supercategory': 'person'}, {'id': 3, 'name': 'x', 'supercategory': [1]}]
    assert read_annotations(dict(FILE, categories=categories)).categories == {1: 'cat', 2: 'person', 3: 'x'}
    found = read_annotations(dict(FILE, categories=categories, annotations=[box(7, 0)]))
    assert found.categories == {0: 'pets', 1: 'cat', 2: 'person', 3: 'x'}


def test_coco_url_comes_first_and_may_be_stale(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg', 2: 'b.jpg'}, [box(1)])
    path = tmp_path / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text('utf-8-sig'))
    content['images'][0].update(coco_url='http://x.org/val2017/c.jpg', width=None)
    content['images'][1].update(coco_url='http://x.org/val2017/gone.jpg')
    write(path, json.dumps(content))
    picture(tmp_path / 'val2017' / 'c.jpg', width=20)
    dataset = COCOImages(root, ['instances_train'])
    assert [dataset.image_path(i) for i in range(2)] == [str(tmp_path / 'val2017/c.jpg'), str(tmp_path / 'train/b.jpg')]
    assert rows(dataset)[0] == [[10, 20, 19, 59, 0]]      # the width is the image's own


@pytest.mark.parametrize('name', ['../secret.jpg', '../../secret.jpg', 'sub/../../../secret.jpg', '/%s/secret.jpg'])
def test_coco_image_outside_the_root_is_refused(tmp_path, name):
    name = name.replace('%s', str(tmp_path))
    root = coco(tmp_path / 'set', {1: 'a.jpg'}, [box(1)])
    picture(tmp_path / 'secret.jpg')
    path = tmp_path / 'set' / 'annotations' / 'instances_train.json'
    write(path, path.read_text().replace('a.jpg', name))
    with pytest.raises(UserError, match='secret.jpg'):
        COCOImages(root, ['instances_train'])


def test_coco_categories_are_matched_by_name(tmp_path):
    coco(tmp_path, {1: 'a.jpg'}, [box(1, 1), box(1, 2)], {1: 'cat', 2: 'dog'})
    root = coco(tmp_path, {1: 'z.jpg', 5: 'y.jpg'}, [box(1, 9), box(5, 8), box(5, 4)], {4: 'emu', 8: 'DOG', 9: 'Cat'},
                'instances_val', 'val')
    train = open_train('coco', root, splits=['instances_train'])
    val = open_val('coco', root, train.classes, ['instances_val'])
    assert val.classes == train.classes == ('cat', 'dog') and val.contiguous_id_to_json == {0: 9, 1: 8}
    assert [label[:, 4].tolist() for label in (val.label(0), val.label(1))] == [[0], [1]]
    assert "dropped 1 box of other classes ('emu' 1): y.jpg" in val.summary()
    assert [a['category_id'] for a in val.coco.loadAnns([1, 2])] == [9, 8] and sorted(val.coco.getCatIds()) == [8, 9]
    # A class the file does not know has an id of its own, for the detections of it.
    absent = open_val('coco', root, ['bat', 'cat'], ['instances_val'])
    assert absent.contiguous_id_to_json == {0: 10, 1: 9} and 'no boxes of: bat' in absent.summary()


def test_coco_several_files_may_share_ids(tmp_path):
    coco(tmp_path, {1: 'a.jpg'}, [box(1, 1), box(1, 2)], {1: 'cat', 2: 'dog'})
    root = coco(tmp_path, {1: 'b.jpg'}, [box(1, 1), box(1, 2)], {1: 'Dog', 2: 'emu'}, 'instances_more', 'more')
    dataset = open_val('coco', root, splits=['instances_train', 'instances_more'])
    assert dataset.classes == ('cat', 'dog', 'emu')
    assert [label[:, 4].tolist() for label in (dataset.label(0), dataset.label(1))] == [[0, 1], [1, 2]]
    assert [dataset.image_id(i) for i in range(2)] == sorted(dataset.coco.getImgIds()) == [1, 2]
    numbers = {id_: number for number, id_ in dataset.contiguous_id_to_json.items()}
    assert [(a['image_id'], numbers[a['category_id']])
            for a in dataset.coco.loadAnns(dataset.coco.getAnnIds())] == [(1, 0), (1, 1), (2, 1), (2, 2)]


def test_coco_flawed_annotations_are_counted(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg'}, [
        box(1), box(2), box(1, 77), box(1, bbox=(5, 5, 0, 9)), box(1, bbox=(5, 5, 9, -3)), box(1, area=0),
        box(1, ignore=1), box(1, bbox=(5, 5, 1, 9), area=9)])
    dataset = COCOImages(root, ['instances_train'])
    assert rows(dataset) == [[[10, 20, 39, 59, 0]]]
    text = dataset.summary()
    for part in ('dropped 1 box of images not listed: instances_train.json', 'dropped 3 boxes of no area: a.jpg',
                 "dropped 1 box of other classes ('category 77' 1): a.jpg", 'dropped 1 box marked to be ignored: a.jpg',
                 'dropped 1 box of no width: a.jpg', 'no boxes of: dog'):
        assert part in text
    assert '\n' not in text


IMAGE = '{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}'
CATEGORY = '{"id": 1, "name": "cat"}'
WHOLE = '{"images": [%s], "categories": [%s], "annotations": [%s]}'


@pytest.mark.parametrize('text', [
    '', '[]', '{}', '{"images": []}', 'null', '[' * 100000, '{"images": 3, "categories": 4}',
    WHOLE % ('', CATEGORY, ''),
    WHOLE % ('{}', CATEGORY, ''), WHOLE % (IMAGE + ',' + IMAGE, CATEGORY, ''), WHOLE % (IMAGE, '{"id": 1}', ''),
    WHOLE % (IMAGE, '{"id": 1e999, "name": "cat"}', ''), WHOLE % (IMAGE.replace('1,', '[1],'), CATEGORY, ''),
    WHOLE % (IMAGE, CATEGORY, '3'), WHOLE.replace('[%s]}', '7}') % (IMAGE, CATEGORY)
] + [WHOLE % (IMAGE, CATEGORY, '{"image_id": %s, "category_id": %s, "bbox": %s}' % fields) for fields in (
    (1, 1, 'null'), (1, 1, '[1, 2, 3]'), (1, 1, '[1, 2, 3, 4, 5]'), (1, 1, '[1, 2, 3, "x"]'), (1, 1, '[1, 2, NaN, 4]'),
    (1, 1, '[1, 2, 3, Infinity]'), (1, '"x"', '[1, 2, 3, 4]'), ('[1]', 1, '[1, 2, 3, 4]'), (1, 1, '[1, 2, 3, 1e999]'))
] + [WHOLE % (IMAGE, CATEGORY, '{"category_id": 1, "bbox": [1, 2, 3, 4]}')])
def test_coco_malformed_file(tmp_path, text):
    coco(tmp_path, {1: 'a.jpg'}, [])
    write(tmp_path / 'annotations' / 'instances_train.json', text)
    with pytest.raises(UserError, match='instances_train.json'):
        COCOImages(str(tmp_path), ['instances_train'])


FILE = {'images': [{'id': 7, 'file_name': 'a.jpg', 'width': 100, 'height': 80}],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}], 'annotations': [box(7)]}


def changed(part, **fields):
    """FILE with other values in the first entry of `part`."""
    return dict(FILE, **{part: [dict(FILE[part][0], **fields)] + FILE[part][1:]})


@pytest.mark.parametrize('content, crowd', [
    (changed('annotations', image_id='7'), False), (changed('annotations', image_id=7.0), False),
    (changed('images', id=7.0), False), (changed('images', id='7'), False), (changed('images', width='100'), False),
    (changed('categories', id='1'), False), (changed('categories', id=1.0), False),
    (changed('annotations', category_id='1'), False), (changed('annotations', category_id=1.0), False),
    (changed('annotations', bbox=['10', 20.0, '3e1', 40]), False), (changed('annotations', area='1200'), False),
    (changed('annotations', iscrowd='0'), False), (changed('annotations', iscrowd=False), False),
    (changed('annotations', iscrowd='false'), False), (changed('annotations', iscrowd=''), False),
    (changed('annotations', iscrowd='1'), True), (changed('annotations', iscrowd=True), True),
    (changed('annotations', iscrowd=1.0), True)])
def test_values_in_other_spellings_are_read_as_they_are_meant(content, crowd):
    found = read_annotations(content)
    assert found.images == [(found.images[0].id, '', 'a.jpg', [100, 80])] and found.categories == {1: 'cat', 2: 'dog'}
    assert found.boxes == {found.images[0].id: [('cat', CROWD if crowd else '', [10, 20, 30, 40], 1200)]}


RUNS = {'counts': [820, 40, 2280, 40, 4820], 'size': [80, 100]}  # in the columns 10 and 39 the rows 20 to 59


@pytest.mark.parametrize('segmentation', [
    [[10, 20, 40, 60, 10, 60]], [[10, 20, 12, 20, 11, 21], [30, 60, 40, 50, 30, 50]], RUNS], ids=str)
@pytest.mark.parametrize('bbox', [None, []])
def test_a_segmentation_without_bbox_gives_its_box(segmentation, bbox):
    found = read_annotations(changed('annotations', bbox=bbox, segmentation=segmentation))
    assert found.boxes == {7: [('cat', '', [10, 20, 30, 40], 1200)]}
    found = read_annotations(changed('annotations', bbox=[1, 2, 3, 4], segmentation=segmentation))
    assert found.boxes == {7: [('cat', '', [1, 2, 3, 4], 12)]}


def test_texts_may_be_the_ids_of_images(tmp_path):
    root = coco(tmp_path, {'x': 'a.jpg', '007': 'b.jpg', '12': 'c.jpg'}, [box('007'), box(12), box('x'), box('7')])
    dataset = COCOImages(root, ['instances_train'])
    assert [dataset.image_id(i) for i in range(3)] == ['007', '12', 'x'] == sorted(dataset.coco.getImgIds())
    assert list(map(len, rows(dataset))) == [1, 1, 1]
    assert 'dropped 1 box of images not listed' in dataset.summary()


@pytest.mark.parametrize('content, why', [
    (changed('images', id=value), r'images\[0\]: its id is') for value in (None, [7], 7.5, True, '', {}, 2 ** 64)
] + [
    (changed('categories', id=value), r'categories\[0\]: its id is') for value in (None, 1.9, True, 'one', [1], 1e30)
] + [
    (changed('categories', name=value), r'categories\[0\]: its name is') for value in (None, 3, '', ' ', ['cat'])
] + [
    (changed('images', file_name=value), r'images\[0\]: its file_name is') for value in (3, ['a.jpg'], {}, True)
] + [
    (changed('annotations', **{field: value}), r'annotations\[0\]: its %s is' % field) for field, value in [
        ('image_id', None), ('image_id', 7.5), ('image_id', True), ('image_id', [7]), ('image_id', 'x'),
        ('category_id', 1.9), ('category_id', None), ('category_id', True), ('category_id', '1.9'),
        ('iscrowd', 2), ('iscrowd', '2'), ('iscrowd', [1]), ('iscrowd', 'maybe'), ('iscrowd', float('nan')),
        ('ignore', 0.5), ('area', 'x'), ('area', True), ('area', {}), ('area', float('nan')), ('area', 10 ** 400),
        ('bbox', None), ('bbox', '1234'), ('bbox', {'0': 1, '1': 1, '2': 9, '3': 9}), ('bbox', [1, 2, 3, True]),
        ('bbox', [1, 2, 3, [4]]), ('bbox', [1, 2, 3, 1e200]), ('bbox', []), ('bbox', [[1, 2, 3, 4]])]
] + [
    (dict(FILE, images=FILE['images'] + [{'id': 'x'}]), 'the ids of some images are texts'),
    (dict(FILE, images=FILE['images'] * 2), '2 images have the id 7'),
    (dict(FILE, categories=FILE['categories'] + [{'id': '1', 'name': 'cow'}]), '2 categories have the id 1'),
    (dict(FILE, categories=[{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'Cat'}],
          annotations=[box(7), box(7, 2)]), '2 categories with boxes have the name cat'),
    (dict(FILE, annotations={}), 'no list annotations'), (dict(FILE, images={'a': 1}), 'no list images'),
    ([FILE], 'no list images'), (dict(FILE, annotations=['x']), r"annotations\[0\] is 'x', no object")])
def test_values_that_are_not_certain_are_named(content, why):
    with pytest.raises(ValueError, match=why):
        read_annotations(content)


def test_a_category_without_boxes_may_have_the_name_of_another(tmp_path):
    dataset = COCOImages(coco(tmp_path, {1: 'a.jpg'}, [box(1)], {0: 'Cat', 1: 'cat'}), ['instances_train'])
    assert dataset.classes == ('Cat',) and rows(dataset) == [[[10, 20, 39, 59, 0]]]


def test_an_image_file_under_two_ids_is_refused(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg', 2: './a.jpg'}, [box(1), box(2)])
    with pytest.raises(UserError, match='a.jpg is the image of id 1 in instances_train.json and of id 2 in inst'):
        COCOImages(root, ['instances_train'])
    coco(tmp_path, {1: 'a.jpg'}, [box(1)])
    assert 'skipped 1 image listed twice: a.jpg' in COCOImages(root, ['instances_train'] * 2).summary()


@pytest.mark.parametrize('make, why', [
    (os.mkfifo, 'not a regular file'), (os.mkdir, 'Is a directory'), (lambda path: os.symlink(path, path), 'Too many'),
    (lambda path: os.symlink('/dev/zero', path), 'not a regular file')])
def test_a_file_that_cannot_be_read_is_not_said_to_be_missing(tmp_path, make, why):
    (tmp_path / 'annotations').mkdir()
    make(str(tmp_path / 'annotations/all.json'))
    with pytest.raises(UserError, match='cannot read annotation file .*all.json: ' + why):
        COCOImages(str(tmp_path), ['all'])


def test_coco_missing_parts(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg', 2: 'b.jpg'}, [box(1)])
    with pytest.raises(UserError, match='--dataset-root .*nowhere'):
        open_val('coco', str(tmp_path / 'nowhere'))
    with pytest.raises(UserError) as caught:
        open_val('coco', root)
    for part in (str(tmp_path / 'annotations/instances_val2017.json'), '--dataset-root', '--val-splits',
                 'has only: instances_train; scripts/convert_dataset.py makes splits'):
        assert part in str(caught.value)
    os.remove(str(tmp_path / 'train/b.jpg'))
    with pytest.raises(UserError, match='b.jpg'):
        open_train('coco', root, splits=['instances_train'])


@pytest.mark.parametrize('policy, left', [('skip', 97), ('', None), ('stop', None)])
def test_bad_coco_images_by_policy(tmp_path, policy, left):
    """Of 100 images one is missing, one empty and one of another size: more than 1%."""
    images, labels = [], []
    (tmp_path / 'images').mkdir()
    (tmp_path / 'annotations').mkdir()
    for number in range(100):
        cv2.imwrite(str(tmp_path / 'images' / ('%d.png' % number)), np.zeros((8, 9, 3), 'uint8'))
        images.append({'id': number, 'file_name': '%d.png' % number, 'width': 9 + (number == 7), 'height': 8})
        labels.append({'id': number, 'image_id': number, 'category_id': 1, 'bbox': [1, 1, 4, 4]})
    (tmp_path / 'images/5.png').unlink()
    (tmp_path / 'images/6.png').write_bytes(b'')
    (tmp_path / 'annotations/all.json').write_text(json.dumps(
        {'images': images, 'annotations': labels, 'categories': [{'id': 1, 'name': 'a'}]}))
    if left is None:
        with pytest.raises(UserError, match='3 of 100 images are bad.*5.png' if policy == '' else '5.png'):
            open_train('coco', str(tmp_path), splits=['all'], on_bad_image=policy)
        return
    dataset = open_train('coco', str(tmp_path), splits=['all'], on_bad_image=policy)
    assert len(dataset) == left and not {'5.png', '6.png', '7.png'} & {
        os.path.basename(dataset.image_path(index)) for index in range(left)}
    assert [(why, count, names) for done, noun, why, count, names in dataset.notes() if done == 'skipped'] == [
        ('missing', 1, ['5.png']), ('unreadable', 1, ['6.png']), ('of another size than annotated', 1, ['7.png'])]
