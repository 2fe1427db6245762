"""What is drawn on an image: boxes in place, labels whole, readable and apart, stable colours."""
import os
import subprocess
import sys

import cv2
import matplotlib
import numpy as np
import pytest

from conftest import ROOT
from yolo3.show import draw
from yolo3.mxnet_setup import gluoncv

DIGITS = list('0123456789')
SIZES = [(64, 48), (640, 480), (100, 1200), (2000, 1500)]


def found(name, score, *box):
    return {'class': name, 'score': score, 'box': box}


def letters(width, height):
    """The size of the letters that `draw` chose for an image: the height of the plate it drew."""
    image = draw.draw(np.zeros((height, width, 3), np.uint8), [found('x', 0.9, 0, 0, 0, 0)])
    return np.any(image, axis=(1, 2)).sum()


def where(plate, image):
    """The corners (x, y) at which the whole `plate` stands in `image`."""
    rows, columns = plate.shape[:2]
    alike = np.argwhere(cv2.matchTemplate(image, plate, cv2.TM_CCORR_NORMED) > 0.999)
    return [(x, y) for y, x in alike if (image[y:y + rows, x:x + columns] == plate).all()]


def plate_of(detection, image):
    height, width = image.shape[:2]
    size = max(10, round((height * width) ** 0.5 / 40))
    return draw.label(detection['class'], round(detection['score'], 2), size, width)


@pytest.fixture
def only_fonts(monkeypatch):
    """only_fonts(file, ...): this machine has these fonts only."""
    def set_fonts(*files):
        monkeypatch.setattr(draw, 'fonts', lambda: iter(files))
        draw.font_file.cache_clear()
        draw.label.cache_clear()
    yield set_fonts
    draw.font_file.cache_clear()
    draw.label.cache_clear()


def test_draws_on_a_copy():
    image = np.random.RandomState(0).randint(0, 255, (90, 120, 3)).astype(np.uint8)
    before = image.copy()
    for view in image, image[:, ::-1]:
        drawn = draw.draw(view, [found('cat', 0.9, 20, 30, 60, 70)])
        assert drawn.shape == image.shape and drawn.dtype == np.uint8
        assert (image == before).all() and (drawn != view).any()
    assert (draw.draw(image, []) == image).all()


@pytest.mark.parametrize('width,height', SIZES)
def test_outline_lies_on_the_box(width, height):
    xmin, ymin, xmax, ymax = [int(part * side) for part, side in zip((0.3, 0.6, 0.7, 0.9), (width, height) * 2)]
    image = draw.draw(np.zeros((height, width, 3), np.uint8), [found('cat', 0.5, xmin, ymin, xmax, ymax)])
    colour = draw.colour('cat')
    middle_x, middle_y = (xmin + xmax) // 2, (ymin + ymax) // 2
    for x, y in (xmin, middle_y), (xmax, middle_y), (middle_x, ymax):
        assert tuple(image[y, x]) == colour
    line = (image[middle_y, :middle_x] == colour).all(axis=1).sum()
    assert line == pytest.approx((width * height) ** 0.5 / 280, abs=1.2)
    assert not image[middle_y, middle_x].any()


def test_letters_grow_with_the_image():
    assert letters(64, 48) >= 10
    assert 14 <= letters(640, 480) <= 24
    assert letters(4000, 3000) == pytest.approx(6 * letters(640, 480), rel=0.15)


