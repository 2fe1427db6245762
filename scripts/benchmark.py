"""Measure training against the stock GluonCV pipeline and inference against other runtimes, each in one run."""
import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

from yolo3.cli import ArgumentParser, UserError, comma_list, run
from yolo3.files import write_json

RUNS = ('stock', 'ours', 'torch')
INFER_RUNS = ('mxnet, stock', 'mxnet, ours', 'torch', 'onnxruntime', 'onnxruntime int8', 'openvino float32', 'openvino',
              'openvino int8', 'product')
INFER_SIZES, INFER_BATCHES = (320, 416, 608), (1, 8)


def parse_args():
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('what', choices=('loader', 'step', 'epoch', 'infer'))
    add('--json', default='', help='write the figures to this file too')
    add('--dataset', default='coco', choices=('voc', 'coco'), help='form of the data set')
    add('--dataset-root', default='', help='folder of the data set; default: ~/.mxnet/datasets/voc or coco')
    add('--classes', default='', help='class names a,b,c of your own data')
    add('--train-splits', default='', help='as in training')
    add('--backbone-params', default='', help="ImageNet weights in GluonCV's form (epoch); default: random weights")
    add('--batch-size', type=int, default=8)
    add('--data-shape', type=int, default=416, help='input size of step, pixels')
    add('--min-shape', type=int, default=320, help='smallest input size of loader and epoch, pixels')
    add('--max-shape', type=int, default=608, help='largest input size of loader and epoch, pixels')
    add('--rounds', type=int, default=3, help='how often each is measured, by turns; the median counts')
    add('--epochs', type=int, default=1, help='epochs in each round of ours (epoch)')
    add('--params', default='', help='.params file to run (infer); default: random weights for the classes of COCO')
    add('--int8', default='', metavar='FILE', help='its INT8 file by quantize_onnx.py (infer); default: without INT8')
    add('--only', default='', choices=('',) + RUNS + INFER_RUNS,
        help='measure one of them alone, in this process (step, epoch, infer)')
    add('--folder', default='', help=argparse.SUPPRESS)  # of the files that infer's processes share
    return parser.parse_args()


def main():
    args = parse_args()
    args.sizes = list(range(args.min_shape, args.max_shape + 1, 32))
    if not args.sizes or args.rounds < 1 or args.epochs < 1:
        raise UserError('--min-shape must not be above --max-shape; --rounds and --epochs must be at least 1')
    figures = {'loader': loader, 'step': step, 'epoch': epoch, 'infer': infer}[args.what](args)
    if isinstance(figures, list):
        print_table(figures)
    else:
        for name, value in figures.items():
            print('%-52s %s' % (name, '%.4g' % value if isinstance(value, float) else value))
    if args.json:
        write_json(args.json, figures)


