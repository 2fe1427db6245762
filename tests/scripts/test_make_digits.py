"""make_digits.py: the set has its form and difficulty, and is made, reused and repaired safely."""
import multiprocessing.dummy
import os
import pathlib
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier


from conftest import ROOT
import make_digits
from yolo3.cli import UserError

SCRIPT = os.path.join(ROOT, 'scripts', 'make_digits.py')
SCENES = {'train': 40, 'test': 20}


def arguments(out, train=SCENES['train'], test=SCENES['test'], seed=0):
    return [str(word) for word in ('--out', out, '--train', train, '--test', test, '--seed', seed)]


def make(out, **settings):
    """make(out, train=.., test=.., seed=..) runs the script's main()."""
    make_digits.main(arguments(out, **settings))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A set made by the command, started in some other folder."""
    out = tmp_path_factory.mktemp('made') / 'digits'
    subprocess.run([sys.executable, SCRIPT] + arguments(out), cwd=str(tmp_path_factory.mktemp('elsewhere')), check=True,
                   stderr=subprocess.DEVNULL)
    return str(out)


@pytest.fixture(scope='module', autouse=True)
def drawable():
    """The legible strokes and their labels, looked for once."""
    digits = load_digits()
    found = make_digits.legible_strokes(digits.images, digits.target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_digits, 'legible_strokes', lambda scans, labels: found)
        yield found


def snapshot(folder):
    """Path -> content of all files below `folder`."""
    content = {}
    for parent, _, names in os.walk(str(folder)):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, 'rb') as file:
                content[os.path.relpath(path, str(folder))] = file.read()
    return content


def split(out, name):
    with open(os.path.join(out, 'VOC2007', 'ImageSets', 'Main', name + '.txt')) as file:
        return file.read().split('\n')[:-1]


def objects(out, stem):
    """(class, xmin, ymin, xmax, ymax) as they stand in the XML."""
    root = ElementTree.parse(os.path.join(out, 'VOC2007', 'Annotations', stem + '.xml')).getroot()
    assert root.find('filename').text == stem + '.jpg' and root.find('folder').text == 'VOC2007'
    assert [root.find('size').find(side).text for side in ('width', 'height', 'depth')] == ['256', '256', '3']
    found = []
    for element in root.iter('object'):
        assert element.find('difficult').text == '0'
        box = element.find('bndbox')
        found.append((element.find('name').text,) + tuple(int(box.find(edge).text)
                                                          for edge in ('xmin', 'ymin', 'xmax', 'ymax')))
    return found


def test_layout(made):
    train, test = split(made, 'trainval'), split(made, 'test')
    assert (len(train), len(test)) == (40, 20) and len(set(train + test)) == 60
    expected = {os.path.join('VOC2007', 'ImageSets', 'Main', name) for name in ('trainval.txt', 'test.txt')}
    for stem in train + test:
        expected |= {os.path.join('VOC2007', 'JPEGImages', stem + '.jpg'),
                     os.path.join('VOC2007', 'Annotations', stem + '.xml')}
        picture = cv2.imread(os.path.join(made, 'VOC2007', 'JPEGImages', stem + '.jpg'), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (256, 256, 3)
    assert set(snapshot(made)) == expected | {'digits.json'}


@pytest.mark.parametrize('name', ['trainval', 'test'])
def test_scenes(made, name):
    classes, overlapping, counts = Counter(), [], set()
    for stem in split(made, name):
        found = objects(made, stem)
        counts.add(len(found))
        covers = np.zeros((256, 256), int)
        for digit, left, top, right, bottom in found:
            classes[digit] += 1
            assert 1 <= left < right <= 256 and 1 <= top and bottom <= 256 and 20 <= bottom - top + 1 <= 64
            covers[top - 1:bottom, left - 1:right] += 1
        for _, left, top, right, bottom in found:
            shared = (covers[top - 1:bottom, left - 1:right] > 1).mean()
            overlapping.append(shared > 0)
            assert shared <= 0.15
    assert counts == {3, 4, 5, 6, 7, 8}
    assert sorted(classes) == list('0123456789') and max(classes.values()) - min(classes.values()) <= 1
    assert np.mean(overlapping) >= 0.2


def test_gluoncv_reads_it(made):
    pytest.importorskip('yolo3.mxnet_setup', reason='needs MXNet and GluonCV')
    from gluoncv.data import VOCDetection

    class Digits(VOCDetection):
        CLASSES = tuple('0123456789')

        def _validate_class_names(self, names):
            """GluonCV's own refuses names without a lower-case letter."""

    dataset = Digits(root=made, splits=[(2007, 'trainval')])
    assert len(dataset) == 40
    for index, stem in enumerate(split(made, 'trainval')):
        picture, label = dataset[index]
        assert picture.shape == (256, 256, 3)
        assert [tuple(row) for row in label[:, :5]] == [
            (left - 1, top - 1, right - 1, bottom - 1, int(digit))
            for digit, left, top, right, bottom in objects(made, stem)]


