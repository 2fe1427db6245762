"""Train YOLOv3 with a MobileNet backbone: the whole recipe, from the command line to the last checkpoint."""
import contextlib
import itertools
import json
import math
import time

from yolo3.mxnet_setup import mx
from mxnet import autograd, gluon
from mxnet.contrib import amp

import numpy as np

from yolo3 import checkpoint, detect, log, metrics, network, weights
from yolo3.distributed import backends
from yolo3.data.anchors import ANCHORS, fit_anchors, mean_iou
from yolo3.data.augment import normalize
from yolo3.cli import ArgumentParser, Interrupted, RunError, UserError, comma_list, run, shorten, stop
from yolo3.data.datasets import open_train, open_val
from yolo3.data.loader import Requests, train_loader, val_loader
from yolo3.devices import contexts, out_of_memory
from yolo3.distributed.group import ONE_PROCESS
from yolo3.data.targets import DenseTargets


# What may differ between the processes of one training: each host has its own devices and paths.
OF_EACH_HOST = ('gpus', 'num_workers', 'no_shared_memory', 'dataset_root', 'backbone_params', 'pretrained',
                'save_prefix', 'prefix', 'tensorboard')


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--network', default='mobilenet1_0', help='backbone: mobilenet1_0, 0_75, 0_5 or 0_25')
    add('--data-shape', type=int, default=416, help='input size in validation, pixels; 320, 416, 608, ...')
    add('--batch-size', type=int, default=64, help='images a step, over all devices')
    add('--dataset', default='voc', choices=('voc', 'coco'), help='form of the data set')
    add('--dataset-root', default='', help='folder of your own data; default: ~/.mxnet/datasets/voc or coco')
    add('--classes', default='', help='class names a,b,c of your own data; default: the 20 of VOC, or all in the JSON')
    add('--train-splits', default='', help='2007_trainval,... (voc) or annotation file stems (coco)')
    add('--val-splits', default='', help='2007_test,... (voc) or an annotation file stem (coco)')
    add('--skip-empty', action='store_true', help='leave images without objects out of the training')
    add('--on-bad-image', default='', choices=('', 'skip', 'stop'),
        help='what an image that is missing, unreadable or of another size than annotated gets: it is left out and '
             'named, or ends the run. Default: left out, unless there are more than 1%%')
    add('--num-workers', '-j', type=int, default=4, help='processes that prepare the batches')
    add('--no-shared-memory', action='store_true', help='send the batches through pipes, which is slower')
    add('--gpus', default='0,1,2,3,4,5,6,7', help="GPUs to train on; '' is the CPU")
    add('--horovod', action='store_true', help='one of several processes that horovodrun started, with the device of '
                                               '--gpus that is its turn (docs/scaling.md)')
    add('--kv-store', default='device', choices=('device', 'nccl', 'dist_sync_device', 'dist_sync'),
        help="what sums the gradients over --gpus; dist_...: over several hosts too, by MXNet's parameter server")
    add('--epochs', type=int, default=200)
    add('--resume', default='', help="'auto' continues this run exactly where its checkpoint stands; a .params file "
                                     'gives its weights only')
    add('--start-epoch', type=int, default=0, help='with --resume FILE: the epoch to go on from')
    add('--pretrained', default='', help='.params of a detector to start from; class rows of equal names are kept')
    add('--anchors', default='',
        help="'auto' fits them to the training boxes at --data-shape; or 18 numbers: width,height in pixels, smallest "
             "first. Default: those of --pretrained or --resume FILE, else COCO's")
    add('--backbone-params', default='', help="ImageNet weights of the backbone in GluonCV's form")
    add('--no-pretrained-base', action='store_true', help='start the backbone from random weights')
    add('--lr', type=float, default=0.001, help='learning rate')
    add('--lr-mode', default='step', choices=('step', 'poly', 'cosine'))
    add('--lr-decay', type=float, default=0.1, help='factor of each decay (step)')
    add('--lr-decay-period', type=int, default=0, help='decay every so many epochs instead of --lr-decay-epoch')
    add('--lr-decay-epoch', default='160,180', help='epochs at which the learning rate decays (step)')
    add('--warmup-lr', type=float, default=0.0, help='learning rate that the warmup starts from')
    add('--warmup-epochs', type=int, default=0, help='epochs of linear warmup')
    add('--momentum', type=float, default=0.9)
    add('--wd', type=float, default=0.0005, help='weight decay')
    add('--no-wd', action='store_true', help="no weight decay on biases and batch norm's gamma and beta")
    add('--log-interval', type=int, default=100, help='batches between two log lines')
    add('--save-prefix', default='', help='put before the names of all files written; may hold a folder')
    add('--save-interval', type=int, default=10, help='epochs between two kept .params; the best is always kept')
    add('--val-interval', type=int, default=1, help='epochs between two validations; the last epoch always has one')
    add('--keep', type=int, default=2, help='checkpoints kept, the newest included')
    add('--checkpoint-batches', type=int, default=0, help='batches between two checkpoints within an epoch; 0: only at '
                                                          'its end, and when stopped')
    add('--max-bad-batches', type=int, default=10, help='batches an epoch that are left out for a loss which is not '
                                                        'finite; more end the run')
    add('--accumulate', type=int, default=1, help='parts that a batch is computed in, one after the other, for a GPU '
                                                  'that is too small for it')
    add('--seed', type=int, default=233)
    add('--num-samples', type=int, default=-1, help='images an epoch; -1: as many as there are')
    add('--syncbn', action='store_true', help="share batch norm's statistics over the GPUs")
    add('--no-random-shape', action='store_true', help='train at --data-shape only: faster, slightly less accurate')
    add('--min-shape', type=int, default=320, help='smallest random input size, pixels')
    add('--max-shape', type=int, default=608, help='largest random input size, pixels')
    add('--no-augment', action='store_true', help='resize only: for a quick try, or for objects that have no mirror '
                                                  'image, such as digits')
    add('--mixup', action='store_true', help='blend pairs of images')
    add('--no-mixup-epochs', type=int, default=20, help='last epochs without mixup')
    add('--label-smooth', action='store_true', help='smooth the class labels')
    add('--amp', action='store_true', help='mixed precision, on GPUs')
    add('--tensorboard', default='', help='folder to write TensorBoard scalars to')
    args = parser.parse_args(argv)

    args.network = network.network_name(args.network)
    args.prefix = '%syolo3_%s_%s' % (args.save_prefix, args.network, args.dataset)
    args.decay_epochs = comma_integers('--lr-decay-epoch', args.lr_decay_epoch)
    if args.lr_decay_period > 0:
        args.decay_epochs = list(range(args.lr_decay_period, args.epochs, args.lr_decay_period))
    positive = 'batch_size', 'epochs', 'val_interval', 'keep', 'accumulate'
    for flag in positive + ('log_interval', 'num_workers', 'seed', 'warmup_epochs', 'checkpoint_batches',
                            'max_bad_batches', 'start_epoch'):
        least = 1 if flag in positive else 0
        if getattr(args, flag) < least:
            raise UserError('--%s %d: must be at least %d' % (flag.replace('_', '-'), getattr(args, flag), least))
    for flag in 'lr', 'warmup_lr', 'lr_decay', 'momentum', 'wd':
        if not 0 <= getattr(args, flag) < math.inf:
            raise UserError('--%s %s: must be a number from 0 on' % (flag.replace('_', '-'), getattr(args, flag)))
    args.sizes = [args.data_shape] if args.no_random_shape else list(range(args.min_shape, args.max_shape + 1, 32))
    for flag, size in ('data', args.data_shape), ('min', args.min_shape), ('max', args.max_shape):
        if size < 32 or size % 32:
            raise UserError('--%s-shape %d: must be a positive multiple of 32, the largest stride' % (flag, size))
    if not args.sizes:
        raise UserError('--min-shape %d is larger than --max-shape %d' % (args.min_shape, args.max_shape))
    return args


