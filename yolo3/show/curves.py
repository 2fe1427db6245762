"""The course of a training: losses, learning rate and mAP over the epochs, as a picture, a table and for TensorBoard.

A history is a list with a table for each epoch: 'epoch', 'seconds' of training, 'images_per_second', 'lr' at its end,
the four losses and, if it was validated, 'mAP', the metric's headline, and 'metrics', the table of its numbers.
"""
import csv
import math

from yolo3.atomic import replacing
from yolo3.log import LOSSES


def plot_curves(path, history):
    """Draw losses, learning rate and mAP over the epochs of a history to the PNG at `path`."""
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


def write_table(path, history):
    """Write a history to the CSV at `path`, a row an epoch; a number that an epoch lacks is left empty."""
    rows = list(map(flat, history))
    with replacing(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def flat(entry):
    """One epoch of a history without a table in it: {..., 'metrics/dog': 0.7}; a class without objects has none."""
    scalars = {name: value for name, value in entry.items() if name != 'metrics'}
    return dict(scalars, **{'metrics/' + name: value for name, value in entry.get('metrics', {}).items()
                            if not math.isnan(value)})


def write_scalars(folder, history):
    """Append the last epoch of `history` to the TensorBoard event files in `folder`."""
    from tensorboardX import SummaryWriter
    with SummaryWriter(folder) as writer:
        for name, value in flat(history[-1]).items():
            if name != 'epoch':
                writer.add_scalar(name, value, history[-1]['epoch'])
