"""Choices and defaults that the flags and the rest share. It imports nothing slow, so that --help is fast."""
import os
from typing import NamedTuple

NETWORKS = 'mobilenet1_0', 'mobilenet0_75', 'mobilenet0_5', 'mobilenet0_25'
DATASETS = 'voc', 'coco', 'yolo'
ROOT = os.path.join('~', '.mxnet', 'datasets')  # of the usual data sets
METRICS = 'voc07', 'voc', 'coco'
BACKENDS = 'onnxruntime', 'openvino'  # runtimes of an .onnx file

# Clusters of COCO's boxes (YOLOv3 section 2.3): width, height in pixels of a 416 x 416 input, three anchors a stride.
ANCHORS = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
STRIDES = [8, 16, 32]
PER_STRIDE = 3

MOST_SIDE = 2 ** 15 - 1  # pixels of an image; with longer ones the steps of training do not fit into memory


class Suppression(NamedTuple):
    """The settings of non-maximum suppression, by default as GluonCV evaluates."""
    thresh: float = 0.45  # the IoU above which a box suppresses another of its class
    topk: int = 400  # how many boxes of all classes take part
    kept: int = 100  # how many remain at most
    score_floor: float = 0.01  # the score above which a box takes part
    vote: bool = False  # whether those that remain become the mean of all that show the same object: box voting


NMS = Suppression()
VOTING_IOU = 0.5  # from which boxes of a class show the same object (Gidaris and Komodakis 2015, section 5)
