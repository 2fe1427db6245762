"""Look a data set over before training on it: its boxes, its images, and what is wrong with either."""
import contextlib
import hashlib
import itertools
import multiprocessing
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3 import log  # noqa: E402
from yolo3.cli import ArgumentParser, UserError, check_output_file, comma_list, run, shorten  # noqa: E402
from yolo3.data.datasets import open_train, open_val  # noqa: E402
from yolo3.show.draw import FONT, draw, font_file  # noqa: E402
from yolo3.atomic import replacing, write_json  # noqa: E402
from yolo3.data.images import ImageFile, TURNS  # noqa: E402
from yolo3.data.anchors import ANCHORS, STRIDES  # noqa: E402
from yolo3.data.targets import strides  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from gluoncv.data.transforms.bbox import resize  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

FORMATS = Image.registered_extensions()
COLUMNS, ROWS = 4, 4  # of the picture: as many samples of the training as of the validation
TILE = 400, 320  # pixels
CAPTION = 20  # pixels of it for the file's name


def parse_args():
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('root', metavar='DIR', help="the data set, training's --dataset-root")
    add('--dataset', default='voc', choices=('voc', 'coco'), help='form of the data set')
    add('--classes', default='', help='class names a,b,c, as in training')
    add('--train-splits', default='', help='as in training')
    add('--val-splits', default='', help='as in training')
    add('--data-shape', type=int, default=416, help='input size that the boxes are measured at, pixels')
    add('--num-workers', '-j', type=int, default=4, help='processes that read the images')
    add('--json', default='', metavar='FILE', help='write the findings to this file too, with all file names')
    add('--picture', default='', metavar='FILE', help='draw samples with their boxes into this PNG')
    args = parser.parse_args()
    if args.data_shape < 32 or args.data_shape % 32:
        raise UserError('--data-shape %d: must be a positive multiple of 32, the largest stride' % args.data_shape)
    if args.num_workers < 0:
        raise UserError('--num-workers %d: must be at least 0' % args.num_workers)
    check_output_file('--json', args.json)
    check_output_file('--picture', args.picture)
    if args.picture and not args.picture.lower().endswith('.png'):
        raise UserError('--picture %s: its name must end in .png' % args.picture)
    return args


def count_boxes(images, size):
    """{row of the table: count}: images, boxes of each class, and how large they are at `size` x `size` pixels."""
    narrow = ['boxes under %d pixels wide or high' % limit for limit in (STRIDES[0], 2)]
    rows = {'images': len(images), 'images without boxes': 0, 'boxes': 0}
    rows.update(('boxes of class %s' % name, 0) for name in images.classes)
    rows.update(('boxes for stride %d' % stride, 0) for stride in STRIDES)
    rows.update(dict.fromkeys(narrow, 0))
    for index in range(len(images)):
        label = images.label(index)
        boxes = resize(label[:, :4], images.size(index), (size, size))
        rows['images without boxes'] += not len(boxes)
        rows['boxes'] += len(boxes)
        for number in label[:, 4].astype(int):
            rows['boxes of class %s' % images.classes[number]] += 1
        for stride in strides(boxes, ANCHORS):
            rows['boxes for stride %d' % stride] += 1
        sides = (boxes[:, 2:] - boxes[:, :2]).min(1)
        for row, limit in zip(narrow, (STRIDES[0], 2)):
            rows[row] += int((sides < limit).sum())
    for name, count in images.others():
        rows['boxes of other class %s' % name] = count
    return rows


def inspect(task):
    """For a path and the annotated size of its image: what is odd about it, a list of phrases; a hash of the file."""
    path, size = task
    digest = None
    with contextlib.suppress(OSError), open(path, 'rb') as file:
        digest = hashlib.sha1(file.read()).hexdigest()
    try:
        found = ImageFile(path, size)
    except UserError:
        return ['unreadable'], digest
    odd = {}
    try:
        found.pixels()
    except UserError:
        odd['truncated or damaged'] = True
    with Image.open(path) as image:
        kind = {'MPO': 'JPEG'}.get(image.format, image.format)
        odd['of another format than the name says'] = kind != FORMATS.get(os.path.splitext(path)[1].lower())
        odd['greyscale'] = image.mode in ('1', 'L', 'LA', 'I') or ';16' in image.mode
        odd['CMYK'] = image.mode == 'CMYK'
        odd['16 bits a colour'] = ';16' in image.mode + str(image.tile)  # of colours, the mode does not tell
        odd['with transparency'] = image.has_transparency_data
    odd['turned as EXIF says'] = found.orientation in TURNS and found.exif_applied
    odd['not turned as EXIF says, by its annotation'] = found.orientation in TURNS and not found.exif_applied
    odd['of another size than annotated'] = [found.width, found.height] != size
    return [phrase for phrase, it_is in odd.items() if it_is], digest


