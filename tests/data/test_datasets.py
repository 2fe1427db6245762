"""The datasets: equal to GluonCV's where those work, and what every flaw in a user's files gets."""
import json
import os
import pickle
import shutil
import time

import pytest

from yolo3.cli import UserError
from yolo3.data.datasets import COCODetection, VOCDetection, open_train, open_val
from yolo3.mxnet_setup import gluoncv

import cv2
import numpy as np
from PIL import Image

BOX = '<object><name>%s</name><difficult>0</difficult><bndbox><xmin>%s</xmin><ymin>%s</ymin><xmax>%s</xmax>' \
      '<ymax>%s</ymax></bndbox></object>'
SIZE = '<size><width>100</width><height>80</height><depth>3</depth></size>'


def write(path, content):
    """A file of text or bytes with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def picture(path, width=100, height=80):
    """A file with a real image in the format of its extension."""
    pixels = np.random.RandomState(0).randint(0, 255, (height, width, 3), np.uint8)
    return write(path, cv2.imencode(path.suffix, pixels)[1].tobytes())


def voc(root, annotations, split='2007_train', image='%s.jpg'):
    """A VOC set of `annotations` {stem: the inside of the XML, or [(name, xmin, ymin, xmax, ymax)]}; its root."""
    year, name = split.split('_', 1)
    folder = root / ('VOC' + year)
    for stem, inside in annotations.items():
        if not isinstance(inside, str):
            inside = SIZE + ''.join(BOX % box for box in inside)
        write(folder / 'Annotations' / (stem + '.xml'), '<annotation>%s</annotation>' % inside)
        picture(folder / 'JPEGImages' / (image % stem))
    write(folder / 'ImageSets' / 'Main' / (name + '.txt'), '\n'.join(annotations) + '\n')
    return str(root)


def coco(root, images, annotations, categories={1: 'cat', 2: 'dog'}, split='instances_train', folder='train'):
    """A COCO set: `images` {id: file name}, `annotations` of dicts, each on 100 x 80 pixels; its root."""
    write(root / 'annotations' / (split + '.json'), '\ufeff' + json.dumps({
        'images': [{'id': number, 'file_name': name, 'width': 100, 'height': 80} for number, name in images.items()],
        'annotations': [dict({'id': i}, **annotation) for i, annotation in enumerate(annotations)],
        'categories': [{'id': number, 'name': name} for number, name in categories.items()]}, ensure_ascii=False))
    for name in images.values():
        picture(root / folder / name)
    return str(root)


def box(image, category=1, bbox=(10, 20, 30, 40), **more):
    return dict({'image_id': image, 'category_id': category, 'bbox': list(bbox)}, **more)


def rows(dataset):
    return [dataset.label(i).tolist() for i in range(len(dataset))]


def turned_picture(path):
    """A JPEG of 100 x 80 stored pixels that EXIF data turns to 80 x 100, red at the stored left."""
    pixels = np.zeros((80, 100, 3), 'uint8')
    pixels[:, :50, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(str(path), exif=exif)


def red_edge(dataset, index=0):
    """Where the first half of an image is red, 'left' or 'top', as the network is shown it."""
    pixels = dataset[index][0]
    height, width = pixels.shape[:2]
    assert (dataset.image_file(index).width, dataset.image_file(index).height) == (width, height)
    left, top = pixels[:, :width // 2 - 4, 0].mean(), pixels[:height // 2 - 4, :, 0].mean()
    return (width, height), 'left' if left > 240 else 'top' if top > 240 else None


def test_the_annotated_size_decides_whether_exif_turns_an_image(tmp_path):
    upright = SIZE.replace('100', '?').replace('80', '100').replace('?', '80')
    target = BOX % ('cat', 5, 5, 40, 40)
    root = voc(tmp_path / 'voc', {'a': SIZE + target, 'b': upright + target, 'c': target})
    for stem in 'abc':
        turned_picture(tmp_path / 'voc/VOC2007/JPEGImages' / (stem + '.jpg'))
    dataset = open_train('voc', root, ['cat'], ['2007_train'])
    assert [red_edge(dataset, index) for index in range(3)] == [
        ((100, 80), 'left'), ((80, 100), 'top'), ((80, 100), 'top')]  # without <size> as viewers do

    root = coco(tmp_path / 'coco', {1: 'a.jpg', 2: 'b.jpg'}, [box(1), box(2)])
    turned_picture(tmp_path / 'coco/train/a.jpg')
    path = tmp_path / 'coco/annotations/instances_train.json'
    assert red_edge(open_train('coco', root, splits=['instances_train'])) == ((100, 80), 'left')
    content = json.loads(path.read_text(encoding='utf-8-sig'))
    content['images'][0].update(width=80, height=100)
    write(path, json.dumps(content))
    assert red_edge(open_train('coco', root, splits=['instances_train'])) == ((80, 100), 'top')


# The real sets, with GluonCV as the oracle

def test_bccd_is_as_gluoncv_reads_it(data):
    root = os.path.join(data, 'bccd')

    class LowerCase(gluoncv.data.VOCDetection):
        CLASSES = ('rbc', 'wbc', 'platelets')
    for split, ours in (('trainval', open_train('voc', root, ['RBC', 'wbc', 'Platelets'], ['2007_trainval'])),
                        ('test', open_val('voc', root, ['RBC', 'wbc', 'Platelets']))):
        theirs = LowerCase(root, [(2007, split)])
        assert len(ours) == len(theirs) and ours.classes == ('RBC', 'wbc', 'Platelets')
        for i in range(len(ours)):
            np.testing.assert_array_equal(ours.label(i), theirs._label_cache[i])
        assert ours.image_path(3) == theirs._image_path.format(*theirs._items[3])
        np.testing.assert_array_equal(ours[3][0], theirs[3][0].asnumpy())
        np.testing.assert_array_equal(ours[3][1], theirs[3][1])


def test_bccd_flaws_are_summed_up(data):
    dataset = open_train('voc', os.path.join(data, 'bccd'), ['rbc', 'wbc', 'platelets'], ['2007_trainval'])
    assert dataset.summary() == ('2007_trainval: 292 images, 3941 boxes; dropped 2 boxes of no width: '
                                 'BloodImage_00338.xml, BloodImage_00343.xml')


@pytest.fixture
def crowded(data, tmp_path):
    """coco-mini's train split with every 7th annotation a crowd, the first three images only crowds; and its root."""
    content = json.load(open(os.path.join(data, 'coco-mini', 'annotations', 'instances_train2017.json')))
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
    np.testing.assert_array_equal(ours[boxed[5]][0], theirs[5][0].asnumpy())
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


