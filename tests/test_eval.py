"""eval_yolo3.py: its table and JSON, and its mistakes in one line. (Equality with training: test_train.py.)"""
import json
import math
import shutil

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import export_onnx
from yolo3 import network, weights
from yolo3.data.datasets import open_val
from yolo3.metrics import COCO_NAMES, make_metric
from yolo3.mxnet_setup import mx
from yolo3.zoo import CLASSES
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultValTransform
from gluoncv.utils.metrics import VOCMApMetric


def evaluate(run, params, squares, *flags):
    """eval_yolo3.py on the 5 test images of `squares`."""
    return run('eval_yolo3.py', '--params', params, '--dataset-root', squares, '--val-splits', '2007_test',
               '--gpus', '', '-j', '0', *flags)


@pytest.mark.parametrize('metric', ['voc07', 'voc'])
def test_table_and_json(run, run_process, params, squares, tmp_path, metric):
    path = tmp_path / 'numbers.json'
    result = evaluate(run_process if metric == 'voc07' else run, params, squares, '--json', path, '--metric', metric,
                      '--data-shape', '96')
    assert result.returncode == 0, result.stderr
    content = json.loads(path.read_text())
    assert content['metric'] == metric and content['images'] == 5 and content['data_shape'] == 96
    assert list(content['values']) == ['red', 'blue', 'mAP']
    rows = [line.split() for line in result.stdout.splitlines()]
    for name, value in content['values'].items():
        assert [row for row in rows if row[:1] == [name] and len(row) == 2] == [[name, '%.4f' % value]]
    assert list(content['f1']) == ['red', 'blue'] and '--thresh %.3f:' % content['thresh'] in result.stdout
    for name, numbers in content['f1'].items():
        assert [row for row in rows if row[:1] == [name] and len(row) == 4] == [
            [name] + ['%.4f' % numbers[part] for part in ('precision', 'recall', 'f1')]]


@pytest.mark.parametrize('flags', [[], ['--gluoncv-compatible']])
def test_several_metrics_in_one_run_are_those_of_separate_runs(run, params, squares, tmp_path, flags):
    def numbers(metric, *more):
        result = evaluate(run, params, squares, '--metric', metric, '--json', tmp_path / 'numbers.json', *flags, *more)
        assert result.returncode == 0, result.stderr
        return json.loads((tmp_path / 'numbers.json').read_text()), result.stdout.splitlines()
    content, lines = numbers('coco,voc07')
    assert content['metric'] == 'coco,voc07'
    assert content['values'] == {name: numbers(name)[0]['values'] for name in ('voc07', 'coco')}
    assert [line for line in lines if line.startswith('--metric')] == ['--metric coco', '--metric voc07']
    sizes, lines = numbers('coco,voc07', '--data-shape', '64,96')
    assert [list(entry['values']) for entry in sizes['sizes']] == [['coco', 'voc07']] * 2
    assert lines[1].split() == ['size', 'coco', 'voc07', 'ms/image']
    assert lines[2].split()[1:3] == ['%.4f' % content['values'][name][end]
                                     for name, end in (('coco', 'AP'), ('voc07', 'mAP'))]


def test_sizes_are_compared_in_a_table(run, params, squares, tmp_path):
    sizes = 160, 64
    result = evaluate(run, params, squares, '--data-shape', '160,64', '--batch-size', 2,
                      '--json', tmp_path / 'all.json')
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / 'all.json').read_text())
    assert content['metric'] == 'voc07' and content['images'] == 5
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert rows[0] == ['size', 'mAP', 'ms/image'] and len(rows) == 3
    for size, row, entry in zip(sizes, rows[1:], content['sizes']):
        alone = evaluate(run, params, squares, '--data-shape', size, '--json', tmp_path / 'one.json', '--batch-size', 2)
        assert alone.returncode == 0, alone.stderr
        assert entry['values'] == json.loads((tmp_path / 'one.json').read_text())['values']
        assert entry['data_shape'] == size and entry['milliseconds'] > 0
        assert row == [str(size), '%.4f' % entry['values']['mAP'], '%.1f' % entry['milliseconds']]
    assert content['sizes'][0]['values'] != content['sizes'][1]['values']


