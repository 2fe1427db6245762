"""Samples are GluonCV's except for the hue: equally distributed parameters, and the same pixels and boxes for them."""
import itertools

import cv2
import numpy as np
import pytest
from scipy.stats import ks_2samp

from conftest import slow
from yolo3.mxnet_setup import mx
from gluoncv.data.transforms import image as image_transform
from gluoncv.data.transforms.experimental import bbox as crops
from gluoncv.data.transforms.experimental import image as colours
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultTrainTransform, YOLO3DefaultValTransform
from gluoncv.utils import bbox_iou

from yolo3.data import augment
from yolo3.data.datasets import open_train
from yolo3.data.images import MOST_SIDE, Blend, ImageFile

SIZE = 128  # more than half the largest view of a 60 x 90 image: none is read at a reduced scale


class Picture:
    """An array that is used like an ImageFile; at a reduced scale, the mean of each block."""

    def __init__(self, array):
        self._array = array
        self.height, self.width = array.shape[:2]

    def pixels(self, reduction=1):
        size = -(-self.width // reduction), -(-self.height // reduction)
        return cv2.resize(self._array, size, interpolation=cv2.INTER_AREA)


def noise(height=60, width=90, low=0, high=256):
    return np.random.RandomState(1).randint(low, high, (height, width, 3)).astype('uint8')


def denormalized(image):
    return ((image.asnumpy().transpose(1, 2, 0) * augment.STD + augment.MEAN) * 255).clip(0, 255)


@pytest.fixture
def stock(monkeypatch):
    """stock(image, label, size) -> GluonCV's sample, and the parameters it drew: the fields of `augment.Distortion`.

    Where it draws Lanczos, it takes what ours does.
    """
    drawn, resize = {}, image_transform.imresize
    monkeypatch.setattr(image_transform, 'imresize', lambda *args, interp: resize(
        *args, interp=augment.INTERPOLATIONS[interp]))

    def spy(module, name, note):
        real = getattr(module, name)

        def call(*args, **kwargs):
            state = np.random.get_state(), colours.random.getstate()
            result = real(*args, **kwargs)
            note(drawn, real, state, result, args, kwargs)
            return result
        monkeypatch.setattr(module, name, call)

    def note_colour(drawn, real, state, result, args, kwargs):
        after = np.random.get_state(), colours.random.getstate()
        np.random.set_state(state[0])
        colours.random.setstate(state[1])
        # It is linear: its values for black, red, green and blue define it.
        black, *rgb = real(mx.nd.array(np.vstack((np.zeros(3), np.eye(3)))[None])).asnumpy()[0].astype(float)
        drawn['colour'] = np.column_stack([value - black for value in rgb] + [black])
        np.random.set_state(after[0])
        colours.random.setstate(after[1])

    def note_crop(drawn, real, state, result, args, kwargs):
        label, (left, top, width, height) = result
        label = label.copy()
        left, top = left - drawn['expand'][0], top - drawn['expand'][1]
        label[:, :4] += [left, top, left, top]
        drawn.update(view=(left, top, width, height), label=label)

    spy(colours, 'random_color_distort', note_colour)
    spy(image_transform, 'random_expand', lambda drawn, _1, _2, result, _3, _4: drawn.update(expand=result[1]))
    spy(crops, 'random_crop_with_constraints', note_crop)
    spy(image_transform, 'imresize', lambda drawn, _1, _2, _3, _4, kwargs: drawn.update(interpolation=kwargs['interp']))
    spy(image_transform, 'random_flip', lambda drawn, _1, _2, result, _3, _4: drawn.update(flip=result[1][0]))

    def transform(image, label, size):
        drawn.clear()
        drawn['expand'] = (0, 0, image.shape[1], image.shape[0])
        result = YOLO3DefaultTrainTransform(size, size)(mx.nd.array(image, dtype='uint8'), label)
        return result, dict(drawn)
    return transform


def seed(number):
    np.random.seed(number)
    colours.random.seed(number)


def rendered(image, drawn, size):
    distortion = augment.Distortion(drawn['colour'], drawn['view'], drawn['interpolation'], drawn['flip'])
    return augment.render(image, drawn['label'], size, distortion)


@pytest.mark.parametrize('image, mean', [(noise(60, 90, 110, 140), 4.5), (cv2.blur(noise(60, 90), (15, 15)), 1.5)],
                         ids=['noise', 'smooth'])
def test_what_gluoncv_drew_gives_gluoncvs_pixels_and_boxes(stock, image, mean):
    label = np.array([[9., 6, 45, 30, 1, 0, 1], [40, 20, 88, 55, 0, 0, 1]])
    seen = set()
    for number in range(120):
        seed(number)
        (expected, boxes), drawn = stock(image, label, SIZE)
        ours, our_boxes = rendered(Picture(image), drawn, SIZE)
        expanded = drawn['expand'][2] > 90  # the edges of the image are then rounded to pixels of the result
        np.testing.assert_allclose(our_boxes, boxes, atol=0.51 if expanded else 1e-4)
        expected = denormalized(expected)
        if expected.min() > 5 and expected.max() < 250:  # GluonCV clips to 0..255 only later
            # Rounded before and after the interpolation, the border to whole levels.
            apart = np.abs(ours - expected)
            assert apart.mean() <= mean if expanded else apart.max() <= 3.5, drawn
            seen |= {('interpolation', drawn['interpolation']), ('flip', bool(drawn['flip'])),
                     ('expanded', expanded)}
    assert len(seen) == 5 + 2 + 2


def test_real_images_equal_gluoncvs(stock, data):
    images = open_train('coco', data + '/coco-mini')
    apart, reduced = [], 0
    for index in range(40):
        seed(index)
        image = ImageFile(images.image_path(index))
        (expected, boxes), drawn = stock(image.pixels(), images.label(index), 64)
        ours, our_boxes = rendered(image, drawn, 64)
        np.testing.assert_allclose(our_boxes, boxes, atol=1.1)  # pixels of 64: edges are rounded up to twice
        reduced += min(drawn['view'][2:]) >= 128
        if drawn['interpolation'] in (1, 2, 3):  # nearest and Lanczos depend on single pixels
            apart.append(np.abs(ours - denormalized(expected)).mean())
    assert reduced > 20 and np.median(apart) < 8, apart


def test_interpolations_are_gluoncvs_and_cubic_is_next_to_lanczos():
    image = cv2.GaussianBlur(noise(60, 90), (0, 0), 1)
    results = [augment.render(Picture(image), np.zeros((0, 5)), SIZE, augment.Distortion(None, (0, 0, 90, 60), number,
                                                                                         False))[0]
               for number in range(5)]
    expected = [cv2.resize(image, (SIZE, SIZE), interpolation=number) for number in range(5)]
    for ours, theirs in zip(results[:4], expected):
        np.testing.assert_array_equal(ours, theirs)
    apart = [np.abs(ours.astype(int) - expected[cv2.INTER_LANCZOS4]).mean() for ours in results]
    assert apart[4] == min(apart) < 1


@pytest.mark.parametrize('view, shown', [
    ((-90, -60, 180, 120), (32, 32, 64, 64)),  # the lower right quarter
    ((-30, 0, 150, 60), (13, 0, 51, 64)),  # 12.8 to 51.2
    ((45, 0, 90, 120), (0, 0, 32, 32)),
    ((0, 0, 90, 60), (0, 0, 64, 64)),
    ((200, 0, 50, 50), (0, 0, 0, 0)), ((-200, -80, 50, 50), (0, 0, 0, 0)), ((0, 60, 90, 60), (0, 0, 0, 0))])
@pytest.mark.parametrize('flip', [False, True])
def test_what_a_view_shows_beside_the_image_is_the_fill(view, shown, flip):
    xmin, ymin, xmax, ymax = shown
    corners = np.array([[max(view[0], 0), max(view[1], 0), min(view[0] + view[2], 90), min(view[1] + view[3], 60), 0.]])
    picture, label = augment.render(Picture(np.full((60, 90, 3), 255, 'uint8')), corners[:xmax > xmin], 64,
                                    augment.Distortion(None, view, 1, flip))
    expected = np.empty((64, 64, 3), 'uint8')
    expected[:] = augment.FILL
    expected[ymin:ymax, xmin:xmax] = 255
    np.testing.assert_array_equal(picture, expected[:, ::-1] if flip else expected)
    for box in label[:, :4]:
        np.testing.assert_allclose(box, [64 - xmax, ymin, 64 - xmin, ymax] if flip else shown)


def parameters(view, colour, interpolation, flip, kept, label):
    """Numbers that tell two ways of drawing apart."""
    left, top, width, height = view
    box = np.array([[left, top, left + width, top + height]], float)
    gray = augment.GRAY @ colour[:, :3] @ np.ones(3)
    return {'brightness': colour[:, 3].mean(), 'contrast': gray, 'saturation': np.linalg.det(colour[:, :3]) / gray ** 3,
            'hue': (augment.TO_YIQ @ colour[:, :3] @ augment.FROM_YIQ)[1, 2] / gray, 'left': left, 'top': top,
            'width': width, 'height': height, 'IoU': bbox_iou(label, box).min(), 'interpolation': interpolation,
            'flip': bool(flip), 'boxes kept': len(kept)}


@pytest.fixture
def any_hue(monkeypatch):
    """Hue distorted as GluonCV does it, by any angle."""
    monkeypatch.setattr(augment, 'HUE', 18 * 180)


@pytest.mark.parametrize('draws', [500, slow(1000)])
def test_parameters_are_drawn_as_gluoncv_draws_them(stock, any_hue, draws):
    image = noise(48, 64)
    label = np.array([[3., 4, 20, 30, 0], [10, 8, 60, 40, 1], [40, 20, 50, 28, 1], [30, 2, 62, 20, 0]])
    theirs, ours = [], []
    seed(1)
    generator = np.random.default_rng(1)
    for _ in range(draws):
        _, drawn = stock(image, label, 32)
        theirs.append(parameters(drawn['view'], drawn['colour'], drawn['interpolation'], drawn['flip'],
                                 drawn['label'], label))
        colour = augment.draw_colour(generator)
        view, kept = augment.draw_view(generator, label, 64, 48)
        ours.append(parameters(view, np.eye(3, 4) if colour is None else colour, generator.integers(5),
                               generator.random() < 0.5, kept, label))
    for name in theirs[0]:
        # Rounded: GluonCV computes in float32.
        samples = [np.round([float(draw[name]) for draw in draws], 3) for draws in (theirs, ours)]
        p = ks_2samp(*samples, method='asymp').pvalue
        print('%-13s p = %.3f, means %.4f %.4f' % (name, p, *map(np.mean, samples)))
        assert p > 0.01, name
    counts = [np.mean([draw['boxes kept'] for draw in draws]) for draws in (theirs, ours)]
    assert abs(counts[0] / counts[1] - 1) < 0.01 * (5000 / draws) ** 0.5


@pytest.mark.parametrize('rounds', [1, slow(4)])
def test_output_pixels_are_distributed_as_gluoncvs(data, any_hue, rounds):
    images = open_train('coco', data + '/coco-mini')
    generator = np.random.default_rng(2)
    seed(2)
    transform = YOLO3DefaultTrainTransform(64, 64)
    statistics = [], []
    for _ in range(rounds):
        for index in range(0, len(images), 2):
            theirs = denormalized(transform(mx.nd.array(images[index][0], dtype='uint8'), images.label(index))[0])
            ours, _ = augment.augment(ImageFile(images.image_path(index)), images.label(index), 64, generator)
            for collected, sample in zip(statistics, (theirs, ours)):
                collected.append([sample.mean(), sample.std(), *sample.mean((0, 1))])
    for theirs, ours in zip(np.array(statistics[0]).T, np.array(statistics[1]).T):
        assert ks_2samp(theirs, ours).pvalue > 0.01


def test_hue_turns_by_at_most_18_degrees():
    generator = np.random.default_rng(3)
    turns = []
    for _ in range(2000):
        colour = augment.draw_colour(generator)
        if colour is not None:
            chroma = (augment.TO_YIQ @ colour[:, :3] @ augment.FROM_YIQ)[1:, 1:]
            turns.append(np.degrees(np.arctan2(chroma[1, 0] - chroma[0, 1], chroma[0, 0] + chroma[1, 1])))
    turns = np.round(turns, 0)
    assert -18 <= turns.min() < -16 and 16 < turns.max() <= 18 and 0.4 < (turns == 0).mean() < 0.6


def test_sample_of_an_image_without_boxes():
    generator = np.random.default_rng(0)
    for _ in range(50):
        picture, label = augment.augment(Picture(noise()), np.zeros((0, 7)), 64, generator)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8 and label.shape == (0, 7)


@pytest.mark.parametrize('shape', [(1, 1), (2, 500), (3, 3)])
def test_tiny_images(shape):
    generator = np.random.default_rng(0)
    label = np.array([[0., 0, shape[1], shape[0], 0]])
    for _ in range(50):
        picture, boxes = augment.augment(Picture(noise(*shape)), label, 64, generator)
        assert picture.shape == (64, 64, 3) and len(boxes) == 1


def test_boxes_follow_the_object(monkeypatch):
    # After every draw, at every reduction, the box must hold the white rectangle; colours are left alone.
    monkeypatch.setattr(augment, 'draw_colour', lambda generator: None)
    source = np.zeros((480, 640, 3), 'uint8')
    source[120:320, 160:440] = 255
    for size in 32, 160, 416:
        generator = np.random.default_rng(size)
        for _ in range(40):
            label = np.array([[160., 120, 440, 320, 2, 0, 1]])
            picture, label = augment.augment(Picture(source), label, size, generator)
            (xmin, ymin, xmax, ymax), rest = label[0, :4], label[0, 4:]
            assert rest.tolist() == [2, 0, 1] and 0 <= xmin < xmax <= size and 0 <= ymin < ymax <= size
            bright = picture[..., 0] > 200
            inside = bright[int(ymin) + 2:int(ymax) - 2, int(xmin) + 2:int(xmax) - 2]
            assert inside.size == 0 or inside.mean() > 0.95
            assert bright.sum() <= 1.1 * (xmax - xmin + 3) * (ymax - ymin + 3)


def test_without_augmentation_only_the_size_changes():
    label = np.array([[9., 6, 45, 30, 1, 0, 1]])
    picture, boxes = augment.augment(Picture(noise(60, 90)), label, 64, None, augment.NONE)
    assert (picture == augment.resize(noise(60, 90), 64)).all()
    np.testing.assert_allclose(boxes, [[9 * 64 / 90, 6 * 64 / 60, 32, 32, 1, 0, 1]], rtol=1e-6)


def test_a_mosaic_shows_a_part_of_each_image():
    # Each image has a colour of its own, and a bright square, its box; the boxes that remain hold nothing else.
    generator, size, seen = np.random.default_rng(1), 96, []
    for _ in range(60):
        samples = []
        for number in range(4):
            image = np.full((size, size, 3), 20 * (number + 1), 'uint8')
            x, y = generator.integers(0, size - 30, 2)
            image[y:y + 30, x:x + 30] = 200 + number
            samples.append((image, np.array([[x, y, x + 30, y + 30, number, 0, 1]], float)))
        picture, label = augment.mosaic(samples, size, generator)
        assert picture.shape == (size, size, 3) and set(np.unique(picture)) <= {20, 40, 60, 80, 200, 201, 202, 203}
        for row, column, number in (0, 0, 0), (0, -1, 1), (-1, 0, 2), (-1, -1, 3):
            assert picture[row, column, 0] in (20 * (number + 1), 200 + number)
        for xmin, ymin, xmax, ymax, id_, *rest in label:
            piece = picture[int(ymin):int(ymax), int(xmin):int(xmax), 0]
            assert piece.size >= 15 * 15 and (piece == 200 + id_).all() and rest == [0, 1]
        seen += label[:, 4].tolist()
    assert min(seen.count(id_) for id_ in range(4)) > 10 and len(seen) < 200


def test_a_mosaic_of_images_without_objects():
    samples = [(noise(32, 32), np.zeros((0, 7)))] * 4
    assert augment.mosaic(samples, 32, np.random.default_rng(1))[1].shape == (0, 7)


@pytest.mark.parametrize('parts', [augment.Parts(*which) for which in itertools.product((False, True), repeat=3)])
def test_each_part_can_be_switched_off(parts):
    # A red square at the left of a grey image: where it is found, and its grey, tell which parts took place.
    source = np.full((60, 90, 3), 120, 'uint8')
    source[:, :30] = 200, 60, 60
    generator, plain = np.random.default_rng(1), augment.resize(source, 64)
    found, colours = [], []
    for _ in range(40):
        picture, label = augment.augment(Picture(source), np.array([[0., 0, 30, 60, 0]]), 64, generator, parts)
        found.append(tuple(label[0, :4].round(2)))
        colours.append(picture)
    assert ((0, 0, 21.33, 64) in found) or parts.crop
    assert len(set(found)) == 1 + parts.flip or parts.crop and len(set(found)) > 20
    mirrored = [box[0] + box[2] > 64 for box in found]
    assert parts.crop or any(mirrored) == parts.flip
    if not parts.crop:
        same = [(picture == (plain[:, ::-1] if right else plain)).all() for picture, right in zip(colours, mirrored)]
        assert all(same) != parts.colour
    elif not parts.colour:
        assert {tuple(picture[0, 0]) for picture in colours} <= {(200, 60, 60), (120, 120, 120), augment.FILL}


def test_validation_equals_gluoncv():
    for shape in (60, 90), (300, 200), (60, 200):
        expected, _ = YOLO3DefaultValTransform(128, 128)(mx.nd.array(noise(*shape), dtype='uint8'),
                                                         np.array([[0., 0, 5, 5, 0]]))
        ours = mx.nd.array(augment.resize(noise(*shape), 128)[None], dtype='uint8')
        # MXNet brings an OpenCV of its own: a level of 255 apart here and there.
        assert np.abs(denormalized(augment.normalize(ours)[0]) - denormalized(expected)).max() < 1.01


def test_normalize_equals_gluoncv():
    image = mx.nd.array(noise(64, 64), dtype='uint8')
    expected, _ = YOLO3DefaultValTransform(64, 64)(image, np.zeros((1, 5)))
    assert (augment.normalize(image.expand_dims(0))[0] == expected).asnumpy().all()


@pytest.mark.parametrize('sides', [[(MOST_SIDE, 1)], [(1, MOST_SIDE)],
                                   slow([(MOST_SIDE, 3), (2, MOST_SIDE)])], ids=str)
def test_long_pictures_are_cropped_and_resized(tmp_path, sides):
    pictures = []
    for width, height in sides:
        path = str(tmp_path / ('%d.png' % width))
        cv2.imwrite(path, np.full((height, width, 3), 200, 'uint8'))
        pictures.append(ImageFile(path))
    image = Blend(*pictures, 0.5) if len(sides) == 2 else pictures[0]
    label = np.array([[0, 0, image.width - 1, image.height - 1, 0.]]) + [[0, 0, 1, 1, 0]]
    for seed in range(3):
        pixels, boxes = augment.augment(image, label, 64, np.random.default_rng(seed))
        assert pixels.shape == (64, 64, 3) and len(boxes) == 1
        assert np.isfinite(boxes).all() and boxes[:, :4].min() >= 0 and boxes[:, :4].max() <= 64
    pixels, boxes = augment.augment(image, label, 64, None, augment.NONE)
    assert boxes[0, :4].tolist() == [0, 0, 64, 64] and (len(sides) == 2 or np.abs(pixels.astype(int) - 200).max() <= 1)