# Names of classes

@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_any_class_names(tmp_path, kind):
    names = ['0', 'RBC', '红细胞', 'Traffic Light', 'straße']
    spelt = ['0', 'rbc', ' 红细胞', 'traffic\n light', 'STRASSE']
    if kind == 'voc':
        root = voc(tmp_path, {'a': [(name, 1, 1, 50, 50) for name in spelt]})
    else:
        root = coco(tmp_path, {1: 'a.jpg'}, [box(1, i) for i in range(5)], dict(enumerate(spelt)))
    split = '2007_train' if kind == 'voc' else 'instances_train'
    dataset = open_train(kind, root, [' ' + name for name in names], [split])
    assert dataset.classes == tuple(names)
    assert dataset.label(0)[:, 4].tolist() == [0, 1, 2, 3, 4]
    assert 'dropped' not in dataset.summary() and 'no boxes' not in dataset.summary()


def test_the_digest_is_of_names_and_labels_not_of_folders(tmp_path):
    def digest(folder, boxes=((1, 1, 50, 50),), stem='a', classes=('cat',)):
        root = voc(tmp_path / folder, {stem: [('cat', *box) for box in boxes]})
        return open_train('voc', root, classes, ['2007_train']).digest()
    assert digest('one') == digest('two')
    others = [digest('three', [(1, 1, 50, 51)]), digest('four', stem='b'), digest('five', classes=['Cat']),
              digest('six', [(1, 1, 50, 50)] * 2)]
    assert len({digest('one'), *others}) == 5