def comma_integers(flag, text):
    """'160,180' -> [160, 180]. Raises UserError that names `flag`."""
    try:
        return [int(item) for item in comma_list(text)]
    except ValueError:
        raise UserError("%s '%s': give numbers with commas between, as in 160,180" % (flag, text))


def learning_rate(args, epoch):
    """The learning rate at `epoch`, which counts from the start of the training and may be fractional.

    A linear warmup from args.warmup_lr, then args.lr_mode (as GluonCV's LRScheduler; poly has power 2). The decay
    epochs of 'step' count from the start of the training too, the warmup included.
    """
    if epoch < args.warmup_epochs:
        return args.warmup_lr + (args.lr - args.warmup_lr) * epoch / args.warmup_epochs
    if args.lr_mode == 'step':
        return args.lr * args.lr_decay ** sum(epoch >= decay for decay in args.decay_epochs)
    done = (epoch - args.warmup_epochs) / max(1, args.epochs - args.warmup_epochs)
    return args.lr * ((1 - done) ** 2 if args.lr_mode == 'poly' else (1 + math.cos(math.pi * done)) / 2)


def choose_anchors(args, train_set, logger):
    """The anchors that --anchors asks for, as ANCHORS in `yolo3.data.anchors`."""
    if args.anchors == 'auto':
        extents = train_set.extents(args.data_shape)
        anchors = fit_anchors(extents)
        logger.info("--anchors auto: mean IoU with the training boxes %.3f, with COCO's anchors %.3f; %s",
                    mean_iou(extents, anchors), mean_iou(extents, ANCHORS), anchors)
        return anchors
    if args.anchors:
        numbers = comma_integers('--anchors', args.anchors)
        if len(numbers) != 18 or min(numbers) < 1:
            raise UserError("--anchors %s: give 'auto', or 18 positive numbers: width,height of nine anchors, the "
                            'smallest first' % args.anchors)
        return [numbers[start:start + 6] for start in (0, 6, 12)]
    start = args.pretrained or (args.resume if args.resume != 'auto' else '')
    sidecar = weights.read_sidecar(start) if start else None
    return sidecar['anchors'] if sidecar else ANCHORS