@pytest.mark.parametrize('width,height', SIZES)
def test_boxes_at_the_edges_keep_outline_and_label_inside(width, height):
    w, h = width // 5, height // 5
    for box in (0, 0, w, h), (width - w, 0, width, h), (0, height - h, w, height), (
            width - w, height - h, width, height), (0, 0, width, height), (-50, -50, width + 50, height + 50):
        detection = found('cat', 0.9, *box)
        image = draw.draw(np.zeros((height, width, 3), np.uint8), [detection])
        xmin, ymin, xmax, ymax = max(0, box[0]), max(0, box[1]), min(width, box[2]) - 1, min(height, box[3]) - 1
        plate = plate_of(detection, image)
        if plate.shape[0] < h and plate.shape[1] < w:
            for x, y in (xmin, ymax - h // 4), (xmax, ymax - h // 4), (xmax - w // 20, ymax), (xmax - w // 20, ymin):
                assert image[y, x].any(), (box, x, y)
        assert len(where(plate, image)) == 1


def test_label_stands_above_its_box_or_inside_at_the_top():
    image = np.zeros((480, 640, 3), np.uint8)
    above, top = found('cat', 0.9, 100, 200, 300, 400), found('dog', 0.8, 400, 3, 600, 300)
    drawn = draw.draw(image, [above, top])
    (x, y), = where(plate_of(above, image), drawn)
    assert abs(x - 100) <= 3 and abs(y + plate_of(above, image).shape[0] - 200) <= 3
    (x, y), = where(plate_of(top, image), drawn)
    assert abs(x - 400) <= 3 and y == 0


def test_best_labels_are_whole_and_none_hides_another():
    random = np.random.RandomState(3)
    corners = random.uniform(0, 400, (100, 2))
    # all scores differ, and so all labels
    detections = [found('car', score / 100, x, y, x + 60, y + 60) for score, (x, y) in enumerate(corners)]
    random.shuffle(detections)
    image = draw.draw(np.zeros((480, 480, 3), np.uint8), detections)
    whole = [d['score'] for d in detections if where(plate_of(d, image), image)]
    assert {0.99, 0.98, 0.97} <= set(whole) and len(whole) >= 20
    for d in detections:  # the box is drawn even if its label was left out
        assert image[int(d['box'][3]) if d['box'][3] < 479 else 479, int(d['box'][2]) - 2].any()


def test_labels_do_not_cover_a_small_image():
    detections = [found('person', 0.9 - i / 100, 4 * i, 3 * i, 4 * i + 3, 3 * i + 3) for i in range(12)]
    image = draw.draw(np.zeros((64, 64, 3), np.uint8), detections)
    assert (image == 0).all(axis=2).mean() > 0.5
    assert where(plate_of(detections[0], image), image)


def test_long_label_fits_the_image():
    name = 'a class name that is rather long indeed'
    image = draw.draw(np.zeros((480, 200, 3), np.uint8), [found(name, 0.9, 150, 200, 190, 300)])
    plate = plate_of(found(name, 0.9), image)
    assert plate.shape[1] <= 200 and where(plate, image)
    draw.draw(np.zeros((8, 8, 3), np.uint8), [found(name * 9, 0.9, 0, 0, 8, 8)])


def test_a_class_always_has_the_same_colour():
    assert draw.colour('person') == draw.colour('Person') == pytest.approx((99, 178, 76), abs=1)
    code = 'from yolo3.show.draw import colour; print(colour("person"), colour("血小板"))'
    for seed in '1', '2':
        said = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=dict(os.environ, PYTHONHASHSEED=seed),
                              stdout=subprocess.PIPE, text=True).stdout
        assert said.strip() == '%s %s' % (draw.colour('person'), draw.colour('血小板'))


@pytest.mark.parametrize('names,apart', [(['RBC', 'WBC', 'Platelets'], 70), (DIGITS, 18),
                                         (list(gluoncv.data.VOCDetection.CLASSES), 14)])
def test_colours_are_apart(names, apart):
    rgb = np.float32([[draw.colour(name) for name in names]]) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert distances[~np.eye(len(names), dtype=bool)].min() > apart


def test_text_contrasts_with_its_plate():
    for name in list(gluoncv.data.COCODetection.CLASSES) + DIGITS:
        plate = draw.label(name, 0.5, 40, 4000)
        fill = np.array(draw.colour(name))
        assert (plate[0] == fill).all()
        furthest = plate.reshape(-1, 3)[np.abs(plate.astype(int) - fill).sum(axis=2).argmax()]
        light = np.sort([np.dot((np.array(rgb) / 255) ** 2.2, (0.2126, 0.7152, 0.0722)) for rgb in (fill, furthest)])
        assert (light[1] + 0.05) / (light[0] + 0.05) > 4.3, name  # 4.5 is what the web asks of small print


def test_name_in_another_script_takes_a_font_that_has_it(only_fonts):
    serif = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSerif.ttf')
    name = '\u1d25 animal'  # a letter that DejaVu Serif has and DejaVu Sans has not
    only_fonts(draw.FONT, __file__, serif)
    assert draw.font_file('cat') == draw.FONT
    assert draw.font_file(name) == serif
    drawn = draw.label(name, 0.5, 30, 1000)
    only_fonts(draw.FONT)
    assert draw.label(name, 0.5, 30, 1000).shape != drawn.shape


def test_name_that_no_font_has_is_escaped(only_fonts, monkeypatch):
    only_fonts(draw.FONT)
    monkeypatch.setattr(draw, 'colour', lambda name: (0, 0, 0))
    assert draw.font_file('血小板') is None and draw.font_file('кот Ω çà')
    escaped, plain = draw.label('血', 0.5, 30, 1000), draw.label('\\u8840', 0.5, 30, 1000)
    assert (escaped == plain).all()
    assert draw.label('two\nlines', 0.5, 30, 1000).shape[0] == plain.shape[0]


def test_boxes_without_size_or_outside_do_no_harm():
    for box in (5, 5, 5, 5), (200, 200, 300, 300), (-30, -30, -20, -20), (99.6, 0, 100, 100), (1e7, -1e7, 1e7, 1e7):
        assert draw.draw(np.zeros((100, 100, 3), np.uint8), [found('cat', 0.9, *box)]).shape == (100, 100, 3)


def test_a_label_without_score_is_the_name_alone():
    image = np.zeros((200, 300, 3), np.uint8)
    with_score = draw.draw(image, [found('cat', 0.9, 20, 60, 200, 150)])
    drawn = draw.draw(image, [{'class': 'cat', 'box': (20, 60, 200, 150)}])
    name, scored = draw.label('cat', None, 10, 300), draw.label('cat', 0.9, 10, 300)
    assert name.shape[1] < scored.shape[1]
    assert where(scored, with_score) and where(name, drawn) and not where(scored, drawn)