@pytest.mark.parametrize('classes', [['cat', 'dog', 'Cat '], ['cat', '']])
def test_classes_given_twice_or_empty(tmp_path, classes):
    root = voc(tmp_path, {'a': [('cat', 1, 1, 50, 50)]})
    with pytest.raises(UserError, match='--classes cat,'):
        VOCDetection(root, ['2007_train'], classes)


def test_other_and_unused_classes_are_said(tmp_path):
    root = voc(tmp_path, {stem: [('cat', 1, 1, 50, 50), ('Dog', 1, 1, 50, 50)] for stem in 'abcde'})
    dataset = VOCDetection(root, ['2007_train'], ['CAT', 'cow', 'hen'])
    assert dataset.summary() == ("2007_train: 5 images, 5 boxes; dropped 5 boxes of other classes ('Dog' 5): "
                                 "a.xml, b.xml, c.xml, ...; no boxes of: cow, hen")
    assert rows(dataset) == [[[0, 0, 49, 49, 0, 0]]] * 5


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_wrong_class_list(tmp_path, kind):
    if kind == 'voc':
        root, split = voc(tmp_path, {'a': [('cat', 1, 1, 50, 50)] * 2}), '2007_train'
    else:
        root, split = coco(tmp_path, {1: 'a.jpg'}, [box(1), box(1)]), 'instances_train'
    for opened in (open_train, open_val):
        with pytest.raises(UserError, match=r'--classes cow,hen .*found there: cat \(2\)'):
            opened(kind, root, ['cow', 'hen'], [split])


# VOC

def test_voc_annotation_without_size_or_difficult_or_objects(tmp_path):
    bare = (BOX % ('cat', 1, 1, 500, 500)).replace('<difficult>0</difficult>', '')
    root = voc(tmp_path, {'bare': bare, 'zero': SIZE.replace('100', '0') + bare, 'none': SIZE,
                          'hard': SIZE + (BOX % ('cat', 1, 1, 9, 9)).replace('t>0', 't>1')})
    dataset = open_train('voc', root, ['cat'], ['2007_train'])
    assert rows(dataset) == [[[0, 0, 99, 79, 0, 0]]] * 2 + [[], [[0, 0, 8, 8, 0, 1]]]
    assert dataset.label(2).shape == (0, 6) and dataset[2][1].shape == (0, 6)
    assert dataset.summary().startswith('2007_train: 4 images (1 without objects), 3 boxes; clipped 2 boxes')
    skipping = open_train('voc', root, ['cat'], ['2007_train'], skip_empty=True)
    assert [os.path.basename(skipping.image_path(i)) for i in range(3)] == ['bare.jpg', 'zero.jpg', 'hard.jpg']
    assert len(skipping) == len(skipping._items) == 3
    assert 'skipped 1 image without objects: none.jpg' in skipping.summary()
    assert len(open_val('voc', root, ['cat'], ['2007_train'])) == 4


def test_voc_boxes_at_and_beyond_the_border(tmp_path):
    root = voc(tmp_path, {'a': [('cat', 0, 0, 100, 80),      # from 0: one pixel beyond, no flaw
                                ('cat', 1, 1, 101, 81),      # the same at the other end
                                ('cat', -1, 5, 50, 60), ('cat', 5, 5, 50, 82)],
                          'b': [('cat', 5, 5, 5, 9), ('cat', 120, 5, 130, 9), ('cat', 9, 5, 8, 9)],
                          'c': [('cat', 5, 9, 9, 9), ('cat', 5.5, 6.25, 9, 10)]})
    dataset = VOCDetection(root, ['2007_train'], ['cat'])
    assert [[row[:4] for row in label] for label in rows(dataset)] == [
        [[0, 0, 99, 79], [0, 0, 99, 79], [0, 4, 49, 59], [4, 4, 49, 79]], [], [[4.5, 5.25, 8, 9]]]
    assert dataset.summary() == (
        '2007_train: 3 images (1 without objects), 5 boxes; clipped 2 boxes reaching beyond the image: a.xml; '
        'dropped 3 boxes of no width: b.xml; dropped 1 box of no height: c.xml')