def build_network(args, classes, anchors, devices, logger):
    """The detector to train, on `devices`, from the weights that the flags name."""
    sync_devices = len(devices) if args.syncbn else 1
    if args.syncbn and devices[0].device_type == 'cpu':
        logger.warning('--syncbn works on GPUs only (it deadlocks on the CPU): training with plain batch norm')
        sync_devices = 1
    if args.resume:
        net = network.build(args.network, classes, sync_devices=sync_devices, anchors=anchors)
        if args.resume != 'auto':
            weights.load_weights(net, args.resume, args.network)
    elif args.pretrained:
        net, kept = weights.transfer(args.pretrained, classes, args.network, sync_devices, anchors)
        logger.info('%s: kept %d of %d classes: %s', args.pretrained, len(kept), len(classes), shorten(kept, 5))
    else:
        backbone = weights.backbone_file(args.network, args.backbone_params, not args.no_pretrained_base)
        net = network.build(args.network, classes, anchors, backbone, sync_devices)
    net._target_generator._label_smooth = args.label_smooth
    net.collect_params().reset_ctx(devices)
    return net


def build_trainer(args, net, engine):
    """SGD with momentum, updated on the devices so that its state can be saved whatever sums the gradients."""
    if args.no_wd:
        for parameter in net.collect_params('.*beta|.*gamma|.*bias').values():
            parameter.wd_mult = 0.0
    trainer = engine.trainer(net.collect_params(), 'sgd', {'learning_rate': args.lr, 'momentum': args.momentum,
                                                           'wd': args.wd})
    if args.amp:
        amp.init_trainer(trainer)
    if args.accumulate > 1:
        for parameter in trainer._params:
            if parameter.grad_req == 'write':
                parameter.grad_req = 'add'
    return trainer


