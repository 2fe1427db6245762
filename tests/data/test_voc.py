"""VOC's form: GluonCV's labels, and what happens to every flaw in a user's files."""
import os
import shutil
import time

import pytest

from yolo3.cli import UserError
from yolo3.data.datasets import open_train, open_val
from yolo3.data.voc import VOCImages
from small_sets import BOX, SIZE, picture, rows, voc, write


def test_bccd_flaws_are_counted(data):
    dataset = open_train('voc', os.path.join(data, 'bccd'), ['rbc', 'wbc', 'platelets'], ['2007_trainval'])
    assert dataset.summary() == ('2007_trainval: 292 images, 3941 boxes; dropped 2 boxes of no width: '
                                 'BloodImage_00338.xml, BloodImage_00343.xml')


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
    assert len(skipping) == 3
    assert 'skipped 1 image without objects: none.jpg' in skipping.summary()
    assert len(open_val('voc', root, ['cat'], ['2007_train'])) == 4


def test_voc_boxes_at_and_beyond_the_border(tmp_path):
    root = voc(tmp_path, {'a': [('cat', 0, 0, 100, 80),      # from 0: one pixel beyond, no flaw
                                ('cat', 1, 1, 101, 81),      # the same at the other end
                                ('cat', -1, 5, 50, 60), ('cat', 5, 5, 50, 82)],
                          'b': [('cat', 5, 5, 5, 9), ('cat', 120, 5, 130, 9), ('cat', 9, 5, 8, 9)],
                          'c': [('cat', 5, 9, 9, 9), ('cat', 5.5, 6.25, 9, 10)]})
    dataset = VOCImages(root, ['2007_train'], ['cat'])
    assert [[row[:4] for row in label] for label in rows(dataset)] == [
        [[0, 0, 99, 79], [0, 0, 99, 79], [0, 4, 49, 59], [4, 4, 49, 79]], [], [[4.5, 5.25, 8, 9]]]
    assert dataset.summary() == (
        '2007_train: 3 images (1 without objects), 5 boxes; clipped 2 boxes reaching beyond the image: a.xml; '
        'dropped 3 boxes of no width: b.xml; dropped 1 box of no height: c.xml')


def test_voc_split_files(tmp_path):
    root = voc(tmp_path, {stem: [('cat', 1, 1, 9, 9)] for stem in ('a', 'b c', 'd', 'd 1', '图 2')})
    write(tmp_path / 'VOC2007/ImageSets/Main/cat_train.txt', '\ufeffa -1\r\n\n  \nb c  1\nd 1\nd 1  0\n图 2\n')
    dataset = VOCImages(root, ['2007_cat_train', '2007_train'], ['cat'])
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
    dataset = VOCImages(root, ['2007_train'], ['cat'])
    assert [dataset.image_path(i) for i in range(5)] == [
        str(images / file) for file in ('photo.webp', 'renamed.jpg', 'x.bmp', 'outside.jpg', 'bare.PNG')]
    assert 'took' not in dataset.summary()
    picture(images / 'named.jpg')
    dataset = VOCImages(root, ['2007_train'], ['cat'])
    assert dataset.image_path(0) == str(images / 'photo.webp')
    assert 'took 1 image by <filename>, though another has the name of the annotation: named.xml' in dataset.summary()


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
        VOCImages(root, ['2007_train'], ['cat'])
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