def print_table(rows):
    """Rows of equal columns; None is left blank."""
    texts = [list(rows[0])] + [['' if value is None else '%.4g' % value if isinstance(value, float) else str(value)
                                for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    for text in texts:
        print('  '.join(value.ljust(width) for value, width in zip(text, widths)).rstrip())


def dataset(args):
    from yolo3.datasets import open_train
    return open_train(args.dataset, args.dataset_root, comma_list(args.classes), comma_list(args.train_splits),
                      skip_empty=True)  # the stock pipeline cannot take an image without objects


# ---- loader: one worker against one worker

def loader(args):
    """Images a second, and where ours spends its time."""
    from yolo3.network import build
    import stock_pipeline
    from yolo3.loader import Requests, train_loader
    images = dataset(args)
    net = build('mobilenet1_0', images.classes)
    figures = {}
    for mixup in False, True:
        requests = Requests(len(images), args.batch_size, args.sizes, seed=1)
        requests.begin(0, mixup)
        loaders = {'stock': stock_pipeline.loader(images, net, args.sizes, args.batch_size, 1, mixup),
                   'ours': train_loader(images, requests, 1)}
        speeds = {name: [] for name in loaders}
        for round_ in range(args.rounds):
            for name, batches in loaders.items():
                # Several epochs of ours, as it is over so soon. Each starts with its worker idle, as does stock's.
                count, start = 0, time.time()
                for epoch_ in range(8 if name == 'ours' else 1):
                    requests.begin(8 * round_ + epoch_, mixup)
                    count += sum(len(batch[0]) for batch in batches)
                speeds[name].append(count / (time.time() - start))
        kind = ', mixup' if mixup else ''
        for name in speeds:
            figures['images/s, one worker%s: %s' % (kind, name)] = statistics.median(speeds[name])
        figures['ours / stock%s' % kind] = statistics.median(
            ours / stock for ours, stock in zip(speeds['ours'], speeds['stock']))
        figures.update(stages(images, args, mixup, kind))
    figures.update(bytes_per_image(images, net))
    return figures


def stages(images, args, mixup, kind):
    """Milliseconds of processor time an image in each stage of our loader, and JPEG decoding's share of them."""
    import cv2
    from yolo3 import augment, images as files, loader as ours
    from yolo3.network import ANCHORS
    from yolo3.runtime import mx
    spent = {}

    def watch(owner, name, stage):
        real = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.process_time()
            try:
                return real(*args, **kwargs)
            finally:
                spent[stage] = spent.get(stage, 0) + time.process_time() - start
        setattr(owner, name, timed)
        return owner, name, real

    watched = [watch(files.ImageFile, '__init__', 'read file, header'), watch(files.ImageFile, 'pixels', 'decode'),
               watch(augment, 'draw_colour', 'draw colour'), watch(augment, 'draw_view', 'draw crop'),
               watch(cv2, 'transform', 'colour'), watch(cv2, 'copyMakeBorder', 'expand, blend'),
               watch(cv2, 'addWeighted', 'expand, blend'), watch(cv2, 'resize', 'resize'), watch(cv2, 'flip', 'flip'),
               watch(ours, 'sparse_targets', 'targets'), watch(ours, 'stack_train', 'stack into shared memory')]
    requests = ours.Requests(len(images), args.batch_size, args.sizes, seed=1)
    samples = ours.TrainSamples(images, ANCHORS)
    count, start = 0, time.process_time()
    for epoch_ in range(3):
        requests.begin(epoch_, mixup)
        for batch in requests:
            ours.stack_train([samples[request] for request in batch], mx.Context('cpu_shared', 0))
            count += len(batch)
    total = time.process_time() - start
    for owner, name, real in watched:
        setattr(owner, name, real)
    spent['the rest'] = total - sum(spent.values())
    table = {'ms an image%s: %s' % (kind, stage): 1000 * seconds / count
             for stage, seconds in sorted(spent.items(), key=lambda item: -item[1])}
    return dict(table, **{'ms an image%s: all' % kind: 1000 * total / count,
                          'share of decoding%s' % kind: spent['decode'] / total})


def bytes_per_image(images, net, size=608):
    """What a worker sends for an image of 608 x 608 pixels."""
    import stock_pipeline
    from yolo3.loader import Requests, train_loader
    requests = Requests(len(images), 8, [size], seed=1)
    loaders = {'stock': stock_pipeline.loader(images, net, [size], 8, 0), 'ours': train_loader(images, requests, 0)}
    return {'MB an image at %d: %s' % (size, name): sum(array.size * array.asnumpy().itemsize for array in
                                                        next(iter(batches))) / 8e6
            for name, batches in loaders.items()}


# ---- step and epoch: each run in a process of its own, for the number of threads is fixed when MXNet is imported

def by_turns(args, runs, settings=()):
    """The JSON that each of `runs` prints when run alone, with the flags `settings` too, args.rounds times:
    {run: [figures, ...]}."""
    results = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name in runs:
            env = dict(os.environ)
            if name.endswith('stock'):
                env['OMP_NUM_THREADS'] = str(max(1, os.cpu_count() // 2))  # MXNet's own choice
            with tempfile.NamedTemporaryFile(suffix='.json') as file:
                command = [sys.executable, *sys.argv, *settings, '--only', name, '--json', file.name]
                subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
                results[name].append(json.load(open(file.name)))
    return results


def medians(results):
    """{figure of each run: its median}."""
    return {'%s: %s' % (key, name): statistics.median(figures[key] for figures in rounds)
            for name, rounds in results.items() for key in rounds[0]}


def ratio(results, key, over, under):
    """The median over the rounds of one run's figure over another's."""
    return statistics.median(a[key] / b[key] for a, b in zip(results[over], results[under]))


def step(args):
    """Images a second of a training step at --data-shape."""
    if args.only:
        return {'stock': stock_step, 'ours': our_step, 'torch': torch_step}[args.only](args)
    runs = RUNS if importlib.util.find_spec('torch') else RUNS[:2]
    results = by_turns(args, runs)
    return dict(medians(results), **{'ours / %s' % other: ratio(results, 'images/s', 'ours', other)
                                     for other in runs if other != 'ours'})


def seconds(action, count):
    """The median time that `action` takes, the first two times left out."""
    times = []
    for _ in range(count + 2):
        start = time.time()
        action()
        times.append(time.time() - start)
    return statistics.median(times[2:])


def some_batch(args, num_class=80, boxes=8):
    """A batch of noise with random boxes, as `train_loader` gives it."""
    import numpy as np
    from yolo3.loader import stack_train
    from yolo3.network import ANCHORS
    from yolo3.runtime import mx
    from yolo3.targets import sparse_targets
    generator, size = np.random.RandomState(0), args.data_shape
    samples = []
    for _ in range(args.batch_size):
        corners = generator.uniform(0, size / 2, (boxes, 2))
        label = np.hstack((corners, corners + generator.uniform(8, size / 2, (boxes, 2)))).astype('float32')
        samples.append((generator.randint(0, 256, (size, size, 3)).astype('uint8'), label,
                        sparse_targets(label, generator.randint(0, num_class, boxes), np.ones(boxes), size, ANCHORS),
                        np.float32(1)))
    return stack_train(samples, mx.cpu())


def network_and_trainer(classes, backbone_params=''):
    """What both pipelines train, slowly: the hybridized network and its trainer."""
    from yolo3.network import build
    from mxnet import gluon
    net = build('mobilenet1_0', classes, backbone_params)
    net.hybridize()
    return net, gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1e-6, 'momentum': 0.9, 'wd': 5e-4},
                              update_on_kvstore=False)


def stock_step(args):
    import stock_pipeline
    from yolo3.augment import normalize
    from yolo3.network import CLASSES
    from yolo3.targets import DenseTargets
    net, trainer = network_and_trainer(CLASSES['coco'])
    images, boxes, rows, _ = some_batch(args)
    batch = [normalize(images), *DenseTargets(80)(images, rows), boxes]  # its workers send this
    return {'images/s': args.batch_size / seconds(lambda: stock_pipeline.train_step(net, batch, trainer), 3)}


def our_step(args):
    import train_yolo3_mobilenet as training
    from yolo3.network import CLASSES
    from yolo3.progress import LossMeter
    from yolo3.runtime import mx
    from yolo3.targets import DenseTargets
    net, trainer = network_and_trainer(CLASSES['coco'])
    batch, targets, meter = some_batch(args), DenseTargets(80), LossMeter()
    targets.hybridize()
    # The loop runs ahead of the device, so that three steps together say what one takes.
    once = seconds(lambda: [meter.update(training.train_step(net, targets, batch, [mx.cpu()], trainer))
                            for _ in range(3)] and meter.means(), 2) / 3
    matrix = mx.nd.random.uniform(shape=(2048, 2048))
    # oneDNN's product, as the convolutions use it: mx.nd.dot takes one thread.
    product = 2 * 2048 ** 3 / seconds(lambda: mx.nd.FullyConnected(matrix, matrix, None, num_hidden=2048,
                                                                   no_bias=True).wait_to_read(), 9)
    work = 3 * flop(net, args.data_shape) * args.batch_size / once  # forward, and backward for inputs and weights
    return {'images/s': args.batch_size / once, 'GFLOP/s': work / 1e9,
            'GFLOP/s of a 2048 x 2048 product': product / 1e9, 'share of that': work / product}


def flop(net, size):
    """Multiplications and additions in the convolutions for one image."""
    from yolo3.runtime import mx
    from mxnet.gluon.nn import Conv2D
    counted, hooks = [], []

    def count(block, inputs, output):
        counted.append(2 * output.size * block.weight.data()[0].size)

    def visit(block):
        if isinstance(block, Conv2D):
            hooks.append(block.register_forward_hook(count))
    net.apply(visit)
    net.hybridize(False)
    net(mx.nd.zeros((1, 3, size, size)))
    for hook in hooks:
        hook.detach()
    return sum(counted)


def torch_step(args):
    import torch_network
    return {'images/s': args.batch_size / torch_network.step_seconds(args.batch_size, args.data_shape)}


def epoch(args):
    """Seconds an epoch with one worker, and the memory of the main process and of the worker after each."""
    if args.only:
        return {'stock': stock_epoch, 'ours': our_epoch}[args.only](args)
    results = by_turns(args, RUNS[:2])
    return dict(medians(results), **{'ours / stock': ratio(results, 'seconds an epoch', 'ours', 'stock')})


def stock_epoch(args):
    import stock_pipeline
    images = dataset(args)
    net, trainer = network_and_trainer(images.classes, args.backbone_params)
    batches = stock_pipeline.loader(images, net, args.sizes, args.batch_size, 1)
    net.hybridize()  # anew: the loader ran it for its shapes
    start = time.time()
    for batch in batches:
        stock_pipeline.train_step(net, batch, trainer)
    return {'seconds an epoch': time.time() - start}


def our_epoch(args):
    import logging
    import train_yolo3_mobilenet as training
    from yolo3.cli import StopSignal
    from yolo3.loader import Requests, train_loader
    from yolo3.runtime import mx
    images = dataset(args)
    net, trainer = network_and_trainer(images.classes, args.backbone_params)
    requests = Requests(len(images), args.batch_size, args.sizes, seed=1)
    loader_ = train_loader(images, requests, 1)
    flags = training.parse_args(['--batch-size', str(args.batch_size), '--lr', '1e-6', '--log-interval', '0'])
    stop, logger = StopSignal(), logging.getLogger('benchmark')
    figures, times = {}, []
    for number in range(args.epochs):
        state = {'epoch': number, 'batch': requests.batches(number).start, 'losses': None}
        start = time.time()
        training.train_epoch(flags, net, trainer, loader_, [mx.cpu()], state, logger, stop)
        times.append(time.time() - start)
        figures['MB after epoch %d, main' % (number + 1)] = resident('self')
        figures['MB after epoch %d, worker' % (number + 1)] = resident(loader_._worker_pool._pool[0].pid)
    return dict({'seconds an epoch': statistics.median(times)}, **figures)


# ---- infer: the network up to its raw outputs, in each runtime; what comes before and after it on its own

def infer(args):
    """A row for each input size, batch and runtime. The peak is the speed of a 2048 x 2048 float32 product."""
    if args.only:
        return infer_run(args)
    from yolo3.network import CLASSES, build, load_detector
    runs = [name for name in INFER_RUNS if (args.int8 or 'int8' not in name) and
            importlib.util.find_spec({'mxnet,': 'mxnet', 'product': 'mxnet'}.get(name.split()[0], name.split()[0]))]
    if args.params:
        net, info = load_detector(args.params)
    else:
        net, info = build('mobilenet1_0', CLASSES['coco']), {
            'network': 'mobilenet1_0', 'classes': CLASSES['coco'], 'dataset': 'coco', 'data_shape': 416}
    work = {size: flop(net, size) for size in INFER_SIZES}
    with tempfile.TemporaryDirectory() as folder:
        files = infer_files(args, net, info, folder)
        results = by_turns(args, runs, ['--folder', folder])
        around = around_network(folder)

    def median(name, key):
        return statistics.median(figures[key] for figures in results[name])
    peak = median('product', 'FLOP/s')
    rows = []
    for size, batch in infer_cases():
        for name in runs[:-1]:
            once = median(name, 'seconds, %d, %d' % (size, batch))
            speed = work[size] * batch / once
            rows.append({'size': size, 'batch': batch, 'runtime': name, 'ms': 1000 * once, 'images/s': batch / once,
                         'GFLOP/s': speed / 1e9, 'of peak': speed / peak,
                         'max RSS, MB': median(name, 'MB, %d, %d' % (size, batch)), 'file, MB': files.get(name)})
    blank = dict.fromkeys(rows[0])
    return rows + [dict(blank, size=size, batch=1, runtime=name, ms=1000 * value)
                   for (size, name), value in around.items()]


def infer_cases():
    """The (size, batch) pairs in the order in which they need more memory: the most so far is that of each."""
    return sorted(((size, batch) for size in INFER_SIZES for batch in INFER_BATCHES),
                  key=lambda case: case[0] ** 2 * case[1])


def infer_files(args, net, info, folder):
    """Write what the runs need into `folder`. Returns the size of each runtime's file, MB."""
    import export_onnx
    import onnx
    paths = {name: os.path.join(folder, name) for name in ('net.params', 'heads.onnx', 'int8.onnx', 'boxes.onnx')}
    net.save_parameters(paths['net.params'])
    with open(os.path.join(folder, 'info.json'), 'w') as file:
        json.dump(info, file)
    onnx.save(export_onnx.export(net, info), paths['boxes.onnx'])
    cut_heads(onnx.load(paths['boxes.onnx']), paths['heads.onnx'])
    if args.int8:
        try:
            model = onnx.load(args.int8)
            classes = next(json.loads(fact.value) for fact in model.metadata_props if fact.key == 'classes')
            cut_heads(model, paths['int8.onnx'])
        except Exception as error:  # onnx raises errors of its own
            raise UserError('--int8 %s is not a file of scripts/quantize_onnx.py: %r' % (args.int8, error))
        if classes != list(info['classes']):
            raise UserError('--int8 %s is of another network: give its .params file with --params' % args.int8)
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


def infer_run(args):
    """Seconds of each case, the most memory so far, and for 'product' the speed of a matrix product."""
    import numpy as np
    if args.only == 'product':
        from yolo3.runtime import mx
        matrix = mx.nd.random.uniform(shape=(2048, 2048))
        return {'FLOP/s': 2 * 2048 ** 3 / seconds(lambda: mx.nd.dot(matrix, matrix).wait_to_read(), 9)}
    runtime = args.only.split()[0].rstrip(',')
    prepare = {'mxnet': mxnet_forward, 'torch': torch_forward, 'onnxruntime': onnxruntime_forward,
               'openvino': openvino_forward}[runtime](args)
    figures = {}
    for size, batch in infer_cases():
        images = np.random.RandomState(0).randn(batch, 3, size, size).astype('float32')
        figures['seconds, %d, %d' % (size, batch)] = seconds(prepare(images), 9 if batch == 1 else 3)
        # Not getrusage's figure, in which the process that started this one counts too.
        figures['MB, %d, %d' % (size, batch)] = resident('self', 'VmHWM')
    return figures


def mxnet_forward(args):
    """A function: images -> a function that runs the network on them. So are those below."""
    from yolo3.network import build
    from yolo3.runtime import mx
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

    with open(os.path.join(args.folder, 'info.json')) as file:
        info = json.load(file)
    net = build(info['network'], info['classes'])
    net.load_parameters(os.path.join(args.folder, 'net.params'))
    heads = Heads(net)
    heads.hybridize()
    warnings.filterwarnings('ignore', 'Parameter .* is not used')  # of the decoding

    def prepare(images):
        images = mx.nd.array(images)
        return lambda: [output.wait_to_read() for output in heads(images)]
    return prepare


def torch_forward(args):
    import torch
    import torch_network
    from yolo3.cpus import usable_cpus
    torch.set_num_threads(usable_cpus())
    return lambda images: torch_network.forward(len(images), images.shape[2])


def heads_file(args):
    return os.path.join(args.folder, 'int8.onnx' if args.only.endswith('int8') else 'heads.onnx')


def onnxruntime_forward(args):
    import onnxruntime
    from yolo3.cpus import usable_cpus
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(heads_file(args), options, providers=['CPUExecutionProvider'])
    return lambda images: lambda: session.run(None, {'images': images})


def openvino_forward(args):
    from yolo3 import deploy  # noqa: F401, before openvino: see there
    import openvino
    precision = {'INFERENCE_PRECISION_HINT': 'f32'} if args.only.endswith('float32') else {}
    compiled = openvino.Core().compile_model(heads_file(args), 'CPU', precision)
    return lambda images: lambda: compiled({'images': images})


def around_network(folder):
    """Seconds for one image of 640 x 480 pixels before and after the network, by ONNX Runtime's file with boxes."""
    import numpy as np
    from yolo3 import deploy
    network, _ = deploy.load(os.path.join(folder, 'boxes.onnx'))
    heads = onnxruntime_forward(argparse.Namespace(folder=folder, only='onnxruntime'))
    image = np.random.RandomState(0).randint(0, 256, (480, 640, 3)).astype('uint8')
    found = {}
    for size in INFER_SIZES:
        inputs = network.prepare(deploy.resize(image, size)[None])
        boxes, scores, _ = network._run(inputs)
        found[size, 'before: resize, normalise'] = seconds(
            lambda: network.prepare(deploy.resize(image, size)[None]), 9)
        found[size, 'decoding of boxes, inside'] = max(
            0., seconds(lambda: network._run(inputs), 9) - seconds(heads(inputs), 9))
        found[size, 'after: suppression'] = seconds(lambda: deploy.suppress(boxes[0], scores[0]), 9)
    return found


def resident(pid, which='VmRSS'):
    """The resident set of a process, MB (Linux): now, or with 'VmHWM' the largest it ever was."""
    with open('/proc/%s/status' % pid) as file:
        return int(re.search(which + r':\s+(\d+)', file.read()).group(1)) / 1024


if __name__ == '__main__':
    run(main)
