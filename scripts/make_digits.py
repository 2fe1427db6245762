"""Make a small VOC-form detection set of real handwritten digits on generated backgrounds, without a download."""
import itertools
import json
import multiprocessing
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import start

start(__name__)

import cv2
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

from yolo3 import atomic, cli
from yolo3.files import open_input, walk
from yolo3.system import usable_cpus

VERSION = 1  # raise it if the pictures change: older sets are then replaced
SIZE = 256  # pixels, both sides of a picture
HEIGHTS = 16, 64  # pixels, least and most of a digit
DIGITS = 3, 8  # least and most of a picture
MOST_COVERED = 0.35  # the share of a box that later digits may cover: the digit below stays legible

DONE = 'digits.json'  # the settings of the set, written once it is complete
# Only files with these names are ever replaced or removed.
OURS = re.compile(r'digits\.json(\.tmp\d*)?|yolo3-[0-9a-f]{16}\.tmp'
                  r'|VOC2007/JPEGImages/digits_(train|test)_\d+\.jpg'
                  r'|VOC2007/Annotations/digits_(train|test)_\d+\.xml'
                  r'|VOC2007/ImageSets/Main/(trainval|test)\.txt')


def split_scans(rng, count):
    """Split the scans 0..count-1 at random into training scans and, a fifth, test scans."""
    order = rng.permutation(count)
    return order[count // 5:], order[:count // 5]


def deal(rng, labels, scenes):
    """The scans that each of `scenes` scenes shows, as indices into `labels`; all classes equally often."""
    counts = rng.randint(DIGITS[0], DIGITS[1] + 1, scenes)
    order = rng.permutation(len(labels))
    scans = [itertools.cycle(order[labels[order] == digit]) for digit in range(10)]
    digits = rng.permutation(np.arange(counts.sum()) % 10)
    return np.split(np.array([next(scans[digit]) for digit in digits]), np.cumsum(counts)[:-1])


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


def glyph(rng, scan, height):
    """The 8 x 8 `scan` as a smooth pen stroke: opacity 0..1, cropped to the stroke and `height` pixels high."""
    zoom = 12
    stroke = cv2.resize(np.pad(scan / 16, 2).astype(np.float32), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    stroke = cv2.GaussianBlur(stroke, (0, 0), 0.35 * zoom)
    stroke -= 0.6 * cv2.GaussianBlur(stroke, (0, 0), 1.5 * zoom)  # opens the eyes of 4, 6, 8 and 9
    centre = stroke.shape[0] / 2
    turn = cv2.getRotationMatrix2D((centre, centre), rng.uniform(-20, 20), 1)
    stroke = cv2.warpAffine(stroke, turn, stroke.shape)
    stroke = np.clip((stroke - rng.uniform(0.24, 0.31)) * zoom + 0.5, 0, 1)
    rows, columns = np.where(stroke.max(1) > 0.5)[0], np.where(stroke.max(0) > 0.5)[0]
    stroke = stroke[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    width = stroke.shape[1] * height / stroke.shape[0] * rng.uniform(0.85, 1.15)
    return cv2.resize(stroke, (int(round(width)), height), interpolation=cv2.INTER_AREA)


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
    enough = contrast > 35
    return colours[np.argmax(enough) if enough.any() else np.argmax(contrast)]


def scene(rng, scans, labels):
    """Draw all `scans` (n, 8, 8) on one background.

    Returns the picture, uint8 (SIZE, SIZE, 3), BGR, and a list of (label, left, top, right, bottom), ends exclusive.
    """
    image = background(rng)
    boxes = []
    for scan in scans:
        box = None
        while box is None:
            stroke = glyph(rng, scan, rng.randint(HEIGHTS[0], HEIGHTS[1] + 1))
            box = place(rng, stroke.shape, boxes)
        boxes.append(box)
        left, top, right, bottom = box
        paper = image[top:bottom, left:right]
        opacity = rng.uniform(0.85, 1) * stroke[..., None]
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
    """Make one scene and write it into the folder VOC2007; task: the folder, its name, its seed, scans and labels."""
    voc, name, seed, scans, labels = task
    image, objects = scene(np.random.RandomState(seed), scans, labels)
    jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    write(os.path.join(voc, 'JPEGImages', name + '.jpg'), jpeg.tobytes())
    write(os.path.join(voc, 'Annotations', name + '.xml'), annotation(name, objects).encode())


def make(out, settings):
    """Write the set with these settings to the folder `out`."""
    voc = os.path.join(out, 'VOC2007')
    for folder in ('JPEGImages', 'Annotations', os.path.join('ImageSets', 'Main')):
        os.makedirs(os.path.join(voc, folder), exist_ok=True)
    digits = load_digits()
    rng = np.random.RandomState(settings['seed'])  # unlike default_rng, the same numbers in every NumPy version
    with tqdm(total=settings['train'] + settings['test'], desc='digits', unit='scene') as bar, \
            multiprocessing.get_context('fork').Pool(usable_cpus()) as pool:
        for split, listing, part in zip(('train', 'test'), ('trainval', 'test'), split_scans(rng, len(digits.target))):
            scans, labels = digits.images[part], digits.target[part]
            names = ['digits_%s_%05d' % (split, number) for number in range(1, settings[split] + 1)]
            hands = deal(rng, labels, len(names))
            # A seed for each scene: if another OpenCV rounds a pixel differently, only that scene changes.
            seeds = rng.randint(2 ** 31, size=len(names))
            tasks = ((voc, name, seed, scans[hand], labels[hand]) for name, hand, seed in zip(names, hands, seeds))
            for _ in pool.imap_unordered(write_scene, tasks, chunksize=16):
                bar.update()
            write(os.path.join(voc, 'ImageSets', 'Main', listing + '.txt'), '\n'.join(names + ['']).encode())
    os.sync()  # DONE says that all is there, so all must be on disk before it
    atomic.write_json(os.path.join(out, DONE), settings)


def parse_args(argv=None):
    parser = cli.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--out', required=True, metavar='DIR', help="folder to make, then training's --dataset-root")
    add('--train', type=cli.positive, default=600, help='scenes in the split 2007_trainval (default: %(default)s)')
    add('--test', type=cli.positive, default=150, help='scenes in the split 2007_test (default: %(default)s)')
    add('--seed', type=cli.seed, default=0, help='another seed gives another set (default: %(default)s)')
    return parser.parse_args(argv)


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
