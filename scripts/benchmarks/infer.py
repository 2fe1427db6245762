"""demo.py and eval_yolo3.py against the network alone, with each runtime on the CPU."""
import importlib.util
import os
import statistics
import sys
import tempfile
import time

import numpy as np

from benchmarks import measure
from yolo3.cli import UserError

RUNS = {'MXNet': 'mxnet', 'ONNX Runtime': 'onnxruntime', 'ONNX Runtime, INT8': 'onnxruntime', 'OpenVINO': 'openvino',
        'OpenVINO, bfloat16': 'openvino', 'OpenVINO, INT8': 'openvino'}
PICTURES = 16
BATCHES = 1, 8
SIDE = 640, 480
PRIOR = 0.005  # of an object, for random weights: they would find thousands of boxes


def figures(args):
    """A row for each runtime: milliseconds at --data-shape, batch 1, of the network alone, of a picture in demo.py and
    of a frame of a video; images/s in evaluation. Pictures are those of --dataset-root or made up."""
    if args.only:
        return alone(args)
    runs = [name for name in RUNS if is_here(name, args)]
    with tempfile.TemporaryDirectory() as folder:
        write_files(args, folder)
        results = measure.by_turns(args, runs, ['--folder', folder])
    rows = []
    for name in runs:
        for round_ in results[name]:
            for what in 'demo', 'video':
                round_[what + ' / network'] = round_[what + ', ms'] / round_['network, ms']
        rows.append({key: statistics.median(round_[key] for round_ in results[name]) for key in results[name][0]})
        rows[-1]['runtime'] = name
    columns = ['runtime', *dict.fromkeys(key for row in rows for key in row if key != 'runtime')]
    return [{column: row.get(column) for column in columns} for row in rows]


def is_here(name, args):
    """Whether the run `name` can be measured; if not, it is said why."""
    lacks = ''
    if 'INT8' in name:
        lacks = '' if args.int8 else '--int8 FILE'
    if not importlib.util.find_spec(RUNS[name]):
        lacks = 'the module ' + RUNS[name]
    elif 'bfloat16' in name:
        from yolo3.deploy import runtimes  # noqa: F401, it must come before openvino: see there
        import openvino
        if 'BF16' not in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
            lacks = 'a processor with bfloat16'
    if lacks:
        print('left out: %s, which needs %s' % (name, lacks), file=sys.stderr)
    return not lacks


