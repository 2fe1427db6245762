"""label_with.py: training reads what the detector found; other files stay as they are."""
import filecmp
import glob
import os
import shlex
import shutil

import numpy as np
import pytest

import label_with
from yolo3.cli import UserError, comma_list
from yolo3.data.anchors import ANCHORS
from yolo3.data.augment import NONE
from yolo3.data.datasets import open_train
from yolo3.data.images import ImageFile
from yolo3.data.loader import TrainSamples
from yolo3.data.sampler import SampleSpec
from yolo3.data.voc import VOCImages
from yolo3.detect import MXNetDetector
from yolo3.mxnet_setup import mx
from yolo3.weights import load_detector

CLASSES = ['red', 'blue']  # of the detector `params`


@pytest.fixture
def label(run, params):
    """label(images..., flags...) runs the command with --params; returns its CompletedProcess."""
    return lambda *args: run('scripts/label_with.py', '--params', params, *args)


@pytest.fixture
def pictures(squares, tmp_path):
    """A folder with three pictures, two of the same name, and a text."""
    for place, number in ('one.jpg', 0), ('deep/one.jpg', 1), ('deep/er/two.JPG', 2):
        (tmp_path / 'pictures' / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(squares / ('VOC2007/JPEGImages/trainval_%02d.jpg' % number), tmp_path / 'pictures' / place)
    (tmp_path / 'pictures/notes.txt').write_text('no image')
    return tmp_path / 'pictures'


def content(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}


def test_training_reads_what_the_detector_finds(label, params, data, tmp_path):
    paths = sorted(glob.glob(os.path.join(data, 'bccd/VOC2007/JPEGImages/*')))[:5]
    done = label(*paths, '--out', tmp_path / 'set', '--thresh', 0.28, '--data-shape', 96, '-j', 2, '--batch-size', 2)
    assert done.returncode == 0, done.stderr
    images = VOCImages(str(tmp_path / 'set'), ['unlabelled_train'], CLASSES, on_bad_image='stop')
    detector = MXNetDetector(*load_detector(params), [mx.cpu()])
    found = [detector.detect([ImageFile(path).pixels()], 96)[0] for path in paths]
    kept = dropped = 0
    for index, (ids, scores, boxes) in enumerate(found):
        assert os.path.basename(images.image_path(index)) == os.path.basename(paths[index])
        assert filecmp.cmp(images.image_path(index), paths[index], shallow=False)
        boxes = boxes.clip(0, np.tile(images.size(index), 2) - 1)
        mine = (scores >= 0.28) & (boxes[:, 2:] - boxes[:, :2] > 0.1).all(1)
        rows, kept, dropped = images.label(index)[::-1], kept + mine.sum(), dropped + (~mine).sum()
        np.testing.assert_allclose(rows[:, :4], boxes[mine], atol=0.01)
        assert rows[:, 4].tolist() == ids[mine].tolist() and not rows[:, 5].any()
        np.testing.assert_allclose(images.scores(index)[::-1], scores[mine], atol=1e-4)
    assert kept > 20 and dropped > 20
    assert 'unlabelled_train: 5 images (' in done.stdout and ' %d boxes: ' % kept in done.stdout
    assert 'left out %d boxes below --thresh 0.28 or without area, 0 unreadable images' % dropped in done.stdout
    assert '%d boxes with scores below 1' % kept in images.summary()
    text = (tmp_path / 'set/VOCunlabelled/Annotations/BloodImage_00000.xml').read_text()
    assert '<source><annotation>label_with.py net.params, input 96, from score 0.28<' in text


def test_labelled_images_in_the_same_folder_stay_and_train_with_the_new_ones(label, squares, pictures, tmp_path):
    root = tmp_path / 'a root'
    shutil.copytree(squares, root)
    before = content(root)
    done = label(pictures, pictures / 'one.jpg', '--out', root, '--thresh', 0.2, '--link')
    assert done.returncode == 0, done.stderr
    flags = shlex.split(done.stdout.splitlines()[1])
    flags = dict(zip(flags[2::2], flags[3::2]))
    assert flags['--train-splits'] == '2007_trainval,unlabelled_train' and flags['--dataset'] == 'voc'
    images = open_train(flags['--dataset'], flags['--dataset-root'], comma_list(flags['--classes']),
                        comma_list(flags['--train-splits']))
    new = [images.image_path(index) for index in range(22, len(images))]
    assert [os.path.basename(path) for path in new] == ['two.JPG', 'one.jpg', 'one_2.jpg']
    assert os.path.samefile(new[1], pictures / 'deep/one.jpg') and before.items() <= content(root).items()
    assert {images.scores(index).max(initial=1) for index in range(22)} == {1}
    weights = TrainSamples(images, ANCHORS, parts=NONE)[SampleSpec(24, 64, False, (1, 1))][2][:, 6]
    assert 0.2 <= weights.min() and weights.max() < 1 and np.isin(weights, images.scores(24).astype('float32')).all()

    again = label(pictures, '--out', root, '--thresh', 0.2)
    assert again.returncode == 2 and '--out' in again.stderr and 'VOCunlabelled already' in again.stderr
    done = label(pictures, '--out', tmp_path / 'new', '--split', '2007_trainval', '--thresh', 0.2)
    assert done.returncode == 0 and done.stdout.endswith('--train-splits 2007_trainval\n')


class Recorder(list):
    """In place of a VOCWriter."""

    def add(self, *image):
        self.append(image)


def test_boxes_are_clipped_and_the_best_of_one_cell_counts(pictures):
    images = label_with.Pictures([str(pictures / 'one.jpg')], CLASSES, 'stop')
    boxes = np.float32([[10, 20, 60.126, 70], [10, 20, 60, 70], [100, -0.5, 128, 96], [127.5, 2, 128, 9], [5, 5, 9, 9]])
    labels = label_with.Labels(images, Recorder(), 0.5)
    labels.update(0, np.array([0, 1, 1, 0, 0]), np.float32([0.9, 0.8, 0.7, 0.6, 0.4]), boxes)
    (_, size, objects), = labels._writer
    assert size == [128, 96] and labels.left_out == 2 and labels.boxes == {'blue': 2, 'red': 1}
    assert [(item.name, item.corners, round(item.score, 4)) for item in objects] == [
        ('blue', [101, 0.5, 128, 96], 0.7), ('blue', [11, 21, 61, 71], 0.8), ('red', [11, 21, 61.13, 71], 0.9)]


@pytest.mark.parametrize('flag, damage, said', [
    ('', b'no image', '1 of 3 images are bad'), ('skip', b'no image', None), ('stop', b'no image', 'cannot read image'),
    ('skip', None, None), ('stop', None, 'cannot read image'), ('', None, 'images are bad')])
def test_bad_images_are_left_out_or_refused_as_in_training(label, pictures, tmp_path, flag, damage, said):
    path = pictures / 'deep/one.jpg'
    path.write_bytes(damage or path.read_bytes()[:700])  # only the header is sound
    done = label(pictures, '--out', tmp_path / 'new', '--thresh', 0.2, '--on-bad-image', flag)
    assert done.returncode == (2 if said else 0) and str(path) in done.stderr
    if said:
        assert said in done.stderr and not (tmp_path / 'new').exists()
    else:
        assert 'skipped image' in done.stderr and ', 1 unreadable images\n' in done.stdout
        assert len(VOCImages(str(tmp_path / 'new'), ['unlabelled_train'], CLASSES)) == 2


@pytest.mark.parametrize('arguments, said', [
    (['nowhere.jpg', '--out', 'new'], 'no such image or folder: nowhere.jpg'),
    (['empty', '--out', 'new'], 'no images in empty'),
    (['empty', 'pictures/notes.txt', '--out', 'new', '--on-bad-image', 'skip'], 'no image is left: cannot read image'),
    (['pictures', '--out', 'pictures'], '--out pictures: is in .*pictures, which holds the images'),
    (['pictures', '--out', 'pictures/deep/er/new'], 'is in .*pictures, which'),
    (['pictures/one.jpg', '--out', 'pictures/new'], 'is in .*pictures, which'),
    (['pictures/one.jpg', '--out', 'link'], 'is in .*pictures, which'),
    (['pictures', '--out', 'pictures/notes.txt/new'], '--out'),
    (['pictures', '--out', 'file'], '--out file: .*Not a directory|--out file: .*File exists'),
    (['pictures', '--out', 'new', '--split', 'train'], '--split: train is not two words'),
    (['pictures', '--out', 'new', '--split', '../x_y'], '--split'),
    (['pictures', '--out', 'new', '--split', 'a_b,c'], '--split'),
    (['pictures', '--out', 'new', '--split', '2007_'], '--split'),
    (['pictures', '--out', 'new', '--thresh', '2'], '--thresh'),
    (['pictures', '--out', 'new', '--thresh', '1'], '--thresh 1: no box in 3 images'),
    (['pictures', '--out', 'new', '--data-shape', '100'], '--data-shape'),
    (['pictures', '--out', 'new', '--batch-size', '0'], '--batch-size'),
    (['pictures', '--out', 'new', '--params', 'none.params'], 'none.params'),
    (['pictures'], '--out'), (['--out', 'new'], 'IMAGES')])
def test_user_errors_leave_nothing(params, pictures, monkeypatch, arguments, said):
    monkeypatch.chdir(pictures.parent)
    (pictures.parent / 'empty').mkdir()
    (pictures.parent / 'file').write_text('')
    (pictures.parent / 'link').symlink_to('pictures')
    before = content(pictures.parent)
    with pytest.raises(UserError, match=said):
        label_with.main(['--params', params, '-j', '0', *arguments])
    assert content(pictures.parent) == before


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()], ids=repr)
def test_nothing_is_left_of_labels_that_cannot_be_written(label, pictures, monkeypatch, tmp_path, error):
    def fail(*arguments):
        raise error
    monkeypatch.setattr(shutil, 'copyfile', fail)
    done = label(pictures, '--out', tmp_path / 'new', '--thresh', 0.2)
    assert done.returncode == (2 if isinstance(error, OSError) else 130) and not (tmp_path / 'new').exists()


def test_class_names_that_training_cannot_be_given_are_refused(pictures, tmp_path, monkeypatch):
    detector = type('Detector', (), {'info': {'classes': ['a', 'b,c'], 'data_shape': 64}})
    monkeypatch.setattr(label_with, 'open_detector', lambda args: detector)
    with pytest.raises(UserError, match="net.params: the class name 'b,c' is with a comma"):
        label_with.main(['--params', 'net.params', str(pictures), '--out', str(tmp_path / 'new')])