def test_annotation_counts_pixels_from_one(tmp_path):
    (tmp_path / 'VOC2007' / 'Annotations').mkdir(parents=True)
    (tmp_path / 'VOC2007' / 'Annotations' / 'a.xml').write_text(make_digits.annotation('a', [(7, 0, 10, 256, 74)]))
    assert objects(str(tmp_path), 'a') == [('7', 1, 11, 256, 74)]


def test_boxes_are_tight_and_digits_stand_out(drawable):
    strokes, labels = drawable
    contrasts = []
    for seed in range(40):
        chosen = np.random.RandomState(seed).randint(0, len(labels), 5)
        picture, boxes = make_digits.scene(np.random.RandomState(seed), strokes[chosen], labels[chosen])
        paper = np.uint8(make_digits.background(np.random.RandomState(seed)).round())
        changed = np.abs(picture.astype(int) - paper).max(axis=2) > 5
        lightness = [cv2.cvtColor(np.float32(image) / 255, cv2.COLOR_BGR2LAB)[..., 0] for image in (picture, paper)]
        inside = np.zeros_like(changed)
        assert [box[0] for box in boxes] == list(labels[chosen])
        for _, left, top, right, bottom in boxes:
            inside[top:bottom, left:right] = True
            box = changed[top:bottom, left:right]
            contrasts.append(np.percentile(np.abs(lightness[0] - lightness[1])[top:bottom, left:right][box], 75))
        assert not changed[~inside].any()
        for _, left, top, right, bottom in boxes[-1:]:  # nothing lies over the last one
            box = changed[top:bottom, left:right]
            assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
    assert min(contrasts) > 20 and np.median(contrasts) > 40


def test_glyphs_stay_legible(drawable):
    """A classifier that saw only some scans themselves reads the strokes drawn from all."""
    digits = load_digits()
    strokes, labels = drawable

    def normal(image):
        """Cut to the ink and set to one size, so that size and place do not matter."""
        rows, columns = np.where(image.max(1) > 0.3)[0], np.where(image.max(0) > 0.3)[0]
        image = image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].astype(np.float32)
        return cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).ravel()

    reader = KNeighborsClassifier(3).fit([normal(scan / 16) for scan in digits.images[::2]], digits.target[::2])
    rng = np.random.RandomState(0)
    for height in make_digits.HEIGHTS:
        glyphs = [make_digits.glyph(rng, field, height) for field in strokes[::4]]
        assert {glyph.shape[0] for glyph in glyphs} == {height}
        assert reader.score([normal(glyph) for glyph in glyphs], labels[::4]) > 0.9


def test_a_person_can_read_every_stroke_kept(drawable):
    """Each class keeps enough strokes, and the eyes that make an 8 of it."""
    strokes, labels = drawable
    assert min(np.bincount(labels)) > 70
    for field, label in zip(strokes, labels):
        assert make_digits.is_legible(np.uint8(field > 0), label)


