"""A training step against stock MXNet's, PyTorch's and Ultralytics'. Imports are inside, for each runs in a process of
its own.
"""
import importlib.util

from benchmarks import measure


def figures(args):
    """Images a second of a training step at --data-shape."""
    runs = {'ours': our_step, 'torch, eager': torch_step, 'torch.compile': torch_step}
    runs.update({'float32': our_step} if args.amp else {'stock': stock_step, 'ultralytics': ultralytics_step})
    if args.only:
        return runs[args.only](args)
    runs = [name for name in runs if runs[name] in (our_step, stock_step)
            or importlib.util.find_spec(name.split(',')[0].split('.')[0]) and not args.quick]
    results = measure.by_turns(args, runs)
    result = measure.medians(results)
    result.update(('ours / %s' % other, measure.ratio(results, 'images/s', 'ours', other))
                  for other in runs if other != 'ours')
    if 'torch.compile' in runs:
        result['ours / the better torch'] = min(result['ours / torch, eager'], result['ours / torch.compile'])
    return result


def noise(args, num_class=80, boxes=8):
    """Random images, and random boxes, (boxes, 4), their classes and their `sparse_targets` for each."""
    import numpy as np
    from yolo3.data.anchors import ANCHORS
    from yolo3.data.targets import sparse_targets
    generator, size = np.random.RandomState(0), args.data_shape
    for _ in range(args.batch_size):
        corners = generator.uniform(0, size / 2, (boxes, 2))
        label = np.hstack((corners, corners + generator.uniform(8, size / 2, (boxes, 2)))).astype('float32')
        ids = generator.randint(0, num_class, boxes)
        yield (generator.randint(0, 256, (size, size, 3)).astype('uint8'), label, ids,
               sparse_targets(label, ids, np.ones(boxes), size, ANCHORS))


def some_batch(args):
    """A batch of noise, as `train_loader` gives it."""
    import numpy as np
    from yolo3.data.loader import Batch, TrainSamples, ndarray
    from yolo3.mxnet_setup import mx
    samples = [(image, label, rows, np.float32(1), np.array([-1, -1], 'int32'))
               for image, label, _, rows in noise(args)]
    return Batch(*[ndarray(field, mx.cpu()) for field in TrainSamples.stack(samples)], samples=None)


def stock_step(args):
    from benchmarks import stock_pipeline
    from benchmarks.training import network_and_trainer
    from yolo3.data.augment import normalize
    from yolo3.zoo import CLASSES
    from yolo3.mxnet_setup import mx
    net, trainer = network_and_trainer(CLASSES['coco'])
    ours = some_batch(args)
    targets = stock_pipeline.dense_targets(ours.targets.asnumpy(), args.data_shape, 80)
    batch = [normalize(ours.images), *map(mx.nd.array, targets), ours.boxes]  # what its workers send
    return {'images/s': args.batch_size / measure.seconds(lambda: stock_pipeline.train_step(net, batch, trainer),
                                                        1 if args.quick else 3)}


def our_step(args):
    import train_yolo3_mobilenet as training
    from benchmarks.training import network_and_trainer
    from yolo3.zoo import CLASSES
    from yolo3.mxnet_setup import mx
    from yolo3.devices import mix_precision
    from yolo3.distributed.group import ONE_PROCESS
    from yolo3.loss import DetectionLoss, set_loss
    if args.amp and args.only == 'ours':
        mix_precision(mx.cpu())
    net, trainer = network_and_trainer(CLASSES['coco'])
    set_loss(net, DetectionLoss(80))
    batch, flags = some_batch(args), training.parse_args([])
    flags.devices = [mx.cpu()]
    count = 2 if args.quick else 3

    def steps():
        """Some, which together say what one takes, as the loop runs ahead of the device."""
        for _ in range(count):
            training.train_step(net, batch, trainer, flags, ONE_PROCESS)
        mx.nd.waitall()
    once = measure.seconds(steps, count - 1) / count
    if args.amp:
        return {'images/s': args.batch_size / once}
    work = 3 * measure.flop(net, args.data_shape) * args.batch_size  # forward, and backward for inputs and weights
    product = measure.product_speed()
    return {'images/s': args.batch_size / once, 'GFLOP/s': work / once / 1e9,
            'GFLOP/s of a 2048 x 2048 product': product / 1e9, 'share of that': work / once / product}


def torch_step(args):
    """PyTorch: the same network, losses and targets, channels last."""
    import numpy as np
    from benchmarks import torch_network
    images, labels, _, rows = zip(*noise(args))
    step = torch_network.stepper(np.stack(images), np.stack(labels), rows, args.only == 'torch.compile',
                                 args.amp)
    return {'images/s': args.batch_size / measure.seconds(step, 3)}


def ultralytics_step(args):
    """Ultralytics' YOLOv8s, as its trainer trains it, at the size that takes about as many FLOP an image as ours."""
    import copy
    import numpy as np
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.torch_utils import ModelEMA
    net = DetectionModel('yolov8s.yaml', nc=80, verbose=False).train()
    net.args = get_cfg()
    optimizer = torch.optim.SGD(net.parameters(), 1e-6, 0.937, weight_decay=5e-4, nesterov=True)
    average = ModelEMA(net)
    size = copy.copy(args)
    size.data_shape = round(args.data_shape * 0.041) * 32  # 28.6 GFLOP at 640 pixels: 20.7 for our 20.3
    images, labels, ids, _ = map(np.stack, zip(*[(*each[:3], 0) for each in noise(size)]))
    corners = labels.reshape(-1, 4) / size.data_shape
    batch = {'img': images.transpose(0, 3, 1, 2), 'cls': ids.reshape(-1, 1).astype('float32'),
             'bboxes': np.hstack(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2])),
             'batch_idx': np.repeat(np.arange(len(images), dtype='float32'), labels.shape[1])}
    batch = {name: torch.from_numpy(array) for name, array in batch.items()}

    def step():
        loss = net.loss(dict(batch, img=batch['img'].float() / 255))[0].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10)
        optimizer.step()
        optimizer.zero_grad()
        average.update(net)
        return loss.item()
    return {'images/s': args.batch_size / measure.seconds(step, 3)}
