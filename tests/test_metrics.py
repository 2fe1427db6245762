"""Metrics against hand-computed cases, VOC's development kit written anew, pycocotools and GluonCV's own metrics."""
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo3.data.datasets import open_val
from yolo3.metrics import COCO_NAMES, coco_results, headline, make_metric, measure
from yolo3.mxnet_setup import gluoncv
from gluoncv.utils.metrics import COCODetectionMetric

GLUONCV = {'voc07': gluoncv.utils.metrics.VOC07MApMetric, 'voc': gluoncv.utils.metrics.VOCMApMetric}


class Labels:
    """A data set of labels only: of each image (n, 6)."""

    def __init__(self, classes, labels):
        self.classes, self._labels = tuple(classes), labels

    def __len__(self):
        return len(self._labels)

    def label(self, index):
        return self._labels[index].copy()

    def difficult(self, index):
        return self._labels[index][:, 5] == 1


def value(name, updates):
    """The values of a metric for lists of (class, score, box) in three images of cats."""
    images = Labels(['cat', 'dog'], [np.array([[10., 10, 50, 50, 0, 0], [60, 60, 90, 90, 0, 0]]),
                                     np.array([[10., 10, 50, 50, 0, 1]]),  # difficult
                                     np.array([[0., 0, 20, 20, 0, 0]])])
    rows = [np.array(found, dtype=float).reshape(-1, 6) for found in updates]
    return measure(make_metric(name, images), [(index, found[:, 0].astype(int), found[:, 1], found[:, 2:])
                                               for index, found in enumerate(rows)])


def test_voc_by_hand():
    # By score: right, wrong (a second one on the same object), difficult (does not count), right; one is missed.
    found = [[[0, 0.9, 10, 10, 50, 50], [0, 0.8, 12, 12, 50, 50]], [[0, 0.7, 10, 10, 50, 50]],
             [[0, 0.6, 1, 1, 20, 20]]]
    # precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3
    area = value('voc', found)
    assert area['cat'] == pytest.approx(1 / 3 + 2 / 3 * 1 / 3)
    assert math.isnan(area['dog']) and area['mAP'] == area['cat'] == headline(area)
    eleven = value('voc07', found)  # recalls 0, .1, .2, .3 at precision 1; .4, .5, .6 at 2/3
    assert eleven['cat'] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_voc_without_detections_and_with_a_class_that_has_no_objects():
    assert value('voc07', [[], [], []])['mAP'] == 0
    assert math.isnan(value('voc07', [[[1, 0.9, 0, 0, 9, 9]], [], []])['dog'])


