"""A training under way: where it stands, what it writes after a step or an epoch, and how it goes on once stopped."""
import contextlib
import dataclasses
import logging
import time

import numpy as np

from yolo3 import checkpoint, metrics, network, weights
from yolo3.cli import Interrupted, RunError, UserError, stop
from yolo3.distributed import backends
from yolo3.f1 import f1
from yolo3.log import LossMeter
from yolo3.show import curves

logger = logging.getLogger('yolo3')

MOST_BAD_BATCHES = 10  # in an epoch: more are not bad luck
# Flags that may differ between the processes of one training: each host has its own devices and paths.
OF_EACH_HOST = ('gpus', 'devices', 'num_workers', 'dataset_root', 'backbone_params', 'pretrained', 'mirror',
                'save_prefix', 'prefix', 'tensorboard')


class Run:
    """A training of the network in `ema`, an Ema, under way: all its processes stand where the State of the first says.

    As a context manager it holds back SIGINT and SIGTERM until a step is done, and writes a checkpoint if a signal or a
    UserError or RunError stops the training. `meter` has the losses of the epoch so far.
    """

    def __init__(self, args, state, ema, trainer, sampler, group):
        self._args, self._ema, self._trainer, self._sampler, self.group = args, ema, trainer, sampler, group
        self.state = state
        self._path, self._written = checkpoint.path(args.prefix), True
        if args.resume == 'auto' and group.rank == 0:
            checkpoint.load(self._path, ema.net, trainer, args.keep, ema.average)
            logger.info('Resume %s at epoch %d, batch %d', self._path, state.epoch, self.batch_in_epoch)
        elif group.rank == 0 and checkpoint.existing(self._path, args.keep):
            self._set_earlier_aside()
        checkpoint.set_update_counts(trainer, state.updates)
        self.meter, self._clock = LossMeter(state.losses), time.perf_counter()
        backends.broadcast(group, trainer, ema.parameters)
        if not np.array_equal(network.anchors_of(ema.net), np.float32(state.anchors)):
            raise UserError('the network decodes the anchors %s, but the targets would be made for %s: give the '
                            '.params file to --pretrained' % (network.anchors_of(ema.net), state.anchors))
        if self.epoch >= args.epochs:
            logger.info('All %d epochs are done: a larger --epochs goes on', args.epochs)
        logger.info('Start training from [Epoch %d]', self.epoch)

    def _set_earlier_aside(self):
        """Keep the files of an unfinished training that used the same --save-prefix, under a name that is said."""
        kept = checkpoint.set_aside(self._args.prefix)
        if kept:
            logger.warning('%s is from an unfinished training: kept, with its best weights, as %s_...; to go on with '
                           'it, rename them back and use --resume auto', self._path, kept)
        else:
            logger.warning('%s is from an earlier training, which is finished: this one replaces it', self._path)

    @property
    def epoch(self):
        """The epoch under way."""
        return self.state.epoch

    @property
    def batches_in_epoch(self):
        """How many batches this epoch has."""
        return len(self._sampler.batches(self.epoch))

    @property
    def batch_in_epoch(self):
        """How many batches of this epoch are done."""
        return self.state.batch - self._sampler.batches(self.epoch).start

    def after_step(self):
        """Count the batch, and write a checkpoint every --checkpoint-batches; RunError after too many bad batches."""
        self.state.batch += 1
        now = time.perf_counter()
        self.state.seconds += now - self._clock
        self._clock = now
        if self.meter.bad_batches > MOST_BAD_BATCHES:
            raise RunError('epoch %d had %d batches with a loss that is not finite: look at the images named in '
                           '%s_train.log, and try a lower --lr or a longer --warmup-epochs; --resume auto goes on from '
                           'here' % (self.epoch, self.meter.bad_batches, self._args.prefix))
        every = self._args.checkpoint_batches
        if every and self.batch_in_epoch % every == 0:
            self._ema.unify(self.group)
            self._save()

    def after_epoch(self, metric, values, lr):
        """Write weights, curves and the checkpoint.

        metric: has the detections of the validation. values: its numbers, {} without a validation. lr: at the end.
        Raises RunError if no batch of the epoch could be used: these weights are no result.
        """
        if not self.meter.count:
            self.state.batch -= self.batch_in_epoch  # to be tried again
            raise RunError('epoch %d has trained nothing: no batch had a finite loss; try a lower --lr or a longer '
                           '--warmup-epochs' % self.epoch)
        if self.group.rank == 0:
            self.state.history.append(self._entry(values, lr))
            with tolerated('the weights of epoch %d beside %s' % (self.epoch, self._path)):
                self._save_weights(metric, values)
            for end, write in ('_curves.png', curves.plot_curves), ('_history.csv', curves.write_table):
                with tolerated(self._args.prefix + end):
                    write(self._args.prefix + end, self.state.history)
            if self._args.tensorboard:
                with tolerated('--tensorboard ' + self._args.tensorboard):
                    curves.write_scalars(self._args.tensorboard, self.state.history)
        self.state.epoch += 1
        self.state.seconds = 0
        self.meter, self._clock = LossMeter(), time.perf_counter()
        self._save()

    def out_of_patience(self):
        """Whether mAP has not improved for --patience validations, the same in all processes."""
        best = [entry['mAP'] for entry in self.state.history if 'mAP' in entry]
        waited = len(best) - 1 - int(np.argmax(best)) if best else 0
        if not self._args.patience or not self.group.share(waited >= self._args.patience):
            return False
        logger.info('mAP has not improved for %d validations (--patience): the training ends here', self._args.patience)
        return True

    def _entry(self, values, lr):
        """What the history says of this epoch."""
        entry = {'epoch': self.epoch, 'seconds': round(self.state.seconds, 3),
                 'images_per_second': round(self.meter.count / max(self.state.seconds, 1e-9), 3), 'lr': lr,
                 **self.meter.means()}
        return dict(entry, mAP=metrics.headline(values), metrics=values) if values else entry

    def _save_weights(self, metric, values):
        """Keep the best weights, and every --save-interval epochs the current ones, under the original's names."""
        args, epoch, net = self._args, self.epoch, self._ema.result
        current = metrics.headline(values) if values else 0.0
        best = bool(values) and current > self.state.best_map
        due = args.save_interval and epoch % args.save_interval == 0
        sidecar = {'network': args.network, 'classes': list(net.classes),
                   'anchors': network.anchors_of(net), 'data_shape': args.data_shape, 'dataset': args.dataset,
                   'epoch': epoch, 'metrics': values}
        balance = f1(metric) if values and (best or due) else None
        if balance:
            sidecar['threshold'] = balance.threshold
        if best:
            weights.save_detector(net, args.prefix + '_best.params', **sidecar)
            self.state.best_map = current
            with open(args.prefix + '_best_map.log', 'a', encoding='utf-8') as file:
                file.write('%04d:\t%.4f\n' % (epoch, current))
        if due:
            weights.save_detector(net, '%s_%04d_%.4f.params' % (args.prefix, epoch, current), **sidecar)

    def _save(self):
        """Have the first process write the checkpoint; returns whether it could be written."""
        if self.group.rank:
            return True
        self._written = False
        with tolerated(self._path):
            state = dataclasses.replace(self.state, losses=self.meter.totals(), averaged=self._ema.steps,
                                        updates=checkpoint.update_counts(self._trainer))
            checkpoint.save(self._path, self._ema.net, self._trainer, state, self._args.keep, self._ema.average)
            self._written = True
        return self._written

    def __enter__(self):
        stop.hold()
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, (Interrupted, RunError, UserError)):
            if isinstance(error, Interrupted) and self.batch_in_epoch < self.batches_in_epoch:
                self._ema.unify(self.group)  # all processes stop at the same step
            if self._save():
                logger.info('Stopped in epoch %d; the same command with --resume auto continues', self.epoch)
        elif error is None and not self._written:
            raise RunError('the training is done, but its last checkpoint %s could not be written: make room, or make '
                           'the folder writable, and use --resume auto, which repeats what is missing' % self._path)


@contextlib.contextmanager
def tolerated(what):
    """Say that `what` could not be written (a full disk, a folder that is gone) and go on."""
    try:
        yield
    except OSError as error:
        logger.warning('could not write %s (%s): training goes on, and what was written before stays', what,
                       error.strerror or error)


def require_agreement(args, train_set, val_set, group):
    """Raise UserError if the processes of `group` were given different flags or data."""
    if group.size > 1:  # the digests take a while
        flags = {'--' + name.replace('_', '-'): str(value) for name, value in vars(args).items()
                 if name not in OF_EACH_HOST}
        group.require_same(dict(flags, **{'training images with labels': train_set.digest(),
                                          'validation images with labels': val_set.digest()}))
