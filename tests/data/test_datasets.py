"""What VOC and COCO data sets share: classes, images, labels, and the account of what is left out."""
import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from yolo3.boxes import resize
from yolo3.cli import UserError
from yolo3.data.coco import COCOImages
from yolo3.data.datasets import open_train, open_val, val_sample
from yolo3.data.voc import VOCImages
from yolo3.mxnet_setup import gluoncv
from small_sets import BOX, SIZE, box, coco, rows, voc, write


def turned_picture(path):
    """A JPEG of 100 x 80 stored pixels that EXIF data turns to 80 x 100, red at the stored left."""
    pixels = np.zeros((80, 100, 3), 'uint8')
    pixels[:, :50, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(str(path), exif=exif)


def red_edge(dataset, index=0):
    """Which half of an image is red, 'left' or 'top', as the network sees it; and its width and height."""
    pixels = dataset.image_file(index).pixels()
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
        ((100, 80), 'left'), ((80, 100), 'top'), ((80, 100), 'top')]  # without <size> as viewers show it

    root = coco(tmp_path / 'coco', {1: 'a.jpg', 2: 'b.jpg'}, [box(1), box(2)])
    turned_picture(tmp_path / 'coco/train/a.jpg')
    path = tmp_path / 'coco/annotations/instances_train.json'
    assert red_edge(open_train('coco', root, splits=['instances_train'])) == ((100, 80), 'left')
    content = json.loads(path.read_text(encoding='utf-8-sig'))
    content['images'][0].update(width=80, height=100)
    write(path, json.dumps(content))
    assert red_edge(open_train('coco', root, splits=['instances_train'])) == ((80, 100), 'top')


# ---- Names of classes

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


def test_the_digest_depends_on_files_sizes_and_boxes_but_not_on_folders_or_the_order_of_classes(tmp_path):
    digests = []

    def digest(boxes=(('cat', 1, 1, 50, 50), ('dog', 1, 1, 50, 50)), stem='a', classes=('cat', 'dog')):
        root = voc(tmp_path / str(len(digests)), {stem: list(boxes) if isinstance(boxes, tuple) else boxes})
        digests.append(open_train('voc', root, list(classes), ['2007_train']).digest())
        return digests[-1]
    same = digest()
    assert digest() == digest(classes=['DOG', 'Cat']) == digest(classes=['ant', 'cat', 'dog', 'zebra']) == same
    first, second = BOX % ('cat', 1, 1, 50, 50), BOX % ('dog', 1, 1, 50, 50)
    assert digest(SIZE + first + second) == same
    others = [digest((('cat', 1, 1, 50, 51), ('dog', 1, 1, 50, 50))), digest(stem='b'),
              digest((('dog', 1, 1, 50, 50), ('cat', 1, 1, 50, 50))), digest((('cat', 1, 1, 50, 50),)),
              digest((('cat', 1, 1, 50, 50), ('cow', 1, 1, 50, 50)), classes=['cat', 'cow']),
              digest(SIZE.replace('100', '101') + first + second), digest(SIZE + first + second.replace('t>0', 't>1'))]
    assert len({same, *others}) == 1 + len(others)


def test_scores_are_beside_the_labels_in_the_summary_and_in_the_digest(tmp_path):
    def opened(folder, *scores):
        boxes = [(BOX % ('cat', 1, 1, 9, 9)).replace('<bnd', score + '<bnd') for score in scores]
        root = voc(tmp_path / folder, {'a': SIZE + ''.join(boxes), 'none': SIZE})
        return open_val('voc', root, ['cat'], ['2007_train'])
    scored = opened('scored', '<score>0.5</score>', '', '<score>0.25</score>')
    assert scored.scores(0).tolist() == [0.5, 1, 0.25] and scored.scores(1).shape == (0,)
    assert scored.label(0).tolist() == [[0, 0, 8, 8, 0, 0]] * 3 and not scored.difficult(0).any()
    assert scored.summary().endswith('3 boxes; 2 boxes with scores below 1, which count in training only')
    plain, ones = opened('plain', '', '', ''), opened('ones', '<score>1</score>', '', '<score>1.0</score>')
    assert ones.digest() == plain.digest() and 'scores' not in ones.summary() and ones.scores(0).tolist() == [1] * 3
    others = [scored.digest(), opened('other', '<score>0.5</score>', '', '<score>0.26</score>').digest()]
    assert len({plain.digest(), *others}) == 3
    images = open_val('coco', coco(tmp_path / 'coco', {1: 'a.jpg', 2: 'b.jpg'}, [box(1)]), splits=['instances_train'])
    assert images.scores(0).tolist() == [1] and images.scores(1).shape == (0,)


