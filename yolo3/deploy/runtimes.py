"""An exported .onnx file -> detections, by ONNX Runtime or OpenVINO: what detect.py does, without MXNet."""
import collections
import concurrent.futures
import json
import queue
import sys

import numpy as np

from yolo3.ahead import ahead
from yolo3.boxes import nms, resize, to_original
from yolo3.cli import UserError
from yolo3.data.datasets import val_sample_or_black
from yolo3.defaults import BACKENDS, NMS
from yolo3.deploy import accelerators
from yolo3.files import require_regular
from yolo3.gpus import gpus_found
from yolo3.metrics import measure
from yolo3.sidecar import CHECKS, OPTIONAL, checked
from yolo3.system import threads

# At its import OpenVINO would report to Google Analytics, from a process that it forks off a thread: with MXNet loaded
# too, that can hang. Without this package it does not.
sys.modules.setdefault('openvino_telemetry', None)

OUTPUTS = ['boxes', 'scores', 'classes']
PRECISION = 'f32'  # OpenVINO's


class Exported:
    """A file of scripts/export_onnx.py, open. Raises UserError.

    path: the file. backend: one of BACKENDS, '' the first. gpus: see `accelerators`. at_once: see `open_detector`.
    `info`, `streams`: as in `yolo3.detector`. `shapes`: {output: its shape, a list in which only the fixed dimensions
    are numbers}. `runs_on`: the runtime and its device, for people; '' is the CPU if nothing else was tried.
    """

    def __init__(self, path, backend='', gpus='', at_once=1):
        self._path = path
        opener = {'onnxruntime': _onnxruntime, 'openvino': _openvino}[backend or BACKENDS[0]]
        try:
            require_regular(path)
            # Threads that share an image wait for each other, and for whatever else the processors do.
            streams = threads() if at_once >= threads() else 1
            self._compute, metadata, input_type, self.shapes, self.runs_on = opener(path, gpus, streams)
            self.streams = 1 if self.runs_on else streams
            self.info = facts(metadata)
        except ImportError as error:
            raise UserError('%s: Python has no module %s here: pip install -r requirements/deploy.txt'
                            % (path, error.name))
        except FileNotFoundError:
            raise UserError('no such .onnx file: %s' % path)
        except UserError:
            raise
        except Exception as error:  # the runtimes raise their own errors
            raise UserError('%s is not a readable file of scripts/export_onnx.py: %s' % (path, reason(error)))
        self._takes_bytes = input_type in ('tensor(uint8)', 'u8')
        self._mean, self._std = [np.float32(self.info[key]).reshape(3, 1, 1) for key in ('mean', 'std')]

    def prepare(self, images):
        """The file's input for `images`, (B, H, W, 3) uint8 RGB: themselves, or normalised, (B, 3, H, W) float32."""
        if self._takes_bytes:
            return images
        inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype('float32')
        inputs -= 255 * self._mean
        inputs *= 1 / (255 * self._std)
        return inputs

    def run(self, inputs, names):
        """The outputs `names`, a list of arrays, for `inputs` as `prepare` makes them. Raises UserError."""
        try:
            return self._compute(inputs, names)
        except Exception as error:  # the runtimes raise their own errors
            raise UserError('%s cannot take an input of shape %s: %s' % (self._path, inputs.shape, reason(error)))


class ONNXDetector:
    """The detector in a file of scripts/export_onnx.py, behind the interface of `yolo3.detector`.

    path, backend, gpus, at_once, `runs_on`: see Exported. settings: a Suppression of `yolo3.boxes`. Raises UserError.
    """

    def __init__(self, path, backend='', gpus='', settings=NMS, at_once=1):
        self._file = Exported(path, backend, gpus, at_once)
        self.info, self.prepare, self.runs_on = self._file.info, self._file.prepare, self._file.runs_on
        self.streams = self._file.streams
        shapes = self._file.shapes
        if not shapes.keys() >= set(OUTPUTS):
            raise UserError('%s has raw outputs only: export it without --heads' % path)
        self._path, self._nms_inside = path, len(shapes['boxes']) == 2
        if not self._nms_inside and shapes['scores'][-1] != len(self.info['classes']):
            raise UserError('%s has scores of %s classes, but names %d in its metadata: export it again'
                            % (path, shapes['scores'][-1], len(self.info['classes'])))
        # demo.py --only asks for all that take part: of these it gets what the file keeps.
        if self._nms_inside and settings not in (NMS, NMS._replace(kept=NMS.topk)):
            raise UserError('%s has NMS inside, out of reach of --nms-thresh, --nms-score-floor, '
                            '--max-detections and --vote: export it without --nms' % path)
        self._settings = settings

    def loaders(self, images, sizes, batch_size, num_workers):
        """See `yolo3.detector`."""
        return [batches(images, size, batch_size, num_workers) for size in sizes]

    def detect(self, images, size):
        """See `yolo3.detector`."""
        found = self.forward(np.stack([resize(image, size) for image in images]))
        return [(ids, scores, to_original(boxes, size, image.shape[1], image.shape[0]))
                for image, (ids, scores, boxes) in zip(images, found)]

    def evaluate(self, batches, metric, size):
        """See `yolo3.detector`."""
        return measure(metric, ((int(index), ids, scores, to_original(boxes, size, width, height))
                                for images, originals in batches
                                for (index, width, height), (ids, scores, boxes) in zip(originals,
                                                                                        self._side_by_side(images))))

    def _side_by_side(self, images):
        """As `forward`: with several streams one image at a time in each, else all at once."""
        if self.streams == 1:
            return self.forward(images)
        return ahead(lambda image: self.forward(image[None])[0], images, self.streams)

    def forward(self, images):
        """(ids (n,), scores (n,), boxes (n, 4)) of each of `images`, (B, H, W, 3) uint8 RGB, sides multiples of 32.

        The best score comes first; boxes are corners in pixels of the input.
        """
        inputs = self.prepare(images)
        if self._nms_inside:  # which takes one image
            return [(classes, scores, boxes) for boxes, scores, classes in
                    (self.run(inputs[number:number + 1]) for number in range(len(inputs)))]
        boxes, scores, _ = self.run(inputs)
        return [nms(*image, self._settings) for image in zip(boxes, scores)]

    def run(self, inputs):
        """The file's boxes, scores and classes for `inputs`. Raises UserError if it cannot compute them."""
        outputs = self._file.run(inputs, OUTPUTS)
        if outputs[2].max(initial=0) >= len(self.info['classes']):
            raise UserError('%s finds more classes than its metadata names: export it again' % self._path)
        return outputs


