"""The course of a training: losses, learning rate and mAP over the epochs, as a picture and for TensorBoard."""
from yolo3.atomic import replacing
from yolo3.log import LOSSES


def plot_curves(path, history):
    """Draw losses, learning rate and mAP over the epochs to the PNG at `path`.

    history: see `checkpoint.State`.
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
