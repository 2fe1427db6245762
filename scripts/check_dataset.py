"""Check a data set before training on it: its boxes, its images, and what is wrong with either."""
import contextlib
import hashlib
import io
import itertools
import multiprocessing
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import ArgumentParser, UserError, comma_list, input_size, processes, run, shorten, start
from yolo3.defaults import ANCHORS, DATASETS, STRIDES
from yolo3.files import check_output, open_input


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('root', metavar='DIR', help="the data set: training's --dataset-root")
    add('--dataset', default='', choices=DATASETS, help='form of the data set (default: the one that is found)')
    add('--classes', default='', type=comma_list, help='class names a,b,c, as in training')
    add('--train-splits', default='', type=comma_list, help='as in training')
    add('--val-splits', default='', type=comma_list, help='as in training')
    add('--data-shape', type=input_size, default=416, help='input size at which boxes are measured, pixels')
    add('--num-workers', '-j', type=processes, default=4, help='processes that read the images')
    add('--json', default='', metavar='FILE', help='also write the findings to this file, with all file names')
    add('--picture', default='', metavar='FILE', help='draw samples with their boxes into this PNG file')
    args = parser.parse_args(argv)
    args.json = check_output('--json', args.json, [args.root], begins='{"splits":')
    args.picture = check_output('--picture', args.picture, [args.root, args.json], kinds=('.png',))
    if args.picture and not args.picture.lower().endswith('.png'):
        raise UserError('--picture %s: the name must end in .png' % args.picture)
    return args


start(__name__, parse_args)

import cv2
import numpy as np
from PIL import Image

from yolo3 import log
from yolo3.atomic import replacing, write_json
from yolo3.data.anchors import assign
from yolo3.data.datasets import form_of, open_train, open_val
from yolo3.data.images import TURNS, ImageFile, opened, original
from yolo3.show.sheet import grid, tile

FORMATS = Image.registered_extensions()
NARROW = STRIDES[0], 2  # pixels
WHOLE = 0.95  # of the image: a box that covers more is hardly around one object
RARE = 20  # times fewer boxes than the most frequent class
PRINT = 16  # rows and columns of an image's fingerprint
FLAT = 8  # grey values: a fingerprint of less contrast is noise
# Bits of a fingerprint's 256 that differ in near-duplicates. In photographs saved at half the size with JPEG quality 50
# at most 30 did; in 257,000 pairs of different ones, at least 67.
NEAR = 30
SAME, ALIKE, NAMED = ['images %s one on the other side' % phrase for phrase in (
    'with the content of', 'nearly the same as', 'with the name of')]
COLUMNS, ROWS = 4, 4  # of the picture: the same number of samples from training and validation


def count_boxes(images, size):
    """{row of the table: count}: images, boxes of each class, and how large they are at `size` x `size` pixels."""
    rows = {'images': len(images), 'images without boxes': 0, 'boxes': 0}
    rows.update(('boxes of class %s' % name, 0) for name in images.classes)
    rows.update(('boxes for stride %d' % stride, 0) for stride in STRIDES)
    rows.update(('boxes under %d pixels wide or high' % limit, 0) for limit in NARROW)
    rows['boxes over nearly the whole image'] = 0
    for index in range(len(images)):
        label = images.label(index)
        boxes = resized(label[:, :4], images.size(index), (size, size))
        rows['images without boxes'] += not len(boxes)
        rows['boxes'] += len(boxes)
        for number in label[:, 4].astype(int):
            rows['boxes of class %s' % images.classes[number]] += 1
        for stride in assign(boxes, ANCHORS)[0]:
            rows['boxes for stride %d' % stride] += 1
        sides = (boxes[:, 2:] - boxes[:, :2]).min(1)
        covered = (label[:, 2:4] - label[:, :2] + 1).prod(1) / np.prod(images.size(index))
        rows['boxes over nearly the whole image'] += int((covered > WHOLE).sum())
        for limit in NARROW:
            rows['boxes under %d pixels wide or high' % limit] += int((sides < limit).sum())
    for name, number in images.others():
        rows['boxes of other class %s' % name] = number
    return rows


def resized(boxes, old, new):
    """`boxes` (n, 4) of an image of the size `old` (width, height), as boxes of the image resized to `new`."""
    return boxes * np.tile(np.array(new) / old, 2)