def train_step(net, dense_targets, batch, devices, trainer, mixed_precision=False, accumulate=1, ranks=ONE_PROCESS):
    """One step on a batch of `train_loader`, in `accumulate` parts.

    Returns the losses of its images, (4, b), and over all ranks the sums of these losses and the number of images,
    (5,). Where one is not finite, the batch is not applied: weights, momentum and the running statistics of batch norm
    are as they were. So they are where this raises, as `ranks.step` may.
    """
    running = network.running_statistics(net)
    before = [mx.nd.concat(*arrays, dim=0) for arrays in running]
    losses = []
    for part in zip(*[gluon.utils.split_data(array, accumulate, even_split=False) for array in batch[:3]]):
        if accumulate > 1 and not losses:
            net.collect_params().zero_grad()
        losses += forward_backward(net, dense_targets, part, devices, trainer, mixed_precision)
    # Reading waits for the forward pass only: the devices have the backward pass to do meanwhile.
    losses = np.concatenate([array.asnumpy() for array in losses], axis=1)
    applied = False
    try:
        totals = ranks.step([*losses.sum(axis=1, dtype='float64'), losses.shape[1]])
        if np.isfinite(totals).all():
            trainer.step(totals[-1])
            applied = True
    finally:
        if not applied:
            for arrays, values in zip(running, before):
                network.restore(arrays, values)
    return losses, totals


def forward_backward(net, dense_targets, batch, devices, trainer, mixed_precision):
    """Gradients of images, boxes and target rows, split over the devices; their losses, a (4, b) NDArray each."""
    parts = zip(*[gluon.utils.split_and_load(array, devices, even_split=False) for array in batch])
    inputs = [(normalize(images), boxes, *dense_targets(images, rows)) for images, boxes, rows in parts]
    with autograd.record():
        losses = [net(*part) for part in inputs]
        totals = [sum(loss) for loss in losses]
        with autograd.pause():  # here, so that reading them need not wait for the backward pass
            stacked = [mx.nd.stack(*loss) for loss in losses]
        if mixed_precision:
            with amp.scale_loss(totals, trainer) as scaled:
                autograd.backward(scaled)
        else:
            autograd.backward(totals)
    return stacked


