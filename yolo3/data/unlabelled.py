"""Images without labels, to detect on: COCO's image_info JSON, a split without annotations, or a folder."""
import os

import numpy as np

from yolo3.cli import UserError
from yolo3.data.coco import COCOImages
from yolo3.data.datasets import COCO_ROOT, VOC_ROOT
from yolo3.data.voc import VOCImages
from yolo3.data.yolo import YOLOImages, is_image
from yolo3.files import files_below


def open_unlabelled(dataset, root, classes, splits, on_bad_image=''):
    """The images of a data set of one of datasets.USUAL, whose labels, if there are any, are not looked at.

    root, splits: as `datasets.open_val` has them, for example 2012_test or image_info_test-dev2017; without `splits`
    all images below the folder `root`. classes: the detector's. Raises UserError.
    """
    if not splits:
        if not root:
            raise UserError('--no-labels: say which images with --dataset-root, and --val-splits if not all below it')
        return FolderImages(root, classes, on_bad_image)
    if dataset == 'coco':
        return UnlabelledCOCO(root or COCO_ROOT, splits, classes, on_bad_image=on_bad_image)
    if dataset == 'yolo':
        return UnlabelledYOLO(root, splits, classes, on_bad_image=on_bad_image)
    return UnlabelledVOC(root or VOC_ROOT, splits, classes, on_bad_image=on_bad_image)


class Unlabelled:
    """Instead of the labels of LabelledImages: none."""

    def _require_boxes(self):
        self.require_few(len(self._bad), self._bad[0] if self._bad else '')

    def summary(self):
        """One line: the images, and everything skipped."""
        return '; '.join(['%s: %d images' % (self.name, len(self))] + self._account())

    def _add_unlabelled(self, path, source):
        """Add the image file `path` unless it was listed by `source` before. Raises BadImage."""
        if not self._is_listed(path, source):
            self._add(path, self._sound(path, None), np.empty((0, 7)))


class UnlabelledCOCO(Unlabelled, COCOImages):
    """COCO's images, with the ids of the JSON files."""


class UnlabelledVOC(Unlabelled, VOCImages):
    """The images that VOC's split files list, by their stems."""

    def _read_split(self, folder, name, skip):
        path = os.path.join(folder, 'ImageSets', 'Main', name + '.txt')
        pictures = self._names(os.path.join(folder, 'JPEGImages'))
        for line in self._lines(path):
            with self._leaving_out_bad():
                stem = line.split()[0] if line not in pictures else line
                self._add_unlabelled(self._picture(folder, stem, '', pictures), path)


class UnlabelledYOLO(Unlabelled, YOLOImages):
    """The images of the splits of a data.yaml."""

    def _read_image(self, image, skip):
        self._add_unlabelled(image, self._description.path)


class FolderImages(Unlabelled, VOCImages):
    """All images below a folder."""

    def __init__(self, root, classes, on_bad_image=''):
        name = os.path.basename(os.path.abspath(os.path.expanduser(root)))
        super().__init__(root, [name], classes, on_bad_image=on_bad_image)

    def _read_split(self, folder, name, skip):
        for path in self._reading(list(filter(is_image, files_below(self._root)))):
            with self._leaving_out_bad():
                self._add_unlabelled(path, self._root)
        if not self._paths:
            raise UserError('--dataset-root %s: no images there' % self._root)