def inspect(task):
    """For the path and the annotated size of an image: what is odd about it, a list of phrases; the file's hash, None
    without; and its `fingerprints`."""
    path, size = task
    content, digest, prints = b'', None, []
    with contextlib.suppress(OSError), open_input(path) as file:
        content = file.read()
        digest = hashlib.sha1(content).hexdigest()
    try:
        found = ImageFile(path, size, content)
    except UserError:
        return ['unreadable'], digest, prints
    odd = {}
    try:
        prints = fingerprints(found.pixels())
    except UserError:
        odd['truncated or damaged'] = True
    with opened(path, io.BytesIO(content)) as image:
        kind = {'MPO': 'JPEG'}.get(image.format, image.format)
        odd['of another format than the name says'] = kind != FORMATS.get(os.path.splitext(path)[1].lower())
        odd['greyscale'] = image.mode in ('1', 'L', 'LA', 'I') or ';16' in image.mode
        odd['CMYK'] = image.mode == 'CMYK'
        odd['16 bits a colour'] = ';16' in image.mode + str(image.tile)  # the mode of a colour image does not tell
        odd['with transparency'] = image.has_transparency_data
    odd['turned as EXIF says'] = found.orientation in TURNS and found.exif_applied
    odd['not turned as EXIF says, by its annotation'] = found.orientation in TURNS and not found.exif_applied
    odd['of another size than annotated'] = [found.width, found.height] != size
    return [phrase for phrase, it_is in odd.items() if it_is], digest, prints


def fingerprints(pixels):
    """The difference hashes of an image and of its mirror image, bytes, which outlive other sizes and compression.

    A bit for each of PRINT x PRINT places says whether it gets lighter to the right. [] for an image of one grey.
    """
    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (PRINT + 1, PRINT), interpolation=cv2.INTER_AREA)
    if int(grey.max()) - grey.min() < FLAT:
        return []
    return [np.packbits(side[:, 1:] > side[:, :-1]).tobytes() for side in (grey, grey[:, ::-1])]


def inspect_all(sides, processes):
    """`inspect` all images of the data sets `sides`: {phrase: paths of each side}, and for each side {path: (hash,
    fingerprints)}."""
    tasks = [(images.image_path(index), images.size(index)) for images in sides for index in range(len(images))]
    findings, hashes = {}, [{} for _ in sides]
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(log.bar(len(tasks), 'images', 'image'))
        start = stack.enter_context(multiprocessing.Pool(processes)).imap if processes else map
        results = zip(tasks, start(inspect, tasks))
        for side, images in enumerate(sides):
            for (path, _), (phrases, *hashed) in itertools.islice(results, len(images)):
                for phrase in phrases:
                    findings.setdefault('images ' + phrase, [[] for _ in sides])[side].append(path)
                hashes[side][path] = hashed
                bar.update()
    return findings, hashes


def duplicates(train, val):
    """{phrase: the paths of each side} of images on both sides, which are given as {path: (hash, fingerprints)}."""
    found = {}
    for phrase, key in ((SAME, lambda path, digest: digest or path),
                        (NAMED, lambda path, digest: os.path.basename(original(path)))):
        keys = [{path: key(path, digest) for path, (digest, _) in side.items()} for side in (train, val)]
        shared = set(keys[0].values()) & set(keys[1].values())
        if shared:
            found[phrase] = [[path for path in side if side[path] in shared] for side in keys]
    pairs = [pair for pair in near_pairs(train, val) if train[pair[0]][0] != val[pair[1]][0]]
    if pairs:
        near = set(itertools.chain(*pairs))
        found[ALIKE] = [[path for path in side if path in near] for side in (train, val)]
    return found


def near_pairs(train, val):
    """Yield the (path, path) of near-duplicates, mirrored or not: a 16th of their fingerprints is equal."""
    places = {}
    for path, (_, prints) in train.items():
        for bits in prints:
            for place, word in enumerate(np.frombuffer(bits, 'uint16').tolist()):
                places.setdefault((place, word), []).append((path, int.from_bytes(bits, 'big')))
    for path, (_, prints) in val.items():
        for bits in prints[:1]:
            near = {}
            for place, word in enumerate(np.frombuffer(bits, 'uint16').tolist()):
                near.update(dict.fromkeys(places.get((place, word), ())))
            own = int.from_bytes(bits, 'big')
            yield from ((other, path) for other, theirs in near if bin(own ^ theirs).count('1') <= NEAR)