def train_epoch(args, net, trainer, loader, devices, state, logger, ranks):
    """Train on what is left of epoch state['epoch']; returns {name of the loss: mean}.

    After every step state['batch'] is the number of the next batch, counted from the start of the training; and
    however the epoch ends, state['losses'] are its losses so far. Raises RunError after too many bad batches, and what
    `ranks.step` raises.
    """
    net.hybridize()
    dense_targets = DenseTargets(len(net.classes))
    dense_targets.hybridize()
    meter = log.LossMeter(state['losses'])
    requests, epoch = loader.requests, state['epoch']
    batches = requests.batches(epoch)
    requests.begin(epoch, args.mixup and epoch < args.epochs - args.no_mixup_epochs, state['batch'])
    mixed = seen = logged = bad_batches = 0
    start = last_log = last_shown = time.time()
    with log.bar(len(batches) * args.batch_size, 'epoch %d' % epoch, rank=ranks.rank) as bar:
        bar.update((state['batch'] - batches.start) * args.batch_size)
        try:
            for batch in loader:
                done = state['batch'] - batches.start
                rate = learning_rate(args, epoch + done / len(batches))
                trainer.set_learning_rate(rate)
                losses, totals = train_step(net, dense_targets, batch, devices, trainer, args.amp, args.accumulate,
                                            ranks)
                if np.isfinite(totals).all():
                    meter.update(totals)
                else:
                    bad_batches += 1
                    bad = ~np.isfinite(losses).all(axis=0)
                    names = map(loader.name, itertools.compress(requests.batch(state['batch'], requests.mixup), bad))
                    names = ranks.gather(', '.join(names).encode())
                    if names:
                        logger.warning('[Epoch %d][Batch %d] a loss is not finite: this batch is not learned from: %s',
                                       epoch, done, ', '.join(name.decode() for name in names if name))
                state['batch'] += 1
                if bad_batches > args.max_bad_batches:
                    raise RunError('epoch %d had %d batches whose loss is not finite (--max-bad-batches): look at the '
                                   'images named in %s_train.log; a lower --lr or a longer --warmup-epochs may help; '
                                   '--resume auto goes on from here' % (epoch, bad_batches, args.prefix))
                loader.tell_bad(batch, logger)
                ratios = batch[3].asnumpy()
                mixed += int((ratios < 1).sum())
                seen += args.batch_size
                now = time.time()
                if args.log_interval and (done + 1) % args.log_interval == 0:
                    logger.info('[Epoch %d][Batch %d], LR: %.2E, Speed: %.3f samples/sec, %s', epoch, done, rate,
                                (seen - logged) / (now - last_log), log.format_losses(meter.means()))
                    logged, last_log = seen, time.time()
                if ranks.rank == 0 and now - last_shown > bar.mininterval:
                    bar.set_postfix_str('lr %.1E, %s' % (rate, log.format_losses(meter.means())), refresh=False)
                    last_shown = now
                bar.update(args.batch_size)
                if args.checkpoint_batches and (done + 1) % args.checkpoint_batches == 0:
                    state['losses'] = meter.totals()
                    average_over(ranks, net)
                    save_checkpoint(args, net, trainer, state, logger, ranks)
        except Interrupted:
            average_over(ranks, net)
            raise
        finally:
            state['losses'] = meter.totals()
    means = meter.means()
    logger.info('[Epoch %d] Training cost: %.3f, %s', epoch, time.time() - start, log.format_losses(means))
    if args.mixup:
        mixed, = ranks.sum([mixed])
        logger.info('[Epoch %d] Mixed samples: %d of %d', epoch, mixed, seen)
    return dict(means, epoch=epoch, lr=learning_rate(args, epoch + 1))


def average_over(ranks, net):
    """Give all ranks one network within an epoch: rank 0 saves its own."""
    if ranks.size > 1:
        checkpoint.average_running_statistics(net, ranks)


def validate(args, net, loader, metric, devices, epoch, logger, ranks):
    """The metric's values, after telling them to the log in the original's format; {} at other ranks than 0."""
    with log.bar(len(loader.dataset), 'validation', rank=ranks.rank) as bar:
        batches = ranks.watch(log.advancing(bar, loader, ranks.size))
        values = detect.evaluate(net, batches, metric, args.data_shape, devices, ranks=ranks)
    if ranks.rank:
        return {}
    logger.info('[Epoch %d] Validation: \n%s', epoch, '\n'.join('%s=%s' % pair for pair in values.items()))
    return values


def save_params(args, net, state, values, logger):
    """Keep the best weights, and every --save-interval epochs the current ones, under the original's names."""
    epoch = state['epoch']
    current = metrics.headline(values) if values else 0.0
    sidecar = {'network': args.network, 'classes': list(net.classes), 'anchors': network.anchors_of(net),
               'data_shape': args.data_shape, 'dataset': args.dataset, 'epoch': epoch, 'metrics': values}
    if values and current > state['best_map']:
        weights.save_detector(net, args.prefix + '_best.params', **sidecar)
        state['best_map'] = current
        with open(args.prefix + '_best_map.log', 'a') as file:
            file.write('%04d:\t%.4f\n' % (epoch, current))
    if args.save_interval and epoch % args.save_interval == 0:
        weights.save_detector(net, '%s_%04d_%.4f.params' % (args.prefix, epoch, current), **sidecar)