def test_voc_split_files(tmp_path):
    root = voc(tmp_path, {stem: [('cat', 1, 1, 9, 9)] for stem in ('a', 'b c', 'd', 'd 1', '图 2')})
    write(tmp_path / 'VOC2007/ImageSets/Main/cat_train.txt', '\ufeffa -1\r\n\n  \nb c  1\nd 1\nd 1  0\n图 2\n')
    dataset = VOCDetection(root, ['2007_cat_train', '2007_train'], ['cat'])
    assert [os.path.basename(dataset.image_path(i)) for i in range(len(dataset))] == [
        'a.jpg', 'b c.jpg', 'd 1.jpg', 'd 1.jpg', '图 2.jpg', 'a.jpg', 'b c.jpg', 'd.jpg', 'd 1.jpg', '图 2.jpg']
    assert dataset[4][0].shape == (80, 100, 3)
    assert dataset.summary().startswith('2007_cat_train+2007_train: 10 images, 10 boxes')


def test_voc_filename(tmp_path):
    name = '<filename>%s</filename>'
    inside = SIZE + BOX % ('cat', 1, 1, 9, 9)
    root = voc(tmp_path, {'named': name % '  photo.webp ' + inside, 'renamed': name % 'gone.jpg' + inside,
                          'windows': name % r'C:\sets\x.bmp' + inside, 'outside': name % '../../../secret.png' + inside,
                          'bare': inside})
    images = tmp_path / 'VOC2007' / 'JPEGImages'
    for stem in ('named', 'windows', 'bare'):
        os.remove(str(images / (stem + '.jpg')))
    picture(tmp_path.parent / 'secret.png')
    for file in ('photo.webp', 'x.bmp', 'bare.PNG', 'bare.gif'):
        picture(images / file) if file != 'bare.gif' else write(images / file, b'')
    dataset = VOCDetection(root, ['2007_train'], ['cat'])
    assert [dataset.image_path(i) for i in range(5)] == [
        str(images / file) for file in ('photo.webp', 'renamed.jpg', 'x.bmp', 'outside.jpg', 'bare.PNG')]
    assert 'took' not in dataset.summary()
    picture(images / 'named.jpg')
    dataset = VOCDetection(root, ['2007_train'], ['cat'])
    assert dataset.image_path(0) == str(images / 'photo.webp')
    assert 'took 1 image by <filename>, though one has the name of the annotation: named.xml' in dataset.summary()


BOMB = '<!DOCTYPE a [<!ENTITY a "ha">%s]><annotation>&%s;</annotation>' % (
    ''.join('<!ENTITY %s "%s">' % (b, ('&%s;' % a) * 10) for a, b in zip('abcdefghij', 'bcdefghijk')), 'k')


@pytest.mark.parametrize('xml', [
    b'', b'no xml', b'<annotation>', b'<annotation>\xff</annotation>', '<annotation/>'.encode('utf-32'), BOMB.encode(),
    BOMB.encode('utf-16'), '<!DOCTYPE a [<!ENTITY n "cat">]><a/>'.encode('utf-16'),
    b'<?xml version="1.0" encoding="gb2312"?><annotation/>',
    b'<?xml version="1.0" encoding="none"?><annotation/>', b'<a><object/></a>',
    b'<a><object><name>cat</name></object></a>', b'<a><object><name/><bndbox/></object></a>',
] + [('<a>%s</a>' % (BOX % fields)).encode() for fields in (
    ('cat', 'left', 1, 9, 9), ('cat', '', 1, 9, 9), ('cat', 'nan', 1, 9, 9), ('cat', 1, 1, 'inf', 9),
    ('', 1, 1, 9, 9))])
