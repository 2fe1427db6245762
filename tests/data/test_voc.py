"""VOC's form: GluonCV's labels, and what happens to every flaw in a user's files."""
import os
import re
import shutil
import time

import pytest

from yolo3.cli import UserError
from yolo3.data.datasets import open_train, open_val
from yolo3.data.voc import VOCImages, read_annotation
import exports
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
        'a.jpg', 'b c.jpg', 'd 1.jpg', '图 2.jpg', 'd.jpg']
    assert dataset[4][0].shape == (80, 100, 3)
    assert dataset.summary() == ('2007_cat_train+2007_train: 5 images, 5 boxes; skipped 5 images listed twice: '
                                 'd 1.jpg, a.jpg, b c.jpg, ...')
    write(tmp_path / 'VOC2007/ImageSets/Main/odd.txt', 'a 2\n')
    with pytest.raises(UserError, match='odd.txt lists a 2'):
        VOCImages(root, ['2007_odd'], ['cat'])


def test_two_annotations_of_one_image_are_refused(tmp_path):
    inside = '<filename>a.jpg</filename>' + SIZE + BOX % ('cat', 1, 1, 9, 9)
    root = voc(tmp_path, {'a': inside, 'b': inside})
    with pytest.raises(UserError, match=r'a\.jpg is the image of .*a\.xml and of .*b\.xml'):
        VOCImages(root, ['2007_train'], ['cat'])


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


def test_cvats_export_is_a_data_set_without_renaming(tmp_path):
    root = str(exports.cvat_voc(tmp_path))
    train, val = open_train('voc', root), open_val('voc', root)
    assert train.classes == val.classes == ('cat', 'dog') and len(train) == 2 and len(val) == 1
    assert train.label(1).tolist() == val.label(0).tolist() == [[*exports.DOG, 0]]
    write(tmp_path / 'labelmap.txt', b'\xff')
    with pytest.raises(UserError, match='labelmap.txt: not text; give --classes'):
        open_train('voc', root, splits=['train'])
    assert open_train('voc', root, ['dog'], ['train']).classes == ('dog',)
    for old, new in ('train', 'Train'), ('val', 'default'):
        (tmp_path / 'ImageSets/Main' / (old + '.txt')).rename(tmp_path / 'ImageSets/Main' / (new + '.txt'))
    assert len(open_train('voc', root, ['dog'])) == 2
    with pytest.raises(UserError, match='ImageSets.*has only: Train, default; scripts/convert_dataset.py makes splits'):
        open_val('voc', root, ['dog'])


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
    start = time.process_time()
    with pytest.raises(UserError, match='bad.xml'):
        VOCImages(root, ['2007_train'], ['cat'])
    assert time.process_time() - start < 1


@pytest.mark.parametrize('change', [
    lambda xml: xml.replace('<annotation', '<annotation xmlns="urn:voc"'),
    lambda xml: re.sub('<(/?)', r'<\1v:', xml).replace('<v:annotation', '<v:annotation xmlns:v="urn:voc"'),
    lambda xml: re.sub('<[^>]+>', lambda tag: tag.group().title(), xml),
    lambda xml: xml.replace('<object>', '<objects><object>').replace('</object>', '</object></objects>'),
    lambda xml: xml.replace('<size>', '<source><database a="b"/></source><size>')])
def test_annotations_in_other_spellings_are_read_as_they_are_meant(tmp_path, change):
    path = write(tmp_path / 'a.xml', change('<annotation>%s%s</annotation>' % (SIZE, BOX % ('cat', 1, 1, 9, 9))))
    assert read_annotation(path) == ('', [100, 80], [('cat', [1, 1, 9, 9], False, 1)])


@pytest.mark.parametrize('difficult, expected', [
    ('1', True), (' 1 ', True), ('true', True), ('YES', True), ('0', False), ('', False), ('False', False),
    ('no', False), ('2', None), ('Unspecified', None), ('nan', None), ('0.5', None)])
def test_difficult_is_yes_or_no(tmp_path, difficult, expected):
    path = write(tmp_path / 'a.xml', '<annotation>%s</annotation>' % (BOX % ('cat', 1, 1, 9, 9)).replace(
        't>0', 't>' + difficult))
    if expected is None:
        with pytest.raises(UserError, match='a.xml: <object> 1: <difficult> is ' + difficult):
            read_annotation(path)
    else:
        assert read_annotation(path).objects[0].difficult is expected


@pytest.mark.parametrize('score, expected', [
    ('<score>0.25</score>', 0.25), ('<score> 1e-3 </score>', 0.001), ('<score>1</score>', 1), ('<score/>', 1), ('', 1),
    ('<score>0</score>', None), ('<score>-0.5</score>', None), ('<score>1.01</score>', None),
    ('<score>nan</score>', None), ('<score>inf</score>', None), ('<score>0,5</score>', None),
    ('<score>high</score>', None), ('<score><b>1</b></score>', None), ('<score>1</score><score>1</score>', None)])