def inspect_all(sides, processes):
    """`inspect` all images of the data sets `sides`: ({phrase: the paths of each side}, [{path: hash} of each])."""
    tasks = [(images.image_path(index), images.size(index)) for images in sides for index in range(len(images))]
    findings, hashes = {}, [{} for _ in sides]
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(log.bar(len(tasks), 'images', 'image'))
        start = stack.enter_context(multiprocessing.Pool(processes)).imap if processes else map
        results = zip(tasks, start(inspect, tasks))
        for side, images in enumerate(sides):
            for (path, _), (phrases, digest) in itertools.islice(results, len(images)):
                for phrase in phrases:
                    findings.setdefault('images ' + phrase, [[] for _ in sides])[side].append(path)
                hashes[side][path] = digest
                bar.update()
    return findings, hashes


def duplicates(train, val):
    """{phrase: the paths of each side} of what {path: hash} of both sides shows to be in both."""
    found = {}
    for phrase, key in ('with the content of one on the other side', lambda path, digest: digest or path), (
            'with the name of one on the other side', lambda path, digest: os.path.splitext(os.path.basename(path))[0]):
        keys = [{path: key(path, digest) for path, digest in side.items()} for side in (train, val)]
        shared = set(keys[0].values()) & set(keys[1].values())
        if shared:
            found['images ' + phrase] = [[path for path in side if side[path] in shared] for side in keys]
    return found


def print_table(names, rows):
    """A line for each row: what, the count on each side `names`, some files or ''."""
    width = max(len(row[0]) for row in rows)
    widths = [max(len(name), 8) for name in names]
    for what, counts, files in [('', names, '')] + rows:
        cells = ['%*s' % (cell, count) for cell, count in zip(widths, counts)]
        print(('%-*s  %s  %s' % (width, what, '  '.join(cells), files)).rstrip())


def sheet(sides):
    """Samples of the data sets `sides` with their boxes and file names, in equal numbers: a Pillow image."""
    picture = Image.new('RGB', (COLUMNS * TILE[0], ROWS * TILE[1]), 'white')
    places = itertools.product(range(0, picture.height, TILE[1]), range(0, picture.width, TILE[0]))
    for images in sides:
        most = COLUMNS * ROWS // len(sides)
        for index in np.unique(np.linspace(0, len(images) - 1, most).round().astype(int)).tolist():
            y, x = next(places)
            picture.paste(sample(images, index), (x, y))
    return picture


def sample(images, index):
    """One image with its boxes, its name above, as a tile; only the name where it cannot be read."""
    tile, name = Image.new('RGB', TILE, 'white'), os.path.basename(images.image_path(index))
    with contextlib.suppress(UserError):
        pixels = images.image_file(index).pixels()
        height, width = pixels.shape[:2]
        scale = min((TILE[0] - 4) / width, (TILE[1] - CAPTION) / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        boxes = resize(images.label(index), images.size(index), size)
        boxes = [{'class': images.classes[int(row[4])], 'box': row[:4]} for row in boxes]
        tile.paste(Image.fromarray(draw(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), boxes)), (0, CAPTION))
    ImageDraw.Draw(tile).text((2, 3), name, 'black', ImageFont.truetype(font_file(name) or FONT, 12))
    return tile


def main():
    args = parse_args()
    train = open_train(args.dataset, args.root, comma_list(args.classes), comma_list(args.train_splits))
    val = open_val(args.dataset, args.root, train.classes, comma_list(args.val_splits))
    sides = train, val
    names = [images.name for images in sides]
    counts = [count_boxes(images, args.data_shape) for images in sides]
    rows = [(what, [side.get(what, 0) for side in counts], '') for what in dict(counts[0], **counts[1])]
    notes = [{'%s %s %s' % ({'box': 'boxes', 'image': 'images'}[noun], done, why): (count, files)
              for done, noun, why, count, files in images.notes()} for images in sides]
    for what in dict(notes[0], **notes[1]):
        found = [side.get(what, (0, [])) for side in notes]
        rows.append((what, [count for count, _ in found], shorten(found[0][1] + found[1][1], 3)))
    findings, hashes = inspect_all(sides, args.num_workers)
    findings.update(duplicates(*hashes))
    for what, paths in findings.items():
        files = [os.path.basename(path) for side in paths for path in side]
        rows.append((what, [len(side) for side in paths], shorten(files, 3)))

    sys.stdout.reconfigure(errors='backslashreplace')  # for names that the terminal's encoding lacks
    print_table(names, rows)
    if args.json:
        write_json(args.json, {'splits': names, 'data_shape': args.data_shape,
                               'counts': {what: numbers for what, numbers, _ in rows}, 'files': findings})
    if args.picture:
        with replacing(args.picture) as temporary:
            sheet(sides).save(temporary, 'PNG')


if __name__ == '__main__':
    run(main)
