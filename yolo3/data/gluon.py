"""The data sets as instances of GluonCV's own classes, so that its tools take them too. Needs MXNet."""
from yolo3.mxnet_setup import gluoncv, mx
from gluoncv.data.base import VisionDataset

from yolo3.data.coco import COCOImages
from yolo3.data.voc import VOCImages
from yolo3.data.yolo import YOLOImages


class GluonImages:
    """What GluonCV's tools ask of a data set. Its own constructors, which would read the files anew, are not called.

    An image without objects has a label of no rows. GluonCV's training transform cannot take one: open the set with
    `skip_empty`, as GluonCV's own sets do by default.
    """

    def __getitem__(self, index):
        """The image, an NDArray (height, width, 3) uint8, RGB, and its `label`. Raises BadImage."""
        return mx.nd.array(self.image_file(index).pixels(), dtype='uint8'), self.label(index)

    def __str__(self):
        return '%s(%s)' % (type(self).__name__, self.name)

    @property
    def CLASSES(self):
        """As `classes`."""
        return self.classes

    def get_im_aspect_ratio(self):
        """Each image's width over its height."""
        return [width / height for width, height in self._sizes]


class VOCDetection(GluonImages, VOCImages, gluoncv.data.VOCDetection):
    """VOCImages as a gluoncv.data.VOCDetection."""


class COCODetection(GluonImages, COCOImages, gluoncv.data.COCODetection):
    """COCOImages as a gluoncv.data.COCODetection."""


class YOLODetection(GluonImages, YOLOImages, VisionDataset):
    """YOLOImages as a data set of GluonCV, which has no reader for this form."""