def test_coco(run, data, tmp_path):
    path = str(tmp_path / 'coco.params')
    classes = CLASSES['coco']
    weights.save_detector(network.build('mobilenet0_25', classes), path, network='mobilenet0_25', classes=classes,
                          data_shape=64, dataset='coco')
    result = run('eval_yolo3.py', '--pretrained', path, '--dataset-root', data + '/coco-mini', '--gpus', '', '-j', '1',
                 '--json', tmp_path / 'numbers.json', '--detections', tmp_path / 'found.json')
    assert result.returncode == 0, result.stderr
    values = json.loads((tmp_path / 'numbers.json').read_text())['values']
    assert list(values)[-12:] == ['AP50', 'AP75', 'APsmall', 'APmedium', 'APlarge', 'AR1', 'AR10', 'AR100', 'ARsmall',
                                  'ARmedium', 'ARlarge', 'AP']
    truth = COCO(data + '/coco-mini/annotations/instances_val2017.json')
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'found.json')), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    np.testing.assert_allclose([values[name] for name in COCO_NAMES], evaluation.stats, rtol=0, atol=1e-6)


def test_detections_of_voc_give_the_same_numbers(run, params, squares, tmp_path):
    """From the file alone: image stems, classes from 1, widths that include both ends, all scores."""
    result = evaluate(run, params, squares, '--detections', tmp_path / 'found.json', '--metric', 'voc', '--json',
                      tmp_path / 'numbers.json')
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / 'found.json').read_text())
    assert {entry['image_id'] for entry in found} == {'test_%02d' % number for number in range(5)}
    assert {entry['category_id'] for entry in found} <= {1, 2} and len(found) == 500
    metric = make_metric('voc', open_val('voc', str(squares), ['red', 'blue'], ['2007_test']))
    for index in range(5):
        mine = [entry for entry in found if entry['image_id'] == 'test_%02d' % index]
        boxes = np.array([entry['bbox'] for entry in mine])
        assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= [129, 97]).all()
        boxes[:, 2:] += boxes[:, :2] - 1
        metric.update(index, np.array([entry['category_id'] - 1 for entry in mine]),
                      np.array([entry['score'] for entry in mine]), boxes)
    values = json.loads((tmp_path / 'numbers.json').read_text())['values']
    assert not math.isnan(values['mAP']) and metric.get() == pytest.approx(values)


def test_gluoncv_compatible_numbers_are_those_of_gluoncvs_own_pipeline(run, params, squares, tmp_path):
    result = evaluate(run, params, squares, '--gluoncv-compatible', '--metric', 'voc', '--data-shape', '32,64',
                      '--json', tmp_path / 'compatible.json')
    assert result.returncode == 0, result.stderr
    result = evaluate(run, params, squares, '--metric', 'voc', '--data-shape', '32,64', '--json', tmp_path / 'own.json')
    assert result.returncode == 0, result.stderr
    compatible, own = [json.loads((tmp_path / name).read_text())['sizes'] for name in ('compatible.json', 'own.json')]
    images = open_val('voc', str(squares), ['red', 'blue'], ['2007_test'])
    net, _ = weights.load_detector(params)
    net.set_nms(nms_thresh=0.45, nms_topk=400)
    for entry in compatible:  # as in GluonCV's eval_yolo.py
        size, metric = entry['data_shape'], VOCMApMetric(0.5, ['red', 'blue'])
        transform = YOLO3DefaultValTransform(size, size)
        for index in range(len(images)):
            image, label = images[index]
            image, label = transform(mx.nd.array(image, dtype='uint8'), label)
            ids, scores, boxes = net(image.expand_dims(0))
            label = label[None]
            metric.update([boxes.clip(0, size)], [ids], [scores], [label[:, :, :4]], [label[:, :, 4:5]],
                          [label[:, :, 5:6]])
        assert list(entry['values'].values()) == pytest.approx(metric.get()[1])
    assert [entry['values'] for entry in compatible] != [entry['values'] for entry in own]


def test_score_floor(run, params, squares, tmp_path):
    def found(*flags):
        result = evaluate(run, params, squares, '--detections', tmp_path / 'found.json', *flags)
        assert result.returncode == 0, result.stderr
        return json.loads((tmp_path / 'found.json').read_text())
    default = found()
    assert found('--nms-score-floor', '0.01') == default
    scores = [entry['score'] for entry in default]
    middle = sorted(scores)[250]
    # A higher floor only removes the lower ones: no box suppresses a better one.
    assert found('--nms-score-floor', middle) == [entry for entry in default if entry['score'] > middle]


def test_no_params_is_one_line(run):
    done = run('eval_yolo3.py')
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and '--params' in done.stderr


