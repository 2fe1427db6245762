"""The network up to its raw outputs in each runtime, and separately what comes before and after it."""
import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import warnings

from benchmarks import measure
from yolo3.cli import UserError
from yolo3.files import require_regular

RUNS = ('mxnet, stock', 'mxnet, ours', 'torch', 'onnxruntime', 'onnxruntime int8', 'openvino float32', 'openvino',
        'openvino int8', 'product')
SIZES, BATCHES = (320, 416, 608), (1, 8)


def figures(args):
    """A row for each input size, batch and runtime. The peak is the speed of a 2048 x 2048 float32 product."""
    if args.only:
        return alone(args)
    from yolo3.network import build
    from yolo3.weights import load_detector
    from yolo3.zoo import CLASSES
    runs = [name for name in RUNS if (args.int8 or 'int8' not in name) and
            importlib.util.find_spec({'mxnet,': 'mxnet', 'product': 'mxnet'}.get(name.split()[0], name.split()[0]))]
    if args.params:
        net, info = load_detector(args.params)
    else:
        net, info = build('mobilenet1_0', CLASSES['coco']), {
            'network': 'mobilenet1_0', 'classes': CLASSES['coco'], 'dataset': 'coco', 'data_shape': 416}
    work = {size: measure.flop(net, size) for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(args, net, info, folder)
        results = measure.by_turns(args, runs, ['--folder', folder])
        around = around_network(folder)

    def median(name, key):
        return statistics.median(round_[key] for round_ in results[name])
    peak = median('product', 'FLOP/s')
    rows = []
    for size, batch in cases():
        for name in runs[:-1]:
            once = median(name, 'seconds, %d, %d' % (size, batch))
            speed = work[size] * batch / once
            rows.append({'size': size, 'batch': batch, 'runtime': name, 'ms': 1000 * once, 'images/s': batch / once,
                         'GFLOP/s': speed / 1e9, 'share of peak': speed / peak,
                         'max RSS, MB': median(name, 'MB, %d, %d' % (size, batch)), 'file, MB': files.get(name)})
    blank = dict.fromkeys(rows[0])
    return rows + [dict(blank, size=size, batch=1, runtime=name, ms=1000 * value)
                   for (size, name), value in around.items()]


def cases():
    """The (size, batch) pairs by rising memory, so that the most memory so far is the latest pair's."""
    return sorted(((size, batch) for size in SIZES for batch in BATCHES),
                  key=lambda case: case[0] ** 2 * case[1])


def write_files(args, net, info, folder):
    """Write the files of the runs into `folder`. Returns the size of each runtime's file, MB."""
    import export_onnx
    import onnx
    paths = {name: os.path.join(folder, name) for name in ('net.params', 'heads.onnx', 'int8.onnx', 'boxes.onnx')}
    net.save_parameters(paths['net.params'])
    with open(os.path.join(folder, 'info.json'), 'w', encoding='utf-8') as file:
        json.dump(info, file)
    onnx.save(export_onnx.export(net, info), paths['boxes.onnx'])
    cut_heads(onnx.load(paths['boxes.onnx']), paths['heads.onnx'])
    if args.int8:
        try:
            require_regular(args.int8)
            model = onnx.load(args.int8)
            classes = next(json.loads(fact.value) for fact in model.metadata_props if fact.key == 'classes')
            cut_heads(model, paths['int8.onnx'])
        except Exception as error:  # onnx raises its own errors
            raise UserError('--int8 %s is not a file of scripts/quantize_onnx.py: %r' % (args.int8, error))
        if classes != list(info['classes']):
            raise UserError('--int8 %s holds another network: give its .params file with --params' % args.int8)
    return {run_: os.path.getsize(paths[file]) / 1e6 for run_, file in (
        ('mxnet, stock', 'net.params'), ('mxnet, ours', 'net.params'), ('onnxruntime', 'heads.onnx'),
        ('openvino float32', 'heads.onnx'), ('openvino', 'heads.onnx'), ('onnxruntime int8', 'int8.onnx'),
        ('openvino int8', 'int8.onnx')) if os.path.exists(paths[file])}


def cut_heads(model, path):
    """Write the part of an exported model up to its raw outputs to `path`."""
    import onnx
    from onnx.utils import Extractor
    names = ['yolo_outputs.%d.prediction' % number for number in range(3)]
    onnx.save(Extractor(model).extract_model(['images'], names), path)


def alone(args):
    """Seconds of each case and the most memory so far; for 'product' the speed of a matrix product."""
    import numpy as np
    if args.only == 'product':
        return {'FLOP/s': measure.product_speed()}
    runtime = args.only.split()[0].rstrip(',')
    prepare = {'mxnet': mxnet_forward, 'torch': torch_forward, 'onnxruntime': onnxruntime_forward,
               'openvino': openvino_forward}[runtime](args)
    found = {}
    for size, batch in cases():
        images = np.random.RandomState(0).randn(batch, 3, size, size).astype('float32')
        found['seconds, %d, %d' % (size, batch)] = measure.seconds(prepare(images), 9 if batch == 1 else 3)
        # Not getrusage's figure, which includes the process that started this one.
        found['MB, %d, %d' % (size, batch)] = measure.resident('self', 'VmHWM')
    return found


def mxnet_forward(args):
    """A function: images -> a function that runs the network on them. The same holds for those below."""
    from yolo3.network import build
    from yolo3.mxnet_setup import mx
    from mxnet.gluon import HybridBlock

    class Heads(HybridBlock):
        """GluonCV's YOLOV3 up to its raw outputs."""

        def __init__(self, net):
            super().__init__()
            self.net = net

        def hybrid_forward(self, F, x):
            routes, results = [], []
            for stage in self.net.stages:
                x = stage(x)
                routes.append(x)
            for number, (block, output) in enumerate(zip(self.net.yolo_blocks, self.net.yolo_outputs)):
                x, tip = block(x)
                results.append(output.prediction(tip))
                if number < 2:
                    x = self.net.transitions[number](x).repeat(axis=-1, repeats=2).repeat(axis=-2, repeats=2)
                    x = F.concat(x, routes[1 - number], dim=1)
            return results

    with open(os.path.join(args.folder, 'info.json'), encoding='utf-8') as file:
        info = json.load(file)
    net = build(info['network'], info['classes'])
    net.load_parameters(os.path.join(args.folder, 'net.params'))
    heads = Heads(net)
    heads.hybridize()
    warnings.filterwarnings('ignore', 'Parameter .* is not used')  # those of the decoding

    def prepare(images):
        images = mx.nd.array(images)
        return lambda: [output.wait_to_read() for output in heads(images)]
    return prepare


def torch_forward(args):
    import torch
    from benchmarks import torch_network
    from yolo3.system import usable_cpus
    torch.set_num_threads(usable_cpus())
    return lambda images: torch_network.forward(len(images), images.shape[2])


def heads_file(args):
    return os.path.join(args.folder, 'int8.onnx' if args.only.endswith('int8') else 'heads.onnx')


def onnxruntime_forward(args):
    import onnxruntime
    from yolo3.system import usable_cpus
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(heads_file(args), options, providers=['CPUExecutionProvider'])
    return lambda images: lambda: session.run(None, {'images': images})


def openvino_forward(args):
    from yolo3.deploy import runtimes  # noqa: F401, it must come before openvino: see there
    import openvino
    precision = {'INFERENCE_PRECISION_HINT': 'f32'} if args.only.endswith('float32') else {}
    compiled = openvino.Core().compile_model(heads_file(args), 'CPU', precision)
    return lambda images: lambda: compiled({'images': images})


def around_network(folder):
    """Seconds before and after the network for an image of 640 x 480 pixels, with ONNX Runtime."""
    import numpy as np
    from yolo3.boxes import nms, resize
    from yolo3.deploy.runtimes import ONNXDetector
    detector = ONNXDetector(os.path.join(folder, 'boxes.onnx'))
    heads = onnxruntime_forward(argparse.Namespace(folder=folder, only='onnxruntime'))
    image = np.random.RandomState(0).randint(0, 256, (480, 640, 3)).astype('uint8')
    found = {}
    for size in SIZES:
        inputs = detector.prepare(resize(image, size)[None])
        boxes, scores, _ = detector.run(inputs)
        found[size, 'before: resize, normalise'] = measure.seconds(
            lambda: detector.prepare(resize(image, size)[None]), 9)
        found[size, 'decoding of boxes, inside'] = max(
            0., measure.seconds(lambda: detector.run(inputs), 9) - measure.seconds(heads(inputs), 9))
        found[size, 'after: NMS'] = measure.seconds(lambda: nms(boxes[0], scores[0]), 9)
    return found
