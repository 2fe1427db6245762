"""How a training begins: anew, or from a checkpoint if the command still asks for the same training."""
import dataclasses
import logging
import shlex
from typing import NamedTuple

from yolo3 import checkpoint, weights
from yolo3.cli import UserError, shorten
from yolo3.data.anchors import choose_anchors

logger = logging.getLogger('yolo3')

REFUSED, COMPARED, SAID, UNUSED, FREE = 'refused', 'refused if the data differ', 'said', 'said, and unused', 'free'


class Rule(NamedTuple):
    """What --resume auto does if one of the `flags` has changed since the checkpoint, and why."""
    change: str
    why: str
    flags: tuple


RULES = (
    Rule(REFUSED, "the network, its targets, the optimizer's state, the images' order or what mAP means would change",
         ('network', 'dataset', 'batch_size', 'seed', 'num_samples', 'anchors', 'data_shape', 'optimizer')),
    Rule(COMPARED, 'the classes and their order, the file names, sizes and labels must stay the same; folders may move',
         ('dataset_root', 'classes', 'train_splits', 'val_splits', 'skip_empty', 'on_bad_image')),
    Rule(SAID, 'from here on the training follows the new value',
         ('epochs', 'lr', 'lr_mode', 'lr_decay', 'lr_decay_period', 'lr_decay_epoch', 'lr_final', 'warmup_lr',
          'warmup_epochs', 'momentum', 'wd', 'no_wd', 'ema', 'no_random_shape', 'min_shape', 'max_shape', 'no_flip',
          'no_crop', 'no_colour', 'no_augment', 'mixup', 'mosaic', 'no_mixup_epochs', 'label_smooth', 'box_loss',
          'multi_anchor', 'teacher', 'freeze', 'patience', 'accumulate', 'syncbn', 'amp')),
    Rule(UNUSED, 'only the start of a training uses it',
         ('pretrained', 'backbone_params', 'mirror', 'no_pretrained_base', 'objectness_prior', 'start_epoch')),
    Rule(FREE, 'it changes where the work is done, what is written and how often, but not what is learned',
         ('resume', 'num_workers', 'gpus', 'kv_store', 'horovod', 'log_interval', 'val_interval', 'save_prefix',
          'save_interval', 'keep', 'checkpoint_batches', 'tensorboard')),
)


def flag(name):
    """'batch_size' -> '--batch-size'."""
    return '--' + name.replace('_', '-')


def resumable(args, group):
    """--resume as it can be followed: '' if it is 'auto' and there is no checkpoint yet."""
    path = checkpoint.path(args.prefix)
    if args.resume == 'auto' and not group.share(bool(checkpoint.existing(path, args.keep))):
        logger.info('No checkpoint %s yet: starting anew', path)
        return ''
    return args.resume


def begin(args, train_set, val_set, sampler, group):
    """The State that the training starts from, the same in all processes of `group`. Raises UserError.

    With --resume auto it is the checkpoint's, else a new one. It alone says which anchors the loader and the network
    use. args.resume: as `resumable` returns it.
    """
    state = None
    if group.rank == 0:
        path = checkpoint.path(args.prefix)
        now = {'classes': list(train_set.classes),
               'data': {'training': train_set.digest(), 'validation': val_set.digest()},
               'flags': {name: vars(args)[name] for rule in RULES if rule.change in (REFUSED, SAID, UNUSED)
                         for name in rule.flags}}
        if args.resume == 'auto':
            state = continued(path, checkpoint.newest(path, args.keep)[-1], **now)
        else:
            state = checkpoint.State(args.start_epoch, sampler.batches(args.start_epoch).start, None, -1.0, [],
                                     anchors=new_anchors(args, train_set), **now)
    return checkpoint.State(**group.share(state and dataclasses.asdict(state)))


def continued(path, state, classes, data, flags):
    """The `state` of the checkpoint `path` as this command continues it. Raises UserError if it asks for another
    training: other `classes`, `data` (digests) or `flags` that may not change."""
    def refuse(what):
        raise UserError('--resume auto: %s %s; do as before, or give another --save-prefix, and to go on from its '
                        'weights alone --resume FILE or --pretrained FILE' % (path, what))

    if classes != state.classes:
        refuse('was made with the classes %s, in this order' % shorten(state.classes, 20))
    for name in data:
        if data[name] != state.data[name]:
            refuse('was made with other %s data: file names, sizes or labels differ' % name)
    before = {'optimizer': 'sgd', **state.flags}  # the only one there was in earlier versions
    for rule in RULES:
        for name in rule.flags:
            old, new = before.get(name), flags.get(name)
            if old != new and rule.change == REFUSED:
                refuse('was made with %s %s, not %s' % (flag(name), *[shlex.quote(str(value)) for value in (old, new)]))
            if old != new and rule.change == SAID:
                logger.info('%s was %s until now, and is %s from here on', flag(name), old, new)
            if old != new and rule.change == UNUSED:
                logger.info('%s %s has no effect: the training goes on from %s', flag(name), new, path)
    return dataclasses.replace(state, flags=flags)


def new_anchors(args, train_set):
    """The anchors of a new training: those of --anchors, else of the file it starts from, else COCO's."""
    start = args.pretrained or args.resume
    default = weights.anchors_of_file(start)
    anchors = choose_anchors(args.anchors, train_set, args.data_shape, default)
    if start and anchors != default:
        logger.info('--anchors replaces the anchors of %s, for which its weights were trained', start)
    return anchors
