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

cli.start(__name__)

from yolo3.mxnet_setup import mx
from mxnet import autograd, gluon
from mxnet.contrib import amp

import numpy as np

from yolo3 import metrics, network, weights, zoo
from yolo3.cli import (UserError, below_one, comma_list, count, epochs, input_size, integers, number, positive,
                       processes, seed, share, shorten)
from yolo3.data.augment import Parts, normalize
from yolo3.data.datasets import open_train, open_val
from yolo3.data.loader import start_workers, train_loader, val_loader
from yolo3.data.sampler import TrainSampler
from yolo3.detect import validate
from yolo3.detector import mirror
from yolo3.devices import devices_to_train_on, explain_memory
from yolo3.distributed import backends
from yolo3.ema import Ema
from yolo3.lock import exclusive
from yolo3.log import TrainingLog, start_log
from yolo3.loss import BOX_LOSSES, DetectionLoss, set_loss
from yolo3.resume import begin, resumable
from yolo3.run import Run, require_agreement
from yolo3.sidecar import network_name
from yolo3.teacher import Teacher

logger = logging.getLogger('yolo3')
OPTIMIZERS = {'sgd': 'momentum', 'adam': 'beta1'}  # MXNet's, and what they call --momentum


def parse_args(argv=None):
    parser = cli.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    # The network and what it starts from
    add('--network', type=network_name, default='mobilenet1_0', help='mobilenet1_0, 0_75, 0_5 or 0_25')
    add('--backbone-params', default='', help="ImageNet weights of the backbone in GluonCV's form")
    add('--no-pretrained-base', action='store_true', help='start the backbone from random weights')
    add('--pretrained', default='', metavar='FILE', help='.params of a detector, or one of '
        "GluonCV's zoo such as yolo3_mobilenet1.0_coco, to start from; classes of the same name are kept")
    add('--mirror', type=mirror, metavar='URL', help="model store to download GluonCV's weights from")
    add('--resume', default='', help="'auto' continues this training exactly from its checkpoint; a .params file gives "
                                     'only its weights')
    add('--start-epoch', type=count, default=0, help='with --resume FILE: the epoch to continue from')
    add('--anchors', default='', help="'auto' fits them to the training boxes at --data-shape; or 18 numbers: "
        "width,height in pixels, smallest first. Default: those of --pretrained or --resume FILE, else COCO's")
    # Data
    add('--dataset', type=str.lower, default='voc', choices=('voc', 'coco'), help='form of the data set')
    add('--dataset-root', default='', help='folder of your own data; default: ~/.mxnet/datasets/voc or coco')
    add('--classes', default='', help="class names a,b,c of your own data; default: VOC's 20, or all in the JSON")
    add('--train-splits', default='', help='2007_trainval,... (voc) or names of annotation files (coco)')
    add('--val-splits', default='', help='2007_test,... (voc) or the name of an annotation file (coco)')
    add('--skip-empty', action='store_true', help='do not train on images without objects')
    add('--on-bad-image', default='', choices=('', 'skip', 'stop'), help='an image that is missing, unreadable or of '
        'another size than annotated: skip it with a warning, or stop. Default: skip up to 1%% of the images')
    add('--num-samples', type=int, default=-1, help='images an epoch; -1: the whole training set')
    add('--num-workers', '-j', type=processes, default=4, help='processes that prepare batches, on this host')
    # Input
    add('--data-shape', type=input_size, default=416, help='input size in validation, pixels; 320, 416, 608, ...')
    add('--no-random-shape', action='store_true', help='train at --data-shape only: faster, slightly less accurate')
    add('--min-shape', type=input_size, default=320, help='smallest random input size, pixels')
    add('--max-shape', type=input_size, default=608, help='largest random input size, pixels')
    add('--no-flip', action='store_true', help='no mirror images: for digits and text')
    add('--no-crop', action='store_true', help='no random expansion and crop, nor interpolation drawn at random')
    add('--no-colour', action='store_true', help='no random brightness, contrast, saturation and hue')
    add('--no-augment', action='store_true', help='none of the three: only resize, as in validation')
    add('--mixup', action='store_true', help='blend pairs of images')
    add('--mosaic', type=share, default=0, metavar='P', help='experimental: make this share of the samples of four '
        'images')
    add('--no-mixup-epochs', type=count, default=20, help='last epochs without mixup and mosaic')
    # Targets and loss
    add('--label-smooth', action='store_true', help='smooth the class labels')
    add('--box-loss', default='l2l1', choices=BOX_LOSSES, help="l2l1: GluonCV's; ciou: of Zheng et al. 2020")
    add('--multi-anchor', type=share, default=1, metavar='IOU', help='an object teaches its best anchor, and all that '
        'its shape overlaps more than this. Default: 1, only the best')
    add('--objectness-prior', type=below_one, default=0, metavar='P', help='the probability of an object that a head '
        'from random weights starts from, 0.01 or so. Default: 0, 0.5 or so by chance')
    add('--teacher', default='', metavar='FILE', help='a detector to learn from too (distillation): .params, .onnx '
        "exported with --heads, or of GluonCV's zoo, such as yolo3_darknet53_coco")
    # Optimization
    add('--freeze', type=epochs, default=0, metavar='backbone|N', help='train the head alone: to the end, or for the '
        'first N epochs')
    add('--batch-size', type=positive, default=64, help='images a step, over all devices')
    add('--accumulate', type=positive, default=1, help='compute each batch in this many parts, for small GPUs')
    add('--epochs', type=positive, default=200)
    add('--lr', type=number, default=0.001, help='learning rate')
    add('--lr-mode', default='step', choices=('constant', 'step', 'linear', 'poly', 'cosine'))
    add('--lr-decay', type=share, default=0.1, help='factor of each decay (step)')
    add('--lr-decay-period', type=count, default=0, help='decay every so many epochs instead of at --lr-decay-epoch')
    add('--lr-decay-epoch', type=integers, default='160,180', help='epochs at which the learning rate decays (step)')
    add('--lr-final', type=share, default=0, help='share of --lr at which cosine ends')
    add('--warmup-lr', type=number, default=0.0, help='learning rate at the start of the warmup')
    add('--warmup-epochs', type=count, default=0, help='epochs of linear warmup')
    add('--optimizer', default='sgd', choices=OPTIMIZERS, help='sgd with momentum, or adam: experimental, from a '
        'backbone of ImageNet, with --lr 0.0005 or so and --wd 0')
    add('--momentum', type=share, default=0.9, help="of sgd, or adam's beta1")
    add('--wd', type=number, default=0.0005, help='weight decay; with adam, L2 added to the gradient')
    add('--no-wd', action='store_true', help="no weight decay on biases and batch norm's gamma and beta")
    add('--ema', type=below_one, default=0, metavar='DECAY', help='validate and save the exponential moving average of '
        'the weights, 0.998 or so. Default: 0, the weights themselves')
    add('--seed', type=seed, default=233)
    # Devices
    add('--gpus', default='0,1,2,3,4,5,6,7', help="GPUs to train on; '' is the CPU")
    add('--syncbn', action='store_true', help="share batch norm's statistics over the GPUs")
    add('--amp', action='store_true', help='mixed precision, on GPUs')
    add('--kv-store', default='device', choices=('device', 'nccl', 'dist_sync_device', 'dist_sync'),
        help="how gradients are summed over --gpus; dist_...: over several hosts too, by MXNet's parameter server")
    add('--horovod', action='store_true', help='this is a process of horovodrun; each uses the GPU of its local rank')
    # Logs, validation and files
    add('--log-interval', type=count, default=100, help='batches between two log lines')
    add('--patience', type=count, default=0, metavar='N', help='stop once mAP has not improved for N validations. '
        'Default: 0, never')
    add('--val-interval', type=positive, default=1, help='epochs between two validations')
    add('--save-prefix', default='', help='start of the names of all files written, which may include a folder')
    add('--save-interval', type=count, default=10, help='epochs between two .params kept beside the best')
    add('--keep', type=positive, default=2, help='checkpoints kept, the newest included')
    add('--checkpoint-batches', type=count, default=0, help='batches between two checkpoints within an epoch; 0: none')
    add('--tensorboard', default='', help='folder for TensorBoard scalars')
    args = parser.parse_args(argv)

    args.prefix = '%syolo3_%s_%s' % (args.save_prefix, args.network, args.dataset)
    if args.lr_decay_period > 0:
        args.lr_decay_epoch = list(range(args.lr_decay_period, args.epochs, args.lr_decay_period))
    args.sizes = [args.data_shape] if args.no_random_shape else list(range(args.min_shape, args.max_shape + 1, 32))
    if args.lr_final and args.lr_mode != 'cosine':
        raise UserError('--lr-final is the end of --lr-mode cosine: leave it out with --lr-mode %s' % args.lr_mode)
    if args.optimizer == 'adam' and args.momentum == 1:
        raise UserError("--momentum 1 would never let adam's average begin: give less than 1")
    if args.objectness_prior and (args.pretrained or args.resume not in ('', 'auto')):
        raise UserError('--objectness-prior is for a head from random weights: leave it out with --pretrained and '
                        '--resume FILE')
    if not args.sizes:
        raise UserError('--min-shape %d is larger than --max-shape %d' % (args.min_shape, args.max_shape))
    if args.num_samples == 0:
        raise UserError('--num-samples 0 trains nothing: give a number of images, or -1 for all')
    if args.start_epoch >= args.epochs:
        raise UserError('--start-epoch %d leaves nothing of --epochs %d' % (args.start_epoch, args.epochs))
    if args.warmup_epochs > args.epochs:
        raise UserError('--warmup-epochs %d is longer than the training of --epochs %d'
                        % (args.warmup_epochs, args.epochs))
    if args.pretrained and args.resume not in ('', 'auto'):
        raise UserError('--resume %s and --pretrained %s both give the weights to start from: choose one'
                        % (args.resume, args.pretrained))
    return args


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
    if args.amp:
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
                if args.amp:
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
            amp.init()
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
