"""Sets written in VOC's form: they are read as they were meant, and are there whole or not at all."""
import os

import pytest

from yolo3.cli import UserError
from yolo3.data.voc import Object, VOCImages, read_annotation
from yolo3.data.voc_writer import VOCWriter, annotation, check_names, whole
from small_sets import picture, write

OBJECTS = [Object('Tom & Jerry', [1, 2.5, 30.25, 40], True), Object('狗', [3, 4, 5, 6], False, 0.4321)]


@pytest.mark.parametrize('names, why', [
    (['cat', ''], 'empty'), (['cat', 'Cat '], 'there 2 times'), (['c\x01t'], 'control character'),
    (['c\udce9t'], 'control character'), (['c\ufffft'], 'control character'), (['a,b'], 'comma')])
def test_class_names_that_training_cannot_take_are_refused(names, why):
    with pytest.raises(UserError, match='somewhere: the class name .*' + why):
        check_names(names, 'somewhere')


def test_an_annotation_is_read_as_it_was_written(tmp_path):
    path = write(tmp_path / 'a.xml', annotation('é.png', [100., 80], OBJECTS, 'by a tool \udce9'))
    assert read_annotation(path) == ('é.png', [100, 80], OBJECTS)
    assert b'<source><annotation>by a tool _</annotation></source>' in annotation('', [1, 1], [], 'by a tool \udce9')
    assert b'source' not in annotation('', [1, 1], []) and b'score' not in annotation('', [1, 1], OBJECTS[:1])


def test_images_of_one_name_become_several(tmp_path):
    paths = [picture(tmp_path / name) for name in ('1/a.png', '2/a.png', '3/A.jpg')]
    with whole(tmp_path / 'set/VOC2007') as folder:
        writer = VOCWriter(folder, link=True)
        stems = [writer.add(path, [100, 80], OBJECTS) for path in paths]
        writer.split('train', stems[::-1])
        assert os.listdir(str(tmp_path / 'set')) != ['VOC2007']
    images = VOCImages(str(tmp_path / 'set'), ['2007_train'], ['狗'])
    assert [os.path.basename(images.image_path(index)) for index in range(3)] == ['A_3.jpg', 'a_2.png', 'a.png']
    assert os.path.samefile(images.image_path(1), paths[1])


def test_nothing_is_left_of_a_set_that_is_not_finished(tmp_path):
    (tmp_path / 'there').mkdir()
    for place in 'there/VOC2007', 'new/er/VOC2007':
        with pytest.raises(KeyError), whole(tmp_path / place) as folder:
            VOCWriter(folder)
            raise KeyError
    assert sorted(tmp_path.rglob('*')) == [tmp_path / 'there']