def write_files(args, folder):
    """Write into `folder` the network, net.params and net.onnx, pictures/ and clip.mp4 of them."""
    import cv2
    import export_onnx
    import onnx
    from yolo3.data.images import EXTENSIONS, ImageFile
    from yolo3.files import files_below
    from yolo3.network import build, set_objectness_prior
    from yolo3.weights import load_detector, save_detector
    from yolo3.zoo import CLASSES
    if args.params:
        net, info = load_detector(args.params)
    else:
        net, info = build('mobilenet1_0', CLASSES['coco']), {
            'network': 'mobilenet1_0', 'classes': CLASSES['coco'], 'dataset': 'coco', 'data_shape': args.data_shape}
        set_objectness_prior(net, PRIOR)
    path = os.path.join(folder, 'net')
    save_detector(net, path + '.params', **info)
    onnx.save(export_onnx.export(net, info), path + '.onnx')
    pictures = os.path.join(folder, 'pictures')
    os.mkdir(pictures)
    if args.dataset_root:
        found = [name for name in files_below(args.dataset_root) if name.endswith(EXTENSIONS)][:PICTURES]
        if len(found) < PICTURES:
            raise UserError('--dataset-root %s has fewer than %d images' % (args.dataset_root, PICTURES))
        for number, source in enumerate(found):
            os.symlink(os.path.abspath(source), os.path.join(pictures, '%d%s' % (number, os.path.splitext(source)[1])))
    else:
        generator = np.random.RandomState(0)
        for number in range(PICTURES):
            noise = generator.randint(0, 256, (SIDE[1] // 4, SIDE[0] // 4, 3)).astype('uint8')
            cv2.imwrite(os.path.join(pictures, '%d.jpg' % number), cv2.resize(noise, SIDE))
    writer = cv2.VideoWriter(os.path.join(folder, 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 25, SIDE)
    for name in sorted(os.listdir(pictures)):
        writer.write(cv2.resize(ImageFile(os.path.join(pictures, name)).pixels()[..., ::-1], SIDE))
    writer.release()


def alone(args):
    """What one process measures: the figures of the runtime --only."""
    import demo
    from yolo3.show import annotate
    pictures = os.path.join(args.folder, 'pictures')
    paths = sorted(os.path.join(pictures, name) for name in os.listdir(pictures))
    network, detector, plain = open_three(args)
    folder, classes = annotate.OutputFolder(args.folder, []), dict(enumerate(detector.info['classes']))
    times, once = [], [1000 * measure.seconds(network, 6)]

    def detect(image):
        found, = detector.detect([image], args.data_shape)
        times.append(time.perf_counter())
        return demo.detections(found, classes, 0.5)

    def steady():
        """Milliseconds from image to image, without the first ones, for which nothing was ahead."""
        first = 2 * detector.streams - 1
        found = 1000 * (times[-1] - times[first]) / (len(times) - 1 - first)
        times.clear()
        once.append(1000 * measure.seconds(network, 6))
        return found
    detect(np.zeros(SIDE[::-1] + (3,), 'uint8'))
    times.clear()
    demo.annotate_files(paths, detect, folder, [], detector.streams)
    found = {'demo, ms': steady()}
    annotate.annotate_stream(os.path.join(args.folder, 'clip.mp4'), detect, args.folder, detector.streams)
    found['video, ms'] = steady()
    return dict({'network, ms': statistics.median(once)}, **found, **evaluations(args, detector, plain, pictures))


def open_three(args):
    """For the run --only: a function that runs the network on one image; the detector, as demo.py and eval_yolo3.py
    have it for many images; and as they have it for one."""
    image = np.random.RandomState(0).randint(0, 256, (1, args.data_shape, args.data_shape, 3)).astype('uint8')
    path = os.path.join(args.folder, 'net')
    if args.only == 'MXNet':
        from yolo3.mxnet_setup import mx
        from yolo3.detect import MXNetDetector, normalize
        from yolo3.weights import load_detector
        net, info = load_detector(path + '.params')
        detector, batch = MXNetDetector(net, info, [mx.cpu()]), mx.nd.array(image, dtype='uint8')
        detector.detect(list(image), args.data_shape)  # sets `net` up
        return lambda: [output.wait_to_read() for output in net(normalize(batch))], detector, detector
    from yolo3.deploy import runtimes
    if 'bfloat16' in args.only:
        runtimes.PRECISION = 'bf16'
    path = args.int8 if 'INT8' in args.only else path + '.onnx'
    many, one = [runtimes.ONNXDetector(path, RUNS[args.only], at_once=count) for count in (PICTURES, 1)]
    batch = one.prepare(image)
    return lambda: one.run(batch), many, one


def evaluations(args, detector, plain, pictures):
    """Images/s of eval_yolo3.py's work for each of BATCHES and, if there are any, with streams."""
    from yolo3.data.unlabelled import open_unlabelled
    from yolo3.metrics import Detections
    images = open_unlabelled('voc', pictures, detector.info['classes'], [])
    cases = {'eval images/s, batch %d' % batch: (plain, batch) for batch in BATCHES}
    if detector.streams > 1:
        cases['eval images/s, streams'] = detector, PICTURES
    found, image = {}, np.zeros(SIDE[::-1] + (3,), 'uint8')
    for name, (which, batch) in cases.items():
        batches, = which.loaders(images, [args.data_shape], batch, 1)
        which.detect([image] * (batch if which is plain else 1), args.data_shape)  # builds the network for the batch
        start = time.perf_counter()
        which.evaluate(batches, Detections(images), args.data_shape)
        found[name] = len(images) / (time.perf_counter() - start)
    return found
