"""Download, verify and lay out COCO 2017 as the training expects it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3 import cli

cli.start(__name__)

from yolo3.data import download

SERVER = 'http://images.cocodataset.org/'
ARCHIVES = [
    download.Archive(SERVER + 'annotations/annotations_trainval2017.zip', '8551ee4bb5860311e79dace7e79cb91e432e78b3',
                  252907541, 900000000, 'annotations', 2),
    download.Archive(SERVER + 'zips/val2017.zip', '4950dc9d00dbe1c933ee0170f5797584351d2a41',
                  815585330, 850000000, 'val2017', 5000),
    download.Archive(SERVER + 'zips/train2017.zip', '10ad623668ab00c62c096f0ed636d6aff41faca5',
                  19336861798, 19700000000, 'train2017', 118287)]


def count(root, part):
    """The number of images of 'train2017' or 'val2017' that are there, or of the two annotation files with boxes."""
    try:
        names = os.listdir(os.path.join(root, part))
    except FileNotFoundError:
        return 0
    if part == 'annotations':
        return len({'instances_train2017.json', 'instances_val2017.json'} & set(names))
    return sum(name.endswith('.jpg') for name in names)


def parse_args(argv=None):
    return download.parse_args(__doc__, '~/.mxnet/datasets/coco', argv)


def main(argv=None):
    download.prepare(parse_args(argv), ARCHIVES, count)


if __name__ == '__main__':
    cli.run(main)