@contextlib.contextmanager
def tolerated(what, logger):
    """Say that `what` could not be written (a full disk, a folder that is gone) and go on."""
    try:
        yield
    except OSError as error:
        logger.warning('could not write %s (%s): the training goes on, and what was written before stays', what,
                       error.strerror or error)


def save_checkpoint(args, net, trainer, state, logger, ranks):
    """Have rank 0 write the checkpoint; returns whether it could be written."""
    if ranks.rank:
        return True
    path = checkpoint.path(args.prefix)
    with tolerated(path, logger):
        checkpoint.save(path, net, trainer, state, args.keep)
        return True
    return False


def resume(args, net, trainer, requests, logger):
    """Where the run stands: as its checkpoint says with --resume auto, else at the start of --start-epoch."""
    path = checkpoint.path(args.prefix)
    if args.resume == 'auto':
        state = checkpoint.load(path, net, trainer, args.keep, logger.warning)
        checkpoint.require_same(path, state['settings'], settings(args, requests))
        logger.info('Resume %s at epoch %d, batch %d', path, state['epoch'],
                    state['batch'] - requests.batches(state['epoch']).start)
        return state
    if checkpoint.existing(path, args.keep):
        logger.warning('%s is of an earlier run, which --resume auto would continue; this run replaces it', path)
    epoch = args.start_epoch
    return {'epoch': epoch, 'batch': requests.batches(epoch).start, 'losses': None, 'best_map': -1.0,
            'history': [], 'settings': settings(args, requests)}


def settings(args, requests):
    """What must be the same for a run to be continued exactly: {flag: value}."""
    return {'--network': args.network, '--batch-size': args.batch_size, '--seed': args.seed,
            '--num-samples': args.num_samples, '--anchors': args.anchors, 'number of training images': requests.length}


def keep(args, net, state, entry, values, logger):
    """What rank 0 writes after an epoch, its checkpoint apart: weights, curves, TensorBoard's scalars."""
    with tolerated('the weights of epoch %d beside %s' % (state['epoch'], checkpoint.path(args.prefix)), logger):
        save_params(args, net, state, values, logger)
    state['history'].append(entry)
    with tolerated(args.prefix + '_curves.png', logger):
        log.plot_curves(args.prefix + '_curves.png', state['history'])
    if args.tensorboard:
        with tolerated('--tensorboard ' + args.tensorboard, logger):
            log.write_scalars(args.tensorboard, state['history'])


def train(args, net, trainer, loaders, metric, devices, state, logger, ranks):
    """Epoch after epoch: train, validate, keep the weights, draw the curves, write the checkpoint."""
    written = True
    stop.hold()
    try:
        while state['epoch'] < args.epochs:
            epoch = state['epoch']
            entry = train_epoch(args, net, trainer, loaders[0], devices, state, logger, ranks)
            checkpoint.average_running_statistics(net, ranks)
            values = {}
            if (epoch + 1) % args.val_interval == 0 or epoch + 1 == args.epochs:
                values = validate(args, net, loaders[1], metric, devices, epoch, logger, ranks)
            if ranks.rank == 0:
                keep(args, net, state, dict(entry, mAP=metrics.headline(values)) if values else entry, values, logger)
            state.update(epoch=epoch + 1, losses=None)
            written = save_checkpoint(args, net, trainer, state, logger, ranks)
    except (Interrupted, RunError, UserError):
        if save_checkpoint(args, net, trainer, state, logger, ranks):
            logger.info('Stopped in epoch %d; the same command with --resume auto continues', state['epoch'])
        raise
    if not written:
        raise RunError('the training is done, but its last checkpoint %s could not be written: make room, or the '
                       'folder writable, and give --resume auto, which repeats what is missing'
                       % checkpoint.path(args.prefix))


def main():
    args = parse_args()
    with backends.join(args.horovod, args.kv_store) as ranks:
        run_as(ranks, args)


