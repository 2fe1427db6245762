"""Download, verify and lay out PASCAL VOC 2007 and 2012 as the training expects them."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from yolo3 import cli

cli.start(__name__)

from yolo3.data import download
from yolo3.files import open_input

SERVER = 'http://host.robots.ox.ac.uk/pascal/VOC/'
ARCHIVES = [
    download.Archive(SERVER + 'voc2007/VOCtrainval_06-Nov-2007.tar', '34ed68851bce2a36e2a223fa52c661d592c66b3c',
                  460032000, 500000000, '2007_trainval', 5011),
    download.Archive(SERVER + 'voc2007/VOCtest_06-Nov-2007.tar', '41a8d6e12baa5ab18ee7f8f8029b9e11805b4ef1',
                  451020800, 500000000, '2007_test', 4952),
    download.Archive(SERVER + 'voc2012/VOCtrainval_11-May-2012.tar', '4e443f8a2eca6b1dac8a6c57641b67dd40621a49',
                  1999639040, 2100000000, '2012_trainval', 11540)]


def count(root, part):
    """The number of images of a split such as '2007_trainval' that are there, with their annotations."""
    year, split = part.split('_')
    folder = os.path.join(root, 'VOC' + year)
    try:
        with open_input(os.path.join(folder, 'ImageSets', 'Main', split + '.txt')) as file:
            stems = file.read().decode('utf-8', 'replace').split()
        images = set(os.listdir(os.path.join(folder, 'JPEGImages')))
        annotations = set(os.listdir(os.path.join(folder, 'Annotations')))
    except FileNotFoundError:
        return 0
    return sum(stem + '.jpg' in images and stem + '.xml' in annotations for stem in stems)


def parse_args(argv=None):
    return download.parse_args(__doc__, '~/.mxnet/datasets/voc', argv)


def main(argv=None):
    download.prepare(parse_args(argv), ARCHIVES, count, top='VOCdevkit')


if __name__ == '__main__':
    cli.run(main)