@pytest.mark.parametrize('label, drawing, legible', [
    (0, lambda ink: cv2.ellipse(ink, (48, 48), (20, 30), 0, 0, 360, 1, 8), True),
    (0, lambda ink: cv2.ellipse(ink, (48, 48), (20, 30), 0, 20, 340, 1, 8), False),  # a C
    (0, lambda ink: cv2.ellipse(ink, (48, 48), (20, 30), 0, 0, 360, 1, -1), False),  # a blot
    (8, lambda ink: cv2.ellipse(ink, (48, 48), (20, 30), 0, 0, 360, 1, 8), False),
    (8, lambda ink: cv2.line(cv2.ellipse(ink, (48, 48), (20, 30), 0, 0, 360, 1, 8), (28, 48), (68, 48), 1, 6), True),
    (1, lambda ink: cv2.line(ink, (48, 20), (48, 76), 1, 8), True),
    (1, lambda ink: cv2.line(ink, (48, 20), (48, 76), 1, 30), False),  # a bar
    (7, lambda ink: cv2.line(cv2.line(ink, (20, 20), (60, 20), 1, 6), (60, 50), (50, 80), 1, 6), False)])  # in two
def test_legible(label, drawing, legible):
    assert make_digits.is_legible(drawing(np.zeros((96, 96), np.uint8)), label) == legible


@pytest.fixture
def in_order(monkeypatch):
    """The scenes are made one after another, in this process."""
    monkeypatch.setattr(make_digits.multiprocessing, 'get_context', lambda kind: multiprocessing.dummy)
    monkeypatch.setattr(make_digits, 'usable_cpus', lambda: 1)


def test_train_and_test_share_no_stroke(in_order, tmp_path, monkeypatch):
    first, second = make_digits.split_strokes(np.random.RandomState(0), 1482)
    assert sorted(np.concatenate([first, second])) == list(range(1482)) and len(second) == 296
    other = make_digits.split_strokes(np.random.RandomState(1), 1482)[1]
    assert set(second) != set(other)

    shown = []
    scene = make_digits.scene

    def spy(rng, strokes, labels):
        shown.append({field.tobytes() for field in strokes})
        return scene(rng, strokes, labels)
    monkeypatch.setattr(make_digits, 'scene', spy)
    make_digits.make(str(tmp_path), {'version': 1, 'train': 30, 'test': 30, 'seed': 0})
    assert not set.union(*shown[:30]) & set.union(*shown[30:])


def test_deal_is_even():
    labels = load_digits().target
    scenes = make_digits.deal(np.random.RandomState(0), labels, 700)
    assert {len(scene) for scene in scenes} == {3, 4, 5, 6, 7, 8}
    classes = Counter(labels[np.concatenate(scenes)])
    assert max(classes.values()) - min(classes.values()) <= 1
    uses = Counter(np.concatenate(scenes))
    assert len(uses) == 1797 and max(uses.values()) <= min(uses.values()) + 1


def test_same_seed_same_bytes(made, tmp_path):
    make(tmp_path / 'again')
    make(tmp_path / 'other', seed=1)
    again, other = snapshot(tmp_path / 'again'), snapshot(tmp_path / 'other')
    assert again == snapshot(made)
    assert set(other) == set(again)
    assert all(other[path] != again[path] for path in again if path.endswith(('.jpg', '.xml')))


def test_scenes_do_not_depend_on_each_other(in_order, tmp_path, monkeypatch):
    make(tmp_path / 'plain', train=3, test=2)
    scene, calls = make_digits.scene, []

    def disturbed(rng, strokes, labels):
        calls.append(rng.rand() if not calls else None)
        return scene(rng, strokes, labels)
    monkeypatch.setattr(make_digits, 'scene', disturbed)
    make(tmp_path / 'disturbed', train=3, test=2)
    plain, other = snapshot(tmp_path / 'plain'), snapshot(tmp_path / 'disturbed')
    assert {os.path.splitext(os.path.basename(path))[0] for path in plain if plain[path] != other[path]} == {
        'digits_train_00001'}


def test_complete_set_is_reused(made, run):
    before = {path: os.stat(os.path.join(made, path)).st_mtime_ns for path in snapshot(made)}
    result = run(SCRIPT, *arguments(made))
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout == '%s: 40 training and 20 test scenes, already there\n' % made
    assert {path: os.stat(os.path.join(made, path)).st_mtime_ns for path in snapshot(made)} == before