def test_voc_malformed_annotation(tmp_path, xml):
    root = voc(tmp_path, {'good': [('cat', 1, 1, 9, 9)], 'bad': ''})
    write(tmp_path / 'VOC2007/Annotations/bad.xml', xml)
    start = time.time()
    with pytest.raises(UserError, match='bad.xml'):
        VOCDetection(root, ['2007_train'], ['cat'])
    assert time.time() - start < 1


def test_voc_missing_parts(tmp_path):
    def message(root=str(tmp_path), split='2007_train'):
        with pytest.raises(UserError) as caught:
            open_train('voc', root, ['cat'], [split])
        return str(caught.value)
    voc(tmp_path, {'a': [('cat', 1, 1, 9, 9)], 'b': [('cat', 1, 1, 9, 9)]})
    folder = tmp_path / 'VOC2007'
    text = message(str(tmp_path / 'nowhere'))
    assert '--dataset-root' in text and str(tmp_path / 'nowhere') in text and 'VOC2007/ImageSets/Main' in text
    for split, path in (('2007_val', folder / 'ImageSets/Main/val.txt'), ('trainval', tmp_path / 'VOCtrainval'),
                        ('2012_train', tmp_path / 'VOC2012/ImageSets/Main/train.txt')):
        text = message(split=split)
        assert str(path) in text and '--dataset-root' in text and '--train-splits' in text and '--val-splits' in text
    write(folder / 'ImageSets/Main/none.txt', ' \n\n')
    assert 'none.txt lists no image' in message(split='2007_none')
    write(folder / 'ImageSets/Main/binary.txt', b'\xff\xd8\xff')
    assert 'binary.txt is not UTF-8' in message(split='2007_binary')
    write(folder / 'ImageSets/Main/leaving.txt', '../Annotations/a\n')
    assert 'leaving.txt lists ../Annotations/a' in message(split='2007_leaving')
    os.remove(str(folder / 'JPEGImages/b.jpg'))
    os.symlink(str(folder / 'gone.jpg'), str(folder / 'JPEGImages/b.jpg'))
    assert 'b.xml' in message() and 'b.jpg' in message() and str(folder / 'JPEGImages') in message()
    os.remove(str(folder / 'Annotations/b.xml'))
    assert 'train.txt lists b' in message() and str(folder / 'Annotations/b.xml') in message()
    for part in ('JPEGImages', 'Annotations'):
        shutil.rmtree(str(folder / part))
        assert 'no folder %s' % (folder / part) in message()


# COCO

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
    dataset = COCODetection(root, ['instances_train'])
    assert dataset.image_path(0) == os.path.normpath(os.path.join(root, folder, 'sub', 'a.jpg'))


def test_coco_url_comes_first_and_may_be_stale(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg', 2: 'b.jpg'}, [box(1)])
    path = tmp_path / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text('utf-8-sig'))
    content['images'][0].update(coco_url='http://x.org/val2017/c.jpg', width=None)
    content['images'][1].update(coco_url='http://x.org/val2017/gone.jpg')
    write(path, json.dumps(content))
    picture(tmp_path / 'val2017' / 'c.jpg', width=20)
    dataset = COCODetection(root, ['instances_train'])
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
        COCODetection(root, ['instances_train'])


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
    assert [(a['image_id'], dataset.json_id_to_contiguous[a['category_id']])
            for a in dataset.coco.loadAnns(dataset.coco.getAnnIds())] == [(1, 0), (1, 1), (2, 1), (2, 2)]


def test_coco_flawed_annotations_are_counted(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg'}, [
        box(1), box(2), box(1, 77), box(1, bbox=(5, 5, 0, 9)), box(1, bbox=(5, 5, 9, -3)), box(1, area=0),
        box(1, ignore=1), box(1, bbox=(5, 5, 1, 9), area=9)])
    dataset = COCODetection(root, ['instances_train'])
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
        COCODetection(str(tmp_path), ['instances_train'])