def test_the_digest_of_a_set_without_scores_stays_what_it_was(tmp_path):
    # Checkpoints hold it: another digest would end their trainings.
    root = voc(tmp_path, {'a': [('cat', 1, 1, 50, 50), ('dog', 2, 3, 40, 50)], 'b': SIZE})
    assert open_train('voc', root, ['cat', 'dog'], ['2007_train']).digest() == '0f961967c4280b5f'


@pytest.mark.parametrize('classes', [['cat', 'dog', 'Cat '], ['cat', '']])
def test_classes_given_twice_or_empty(tmp_path, classes):
    root = voc(tmp_path, {'a': [('cat', 1, 1, 50, 50)]})
    with pytest.raises(UserError, match='--classes cat,'):
        VOCImages(root, ['2007_train'], classes)


def test_other_and_unused_classes_are_reported(tmp_path):
    root = voc(tmp_path, {stem: [('cat', 1, 1, 50, 50), ('Dog', 1, 1, 50, 50)] for stem in 'abcde'})
    dataset = VOCImages(root, ['2007_train'], ['CAT', 'cow', 'hen'])
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


# ---- Images and labels

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
        dataset = VOCImages(voc(tmp_path, {'a': [('cat', 1, 1, 9, 9)]}), ['2007_train'], ['cat'])
    else:
        dataset = COCOImages(coco(tmp_path, {1: 'a.jpg'}, [box(1)]), ['instances_train'])
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
    dataset = COCOImages(coco(tmp_path, {1: 'a.jpg'}, [box(1)]), ['instances_train'])
    width, height = dataset.size(0)
    xmin, ymin, xmax, ymax = dataset.label(0)[0, :4]
    np.testing.assert_allclose(dataset.extents(416), [[(xmax - xmin) * 416 / width, (ymax - ymin) * 416 / height]])


def test_a_validation_sample_is_resized_and_knows_its_original(tmp_path):
    dataset = open_val('coco', coco(tmp_path, {1: 'a.jpg', 2: 'b.jpg'}, [box(1)]), splits=['instances_train'])
    pixels, facts = val_sample(dataset, 1, 64)
    assert facts == (1, 100, 80) and pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, resize(dataset.image_file(1).pixels(), 64))


def test_difficult_boxes_are_marked_in_voc_and_none_in_coco(tmp_path):
    hard = SIZE + BOX % ('cat', 1, 1, 9, 9) + (BOX % ('cat', 1, 1, 9, 9)).replace('t>0', 't>1')
    images = open_val('voc', voc(tmp_path / 'voc', {'a': hard, 'none': SIZE}), ['cat'], ['2007_train'])
    assert images.difficult(0).tolist() == [False, True] and images.difficult(1).tolist() == []
    images = open_val('coco', coco(tmp_path / 'coco', {1: 'a.jpg'}, [box(1)]), splits=['instances_train'])
    assert images.difficult(0).tolist() == [False] and images.difficult(0).dtype == bool


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_gluoncvs_sets_pickle(tmp_path, kind):
    root = voc(tmp_path, {'a': [('cat', 1, 1, 9, 9)]}) if kind == 'voc' else coco(tmp_path, {1: 'a.jpg'}, [box(1)])
    dataset = open_val(kind, root, ['cat'], ['2007_train' if kind == 'voc' else 'instances_train'])
    again = pickle.loads(pickle.dumps(dataset))
    assert rows(again) == rows(dataset) and again.digest() == dataset.digest()
    np.testing.assert_array_equal(again[0][0].asnumpy(), dataset[0][0].asnumpy())


def test_few_bad_images_are_left_out_by_default(tmp_path, squares):
    for number in range(10):  # 220 images, of which one is bad
        shutil.copytree(squares / 'VOC2007', tmp_path / ('VOC%d' % number))
    (tmp_path / 'VOC3/JPEGImages/trainval_05.jpg').unlink()
    splits = ['%d_trainval' % number for number in range(10)]
    dataset = open_train('voc', str(tmp_path), ['red', 'blue'], splits, on_bad_image='')
    assert len(dataset) == 219 and 'skipped 1 image missing: trainval_05.xml' in dataset.summary()
    with pytest.raises(UserError, match='trainval_05'):
        open_train('voc', str(tmp_path), ['red', 'blue'], splits)