def devkit(dataset, detections, class_, eleven_points):
    """AP of one class as VOCevaldet.m and VOCap.m of VOC's development kit define it, loop for loop.

    detections: (index, ids, scores, boxes) of images. MATLAB's max passes over NaN and its sort keeps equal values in
    place. If all is NaN (all detections are of difficult objects), precision counts as 0.
    """
    truth = {index: [row for row in dataset.label(index) if row[4] == class_] for index in range(len(dataset))}
    positives = sum(not row[5] for rows in truth.values() for row in rows)
    if not positives:
        return math.nan
    found = [(index, score, box) for index, ids, scores, boxes in detections
             for id_, score, box in zip(ids, scores, boxes) if id_ == class_]
    found.sort(key=lambda detection: -detection[1])
    taken = {index: [False] * len(rows) for index, rows in truth.items()}
    right, wrong, recall, precision = 0, 0, [], []
    for index, _, box in found:
        most, best = -math.inf, None
        for number, other in enumerate(truth[index]):
            both = [max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])]
            width, height = both[2] - both[0] + 1, both[3] - both[1] + 1
            if width > 0 and height > 0:
                union = ((box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                         + (other[2] - other[0] + 1) * (other[3] - other[1] + 1) - width * height)
                if width * height / union > most:
                    most, best = width * height / union, number
        if most >= 0.5:
            if not truth[index][best][5]:
                right, wrong = (right, wrong + 1) if taken[index][best] else (right + 1, wrong)
                taken[index][best] = True
        else:
            wrong += 1
        recall.append(right / positives)
        precision.append(right / (right + wrong) if right + wrong else 0)
    if eleven_points:  # the thresholds with the rounding that all Python versions of the kit have
        return sum(max([p for r, p in zip(recall, precision) if r >= threshold], default=0)
                   for threshold in np.arange(0, 1.1, 0.1)) / 11
    recall, precision = [0] + recall + [1], [0] + precision + [0]
    for number in range(len(precision) - 2, -1, -1):
        precision[number] = max(precision[number], precision[number + 1])
    return sum((recall[number] - recall[number - 1]) * precision[number] for number in range(1, len(recall)))


def random_labels(generator, copies=1):
    """Labels drawn at random, `copies` times: 5 classes, the first of them without objects, some difficult."""
    labels = []
    for _ in range(generator.randint(2, 12)):
        corners = generator.randint(0, 60, (generator.randint(0, 7), 2))
        ends = corners + generator.randint(1, 40, corners.shape)
        rest = generator.randint(1, 5, len(corners)), generator.uniform(size=len(corners)) < 0.2
        labels.append(np.column_stack([corners, ends, *rest]).astype(float))
    return Labels(['none', 'a', 'b', 'c', 'd'], labels * copies)


def random_detections(dataset, generator):
    """Labels moved a little, some twice, and stray boxes; few distinct scores; one class is never detected."""
    detections = []
    for index in range(len(dataset)):
        label = np.repeat(dataset.label(index), 2, axis=0)
        label = label[generator.uniform(size=len(label)) < 0.7]
        stray = np.column_stack([generator.randint(0, 40, (3, 2)), generator.randint(41, 90, (3, 2)),
                                 generator.randint(0, 5, 3), np.zeros(3)])
        found = np.concatenate([label, stray])[generator.permutation(len(label) + 3)]
        found = found[found[:, 4] != 4]
        # Whole pixels, so that overlaps of exactly 0.5 occur.
        boxes = (found[:, :4] + generator.randint(-4, 5, (len(found), 4))).astype('float32')
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        scores = (generator.randint(1, 9, len(found)) / 8).astype('float32')
        detections.append((index, found[:, 4].astype(int), scores, boxes))
    return detections


@pytest.mark.parametrize('name', ['voc07', 'voc'])
def test_voc_equals_the_development_kit(name):
    seen = []
    for seed in range(200):
        generator = np.random.RandomState(seed)
        dataset = random_labels(generator)
        detections = random_detections(dataset, generator)
        expected = [devkit(dataset, detections, class_, name == 'voc07') for class_ in range(5)]
        if np.isnan(expected).all():
            continue
        values = measure(make_metric(name, dataset), detections)
        np.testing.assert_allclose(list(values.values()), expected + [np.nanmean(expected)], rtol=0, atol=1e-12)
        seen += expected
    # The random labels covered classes without objects, without detections, and all between.
    assert np.isnan(seen).any() and 0 in seen and 0.2 < np.nanmean(seen) < 0.8


def test_voc_of_many_equal_scores_follows_the_images_order():
    # More than 16, from which NumPy's default sort shuffles.
    generator = np.random.RandomState(0)
    dataset = random_labels(generator, copies=10)
    detections = [(index, ids, np.full(len(ids), 0.5), boxes)
                  for index, ids, _, boxes in random_detections(dataset, generator)]
    values = measure(make_metric('voc', dataset), detections)
    assert min(sum((found[1] == class_).sum() for found in detections) for class_ in (1, 2, 3)) > 50
    for class_ in range(1, 5):
        np.testing.assert_allclose(values[dataset.classes[class_]], devkit(dataset, detections, class_, False))


@pytest.mark.parametrize('name', ['voc07', 'voc'])
def test_voc_properties(name):
    for seed in range(50):
        generator = np.random.RandomState(seed)
        dataset = random_labels(generator)
        if not any((dataset.label(index)[:, 5] == 0).any() for index in range(len(dataset))):
            continue
        metric, detections = make_metric(name, dataset), random_detections(dataset, generator)
        mean = measure(metric, detections)['mAP']
        assert 0 <= mean <= 1
        # Only the order of the scores counts.
        rescored = [(index, ids, scores ** 3 / 9, boxes) for index, ids, scores, boxes in detections]
        assert measure(metric, rescored)['mAP'] == mean
        # A stray box that scores worst takes nothing away, one that scores best adds nothing.
        for score in 0.01, 2:
            index, ids, scores, boxes = detections[0]
            stray = (index, np.append(ids, 1), np.append(scores, score),
                     np.append(boxes, [[500, 500, 510, 510]], axis=0))
            with_stray = measure(metric, [stray] + detections[1:])['mAP']
            assert with_stray == mean if score < 1 else with_stray <= mean
        perfect = [(index, label[:, 4].astype(int), np.ones(len(label)), label[:, :4])
                   for index, label in enumerate(dataset.label(i) for i in range(len(dataset)))]
        assert measure(metric, perfect)['mAP'] == pytest.approx(1)


def test_voc_curves_are_what_the_area_is_of():
    generator = np.random.RandomState(3)
    dataset = random_labels(generator)
    metric = make_metric('voc', dataset)
    values = measure(metric, random_detections(dataset, generator))
    for name, (recall, precision) in zip(dataset.classes, metric.curves()):
        if math.isnan(values[name]):
            assert recall is None
        elif len(recall):
            assert (np.diff(recall) >= 0).all()
            best = np.maximum.accumulate(np.nan_to_num(precision)[::-1])[::-1]
            assert np.sum(np.diff(np.concatenate([[0], recall])) * best) == pytest.approx(values[name])
    assert len(metric.curves()) == 5


@pytest.mark.parametrize('name', GLUONCV)
@pytest.mark.parametrize('seed', range(8))
def test_voc_equals_gluoncv(name, seed):
    generator = np.random.RandomState(seed)
    labels, detections, theirs = [], [], GLUONCV[name](0.5, list('abcd'))
    for index in range(12):
        count, found = generator.randint(0, 6), generator.randint(0, 15)
        corner = generator.randint(0, 80, (count, 2)).astype(float)
        truth = np.hstack((corner, corner + generator.randint(8, 40, (count, 2))))
        true_ids = generator.randint(0, seed % 4 + 1, count)  # some classes have no object at all
        which = generator.randint(0, max(1, count), found)
        boxes = (truth[which] if count else 30) + generator.randint(-6, 7, (found, 4)).astype(float)
        ids = np.where(generator.rand(found) < 0.7, true_ids[which] if count else 0, generator.randint(0, 4, found))
        scores, difficult = generator.rand(found), generator.rand(count) < 0.2
        labels.append(np.column_stack((truth, true_ids, difficult)))
        detections.append((index, ids, scores, boxes))
        theirs.update(*[part[None] for part in (boxes, ids, scores, truth, true_ids, difficult)])
    values = measure(make_metric(name, Labels('abcd', labels)), detections)
    names, expected = theirs.get()
    assert list(values) == names
    np.testing.assert_allclose(list(values.values()), expected, atol=1e-12)
    assert 0 < values['mAP'] < 1


@pytest.mark.parametrize('name', GLUONCV)
def test_gluoncv_compatible_voc_is_scored_in_resized_pixels(squares, name):
    dataset = open_val('voc', str(squares), ['red', 'blue'], ['2007_trainval'])  # 128 x 96 pixels
    generator = np.random.RandomState(0)
    differences = []
    for size in (64, 96, 160) * 10:
        ours, original = make_metric(name, dataset, gluoncv_size=size), make_metric(name, dataset)
        gluoncv_metric = GLUONCV[name](0.5, ['red', 'blue'])
        for index in range(len(dataset)):
            label, factor = dataset.label(index), size / np.array([128, 96, 128, 96])
            boxes = label[:, :4] + generator.normal(0, 5, (len(label), 4))
            scores, ids = generator.uniform(size=len(label)), label[:, 4].astype(int)
            for metric in ours, original:
                metric.update(index, ids, scores, boxes)
            gluoncv_metric.update([(boxes * factor)[None]], [ids[None]], [scores[None]],
                                  [(label[:, :4] * factor)[None]], [label[None, :, 4]], [label[None, :, 5]])
        np.testing.assert_allclose(list(ours.get().values()), gluoncv_metric.get()[1], rtol=0, atol=1e-12)
        differences.append(ours.get()['mAP'] - original.get()['mAP'])
    assert np.any(differences)  # else this shows nothing


def disturbed(dataset, generator):
    """Labels moved, with random scores, far below GluonCV's threshold of 0.05 too, and wrong classes among them."""
    for index in range(len(dataset)):
        label = dataset.label(index)
        boxes = np.round(label[:, :4] + generator.normal(0, 6, (len(label), 4)), 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        ids = np.where(generator.uniform(size=len(label)) < 0.2, generator.randint(0, 80, len(label)),
                       label[:, 4]).astype(int)
        yield index, ids, np.round(generator.uniform(0, 1, len(label)) ** 3, 4), boxes


@pytest.fixture(scope='module')
def coco_mini(data):
    return open_val('coco', data + '/coco-mini')


def test_labels_as_detections_are_perfect(coco_mini):
    labels = [coco_mini.label(index) for index in range(len(coco_mini))]
    perfect = [(index, label[:, 4].astype(int), np.full(len(label), 0.01), label[:, :4])
               for index, label in enumerate(labels)]
    values = measure(make_metric('coco', coco_mini), perfect)
    assert values['AP'] == values['AP50'] == pytest.approx(1, abs=1e-6)
    assert headline(values) == 100 * values['AP']


def assert_pycocotools_agrees(metric, truth, results):
    """The values of `metric`, which are pycocotools' own for `results`, a list or its file, of the COCO `truth`."""
    evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = metric.get()
    assert 0.05 < values['AP'] < 0.9
    np.testing.assert_allclose([values[name] for name in COCO_NAMES], evaluation.stats, rtol=0, atol=1e-9)
    return values


def test_coco_equals_pycocotools(coco_mini, data, tmp_path):
    metric = make_metric('coco', coco_mini)
    results = []
    for index, ids, scores, boxes in disturbed(coco_mini, np.random.RandomState(0)):
        metric.update(index, ids, scores, boxes)
        results += [{'image_id': int(coco_mini.image_id(index)), 'score': float(score),
                     'category_id': int(coco_mini.contiguous_id_to_json[id_]),
                     'bbox': [float(x), float(y), float(xmax - x + 1), float(ymax - y + 1)]}
                    for id_, score, (x, y, xmax, ymax) in zip(ids, scores, boxes)]
    assert coco_results(coco_mini, metric.detections) == results
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(results))
    truth = COCO(data + '/coco-mini/annotations/instances_val2017.json')
    values = assert_pycocotools_agrees(metric, truth, str(path))
    classes = [values[name] for name in coco_mini.classes if not math.isnan(values.get(name, math.nan))]
    assert np.mean(classes) == pytest.approx(values['AP'], abs=1e-6)


@pytest.mark.filterwarnings('ignore:Mean of empty slice', 'ignore:invalid value')  # GluonCV's, classes without objects
def test_gluoncv_compatible_coco_drops_scores_under_its_threshold(coco_mini, tmp_path):
    size = 416
    ours, original = make_metric('coco', coco_mini, gluoncv_size=size), make_metric('coco', coco_mini)
    theirs = COCODetectionMetric(coco_mini, str(tmp_path / 'theirs'), data_shape=(size, size))
    for index, ids, scores, boxes in disturbed(coco_mini, np.random.RandomState(0)):
        for metric in ours, original:
            metric.update(index, ids, scores, boxes)
        picture = coco_mini.coco.loadImgs(coco_mini.image_id(index))[0]
        factor = size / np.array([picture['width'], picture['height']] * 2)
        theirs.update([(boxes * factor)[None]], [ids[None]], [scores[None]])
    values = ours.get()
    theirs.get()
    np.testing.assert_allclose([values[name] for name in COCO_NAMES], theirs._coco_eval.stats, rtol=0, atol=1e-9)
    assert abs(values['AP'] - original.get()['AP']) > 1e-3  # else this shows nothing


@pytest.fixture
def animals(data):
    return open_val('voc', data + '/voc-animals', ['dog', 'person', 'cat', 'bottle'], ['2007_test'])


def test_coco_of_vocs_form_equals_pycocotools(animals):
    metric, images, annotations, results = make_metric('coco', animals), [], [], []
    for index, ids, scores, boxes in disturbed(animals, np.random.RandomState(0)):
        metric.update(index, ids % 4, scores, boxes)
        images.append({'id': index})
        annotations += [{'id': 1000 * index + number + 1, 'image_id': index, 'category_id': int(row[4]),
                         'bbox': [row[0], row[1], row[2] - row[0] + 1, row[3] - row[1] + 1], 'iscrowd': 0,
                         'area': (row[2] - row[0] + 1) * (row[3] - row[1] + 1)}
                        for number, row in enumerate(animals.label(index))]
        results += [{'image_id': index, 'category_id': int(id_), 'score': score,
                     'bbox': [box[0], box[1], box[2] - box[0] + 1, box[3] - box[1] + 1]}
                    for id_, score, box in zip(ids % 4, scores, boxes)]
    truth = COCO()
    truth.dataset = {'images': images, 'annotations': annotations, 'categories': [{'id': id_} for id_ in range(4)]}
    truth.createIndex()
    assert_pycocotools_agrees(metric, truth, results)


def test_coco_of_vocs_form_ignores_difficult_objects(animals):
    for index in range(0, len(animals), 3):
        animals._labels[index][:, 5] = 1

    def values(with_difficult):
        metric = make_metric('coco', animals)
        for index in range(len(animals)):
            label = animals.label(index)[with_difficult | ~animals.difficult(index)]
            metric.update(index, label[:, 4].astype(int), np.full(len(label), 0.5), label[:, :4])
        return metric.get()
    assert values(True)['AP'] == values(False)['AP'] == pytest.approx(1, abs=1e-6)


def test_coco_without_detections(coco_mini):
    metric = make_metric('coco', coco_mini)
    for index in range(len(coco_mini)):
        metric.update(index, np.empty(0, int), np.empty(0), np.empty((0, 4)))
    assert metric.get()['AP'] == 0
