"""An exported .onnx file -> detections, by ONNX Runtime or OpenVINO: detect.py without MXNet."""
import collections
import concurrent.futures
import json
import os
import sys

from yolo3.cli import UserError
from yolo3.system import usable_cpus
from yolo3.system import check_opencv

check_opencv()  # demo and eval import this file first

import cv2
import numpy as np

from yolo3.boxes import NMS_KEPT, NMS_THRESH, NMS_TOPK, SCORE_FLOOR, resize, to_original

# On its import OpenVINO would report to Google Analytics, from a process that it forks off a thread: with MXNet loaded
# too that can hang. Without this package it does not.
sys.modules.setdefault('openvino_telemetry', None)

BACKENDS = ('onnxruntime', 'openvino')
FACTS = ('network', 'classes', 'dataset', 'data_shape', 'anchors', 'mean', 'std')


def is_exported(path):
    """Whether the file named by --params is one for this module."""
    return path.lower().endswith('.onnx')


def check_flags(args):
    """Raises UserError where the flags of eval or demo do not go together with their kind of file."""
    if args.backend and not is_exported(args.params):
        raise UserError('--backend %s is for .onnx files, not for %s' % (args.backend, args.params))
    if args.gpus and is_exported(args.params):
        raise UserError('--gpus %s: .onnx files run on the CPU here' % args.gpus)


def load(path, backend='', score_floor=SCORE_FLOOR):
    """The Network in the file that scripts/export_onnx.py wrote, and its info, as of `weights.load_detector`.

    backend: one of BACKENDS, '' the first. score_floor: boxes that score less, 0..1, take no part in NMS. Raises
    UserError.
    """
    if not os.path.isfile(path):
        raise UserError('no such .onnx file: %s' % path)
    opener = {'onnxruntime': _onnxruntime, 'openvino': _openvino}[backend or BACKENDS[0]]
    try:
        run, metadata, inputs, outputs = opener(path)
        info = {key: json.loads(metadata(key)) for key in FACTS}
    except ImportError as error:
        raise UserError('--backend: Python has no module %s here: pip install -r requirements/deploy.txt' % error.name)
    except Exception as error:  # the runtimes raise errors of their own
        raise UserError('%s is not a readable file of scripts/export_onnx.py: %s'
                        % (path, (str(error).strip() or type(error).__name__).splitlines()[0]))
    if 'boxes' not in outputs:
        raise UserError('%s has raw outputs only: export it without --heads' % path)
    if outputs['boxes'] == 2 and score_floor != SCORE_FLOOR:
        raise UserError('--nms-score-floor %g: %s has NMS inside, at %g: export it without --nms'
                        % (score_floor, path, SCORE_FLOOR))
    return Network(run, info, inputs in ('tensor(uint8)', 'u8'), None if outputs['boxes'] == 2 else score_floor), info


def _onnxruntime(path):
    """How to run the file: a function of the input that gives boxes, scores, classes; a function for its metadata; the
    input's type; {output: rank}."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return (lambda images: session.run(['boxes', 'scores', 'classes'], {'images': images}),
            session.get_modelmeta().custom_metadata_map.__getitem__, session.get_inputs()[0].type,
            {output.name: len(output.shape) for output in session.get_outputs()})


def _openvino(path):
    """As `_onnxruntime`."""
    import openvino
    core = openvino.Core()
    model = core.read_model(path)
    # Left to itself it computes in bfloat16 where the processor can, and finds other boxes than elsewhere.
    compiled = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32',
                                                 'INFERENCE_NUM_THREADS': _threads()})

    def run(images):
        results = compiled({'images': images})
        return [results[name] for name in ('boxes', 'scores', 'classes')]
    return (run, lambda key: model.get_rt_info(['framework', key]).astype(str),
            model.input('images').element_type.get_type_name(),
            {name: output.partial_shape.rank.get_length() for output in model.outputs for name in output.names})


def _threads():
    """OMP_NUM_THREADS where the user set it, as for MXNet; else the processors that may be used."""
    wanted = os.environ.get('OMP_NUM_THREADS', '')
    return int(wanted) if wanted.isdigit() and int(wanted) else usable_cpus()


class Network:
    """Images (B, H, W, 3) uint8, RGB, sides multiples of 32 -> for each its detections (ids (n,), scores (n,), boxes
    (n, 4)), the best first, boxes as corners in pixels of the input. score_floor: None where NMS is in the file."""

    def __init__(self, run, info, takes_bytes, score_floor):
        self._run, self._takes_bytes, self._score_floor = run, takes_bytes, score_floor
        self._mean, self._std = [np.float32(info[key]).reshape(3, 1, 1) for key in ('mean', 'std')]

    def __call__(self, images):
        inputs = self.prepare(images)
        if self._score_floor is None:
            return [(classes, scores, boxes) for boxes, scores, classes in
                    (self._run(inputs[number:number + 1]) for number in range(len(inputs)))]
        boxes, scores, _ = self._run(inputs)
        return [suppress(*image, self._score_floor) for image in zip(boxes, scores)]

    def prepare(self, images):
        """The file's input for `images`: themselves, or normalised, (B, 3, H, W) float32."""
        if self._takes_bytes:
            return images
        inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype('float32')
        inputs -= 255 * self._mean
        inputs *= 1 / (255 * self._std)
        return inputs


def suppress(boxes, scores, score_floor=SCORE_FLOOR):
    """The detections among all predictions of an image, boxes (N, 4) and scores (N, classes), as GluonCV's YOLOV3."""
    numbers, ids = np.nonzero(scores > score_floor)
    scores = scores[numbers, ids]
    best = np.argsort(-scores, kind='stable')[:NMS_TOPK]
    boxes, scores, ids = boxes[numbers[best]], scores[best], ids[best]
    corners_and_sides = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2])).astype(float)
    kept = []
    for id_ in np.unique(ids):
        mine = np.flatnonzero(ids == id_)
        kept.extend(mine[cv2.dnn.NMSBoxes(corners_and_sides[mine].tolist(), scores[mine].tolist(), 0, NMS_THRESH)])
    kept = np.sort(np.array(kept, int))[:NMS_KEPT]
    return ids[kept], scores[kept], boxes[kept]


def detect(network, images, size):
    """As `detect.detect`: detections in `images`, a list of (H, W, 3) uint8 RGB arrays, in their own pixels."""
    found = network(np.stack([resize(image, size) for image in images]))
    return [(ids, scores, to_original(boxes, size, image.shape[1], image.shape[0]))
            for image, (ids, scores, boxes) in zip(images, found)]


def batches(dataset, size, batch_size, num_workers):
    """What `loader.val_loader` yields, as NumPy arrays, a batch read by threads while the one before is used."""
    def sample(index):
        pixels = dataset.image_file(index).pixels()
        return resize(pixels, size), (index, pixels.shape[1], pixels.shape[0])

    ahead = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(max(1, num_workers)) as pool:
        for start in range(0, len(dataset) + batch_size, batch_size):
            ahead.append([pool.submit(sample, index) for index in
                          range(start, min(start + batch_size, len(dataset)))])
            if start:
                yield [np.stack(parts) for parts in zip(*[future.result() for future in ahead.popleft()])]


def evaluate(network, batches, metric, size):
    """As `detect.evaluate`: the value of `metric` for `network` over `batches`."""
    metric.reset()
    for images, facts in batches:
        for (index, width, height), (ids, scores, boxes) in zip(facts, network(images)):
            metric.update(int(index), ids, scores, to_original(boxes, size, width, height))
    return metric.get()
