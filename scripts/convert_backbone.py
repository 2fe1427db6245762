"""Convert ImageNet weights of MobileNetV1 from timm, Keras, TFLite or Paddle for --backbone-params."""
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3.cli import ArgumentParser, UserError, run, start
from yolo3.files import check_output, walk


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('source', metavar='FILE', help='the weights: .safetensors, .h5, .hdf5, .tflite, .pdparams, .pth, .pt, .bin')
    add('--output', required=True, metavar='FILE', help='the .params file to write')
    add('--images', default='', metavar='DIR', help='some 128 photographs: batch norm is measured on them, which '
        'TFLite needs, and their classes are printed; in folders named by their class, 0 to 999, they give the top-1')
    add('--scaling', choices=('imagenet', 'symmetric'),
        help="how the source scales pixels: symmetric is to -1..1, imagenet by "
        "ImageNet's mean and deviation; default: as its published weights do, or as the file says")
    args = parser.parse_args(argv)
    args.output = check_output('--output', args.output, [args.source, args.images], kinds=('.params',))
    if not args.output.endswith('.params'):
        raise UserError('--output %s: name a .params file' % args.output)
    return args


start(__name__, parse_args)

import cv2
import numpy as np

from yolo3 import log
from yolo3.atomic import replacing
from yolo3.backbones.folding import convert, has_classifier, measure
from yolo3.backbones.naming import SCALINGS
from yolo3.backbones.readers import read
from yolo3.data.augment import normalize
from yolo3.data.images import EXTENSIONS, ImageFile
from yolo3.mxnet_setup import mx
from yolo3.weights import save_weights

SIDE, SHORTER = 224, 256  # pixels: the square in the middle of a picture whose shorter side is the latter
BATCH = 16
MEASURED = 128  # pictures at most for batch norm's statistics
SHOWN = 16  # pictures whose class is printed


def find_pictures(folder):
    """The paths of the pictures below `folder`, '' for none. Raises UserError."""
    try:
        paths = [path for path in walk(folder) if path.lower().endswith(EXTENSIONS)] if folder else []
    except OSError as error:
        raise UserError('--images %s: %s' % (folder, error.strerror))
    if folder and not paths:
        raise UserError('--images %s: no pictures are in it' % folder)
    return paths


def load_picture(path):
    """The middle of a picture, (SIDE, SIDE, 3) uint8 RGB. Raises BadImage."""
    image = ImageFile(path).pixels()
    factor = SHORTER / min(image.shape[:2])
    width, height = (max(round(side * factor), SHORTER) for side in image.shape[1::-1])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return image[top:top + SIDE, left:left + SIDE]


def batches(paths, name):
    """The network's inputs (B, 3, SIDE, SIDE), with a progress bar called `name`."""
    with log.bar(len(paths), name, 'picture') as bar:
        for start in range(0, len(paths), BATCH):
            part = paths[start:start + BATCH]
            yield normalize(mx.nd.array(np.stack([load_picture(path) for path in part]), dtype='uint8'))
            bar.update(len(part))


def check(net, paths, folder):
    """Print the classes of some pictures, and how many are right if their folders' names say which."""
    classes = np.concatenate([net(images).argmax(axis=1).asnumpy() for images in batches(paths, 'check')]).astype(int)
    for path, number in list(zip(paths, classes))[::max(1, len(paths) // SHOWN)][:SHOWN]:
        print('%s: class %d' % (os.path.relpath(path, folder), number))
    names = [os.path.basename(os.path.dirname(path)) for path in paths]
    if all(name.isdecimal() for name in names):
        right = sum(int(name) == number for name, number in zip(names, classes))
        print('top-1: %d of %d pictures are in the folder of their class (%.1f %%)'
              % (right, len(paths), 100 * right / len(paths)))


def main(argv=None):
    args = parse_args(argv)
    paths = find_pictures(args.images)
    source = read(args.source)
    if source.folded and not paths:
        raise UserError('%s has batch norm folded in: give some 128 photographs to measure it on with --images DIR'
                        % args.source)
    if args.scaling:
        source = source._replace(scaling=SCALINGS[args.scaling])
    try:
        net, network = convert(source)
    except ValueError as error:
        raise UserError('%s: %s' % (args.source, error))
    if paths and (source.relu6 or source.same):
        measure(net, source, batches(paths[::math.ceil(len(paths) / MEASURED)], 'measure'))
    with replacing(args.output) as temporary:
        save_weights(net, temporary)
    print('%s: weights from %s, for --network %s' % (args.output, source.framework, network))
    if not has_classifier(source):
        print('it has no last layer for the 1000 classes of ImageNet, so the result has zeros there: not checked')
    elif paths:
        check(net, paths, args.images)


if __name__ == '__main__':
    run(main)
