"""Make a small VOC-form detection set of real handwritten digits on generated backgrounds, without a download."""
import itertools
import json
import multiprocessing
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3 import atomic, cli
from yolo3.files import open_input, walk
from yolo3.system import usable_cpus


def parse_args(argv=None):
    parser = cli.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--out', required=True, metavar='DIR', help="folder to make, then training's --dataset-root")
    add('--train', type=cli.positive, default=600, help='scenes in the split 2007_trainval (default: %(default)s)')
    add('--test', type=cli.positive, default=150, help='scenes in the split 2007_test (default: %(default)s)')
    add('--seed', type=cli.seed, default=0, help='another seed gives another set (default: %(default)s)')
    return parser.parse_args(argv)


cli.start(__name__, parse_args)

import cv2
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

VERSION = 2  # raise it if the pictures change: older sets are then replaced
SIZE = 256  # pixels, both sides of a picture
HEIGHTS = 20, 64  # pixels, least and most of a digit
DIGITS = 3, 8  # least and most of a picture
MOST_COVERED = 0.15  # the share of a box that later digits may cover: the digit below stays legible
THRESHOLDS = 0.24, 0.28, 0.2, 0.32, 0.16  # where a stroke's ink may begin, in the order in which they are tried
ZOOM = 8  # pixels of a stroke for one of a scan
EYES = {0: (1,), 1: (0,), 2: (0, 1), 3: (0,), 4: (0, 1), 5: (0,), 6: (1,), 7: (0,), 8: (2,), 9: (1,)}
SMALLEST_EYE = ZOOM ** 2 / 4  # pixels
THICKEST = 1 / 3  # of a digit's height: more is a blot

DONE = 'digits.json'  # the settings of the set, written once it is complete
# Only files with these names are ever replaced or removed.
OURS = re.compile(r'digits\.json(\.tmp\d*)?|yolo3-[0-9a-f]{16}\.tmp'
                  r'|VOC2007/JPEGImages/digits_(train|test)_\d+\.jpg'
                  r'|VOC2007/Annotations/digits_(train|test)_\d+\.xml'
                  r'|VOC2007/ImageSets/Main/(trainval|test)\.txt')


