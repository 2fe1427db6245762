"""Detections for the evaluation servers, of images with labels and without, of VOC's form, COCO's and a bare folder."""
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from yolo3 import network, weights


@pytest.fixture
def detect(run, params, tmp_path):
    """eval_yolo3.py --no-labels on a data set; what it printed and what it wrote."""
    def detect(root, *flags, out='found.json', code=0, params=params):
        done = run('eval_yolo3.py', '--params', params, '--dataset-root', root, '--gpus', '', '-j', '1', '--no-labels',
                   '--detections', str(tmp_path) + '/' + out, *flags)
        assert done.returncode == code, done.stderr
        if code:
            return done.stderr.splitlines()[-1]
        return done.stdout, tmp_path / out
    return detect


@pytest.fixture
def labelled(run, params, squares, tmp_path):
    """What eval_yolo3.py --detections writes for the test images with labels."""
    done = run('eval_yolo3.py', '--params', params, '--dataset-root', squares, '--val-splits', '2007_test', '--gpus',
               '', '-j', '1', '--detections', tmp_path / 'labelled.json')
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / 'labelled.json').read_text())


def test_a_split_without_annotations(detect, labelled, squares, tmp_path):
    shutil.copytree(squares, tmp_path / 'squares')
    shutil.rmtree(tmp_path / 'squares/VOC2007/Annotations')
    printed, path = detect(tmp_path / 'squares', '--val-splits', '2007_test')
    assert printed.splitlines() == ['2007_test: 5 images'] and json.loads(path.read_text()) == labelled
    assert 'no file' not in detect(tmp_path / 'squares', '--val-splits', '2007_none', code=2)


def test_a_bare_folder(detect, labelled, squares, tmp_path):
    (tmp_path / 'bare/below').mkdir(parents=True)
    for number in range(5):
        shutil.copy(squares / ('VOC2007/JPEGImages/test_%02d.jpg' % number), tmp_path / 'bare/below')
    (tmp_path / 'bare/notes.txt').write_text('no image')
    assert json.loads(detect(tmp_path / 'bare')[1].read_text()) == labelled
    (tmp_path / 'bare/damaged.jpg').write_bytes(b'\xff\xd8')
    assert 'damaged.jpg' in detect(tmp_path / 'bare', code=2)
    assert json.loads(detect(tmp_path / 'bare', '--on-bad-image', 'skip')[1].read_text()) == labelled
    (tmp_path / 'empty').mkdir()
    assert 'no images' in detect(tmp_path / 'empty', code=2)


def test_the_files_that_vocs_server_takes(detect, labelled, squares, tmp_path):
    _, folder = detect(squares, '--val-splits', '2007_test', out='results/')
    assert sorted(os.listdir(folder)) == ['comp4_det_test_blue.txt', 'comp4_det_test_red.txt']
    for number, name in (1, 'red'), (2, 'blue'):
        rows = [line.split() for line in (folder / ('comp4_det_test_%s.txt' % name)).read_text().splitlines()]
        mine = [entry for entry in labelled if entry['category_id'] == number]
        assert [row[0] for row in rows] == [entry['image_id'] for entry in mine] and len(rows) > 50
        boxes = np.array([entry['bbox'] for entry in mine])
        expected = np.column_stack(([entry['score'] for entry in mine], boxes[:, :2] + 1, boxes.T[2:].T + boxes[:, :2]))
        np.testing.assert_allclose([list(map(float, row[1:])) for row in rows], expected, atol=0.0051)


def test_names_of_folders_and_classes_lead_nowhere_else(detect, squares, tmp_path):
    classes = ['red/blue', '..']
    params = str(tmp_path / 'odd.params')
    weights.save_detector(network.build('mobilenet0_25', classes), params, network='mobilenet0_25', classes=classes,
                          data_shape=64, dataset='voc')
    root = tmp_path / 'my_pictures' / 'of squares'
    root.mkdir(parents=True)
    shutil.copy(squares / 'VOC2007/JPEGImages/test_00.jpg', root)
    _, folder = detect(root, out='results/', params=params)
    assert sorted(os.listdir(folder)) == ['comp4_det_of squares_...txt', 'comp4_det_of squares_red_blue.txt']


def test_cocos_image_info(detect, tmp_path):
    """Category ids are the file's, whose images have no annotations."""
    os.makedirs(tmp_path / 'coco/annotations')
    os.makedirs(tmp_path / 'coco/test2017')
    images = []
    for number in 7, 3:
        name = '%012d.jpg' % number
        cv2.imwrite(str(tmp_path / 'coco/test2017' / name), np.random.RandomState(number).randint(0, 255, (60, 80, 3)))
        images.append({'id': number, 'file_name': name, 'width': 80, 'height': 60,
                       'coco_url': 'http://images.cocodataset.org/test2017/' + name})
    (tmp_path / 'coco/annotations/image_info_test-dev2017.json').write_text(json.dumps(
        {'images': images, 'categories': [{'id': 18, 'name': 'dog'}, {'id': 90, 'name': 'toothbrush'}]}))
    params = str(tmp_path / 'coco.params')
    classes = ['toothbrush', 'dog']
    weights.save_detector(network.build('mobilenet0_25', classes), params, network='mobilenet0_25', classes=classes,
                          data_shape=64, dataset='coco')
    _, path = detect(tmp_path / 'coco', '--val-splits', 'image_info_test-dev2017', params=params)
    found = json.loads(path.read_text())
    assert {entry['image_id'] for entry in found} == {3, 7}
    assert {entry['category_id'] for entry in found} == {18, 90}


@pytest.mark.parametrize('flags, named', [
    (['--metric', 'coco'], '--metric'), (['--json', 'x.json'], '--json'), (['--report', 'r'], '--report'),
    (['--tta'], '--tta'), (['--data-shape', '64,96'], '--data-shape')])
def test_nothing_else_goes_without_labels(detect, squares, flags, named):
    assert named in detect(squares, '--val-splits', '2007_test', *flags, code=2)


def test_it_needs_a_file_and_images(run, params, squares, tmp_path):
    for flags, named in (['--dataset-root', squares], '--detections'), (
            ['--detections', tmp_path / 'found.json'], '--dataset-root'):
        done = run('eval_yolo3.py', '--params', params, '--gpus', '', '--no-labels', *flags)
        assert done.returncode == 2 and named in done.stderr.splitlines()[-1]