def test_interrupted_run_is_repaired(made, tmp_path):
    process = subprocess.Popen([sys.executable, SCRIPT] + arguments(tmp_path), stderr=subprocess.DEVNULL)
    while len(snapshot(tmp_path)) < 20:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(snapshot(tmp_path)) < len(snapshot(made))
    make(tmp_path)
    assert snapshot(tmp_path) == snapshot(made)


def test_missing_file_is_repaired(tmp_path, capsys):
    make(tmp_path, train=3, test=2)
    whole = snapshot(tmp_path)
    (tmp_path / 'VOC2007' / 'Annotations' / 'digits_test_00002.xml').unlink()
    make(tmp_path, train=3, test=2)
    assert snapshot(tmp_path) == whole and 'already' not in capsys.readouterr().out


@pytest.mark.parametrize('before', [{'train': 4, 'test': 3, 'seed': 5}, {'train': 2, 'test': 1, 'seed': 6}])
def test_other_settings_replace_the_set(tmp_path, before):
    make(tmp_path / 'small', train=2, test=1, seed=5)
    make(tmp_path / 'both', **before)
    make(tmp_path / 'both', train=2, test=1, seed=5)
    assert snapshot(tmp_path / 'both') == snapshot(tmp_path / 'small')


@pytest.mark.parametrize('stranger', ['notes.txt', 'VOC2007/JPEGImages/000001.jpg', 'VOC2007/Annotations/own.xml'])
def test_other_files_are_left_alone(tmp_path, stranger):
    make(tmp_path, train=2, test=1)
    (tmp_path / stranger).write_text('mine')
    before = snapshot(tmp_path)
    make(tmp_path, train=2, test=1)  # nothing to write: reused
    with pytest.raises(UserError, match='--out .* holds %s' % stranger):
        make(tmp_path, train=3, test=1)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize('make', [
    os.mkfifo, lambda path: os.symlink('/dev/zero', path), lambda path: os.symlink(path, path),
    lambda path: pathlib.Path(path).write_text('[' * 100000)])
def test_settings_that_cannot_be_read_are_no_complete_set(tmp_path, make):
    make(str(tmp_path / 'digits.json'))
    assert not make_digits.is_complete(str(tmp_path), {})


def test_linked_voc_folder_is_left_alone(tmp_path):
    (tmp_path / 'real' / 'ImageSets' / 'Main').mkdir(parents=True)
    (tmp_path / 'real' / 'ImageSets' / 'Main' / 'trainval.txt').write_text('000001\n')
    (tmp_path / 'real' / 'ImageSets' / 'Main' / 'train.txt').write_text('000001\n')
    before = snapshot(tmp_path / 'real')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'VOC2007').symlink_to(tmp_path / 'real')
    with pytest.raises(UserError):
        make(tmp_path / 'out', train=2, test=1)
    assert snapshot(tmp_path / 'real') == before


def test_errors_are_one_line(run, tmp_path):
    (tmp_path / 'file').write_text('mine')
    result = run(SCRIPT, *arguments(tmp_path))
    assert result.returncode == 2 and result.stdout == ''
    assert result.stderr.count('\n') == 1 and 'file' in result.stderr and '--out' in result.stderr
    for out, settings, flag in ((tmp_path / 'file', {}, '--out'), (tmp_path / 'new', {'train': 0}, '--train'),
                                (tmp_path / 'new', {'test': 0}, '--test'), (tmp_path / 'new', {'seed': -1}, '--seed'),
                                (tmp_path / 'new', {'train': 'many'}, '--train'),
                                (tmp_path / 'new', {'train': 10 ** 21}, '--train'),
                                (tmp_path / 'new', {'seed': 10 ** 21}, '--seed')):
        with pytest.raises(UserError, match=flag):
            make(out, **settings)
    assert sorted(os.listdir(str(tmp_path))) == ['file']


def test_needs_no_mxnet():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import make_digits; assert 'mxnet' not in sys.modules"
    subprocess.run([sys.executable, '-c', code, os.path.dirname(SCRIPT)], check=True)