@pytest.fixture
def damaged(squares, tmp_path):
    """The squares, of whose five test images the second has another size than annotated, and the third no end."""
    root = tmp_path / 'damaged'
    shutil.copytree(squares, root)
    names = (root / 'VOC2007/ImageSets/Main/test.txt').read_text().split()
    annotation = root / 'VOC2007/Annotations' / (names[1] + '.xml')
    annotation.write_text(annotation.read_text().replace('<width>128', '<width>64'))
    noise = np.random.RandomState(0).randint(0, 256, (96, 128, 3), 'uint8')
    (root / 'VOC2007/JPEGImages' / (names[2] + '.jpg')).write_bytes(cv2.imencode('.png', noise)[1].tobytes()[:20000])
    return root, names


@pytest.mark.parametrize('kind', ['params', 'onnx'])
def test_bad_images_are_skipped_and_named_or_stop_it(run, params, damaged, tmp_path, kind):
    root, names = damaged
    if kind == 'onnx':
        pytest.importorskip('onnxruntime')
        export_onnx.main(['--params', str(params), '--output', str(tmp_path / 'net.onnx')])
        params = tmp_path / 'net.onnx'
    skipped = evaluate(run, params, root, '--on-bad-image', 'skip', '--json', tmp_path / 'skipped.json')
    assert skipped.returncode == 0, skipped.stderr
    assert names[1] in skipped.stdout and 'unreadable: ' in skipped.stderr and names[2] in skipped.stderr
    for policy, bad in ((), '1 of 5 images are bad'), (('--on-bad-image', 'stop'), names[1]):
        result = evaluate(run, params, root, *policy)
        assert result.returncode == 2 and bad in result.stderr.splitlines()[-1]
    split = root / 'VOC2007/ImageSets/Main/test.txt'
    split.write_text('\n'.join(names[:1] + names[3:]))
    assert evaluate(run, params, root, '--json', tmp_path / 'without.json').returncode == 0
    numbers = [json.loads((tmp_path / name).read_text()) for name in ('skipped.json', 'without.json')]
    assert numbers[0] == numbers[1] and numbers[0]['images'] == 3


def test_report(run, params, squares, tmp_path):
    result = evaluate(run, params, squares, '--report', tmp_path / 'new' / 'folder', '--report-thresh', '0.2')
    assert result.returncode == 0, result.stderr
    page = (tmp_path / 'new' / 'folder' / 'report.html').read_text(encoding='utf-8')
    assert 'net.params' in page and 'input 64 x 64' in page and 'score 0.2' in page
    assert (tmp_path / 'new' / 'folder' / 'confusion.png').exists() and 'worst_0.jpg' not in page


def test_mistakes_end_in_one_line(run, params, squares, tmp_path):
    for flags, named in ((['--data-shape', '100'], '--data-shape: 100 is not'),
                         (['--data-shape', '320,41x'], '--data-shape: 41x is not'),
                         (['--batch-size', '0'], '--batch-size'), (['-j', '-1'], '-j: -1 is not'),
                         (['--classes', 'blue,red'], '--classes'), (['--network', 'mobilenet1.0'], '--network'),
                         (['--backend', 'openvino'], '--backend openvino is for .onnx files'),
                         (['--data-shape', '64,96', '--report', tmp_path / 'r'], '--report'),
                         (['--metric', 'map'], '--metric'), (['--metric', 'coco,coco'], '--metric'),
                         (['--metric', ','], '--metric'),
                         (['--dataset-root', tmp_path / 'none'], 'none'), (['--val-splits', '2007_x'], 'x.txt'),
                         (['--params', tmp_path / 'no.params'], 'no.params'),
                         (['--nms-score-floor', '1.5'], '--nms-score-floor'),
                         (['--report', params], '--report'), (['--report-thresh', '-1'], '--report-thresh'),
                         (['--detections', tmp_path / 'no' / 'found.json'], '--detections'),
                         (['--json', tmp_path], '--json'), (['--json', params], '--json'),
                         (['--json', tmp_path / 'x.json', '--detections', tmp_path / 'x.json'], '--detections'),
                         (['--json', squares / 'VOC2007/Annotations/test_00.xml'], '--json'),
                         (['--json', tmp_path / 'report.html', '--report', tmp_path], '--json'),
                         (['--report', squares / 'VOC2007/JPEGImages'], '--report'), (['-j', '1025'], '-j')):
        result = evaluate(run, params, squares, *flags)
        assert result.returncode == 2 and named in result.stderr.splitlines()[-1]
        assert 'Traceback' not in result.stderr
