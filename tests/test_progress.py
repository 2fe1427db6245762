"""Losses, log lines, curves and scalars."""
import cv2
import numpy as np

from yolo3 import progress
from yolo3.runtime import mx


def losses(*values):
    return [mx.nd.array(value) for value in values]


def test_loss_means_are_per_image_over_batches_and_devices():
    meter = progress.LossMeter()
    meter.update([losses([1, 2], [0, 0], [5, 5], [1, 1]), losses([6], [3], [5], [1])])
    meter.update([losses([3], [1], [1], [1])])
    assert meter.recent()['ObjLoss'] == 0  # not waited for yet
    assert meter.means() == {'ObjLoss': 3, 'BoxCenterLoss': 1, 'BoxScaleLoss': 4, 'ClassLoss': 1}
    for _ in range(3):
        meter.update([losses([0], [0], [0], [0])])
    assert meter.recent()['ObjLoss'] == 2.4 and meter.means()['ObjLoss'] == 12 / 7
    meter = progress.LossMeter([12, 4, 16, 4, 4])
    again = progress.LossMeter(meter.totals())
    again.update([losses([2], [2], [2], [2])])
    assert again.means()['ObjLoss'] == 2.8
    assert progress.format_losses(meter.means()) == ('ObjLoss=3.000, BoxCenterLoss=1.000, BoxScaleLoss=4.000, '
                                                     'ClassLoss=1.000')


def history(epochs):
    return [dict({name: 10. / (epoch + 1) for name in progress.LOSSES}, epoch=epoch, lr=1e-3,
                 **({'mAP': 0.1 * epoch} if epoch % 2 else {})) for epoch in range(epochs)]


def test_curves_are_drawn(tmp_path):
    path = str(tmp_path / 'curves.png')
    progress.plot_curves(path, history(1))
    progress.plot_curves(path, history(6))
    picture = cv2.imread(path)
    assert picture.shape == (900, 800, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_scalars_are_written(tmp_path):
    progress.write_scalars(str(tmp_path), history(2))
    content = b''.join(path.read_bytes() for path in tmp_path.iterdir())
    for name in progress.LOSSES + ('lr', 'mAP'):
        assert name.encode() in content


def test_log_goes_to_file_and_stderr_once(tmp_path, capsys):
    path = tmp_path / 'deep' / 'run_train.log'
    for _ in range(2):
        progress.start_log(str(path)).info('hello %d', 1)
    assert path.read_text() == 'hello 1\nhello 1\n' and capsys.readouterr().err == 'hello 1\nhello 1\n'
