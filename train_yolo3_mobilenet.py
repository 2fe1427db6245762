"""Train YOLOv3 with a MobileNet backbone on VOC, COCO or your own data: GluonCV's recipe, read from top to bottom.

The original repository's two commands, for 8 GPUs (--gpus '' is the CPU):

    python3 train_yolo3_mobilenet.py --network mobilenet1_0 --dataset voc --gpus 0,1,2,3,4,5,6,7 \
        --batch-size 64 -j 16 --log-interval 100 --lr-decay-epoch 160,180 --epochs 200 --syncbn --warmup-epochs 4
    python3 train_yolo3_mobilenet.py --network mobilenet1_0 --dataset coco --gpus 0,1,2,3,4,5,6,7 \
        --batch-size 64 -j 32 --log-interval 100 --lr-decay-epoch 220,250 --epochs 280 --syncbn --warmup-epochs 2 \
        --mixup --no-mixup-epochs 20 --label-smooth --no-wd
"""
import logging
import math

from yolo3 import cli
from yolo3.flags import OPTIMIZERS, parse_args

cli.start(__name__, parse_args)

from yolo3.mxnet_setup import mx
from mxnet import autograd, gluon
from mxnet.contrib import amp

import numpy as np

from yolo3 import metrics, network, weights, zoo
from yolo3.cli import UserError, comma_list, shorten
from yolo3.data.augment import Parts, normalize
from yolo3.data.datasets import open_train, open_val
from yolo3.data.loader import start_workers, train_loader, val_loader
from yolo3.data.sampler import TrainSampler
from yolo3.detect import validate
from yolo3.devices import devices_to_train_on, explain_memory, mix_precision
from yolo3.distributed import backends
from yolo3.ema import Ema
from yolo3.lock import exclusive
from yolo3.log import TrainingLog, start_log
from yolo3.loss import DetectionLoss, set_loss
from yolo3.resume import begin, resumable
from yolo3.run import Run, require_agreement
from yolo3.teacher import Teacher

logger = logging.getLogger('yolo3')


def warn_of_no_effect(args):
    """Say which flags do nothing in a training of so few epochs."""
    if args.lr_mode == 'step' and min(args.lr_decay_epoch, default=args.epochs) >= args.epochs:
        logger.warning('the learning rate never decays: no --lr-decay-epoch comes before --epochs %d', args.epochs)
    for flag, on in ('--mixup', args.mixup), ('--mosaic', args.mosaic):
        if on and args.no_mixup_epochs >= args.epochs:
            logger.warning('%s mixes nothing: --no-mixup-epochs %d covers all of --epochs %d', flag,
                           args.no_mixup_epochs, args.epochs)
    if args.freeze and args.no_pretrained_base and not (args.pretrained or args.resume):
        logger.warning('--freeze keeps the random weights of --no-pretrained-base')


def learning_rate(args, epoch):
    """The learning rate at `epoch`, which counts from the start of training and may be fractional.

    A linear warmup from args.warmup_lr, then args.lr_mode, as GluonCV's LRScheduler (poly has power 2; cosine ends at
    args.lr_final of args.lr). The decay epochs of 'step' count from the start of training, warmup included.
    """
    if epoch < args.warmup_epochs:
        return args.warmup_lr + (args.lr - args.warmup_lr) * epoch / args.warmup_epochs
    done = (epoch - args.warmup_epochs) / max(1, args.epochs - args.warmup_epochs)
    return args.lr * {'constant': 1,
                      'step': args.lr_decay ** sum(epoch >= decay for decay in args.lr_decay_epoch),
                      'linear': 1 - done,
                      'poly': (1 - done) ** 2,
                      'cosine': args.lr_final + (1 - args.lr_final) * (1 + math.cos(math.pi * done)) / 2}[args.lr_mode]


def open_data(args, group):
    """The training and the validation set, the same in all processes. Raises UserError."""
    train_set = open_train(args.dataset, args.dataset_root, comma_list(args.classes), comma_list(args.train_splits),
                           args.skip_empty, args.on_bad_image)
    val_set = open_val(args.dataset, args.dataset_root, train_set.classes, comma_list(args.val_splits),
                       args.on_bad_image)
    images = min(len(train_set), args.num_samples) if args.num_samples > 0 else len(train_set)
    if args.batch_size > images:
        raise UserError('--batch-size %d is larger than an epoch of %d images: the training set or --num-samples'
                        % (args.batch_size, images))
    require_agreement(args, train_set, val_set, group)
    start_log(args.prefix + '_train.log', group.rank)
    logger.info(args)
    warn_of_no_effect(args)
    logger.info('training on %s', train_set.summary())
    logger.info('validating on %s', val_set.summary())
    return train_set, val_set


def build_network(args, state):
    """The detector to train, with the classes and anchors of `state`, on args.devices. Raises UserError.

    Its weights are those that the flags name; with --resume auto, Run puts the checkpoint's into it.
    """
    classes, anchors = state.classes, state.anchors
    sync_devices = len(args.devices) if args.syncbn else 1
    if args.syncbn and args.devices[0].device_type == 'cpu':
        logger.warning('--syncbn works on GPUs only (it deadlocks on the CPU): training with plain batch norm')
        sync_devices = 1
    if args.resume:
        net = network.build(args.network, classes, anchors, '', sync_devices)
        if args.resume != 'auto':
            weights.resume(net, args.resume, args.network)
    elif args.pretrained:
        net, kept = weights.transfer(args.pretrained, classes, args.network, sync_devices, anchors)
        logger.info('%s: kept %d of %d classes: %s', args.pretrained, len(kept), len(classes), shorten(kept, 5))
    else:
        backbone = zoo.backbone_file(args.network, args.backbone_params, not args.no_pretrained_base)
        net = network.build(args.network, classes, anchors, backbone, sync_devices)
        if args.objectness_prior:
            network.set_objectness_prior(net, args.objectness_prior)
    set_loss(net, DetectionLoss(len(classes), args.label_smooth, args.box_loss))
    net.collect_params().reset_ctx(args.devices)
    net.hybridize()
    return net