def test_a_score_is_more_than_0_and_at_most_1(tmp_path, score, expected):
    box = BOX % ('cat', 1, 1, 9, 9)
    path = write(tmp_path / 'a.xml', '<annotation>%s%s</annotation>' % (box, box.replace('<bnd', score + '<bnd')))
    if expected is None:
        with pytest.raises(UserError, match=r'a\.xml: <object> 2: .*score>'):
            read_annotation(path)
    else:
        assert [item.score for item in read_annotation(path).objects] == [1, expected]


BNDBOX = '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
NAMED = '<object><name>cat</name>%s</object>'


@pytest.mark.parametrize('xml, why', [
    ('<annotations><image name="a.jpg"><box label="cat" xtl="1"/></image></annotations>', 'root is <annotations>'),
    ('<annotation><item><name>cat</name>%s</item></annotation>' % BNDBOX, '<bndbox> is outside'),
    ('<annotation>%s<item>%s</item></annotation>' % (NAMED % BNDBOX, BNDBOX), '<bndbox> is outside'),
    ('<annotation><box label="cat"/></annotation>', "<box> is not VOC's"),
    ('<annotation><shapes><shape>cat</shape></shapes></annotation>', "<shapes> is not VOC's"),
    ('<annotation>%s</annotation>' % (NAMED % (BNDBOX * 2)), '<object> 1: <object> has 2 <bndbox>'),
    ('<annotation>%s</annotation>' % (NAMED % (BNDBOX + '<name>dog</name>')), 'has 2 <name>'),
    ('<annotation>%s</annotation>' % (NAMED % BNDBOX.replace('<ymin>', '<xmin>3</xmin><ymin>')), 'has 2 <xmin>'),
    ('<annotation>%s</annotation>' % (NAMED % '<polygon><pt/></polygon>'), 'has 0 <bndbox>'),
    ('<annotation>%s</annotation>' % (NAMED % BNDBOX.replace('>9<', '>1,5<')), 'not four numbers'),
    ('<annotation>%s</annotation>' % (NAMED % BNDBOX).replace('cat', '<b>cat</b>'), '<name> has <b>'),
    ('<annotation>%s%s</annotation>' % (SIZE, SIZE), 'has 2 <size>')])
def test_an_annotation_that_is_not_vocs_is_named(tmp_path, xml, why):
    path = write(tmp_path / 'a.xml', xml)
    with pytest.raises(UserError, match=re.escape(path) + ': .*' + re.escape(why)):
        read_annotation(path)


def test_vocs_parts_and_actions_are_no_objects(tmp_path):
    more = '<part><name>head</name>%s</part><actions><jumping>1</jumping></actions><point><x>1</x></point>' % BNDBOX
    path = write(tmp_path / 'a.xml', '<annotation><owner><name>me</name></owner>%s</annotation>' % (
        NAMED % (BNDBOX + more)))
    assert [item.name for item in read_annotation(path).objects] == ['cat']


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


def test_files_that_cannot_be_read_are_not_said_to_be_missing(tmp_path):
    folder = tmp_path / 'VOC2007'

    def message(root=tmp_path):
        with pytest.raises(UserError) as caught:
            VOCImages(str(root), ['2007_train'], ['cat'])
        return str(caught.value)

    def replaced(path, make):
        shutil.rmtree(str(folder), ignore_errors=True)
        voc(tmp_path, {'a': [('cat', 1, 1, 9, 9)]})
        shutil.rmtree(str(path)) if path.is_dir() else path.unlink()
        make(str(path))
        return message()

    def loop(path):
        os.symlink(path, path)
    loop(str(tmp_path / 'loop'))
    assert 'cannot read dataset folder %s: Too many levels' % (tmp_path / 'loop') in message(tmp_path / 'loop')
    split = folder / 'ImageSets/Main/train.txt'
    assert 'cannot read split file %s: Too many levels' % split in replaced(split, loop)
    assert 'cannot read split file %s: not a regular file' % split in replaced(split, os.mkfifo)
    assert 'cannot read split file %s: Is a directory' % split in replaced(split, os.mkdir)
    assert 'cannot read folder %s: Too many levels' % (folder / 'JPEGImages') in replaced(folder / 'JPEGImages', loop)
    for make in loop, os.mkfifo:  # of one file, the folder is sound
        assert 'no file %s' % (folder / 'Annotations/a.xml') in replaced(folder / 'Annotations/a.xml', make)
        assert 'no image for %s' % (folder / 'Annotations/a.xml') in replaced(folder / 'JPEGImages/a.jpg', make)


def test_what_was_dropped_is_said_if_no_box_is_left(tmp_path):
    root = voc(tmp_path, {'a': [('cat', 5, 5, 5, 9), ('dog', 1, 1, 9, 9)]})
    with pytest.raises(UserError, match=r'no usable box .*dropped 1 box of no width: a.xml; dropped 1 box of other'):
        VOCImages(root, ['2007_train'], ['cat'])