def test_coco_missing_parts(tmp_path):
    root = coco(tmp_path, {1: 'a.jpg', 2: 'b.jpg'}, [box(1)])
    with pytest.raises(UserError, match='--dataset-root .*nowhere'):
        open_val('coco', str(tmp_path / 'nowhere'))
    with pytest.raises(UserError) as caught:
        open_val('coco', root)
    for part in (str(tmp_path / 'annotations/instances_val2017.json'), '--dataset-root', '--val-splits'):
        assert part in str(caught.value)
    os.remove(str(tmp_path / 'train/b.jpg'))
    with pytest.raises(UserError, match='b.jpg'):
        open_train('coco', root, splits=['instances_train'])


# Both

def test_defaults_are_the_usual_folders_and_splits(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    folder = tmp_path / '.mxnet' / 'datasets'
    for split in ('2007_trainval', '2012_trainval', '2007_test'):
        voc(folder / 'voc', {split: [('tvmonitor', 1, 1, 9, 9)]}, split)
    for name in ('train2017', 'val2017'):
        coco(folder / 'coco', {1: 'a.jpg'}, [box(1)], split='instances_' + name, folder=name)
    assert rows(open_train('voc', '', [], None)) == [[[0, 0, 8, 8, 19, 0]]] * 2
    assert open_val('voc').image_path(0) == str(folder / 'voc/VOC2007/JPEGImages/2007_test.jpg')
    assert open_val('voc').classes == gluoncv.data.VOCDetection.CLASSES
    assert open_train('coco').image_path(0) == str(folder / 'coco/train2017/a.jpg')
    assert open_val('coco').image_path(0) == str(folder / 'coco/val2017/a.jpg')


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_datasets_pickle_and_give_copies(tmp_path, kind):
    if kind == 'voc':
        dataset = VOCDetection(voc(tmp_path, {'a': [('cat', 1, 1, 9, 9)]}), ['2007_train'], ['cat'])
    else:
        dataset = COCODetection(coco(tmp_path, {1: 'a.jpg'}, [box(1)]), ['instances_train'])
        assert dataset.coco
    before = rows(dataset)
    image, label = dataset[0]
    assert isinstance(image, np.ndarray) and image.dtype == np.uint8 and label.dtype == np.float64
    label[:] = dataset.label(0)[:] = 7
    dataset.label(0)[:] = 7
    again = pickle.loads(pickle.dumps(dataset))
    assert rows(dataset) == rows(again) == before
    assert again.summary() == dataset.summary() and again.classes == dataset.classes
    np.testing.assert_array_equal(again[0][0], image)


def test_extents_are_in_pixels_of_the_input(tmp_path):
    dataset = COCODetection(coco(tmp_path, {1: 'a.jpg'}, [box(1)]), ['instances_train'])
    width, height = dataset._sizes[0]
    xmin, ymin, xmax, ymax = dataset.label(0)[0, :4]
    np.testing.assert_allclose(dataset.extents(416), [[(xmax - xmin) * 416 / width, (ymax - ymin) * 416 / height]])


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


def test_few_bad_images_are_left_out_by_default(tmp_path, squares):
    for number in range(10):  # 220 images, of which one is bad
        shutil.copytree(squares / 'VOC2007', tmp_path / ('VOC%d' % number))
    (tmp_path / 'VOC3/JPEGImages/trainval_05.jpg').unlink()
    splits = ['%d_trainval' % number for number in range(10)]
    dataset = open_train('voc', str(tmp_path), ['red', 'blue'], splits, on_bad_image='')
    assert len(dataset) == 219 and 'skipped 1 image missing: trainval_05.xml' in dataset.summary()
    with pytest.raises(UserError, match='trainval_05'):
        open_train('voc', str(tmp_path), ['red', 'blue'], splits)