def build_trainer(args, net, backend):
    """The optimizer of the flags, updated on the devices: so its state can be saved whatever sums the gradients."""
    if args.no_wd:
        for parameter in net.collect_params('.*beta|.*gamma|.*bias').values():
            parameter.wd_mult = 0.0
    trainer = backend.trainer(net.collect_params(), args.optimizer,
                              {'learning_rate': args.lr, OPTIMIZERS[args.optimizer]: args.momentum, 'wd': args.wd})
    if args.amp and args.devices[0].device_type == 'gpu':  # bfloat16 has float32's range: no gradient vanishes
        amp.init_trainer(trainer)
    if args.accumulate > 1:
        for parameter in trainer._params:
            if parameter.grad_req == 'write':
                parameter.grad_req = 'add'
    return trainer


def train_step(net, batch, trainer, args, group, teacher=None):
    """One step on a Batch, in args.accumulate parts, over args.devices and the processes of `group`.

    teacher: a Teacher to learn from too. Returns the losses of this process's images, (4, b), and over all processes
    the sums of the losses and the number of images, (5,). If one is not finite, weights, momentum and batch norm's
    statistics stay as they were.
    """
    losses = []
    with network.rollback(net) as commit:
        if args.accumulate > 1:
            net.collect_params().zero_grad()
        arrays = batch.images, batch.boxes, batch.targets
        for part in zip(*[gluon.utils.split_data(array, args.accumulate, even_split=False) for array in arrays]):
            shares = zip(*[gluon.utils.split_and_load(array, args.devices, even_split=False) for array in part])
            inputs = [(normalize(images), boxes, targets, *([teacher(images)] if teacher else []))
                      for images, boxes, targets in shares]
            with autograd.record():
                outputs = [net(*each) for each in inputs]  # a device's four losses, (b,) each
                totals = [sum(output) for output in outputs]
                with autograd.pause():  # here, so that reading them does not wait for the backward pass
                    losses += [mx.nd.stack(*output) for output in outputs]
                if hasattr(trainer, '_amp_loss_scaler'):
                    with amp.scale_loss(totals, trainer) as scaled:
                        autograd.backward(scaled)
                else:
                    autograd.backward(totals)
        losses = np.concatenate([array.asnumpy() for array in losses], axis=1)
        totals = group.step([*losses.sum(axis=1, dtype='float64'), losses.shape[1]])
        if np.isfinite(totals).all():
            trainer.step(totals[-1])
            commit()
    return losses, totals


def main(argv=None):
    args = parse_args(argv)
    with backends.join(args.horovod, args.kv_store) as group, explain_memory(args), \
            exclusive(args.prefix, group.rank):
        args.devices = devices_to_train_on(args, group)
        if args.amp:
            mix_precision(args.devices[0])
        mx.random.seed(args.seed)

        train_set, val_set = open_data(args, group)
        sampler = TrainSampler(len(train_set), args.batch_size, args.sizes, args.seed, max(0, args.num_samples),
                               group.part(args.batch_size))
        args.resume = resumable(args, group)
        state = begin(args, train_set, val_set, sampler, group)
        on_gpu = args.devices[0].device_type == 'gpu'
        parts = Parts(*[not (off or args.no_augment) for off in (args.no_colour, args.no_crop, args.no_flip)])
        loader = train_loader(train_set, sampler, state.anchors, args.multi_anchor, parts, on_gpu)
        validation = val_loader(val_set, args.data_shape, args.batch_size, group.part, on_gpu)
        start_workers(-(-args.num_workers // group.local_size), loader, validation)

        net = build_network(args, state)
        ema = Ema(args, state, net)
        teacher = Teacher(args, state) if args.teacher else None
        trainer = build_trainer(args, net, group.backend)
        metric = metrics.make_metric(metrics.default_metric(args.dataset), val_set)

        with Run(args, state, ema, trainer, sampler, group) as run, TrainingLog(args, train_set, run) as log:
            for epoch in range(run.epoch, args.epochs):
                if run.out_of_patience():
                    break
                network.freeze(net, epoch < args.freeze)
                mixing = epoch < args.epochs - args.no_mixup_epochs
                sampler.set_epoch(epoch, args.mixup and mixing, args.mosaic * mixing, run.state.batch)
                for batch in log.watch(loader):
                    lr = learning_rate(args, epoch + run.batch_in_epoch / run.batches_in_epoch)
                    trainer.set_learning_rate(lr)
                    losses, totals = train_step(net, batch, trainer, args, group, teacher)
                    if np.isfinite(totals).all():  # else the step was left out
                        ema.update()
                    log.update(batch, losses, totals, lr)
                    run.after_step()
                ema.unify(group)  # one network to validate and to save
                due = (epoch + 1) % args.val_interval == 0 or epoch + 1 == args.epochs
                values = validate(ema.result, validation, metric, epoch, args, group) if due else {}
                run.after_epoch(metric, values, learning_rate(args, epoch + 1))


if __name__ == '__main__':
    cli.run(main)
