"""The report: confusion matrices by hand, and the page as a parser and, if there is one, a browser sees it."""
import html.parser
import os
import re
import shutil
import subprocess
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest

from yolo3.show import draw, report
from yolo3.data.datasets import open_val
from yolo3.metrics import make_metric
from conftest import ANNOTATION, OBJECT

CLASSES = ['<script>document.title = "bad"</script>', 'a & "b" $x$', '狗', 'never']
FILES = ['plain', 'fish & <i>chips', '100%25 #1?', 'empty', 'unlucky', 'six', 'seven', 'eight']


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 4)


class OneImage:
    """A data set of one image's label (n, 6), of two classes."""
    classes = ('a', 'b')

    def __init__(self, label):
        self._label = label

    def label(self, index):
        return self._label

    def difficult(self, index):
        return self._label[:, 5] == 1


def confusion(label, found):
    """label: (class, difficult, box), found: (class, box)"""
    label = np.array([[*box, class_, difficult] for class_, difficult, box in label]).reshape(-1, 6)
    return report.confusion(OneImage(label), 0, np.array([class_ for class_, _ in found], int),
                            boxes(*[box for _, box in found])).tolist()


HERE, NEARLY, HALF, THERE = (10, 10, 29, 29), (11, 10, 30, 29), (10, 10, 19, 29), (60, 60, 79, 79)