def run_as(ranks, args):
    """This rank's part of the training."""
    devices = contexts(args.gpus, ranks.engine.local_rank)
    count = int(ranks.sum([len(devices)])[0])
    if args.batch_size // args.accumulate < count:
        parts = ' in %d parts (--accumulate)' % args.accumulate if args.accumulate > 1 else ''
        raise UserError('--batch-size %d%s is smaller than the %d devices' % (args.batch_size, parts, count))
    if args.amp:
        if devices[0].device_type == 'cpu':
            raise UserError('--amp needs GPUs: leave it out, or give --gpus')
        amp.init()
    mx.random.seed(args.seed)

    root, classes = args.dataset_root, comma_list(args.classes)
    train_set = open_train(args.dataset, root, classes, comma_list(args.train_splits), args.skip_empty,
                           args.on_bad_image)
    val_set = open_val(args.dataset, root, train_set.classes, comma_list(args.val_splits), args.on_bad_image)
    if ranks.size > 1:
        flags = {'--' + name.replace('_', '-'): str(value) for name, value in vars(args).items()
                 if name not in OF_EACH_HOST}
        ranks.require_same(dict(flags, **{'training images with labels': train_set.digest(),
                                          'validation images with labels': val_set.digest()}))
    if args.batch_size > len(train_set):
        raise UserError('--batch-size %d is larger than the training set of %d images'
                        % (args.batch_size, len(train_set)))
    requests = Requests(len(train_set), args.batch_size, args.sizes, args.seed,
                        args.num_samples if args.num_samples > 0 else None, ranks.part(args.batch_size))

    logger = log.start_log(args.prefix + '_train.log', ranks.rank)
    logger.info(args)
    if args.syncbn and ranks.size > 1:
        logger.warning('--syncbn shares statistics within a process only, not over these %d', ranks.size)
    logger.info('training on %s', train_set.summary())
    logger.info('validating on %s', val_set.summary())
    anchors = json.loads(ranks.share(json.dumps(choose_anchors(args, train_set, logger)).encode()))
    # The workers are forked here, before there is anything on a GPU.
    on_gpu = devices[0].device_type == 'gpu'
    shared = not args.no_shared_memory
    loaders = (train_loader(train_set, requests, args.num_workers, anchors, not args.no_augment, on_gpu, shared),
               val_loader(val_set, args.data_shape, args.batch_size, args.num_workers, on_gpu, shared, ranks.part))

    if args.resume == 'auto':
        found = ranks.rank == 0 and checkpoint.existing(checkpoint.path(args.prefix), args.keep)
        if not json.loads(ranks.share(json.dumps(bool(found)).encode())):
            logger.info('No checkpoint %s yet: starting anew', checkpoint.path(args.prefix))
            args.resume = ''
    net = build_network(args, train_set.classes, anchors, devices, logger)
    trainer = build_trainer(args, net, ranks.engine)
    state = resume(args, net, trainer, requests, logger) if ranks.rank == 0 else None
    state = json.loads(ranks.share(json.dumps(state).encode()))
    backends.spread(ranks, trainer)
    metric = metrics.make_metric(metrics.default_metric(args.dataset), val_set)
    logger.info('Start training from [Epoch %d]', state['epoch'])
    try:
        train(args, net, trainer, loaders, metric, devices, state, logger, ranks)
    except mx.base.MXNetError as error:
        if not out_of_memory(error):
            raise
        raise RunError('out of memory on %s with --batch-size %d at inputs up to %d pixels: --accumulate %d computes '
                       'the same batch in parts, a smaller --max-shape needs less too; --resume auto goes on from the '
                       'last checkpoint' % (args.gpus and '--gpus ' + args.gpus or 'the CPU', args.batch_size,
                                            max(args.sizes + [args.data_shape]), 2 * args.accumulate))


if __name__ == '__main__':
    run(main)
