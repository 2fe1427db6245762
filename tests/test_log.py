"""Losses, log lines, curves and scalars."""
import cv2
import numpy as np

from yolo3 import log


def test_loss_means_are_per_image_over_batches():
    meter = log.LossMeter()
    meter.update(np.array([9, 3, 15, 3, 3]))
    meter.update(np.array([3, 1, 1, 1, 1]))
    assert meter.means() == {'ObjLoss': 3, 'BoxCenterLoss': 1, 'BoxScaleLoss': 4, 'ClassLoss': 1}
    assert meter.totals() == [12, 4, 16, 4, 4]
    again = log.LossMeter(meter.totals())
    again.update(np.array([2, 2, 2, 2, 1]))
    assert again.means()['ObjLoss'] == 2.8
    assert log.format_losses(meter.means()) == ('ObjLoss=3.000, BoxCenterLoss=1.000, BoxScaleLoss=4.000, '
                                                     'ClassLoss=1.000')


def history(epochs):
    return [dict({name: 10. / (epoch + 1) for name in log.LOSSES}, epoch=epoch, lr=1e-3,
                 **({'mAP': 0.1 * epoch} if epoch % 2 else {})) for epoch in range(epochs)]


def test_curves_are_drawn(tmp_path):
    path = str(tmp_path / 'curves.png')
    log.plot_curves(path, history(1))
    log.plot_curves(path, history(6))
    picture = cv2.imread(path)
    assert picture.shape == (900, 800, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_scalars_are_written(tmp_path):
    log.write_scalars(str(tmp_path), history(2))
    content = b''.join(path.read_bytes() for path in tmp_path.iterdir())
    for name in log.LOSSES + ('lr', 'mAP'):
        assert name.encode() in content


def test_log_goes_to_file_and_stderr_once(tmp_path, capsys):
    path = tmp_path / 'deep' / 'run_train.log'
    for _ in range(2):
        log.start_log(str(path)).info('hello %d', 1)
    assert path.read_text() == 'hello 1\nhello 1\n' and capsys.readouterr().err == 'hello 1\nhello 1\n'


def test_other_ranks_only_warn(tmp_path, capsys):
    logger = log.start_log(str(tmp_path / 'run_train.log'), rank=3)
    logger.info('quiet')
    logger.warning('loud')
    assert capsys.readouterr().err == 'rank 3: loud\n' and not list(tmp_path.iterdir())