@pytest.mark.parametrize('label, found, expected', [
    ([], [], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
    ([(0, 0, HERE)], [], [[0, 0, 1], [0, 0, 0], [0, 0, 0]]),
    ([], [(1, HERE)], [[0, 0, 0], [0, 0, 0], [0, 1, 0]]),
    ([(0, 0, HERE)], [(0, NEARLY)], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
    ([(0, 0, HERE)], [(0, THERE)], [[0, 0, 1], [0, 0, 0], [1, 0, 0]]),
    # Exactly half, both ends included.
    ([(0, 0, HERE)], [(0, HALF)], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
    ([(0, 0, HERE)], [(0, (10, 10, 18.9, 29))], [[0, 0, 1], [0, 0, 0], [1, 0, 0]]),
    # One object as the other class; twice; as both: the right one counts though it overlaps less.
    ([(0, 0, HERE)], [(1, HERE)], [[0, 1, 0], [0, 0, 0], [0, 0, 0]]),
    ([(0, 0, HERE)], [(0, HERE), (0, NEARLY)], [[1, 0, 0], [0, 0, 0], [1, 0, 0]]),
    ([(0, 0, HERE)], [(1, HERE), (0, NEARLY)], [[1, 0, 0], [0, 0, 0], [0, 1, 0]]),
    # A detection of two objects counts for the nearer one.
    ([(1, 0, NEARLY), (1, 0, HERE)], [(1, HERE)], [[0, 0, 0], [0, 1, 1], [0, 0, 0]]),
    # A difficult object does not count, found or missed, nor does its detection.
    ([(0, 1, HERE), (1, 1, THERE)], [(0, HERE)], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
])
def test_confusion_by_hand(label, found, expected):
    assert confusion(label, found) == expected


def test_the_worst_images_come_first_and_empty_ones_are_left_out():
    perfect, perfect_of_two, empty = np.diag([1, 0, 0]), np.diag([1, 1, 0]), np.zeros((3, 3), int)
    missed, missed_two, half = np.array([[[0, 0, 1], [0, 0, 0], [0, 0, 0]], [[0, 0, 2], [0, 0, 0], [0, 0, 0]],
                                         [[1, 0, 0], [0, 0, 0], [0, 1, 0]]])
    assert report.worst_first([perfect_of_two, empty, missed, half, missed_two, perfect]) == [4, 2, 3, 5, 0]
    assert report.count(half + missed_two) == (1, 1, 2)


class Page(html.parser.HTMLParser):
    """What a page says and refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ('src', 'href')]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """The folder of a report with names that are not HTML; all detections are perfect but one image's."""
    root = tmp_path_factory.mktemp('odd names')
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / 'VOC2007' / folder).mkdir(parents=True)
    (root / 'VOC2007/ImageSets/Main/test.txt').write_text('\n'.join(FILES) + '\n')
    for number, name in enumerate(FILES):
        objects = '' if name == 'empty' else OBJECT % (escape(CLASSES[number % 3]), 11, 11, 60, 60)
        (root / 'VOC2007/Annotations' / (name + '.xml')).write_text(ANNOTATION % (escape(name), 1200, 800, objects),
                                                                    encoding='utf-8')
        cv2.imwrite(str(root / 'VOC2007/JPEGImages' / (name + '.jpg')), np.full((800, 1200, 3), 128, np.uint8))
    images = open_val('voc', str(root), CLASSES, ['2007_test'])
    metric = make_metric('voc', images)
    for index, name in enumerate(FILES):
        label = images.label(index)
        metric.update(index, label[:, 4].astype(int), np.full(len(label), 0.2 if name == 'unlucky' else 0.9),
                      label[:, :4])
    folder = tmp_path_factory.mktemp('a report')
    report.write(str(folder), 'my <net>.params', 'some <facts>', metric, metric.get(), 0.5)
    return folder


def test_page_is_whole_and_needs_no_network(written):
    text = (written / 'report.html').read_text(encoding='utf-8')
    page = Page(text)
    assert 'script' not in page.tags and 'i' not in page.tags and '//' not in text
    for name in CLASSES + ['my <net>.params', 'some <facts>', 'fish & <i>chips.jpg', '100%25 #1?.jpg']:
        assert name in page.text
    assert 'never: no objects' in page.text and 'empty.jpg' not in page.text
    assert page.text.index('Worst images') < page.text.index('unlucky.jpg: 0 right, 0 wrong, 1 missed')
    assert sorted(page.links) == sorted(entry for entry in os.listdir(str(written)) if entry != 'report.html')
    assert len(page.links) == 3 + 2 + 1 + 7  # curves, F1 and calibration, matrix, images with objects
    for link in page.links:
        assert re.match(r'\w+\.(png|jpg)$', link) and cv2.imread(str(written / link)) is not None


def test_pictures_show_labels_left_and_detections_right(written):
    picture = cv2.imread(str(written / 'worst_0.jpg'))  # the unlucky one, whose detection scores below 0.5
    height, width = picture.shape[:2]
    assert (height, width) == (427, 2 * 640 + 8)
    drawn = np.abs(picture.astype(int) - 128).max(axis=2) > 60
    assert drawn[:, :640].sum() > 100 and not drawn[:, 648 + 4:].any()
    rows, columns = np.nonzero(drawn[:, :640])  # the box from 10 to 59, scaled by 640 / 1200, and its label
    assert 2 <= columns.min() <= 7 and rows.max() < 60
    best = cv2.imread(str(written / 'best_0.jpg'))
    assert (np.abs(best.astype(int) - 128).max(axis=2) > 60)[:, 652:].sum() > 100


def test_confusion_matrix_of_many_classes_and_no_detections(tmp_path):
    classes = ['class %d' % number for number in range(80)]
    report.draw_confusion(str(tmp_path / 'many.png'), np.zeros((81, 81), int), classes)
    height, width = cv2.imread(str(tmp_path / 'many.png')).shape[:2]
    assert height == width > 1000


def test_confusion_matrix_without_a_font_for_a_name(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(draw, 'fonts', lambda: iter([draw.FONT]))
    draw.font_file.cache_clear()
    report.draw_confusion(str(tmp_path / 'odd.png'), np.diag([3, 2, 1, 0, 0]), CLASSES)
    draw.font_file.cache_clear()
    assert not [warning for warning in recwarn if 'Glyph' in str(warning.message)]


@pytest.mark.slow
def test_a_browser_shows_it_all_without_network(written, browser, tmp_path):
    folder = tmp_path / 'moved'  # a report may be moved
    shutil.copytree(str(written), str(folder))
    page = folder / 'report.html'
    page.write_text(page.read_text(encoding='utf-8') + '''<script>addEventListener("load", () => { document.title +=
        " shown " + [...document.images].filter(image => image.naturalWidth > 100).length }) </script>''',
                    encoding='utf-8')
    result = subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', '--user-data-dir=%s' % tmp_path,
                             '--host-resolver-rules=MAP * ~NOTFOUND', '--virtual-time-budget=10000', '--dump-dom',
                             page.as_uri()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120)
    assert result.returncode == 0
    assert '<title>my &lt;net&gt;.params shown 13</title>' in result.stdout.decode('utf-8')