def stroke(scan):
    """The 8 x 8 `scan`, 0..16, as a pen writes it: a field (12 ZOOM, 12 ZOOM), more ink where it is higher."""
    field = cv2.resize(np.pad(scan / 16, 2).astype(np.float32), None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    field = cv2.GaussianBlur(field, (0, 0), 0.35 * ZOOM)
    return field - 0.6 * cv2.GaussianBlur(field, (0, 0), 1.5 * ZOOM)  # opens the eyes of 4, 6, 8 and 9


def is_legible(ink, label):
    """Whether the pixels `ink` are one line, not too thick, with as many eyes as the digit `label` has."""
    lines, _ = cv2.connectedComponents(ink, connectivity=8)
    _, _, sizes, _ = cv2.connectedComponentsWithStats(1 - ink, connectivity=4)  # the ink and the outside, then eyes
    eyes = (sizes[2:, cv2.CC_STAT_AREA] >= SMALLEST_EYE).sum()
    thickness = 2 * cv2.distanceTransform(ink, cv2.DIST_L2, 5).max()
    return lines == 2 and eyes in EYES[label] and thickness <= THICKEST * np.ptp(np.where(ink.any(axis=1)))


def legible_strokes(scans, labels):
    """The strokes of the scans that a person can read, with ink where they are above 0, and their labels."""
    strokes, kept = [], []
    for scan, label in zip(scans, labels):
        field = stroke(scan)
        for threshold in THRESHOLDS:
            if is_legible(np.uint8(field > threshold), label):
                strokes.append(field - threshold)
                kept.append(label)
                break
    return np.array(strokes), np.array(kept)


def split_strokes(rng, count):
    """Split the strokes 0..count-1 at random into those for training and, a fifth, for test."""
    order = rng.permutation(count)
    return order[count // 5:], order[:count // 5]


def deal(rng, labels, scenes):
    """The strokes that each of `scenes` scenes shows, as indices into `labels`; all classes equally often."""
    counts = rng.randint(DIGITS[0], DIGITS[1] + 1, scenes)
    order = rng.permutation(len(labels))
    strokes = [itertools.cycle(order[labels[order] == digit]) for digit in range(10)]
    digits = rng.permutation(np.arange(counts.sum()) % 10)
    return np.split(np.array([next(strokes[digit]) for digit in digits]), np.cumsum(counts)[:-1])


def random_colours(rng, count):
    """`count` x 3 colours (BGR, 0..255), from black through vivid and pastel to white."""
    hsv = np.stack([rng.uniform(0, 360, count), rng.uniform(0, 0.85, count), rng.uniform(0.05, 1, count)], axis=1)
    return 255 * cv2.cvtColor(hsv[None].astype(np.float32), cv2.COLOR_HSV2BGR)[0]


def clouds(rng, cells):
    """A smooth random field, 0..1, whose blobs are about SIZE / cells wide."""
    field = cv2.resize(rng.rand(cells, cells).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.clip(field, 0, 1)


def background(rng):
    """A SIZE x SIZE x 3 float picture to write on: two colours mixed by a pattern, uneven light and grain."""
    first, second = random_colours(rng, 2)
    second = first + (second - first) * rng.uniform(0.15, 0.5)  # a mild pattern leaves contrast for the digits
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    angle = rng.uniform(0, 2 * np.pi)
    along = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    across = (y - 0.5) * np.cos(angle) - (x - 0.5) * np.sin(angle)
    frequency = rng.uniform(25, 90)
    pattern = rng.choice(['flat', 'gradient', 'spot', 'blobs', 'noise', 'stripes', 'checks', 'ruled'])
    if pattern == 'flat':
        mix = np.zeros_like(x)
    elif pattern == 'gradient':
        mix = along / np.sqrt(2) + 0.5
    elif pattern == 'spot':
        mix = np.exp(-((x - rng.rand()) ** 2 + (y - rng.rand()) ** 2) / rng.uniform(0.05, 0.4))
    elif pattern == 'blobs':
        mix = clouds(rng, rng.randint(3, 9))
    elif pattern == 'noise':
        mix = sum(clouds(rng, cells) / 4 for cells in (8, 16, 32, 128))
    elif pattern == 'stripes':
        mix = 0.5 + 0.5 * np.clip(3 * np.sin(frequency * along), -1, 1)
    elif pattern == 'checks':
        mix = 0.5 + 0.5 * np.clip(3 * np.sin(frequency * along) * np.sin(frequency * across), -1, 1)
    else:
        mix = np.clip(8 * np.cos(frequency * along) - 7, 0, 1)
    image = first + (second - first) * mix[..., None]
    image += rng.uniform(0, 40) * (clouds(rng, 3) - 0.5)[..., None]  # uneven light
    image += rng.uniform(1, 7) * rng.randn(SIZE, SIZE, 1)
    return np.clip(image, 0, 255)


def glyph(rng, field, height):
    """One of `legible_strokes` as opacity 0..1, turned a little, cropped to the ink and `height` pixels high."""
    centre = len(field) / 2
    turn = cv2.getRotationMatrix2D((centre, centre), rng.uniform(-20, 20), 1)
    opacity = np.clip(cv2.warpAffine(field, turn, field.shape, borderValue=-1) * ZOOM + 0.5, 0, 1)
    rows, columns = np.where(opacity.max(1) > 0.5)[0], np.where(opacity.max(0) > 0.5)[0]
    opacity = opacity[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    width = opacity.shape[1] * height / opacity.shape[0] * rng.uniform(0.85, 1.15)
    return cv2.resize(opacity, (int(round(width)), height), interpolation=cv2.INTER_AREA)


def covered(boxes):
    """The share of each box that the other boxes cover (an area under two of them counts twice)."""
    left, top, right, bottom = np.array(boxes).T
    width = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    height = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
    area = np.maximum(width, 0) * np.maximum(height, 0)
    return area.sum(axis=1) / area.diagonal() - 1


def place(rng, shape, boxes):
    """A box (left, top, right, bottom; ends exclusive) of `shape` for one more digit, or None if there is no room."""
    overlapping = len(boxes) > 0 and rng.rand() < 0.25
    height, width = shape
    for _ in range(200):
        left, top = rng.randint(0, SIZE - width + 1), rng.randint(0, SIZE - height + 1)
        box = left, top, left + width, top + height
        shares = covered(boxes + [box])
        if shares.max() <= MOST_COVERED and (shares[-1] > 0.05 if overlapping else shares[-1] == 0):
            return box
    return None


def ink(rng, under):
    """A random colour (BGR) that is clearly lighter or darker than nearly all of the pixels `under` (n, 3)."""
    colours = random_colours(rng, 32)
    lightness = [cv2.cvtColor((bgr[None] / 255).astype(np.float32), cv2.COLOR_BGR2LAB)[0, :, 0]
                 for bgr in (colours, under)]
    contrast = np.percentile(np.abs(np.subtract.outer(*lightness)), 2, axis=1)  # in units of 0 (black) .. 100 (white)
    enough = contrast > 40
    return colours[np.argmax(enough) if enough.any() else np.argmax(contrast)]


def scene(rng, strokes, labels):
    """Draw all `strokes`, a few of `legible_strokes`, on one background.

    Returns the picture, uint8 (SIZE, SIZE, 3), BGR, and a list of (label, left, top, right, bottom), ends exclusive.
    """
    image = background(rng)
    boxes = []
    for field in strokes:
        box = None
        while box is None:
            mark = glyph(rng, field, rng.randint(HEIGHTS[0], HEIGHTS[1] + 1))
            box = place(rng, mark.shape, boxes)
        boxes.append(box)
        left, top, right, bottom = box
        paper = image[top:bottom, left:right]
        opacity = rng.uniform(0.85, 1) * mark[..., None]
        paper += opacity * (ink(rng, paper.reshape(-1, 3)[::7]) - paper)
    return image.round().astype(np.uint8), [(label,) + box for label, box in zip(labels, boxes)]


def annotation(name, objects):
    """The VOC XML of one picture. VOC counts pixels from 1, and a box includes its last pixel."""
    lines = ['<annotation>',
             '    <folder>VOC2007</folder>',
             '    <filename>%s.jpg</filename>' % name,
             '    <size><width>%d</width><height>%d</height><depth>3</depth></size>' % (SIZE, SIZE),
             '    <segmented>0</segmented>']
    for label, left, top, right, bottom in objects:
        lines += ['    <object>',
                  '        <name>%d</name>' % label,
                  '        <pose>Unspecified</pose>',
                  '        <truncated>0</truncated>',
                  '        <difficult>0</difficult>',
                  '        <bndbox><xmin>%d</xmin><ymin>%d</ymin><xmax>%d</xmax><ymax>%d</ymax></bndbox>'
                  % (left + 1, top + 1, right, bottom),
                  '    </object>']
    return '\n'.join(lines + ['</annotation>', ''])


def contents(out):
    """The paths of all files under `out`, relative to it."""
    if os.path.isdir(out):
        for path in walk(out):
            yield os.path.relpath(path, out)


def is_complete(out, settings):
    """Whether `out` holds a complete set with these settings; DONE is written last."""
    try:
        with open_input(os.path.join(out, DONE), 'r', 'utf-8') as file:
            if json.load(file) != settings:
                return False
    except (OSError, RecursionError, ValueError):
        return False
    expected = 2 * (settings['train'] + settings['test']) + 3  # pictures and annotations; two split files and DONE
    return sum(1 for path in contents(out) if OURS.fullmatch(path)) == expected


def clear(out):
    """Remove an incomplete or other digit set from `out`. Raises UserError if there is anything else."""
    other = next((path for path in contents(out) if not OURS.fullmatch(path)), None)
    if other is not None:
        raise cli.UserError('--out %s holds %s, which is not part of a digit set: name a new or empty folder'
                            % (out, other))
    for path in list(contents(out)):
        os.remove(os.path.join(out, path))


def write(path, content):
    with open(path, 'wb') as file:
        file.write(content)


def write_scene(task):
    """Make one scene and write it into the folder VOC2007; task: the folder, its name, its seed, strokes and labels."""
    voc, name, seed, strokes, labels = task
    image, objects = scene(np.random.RandomState(seed), strokes, labels)
    jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    write(os.path.join(voc, 'JPEGImages', name + '.jpg'), jpeg.tobytes())
    write(os.path.join(voc, 'Annotations', name + '.xml'), annotation(name, objects).encode())


def make(out, settings):
    """Write the set with these settings to the folder `out`."""
    voc = os.path.join(out, 'VOC2007')
    for folder in ('JPEGImages', 'Annotations', os.path.join('ImageSets', 'Main')):
        os.makedirs(os.path.join(voc, folder), exist_ok=True)
    digits = load_digits()
    strokes, labels = legible_strokes(digits.images, digits.target)
    rng = np.random.RandomState(settings['seed'])  # unlike default_rng, the same numbers in every NumPy version
    with tqdm(total=settings['train'] + settings['test'], desc='digits', unit='scene') as bar, \
            multiprocessing.get_context('fork').Pool(usable_cpus()) as pool:
        for split, listing, part in zip(('train', 'test'), ('trainval', 'test'), split_strokes(rng, len(labels))):
            names = ['digits_%s_%05d' % (split, number) for number in range(1, settings[split] + 1)]
            hands = [part[hand] for hand in deal(rng, labels[part], len(names))]
            # A seed for each scene: if another OpenCV rounds a pixel differently, only that scene changes.
            seeds = rng.randint(2 ** 31, size=len(names))
            tasks = ((voc, name, seed, strokes[hand], labels[hand]) for name, hand, seed in zip(names, hands, seeds))
            for _ in pool.imap_unordered(write_scene, tasks, chunksize=16):
                bar.update()
            write(os.path.join(voc, 'ImageSets', 'Main', listing + '.txt'), '\n'.join(names + ['']).encode())
    os.sync()  # DONE says that all is there, so all must be on disk before it
    atomic.write_json(os.path.join(out, DONE), settings)


def main(argv=None):
    args = parse_args(argv)
    settings = {'version': VERSION, 'train': args.train, 'test': args.test, 'seed': args.seed}
    scenes = '%d training and %d test scenes' % (args.train, args.test)
    try:
        if is_complete(args.out, settings):
            print('%s: %s, already there' % (args.out, scenes))
            return
        clear(args.out)
        make(args.out, settings)
    except OSError as error:
        raise cli.UserError('--out %s: %s' % (args.out, error))
    print('%s: %s' % (args.out, scenes))


if __name__ == '__main__':
    cli.run(main)
