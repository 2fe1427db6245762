"""What a run shows of itself: log lines in the original's format, progress bars, curves and TensorBoard scalars."""
import logging
import os
import sys
from logging.handlers import WatchedFileHandler

import numpy as np
from tqdm import tqdm

from yolo3.cli import UserError, make_output_folder
from yolo3.atomic import replacing

LOSSES = ('ObjLoss', 'BoxCenterLoss', 'BoxScaleLoss', 'ClassLoss')


class _FileHandler(WatchedFileHandler):
    """Appends to a file, makes it anew where it was removed, and says once where it cannot."""

    _told = False

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


def start_log(path, rank=0):
    """The run's logger: bare messages on stderr and appended to the file at `path`, whose folder is made.

    That of another `rank` than 0 has its warnings on stderr and no file. Raises UserError where the file, or another
    one beside it, cannot be written.
    """
    console = _ConsoleHandler()
    handlers = [console]
    if rank:
        console.setLevel(logging.WARNING)
        console.setFormatter(logging.Formatter('rank %d: %%(message)s' % rank))
    else:
        make_output_folder('--save-prefix', os.path.dirname(os.path.abspath(path)))
        try:
            handlers.append(_FileHandler(path, encoding='utf-8'))
        except OSError as error:
            raise UserError('--save-prefix: cannot write %s (%s)' % (path, error.strerror))
    logger = logging.getLogger('yolo3')
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    for handler in handlers:
        logger.addHandler(handler)
    return logger


def bar(total, description, unit='img', rank=0):
    """A progress bar on stderr, at rank 0; where that is a file, a line every half minute instead of a moving one."""
    return tqdm(total=total, desc=description, unit=unit, dynamic_ncols=True, leave=False, disable=rank > 0,
                mininterval=0.5 if sys.stderr.isatty() else 30)


def advancing(bar, batches, ranks=1):
    """Yield from `batches`, moving `bar` on by the images of each, at all of so many ranks."""
    for batch in batches:
        yield batch
        bar.update(len(batch[0]) * ranks)


class LossMeter:
    """Means of YOLOv3's four losses per sample, going on from `totals` of an earlier meter where they are given."""

    def __init__(self, totals=None):
        *sums, self._count = totals or [0] * (len(LOSSES) + 1)
        self._sums = np.array(sums, 'float64')

    def update(self, totals):
        """totals: the sums of the losses of some samples, and their number, (5,)."""
        self._sums += totals[:-1]
        self._count += int(totals[-1])

    def totals(self):
        """The sums of the losses and the number of samples, as a list of numbers."""
        return self._sums.tolist() + [self._count]

    def means(self):
        """{name of the loss: mean}."""
        return dict(zip(LOSSES, (self._sums / max(1, self._count)).tolist()))


def format_losses(means):
    """'ObjLoss=1.234, ...' as the original's log has it."""
    return ', '.join('%s=%.3f' % pair for pair in means.items())


def plot_curves(path, history):
    """Draw losses, learning rate and mAP over the epochs to the PNG at `path`.

    history: one dict an epoch with 'epoch', 'lr', the four losses, and 'mAP' where it was validated.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(8, 9), constrained_layout=True)
    epochs = [entry['epoch'] for entry in history]
    for name in LOSSES:
        axes[0].plot(epochs, [entry[name] for entry in history], marker='.', label=name)
    axes[0].set_yscale('log')
    axes[0].set_ylabel('loss per image')
    axes[0].legend()
    axes[1].plot(epochs, [entry['lr'] for entry in history], marker='.', color='tab:gray')
    axes[1].set_ylabel('learning rate at the end')
    validated = [entry for entry in history if 'mAP' in entry]
    axes[2].plot([entry['epoch'] for entry in validated], [entry['mAP'] for entry in validated], marker='.',
                 color='tab:green')
    axes[2].set_ylabel('mAP')
    axes[2].set_xlabel('epoch')
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes:
        axis.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', dpi=100)
    pyplot.close(figure)


def write_scalars(folder, history):
    """Append the last epoch of `history` to the TensorBoard event files in `folder`."""
    from tensorboardX import SummaryWriter
    with SummaryWriter(folder) as writer:
        for name, value in history[-1].items():
            if name != 'epoch':
                writer.add_scalar(name, value, history[-1]['epoch'])
