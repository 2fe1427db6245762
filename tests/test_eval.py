"""eval_yolo3.py: its table and JSON, and its mistakes in one line. (Equality with training: test_train.py.)"""
import json

import pytest

from yolo3 import network

DETECTOR = {'network': 'mobilenet0_25', 'classes': ['red', 'blue'], 'data_shape': 64, 'dataset': 'voc'}


@pytest.fixture(scope='module')
def params(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('eval') / 'net.params')
    network.save_detector(network.build('mobilenet0_25', ['red', 'blue']), path, **DETECTOR)
    return path


def evaluate(run, params, squares, *flags):
    return run('eval_yolo3.py', '--params', params, '--dataset-root', squares, '--val-splits', '2007_test', '--gpus', '',
               '-j', '0', *flags)


@pytest.mark.parametrize('metric', ['voc07', 'voc'])
def test_table_and_json(run, params, squares, tmp_path, metric):
    path = tmp_path / 'numbers.json'
    result = evaluate(run, params, squares, '--json', path, '--metric', metric, '--data-shape', '96')
    assert result.returncode == 0, result.stderr
    content = json.loads(path.read_text())
    assert content['metric'] == metric and content['images'] == 5 and content['data_shape'] == 96
    assert list(content['values']) == ['red', 'blue', 'mAP']
    for name, value in content['values'].items():
        assert [line.split() for line in result.stdout.splitlines() if line.startswith(name)] == [
            [name, '%.4f' % value]]


def test_coco(run, data, tmp_path):
    path = str(tmp_path / 'coco.params')
    network.save_detector(network.build('mobilenet0_25', network.CLASSES['coco']), path, **dict(
        DETECTOR, classes=network.CLASSES['coco'], dataset='coco'))
    result = run('eval_yolo3.py', '--pretrained', path, '--dataset-root', data + '/coco-mini', '--gpus', '', '-j', '1',
                 '--json', tmp_path / 'numbers.json')
    assert result.returncode == 0, result.stderr
    values = json.loads((tmp_path / 'numbers.json').read_text())['values']
    assert list(values)[-12:] == ['AP50', 'AP75', 'APsmall', 'APmedium', 'APlarge', 'AR1', 'AR10', 'AR100', 'ARsmall',
                                  'ARmedium', 'ARlarge', 'AP']


def test_mistakes_end_in_one_line(run, params, squares, tmp_path):
    for flags, named in ((['--data-shape', '100'], '--data-shape'), (['--metric', 'coco'], '--metric'),
                         (['--dataset-root', tmp_path / 'none'], 'none'), (['--val-splits', '2007_x'], 'x.txt'),
                         (['--params', tmp_path / 'no.params'], 'no.params')):
        result = evaluate(run, params, squares, *flags)
        assert result.returncode == 2 and named in result.stderr.splitlines()[-1]
        assert 'Traceback' not in result.stderr