def reason(error):
    """What `error` says, in one line."""
    return (getattr(error, 'strerror', '') or str(error).strip() or type(error).__name__).splitlines()[0]


def facts(metadata):
    """The facts of the detector in the texts that `metadata`, a function of their name, gives. Raises ValueError."""
    found = {}
    for key in CHECKS:
        try:
            found[key] = json.loads(metadata(key))
        except (LookupError, RuntimeError, ValueError, RecursionError):
            if key not in OPTIONAL:
                raise ValueError('its metadata lacks "%s"' % key)
    return checked(found, 'mean', 'std')


def _onnxruntime(path, gpus, streams):
    """What the file holds: a function of the input and the names of outputs, which gives these; a function of a
    metadata key; the type of the input; the `shapes` and `runs_on` of Exported.

    streams: how many threads may call the first function at once. On a CPU they share the processors.
    """
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    chosen = accelerators.providers(gpus, onnxruntime.get_available_providers(), len(gpus_found()))
    options.intra_op_num_threads = threads() // (streams if len(chosen) == 1 else 1)
    if len(chosen) > 1 and hasattr(onnxruntime, 'preload_dlls'):
        onnxruntime.preload_dlls()  # CUDA from its packages on PyPI
    session = onnxruntime.InferenceSession(path, options, providers=chosen)
    session.disable_fallback()  # an error on the GPU is an error
    provider = session.get_providers()[0]
    if gpus is not None and len(chosen) > 1 and provider == accelerators.CPU:
        raise UserError("--gpus %s: ONNX Runtime could not start %s: docs/deploy.md says what it needs; --gpus '' uses "
                        "the CPU" % (gpus, ' or '.join(name for name, _ in chosen[:-1])))
    return (lambda images, names: session.run(names, {'images': images}),
            session.get_modelmeta().custom_metadata_map.__getitem__, session.get_inputs()[0].type,
            {output.name: output.shape for output in session.get_outputs()},
            "ONNX Runtime's " + provider if len(chosen) > 1 else '')


def _openvino(path, gpus, streams):
    """As `_onnxruntime`."""
    import openvino
    core = openvino.Core()
    model = core.read_model(path)
    device = accelerators.openvino_device(gpus, core.available_devices)
    # By default it computes in bfloat16 if the processor can, a GPU in float16, and finds other boxes than elsewhere.
    settings = {'INFERENCE_PRECISION_HINT': PRECISION}
    if not device.startswith('GPU'):  # which does not know it
        settings['INFERENCE_NUM_THREADS'] = threads()
    if device == 'CPU':
        settings['NUM_STREAMS'] = streams
    compiled = core.compile_model(model, device, settings)
    devices = dict.fromkeys([device] + compiled.get_property('EXECUTION_DEVICES'))
    requests = queue.SimpleQueue()
    for _ in range(streams):
        request = compiled.create_infer_request()
        # The first look at an array lets go of Python's lock while it holds one of its own: two threads that came here
        # at once could wait for each other for ever (seen with 2024.4).
        _ = request.get_input_tensor().data
        requests.put(request)

    def run(images, names):
        request = requests.get()
        try:
            results = request.infer({'images': images})
            return [results[name] for name in names]
        finally:
            requests.put(request)
    return (run, lambda key: model.get_rt_info(['framework', key]).astype(str),
            model.input('images').element_type.get_type_name(),
            {name: [side.get_length() if side.is_static else None for side in output.partial_shape]
             for output in model.outputs for name in output.names},
            "OpenVINO's " + ' on '.join(devices) if device != 'CPU' else '')


def batches(images, size, batch_size, num_workers):
    """What `loader.val_loader` yields, as NumPy arrays; threads read the next batch while one is in use."""
    ahead = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(max(1, num_workers)) as pool:
        for start in range(0, len(images) + batch_size, batch_size):
            ahead.append([pool.submit(val_sample_or_black, images, index, size) for index in
                          range(start, min(start + batch_size, len(images)))])
            if start:
                yield [np.stack(parts) for parts in zip(*[future.result() for future in ahead.popleft()])]