def warnings(rows, findings, names, classes):
    """Sentences on what is likely to spoil the training or its numbers, from the `rows` of `table`."""
    counts, result = {what: numbers for what, numbers, _ in rows}, []
    leaked = len({path for phrase in (SAME, ALIKE) for path in findings.get(phrase, ([], []))[1]})
    if leaked:
        result.append('%d of %d images of %s are in %s too, or nearly: its mAP says little about new images' % (
            leaked, counts['images'][1], names[1], names[0]))
    whole = counts['boxes over nearly the whole image'][0]
    if whole:
        result.append('%d of %d boxes of %s cover over %d%% of their image: are these labels of whole images?' % (
            whole, counts['boxes'][0], names[0], 100 * WHOLE))
    boxes = {name: counts['boxes of class %s' % name][0] for name in classes}
    most = max(boxes, key=boxes.get)
    rare = ['%s %d' % (name, count) for name, count in boxes.items() if count * RARE <= boxes[most]]
    if rare:
        result.append('%s has %d boxes in %s, but few are of: %s' % (most, boxes[most], names[0], shorten(rare, 10)))
    return result


def table(sides, findings, size):
    """The rows to print for the data sets `sides`: what, the count on each side, and a few file names or ''."""
    counts = [count_boxes(images, size) for images in sides]
    rows = [(what, [side.get(what, 0) for side in counts], '') for what in dict(counts[0], **counts[1])]
    notes = [{'%s %s %s' % ({'box': 'boxes', 'image': 'images'}[note.noun], note.done, note.why): note
              for note in images.notes()} for images in sides]
    for what in dict(notes[0], **notes[1]):
        found = [side[what] for side in notes if what in side]
        rows.append((what, [side[what].count if what in side else 0 for side in notes],
                     shorten(sum([note.files for note in found], []), 3)))
    for what, paths in findings.items():
        files = [os.path.basename(path) for side in paths for path in side]
        rows.append((what, [len(side) for side in paths], shorten(files, 3)))
    return rows


def print_table(names, rows):
    """Print the `rows` of `table` under the `names` of the sides."""
    width = max(len(row[0]) for row in rows)
    widths = [max(len(name), 8) for name in names]
    for what, counts, files in [('', names, '')] + rows:
        cells = ['%*s' % (cell, number) for cell, number in zip(widths, counts)]
        print(('%-*s  %s  %s' % (width, what, '  '.join(cells), files)).rstrip())


def sheet(sides):
    """A Pillow image of samples of the data sets `sides`, equally many of each, with boxes and file names."""
    most = COLUMNS * ROWS // len(sides)
    return grid([sample(images, index) for images in sides for index in
                 np.unique(np.linspace(0, len(images) - 1, most).round().astype(int)).tolist()], COLUMNS)


def sample(images, index):
    """The `tile` of one image with its boxes; only the name if it cannot be read."""
    pixels, boxes = None, []
    with contextlib.suppress(UserError):
        pixels = images.image_file(index).pixels()
        label = images.label(index)
        boxes = [{'class': images.classes[int(number)], 'box': box} for number, box in
                 zip(label[:, 4], resized(label[:, :4], images.size(index), pixels.shape[1::-1]))]
    return tile(os.path.basename(images.image_path(index)), pixels, boxes)


def main(argv=None):
    args = parse_args(argv)
    dataset = args.dataset or form_of(args.root)
    train = open_train(dataset, args.root, args.classes, args.train_splits)
    sides = train, open_val(dataset, args.root, train.classes, args.val_splits)
    names = [images.name for images in sides]
    findings, hashes = inspect_all(sides, args.num_workers)
    findings.update(duplicates(*hashes))
    rows = table(sides, findings, args.data_shape)
    sentences = warnings(rows, findings, names, train.classes)

    print_table(names, rows)
    for sentence in sentences:
        print('warning: ' + sentence)
    if args.json:
        write_json(args.json, {'splits': names, 'data_shape': args.data_shape, 'warnings': sentences,
                               'counts': {what: numbers for what, numbers, _ in rows}, 'files': findings})
    if args.picture:
        with replacing(args.picture) as temporary:
            sheet(sides).save(temporary, 'PNG')


if __name__ == '__main__':
    run(main)
