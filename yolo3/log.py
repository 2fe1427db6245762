"""What a training says while it runs: log lines in the original's format, and progress bars."""
import itertools
import logging
import os
import sys
import time
from logging.handlers import WatchedFileHandler

import numpy as np
from tqdm import tqdm

from yolo3.cli import UserError
from yolo3.files import make_output_folder

logger = logging.getLogger('yolo3')

LOSSES = ('ObjLoss', 'BoxCenterLoss', 'BoxScaleLoss', 'ClassLoss')


class _FileHandler(WatchedFileHandler):
    """Appends to a file, and says once if it cannot. Watched, or the lines after a deletion would go nowhere unsaid."""

    _told = False

    def _open(self):
        return open(self.baseFilename, self.mode, encoding='utf-8', errors='backslashreplace')

    def emit(self, record):
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record):
        """Called in an except clause."""
        if not self._told:
            print('could not write %s (%s): the log goes on here' % (self.baseFilename, sys.exc_info()[1]),
                  file=sys.stderr)
        self._told = True


class _ConsoleHandler(logging.Handler):
    """Writes to stderr without tearing a progress bar apart."""

    def emit(self, record):
        tqdm.write(self.format(record), file=sys.stderr)


def start_log(path='', rank=0):
    """Have the logger 'yolo3' write bare messages to stderr and, if given, to the end of the file `path`.

    The file's folder is made. With another `rank` than 0 it writes warnings only, and no file. Raises UserError if the
    folder is not writable.
    """
    console = _ConsoleHandler()
    handlers = [console]
    if rank:
        console.setLevel(logging.WARNING)
        console.setFormatter(logging.Formatter('rank %d: %%(message)s' % rank))
    elif path:
        make_output_folder('--save-prefix', os.path.dirname(os.path.abspath(path)))
        try:
            handlers.append(_FileHandler(path))
        except OSError as error:
            raise UserError('--save-prefix: cannot write %s (%s)' % (path, error.strerror))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    for handler in handlers:
        logger.addHandler(handler)


def bar(total, description, unit='img', rank=0, delay=0):
    """A progress bar on stderr, at rank 0; if that is no terminal, a line every half minute instead of a moving one.

    delay: seconds before it first shows.
    """
    return tqdm(total=total, desc=description, unit=unit, dynamic_ncols=True, leave=False, disable=rank > 0,
                delay=delay, mininterval=0.5 if sys.stderr.isatty() else 30)


def advancing(bar, batches, processes=1):
    """Yield from `batches`, moving `bar` on by the images of each, which as many processes have a part of."""
    for batch in batches:
        yield batch
        bar.update(len(batch[0]) * processes)


class LossMeter:
    """Means of YOLOv3's four losses per image, going on from the `totals` of an earlier meter if given.

    `count` is the number of images. Batches with a loss that is not finite are left out, and counted in `bad_batches`.
    """

    def __init__(self, totals=None):
        *sums, self.count = totals or [0] * (len(LOSSES) + 1)
        self._sums = np.array(sums, 'float64')
        self.bad_batches = 0

    def update(self, totals):
        """Take in a batch: the sums of its images' losses and how many images, (5,). Returns whether all are finite."""
        if not np.isfinite(totals).all():
            self.bad_batches += 1
            return False
        self._sums += totals[:-1]
        self.count += int(totals[-1])
        return True

    def totals(self):
        """The sums of the losses and the number of images, as a list of numbers."""
        return self._sums.tolist() + [self.count]

    def means(self):
        """{name of the loss: mean}."""
        return dict(zip(LOSSES, (self._sums / max(1, self.count)).tolist()))

    def __str__(self):
        """'ObjLoss=1.234, ...', as in the original's log."""
        return ', '.join('%s=%.3f' % pair for pair in self.means().items())


class TrainingLog:
    """What a training says while it runs: the original's log lines, a progress bar, and which images it could not use.

    images: the training set. run: the Run under way. As a context manager it takes the progress bar away.
    """

    def __init__(self, args, images, run):
        self._args, self._images, self._run, self._group = args, images, run, run.group
        self._told, self._bar, self._name = set(), bar(0, '', rank=1), None

    def watch(self, loader):
        """Yield the batches of an epoch from `loader`, showing a progress bar, and log the epoch's end."""
        epoch, images, self._name = self._run.epoch, self._args.batch_size, loader.name
        self._mixed = self._seen = self._logged = 0
        self._start = self._last_log = self._last_shown = time.perf_counter()
        self._bar = bar(self._run.batches_in_epoch * images, 'epoch %d' % epoch, rank=self._group.rank)
        self._bar.update(self._run.batch_in_epoch * images)
        for batch in loader:
            yield batch
            self._bar.update(images)
        self._bar.close()
        logger.info('[Epoch %d] Training cost: %.3f, %s', epoch, time.perf_counter() - self._start, self._run.meter)
        if self._args.mixup or self._args.mosaic:
            mixed, = self._group.sum([self._mixed])
            logger.info('[Epoch %d] Mixed samples: %d of %d', epoch, mixed, self._seen)

    def update(self, batch, losses, totals, lr):
        """Take in a step: its Batch, what `train_step` returned, and the learning rate.

        Raises UserError if too many images are unreadable.
        """
        step = self._run.batch_in_epoch
        if not self._run.meter.update(totals):
            bad = itertools.compress(batch.samples, ~np.isfinite(losses).all(axis=0))
            names = self._group.gather(', '.join(map(self._name, bad)).encode('utf-8', 'backslashreplace'))
            if names:
                logger.warning('[Epoch %d][Batch %d] a loss is not finite, so this batch is skipped: %s',
                               self._run.epoch, step, ', '.join(name.decode() for name in names if name))
        self._name_unreadable(batch.unreadable.asnumpy())
        self._mixed += int((batch.mixup_ratios.asnumpy() < 1).sum()) + sum(bool(spec.others) for spec in batch.samples)
        self._seen += self._args.batch_size
        now = time.perf_counter()
        if self._args.log_interval and (step + 1) % self._args.log_interval == 0:
            logger.info('[Epoch %d][Batch %d], LR: %.2E, Speed: %.3f samples/sec, %s', self._run.epoch, step, lr,
                        (self._seen - self._logged) / max(now - self._last_log, 1e-9), self._run.meter)
            self._logged, self._last_log = self._seen, time.perf_counter()
        if self._group.rank == 0 and now - self._last_shown > self._bar.mininterval:
            self._bar.set_postfix_str('lr %.1E, %s' % (lr, self._run.meter), refresh=False)
            self._last_shown = now

    def _name_unreadable(self, numbers):
        """Name each image that could not be read once."""
        new = set(numbers.ravel().tolist()) - {-1} - self._told
        for number in sorted(new):
            logger.warning('skipped image, unreadable: %s', self._images.image_path(number))
        self._told |= new
        if new:
            self._images.require_few(len(self._told), self._images.image_path(min(new)))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._bar.close()
