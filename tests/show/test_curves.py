"""The curves of a training, as a picture and for TensorBoard."""
import csv
import math

import cv2
import numpy as np

from yolo3.log import LOSSES
from yolo3.show import curves


def history(epochs):
    return [dict({name: 10. / (epoch + 1) for name in LOSSES}, epoch=epoch, lr=1e-3,
                 **({'mAP': 0.1 * epoch, 'metrics': {'dog': 0.1 * epoch, 'cat': math.nan, 'mAP': 0.1 * epoch}}
                    if epoch % 2 else {})) for epoch in range(epochs)]


def test_curves_are_drawn(tmp_path):
    path = str(tmp_path / 'curves.png')
    curves.plot_curves(path, history(1))
    curves.plot_curves(path, history(6))
    picture = cv2.imread(path)
    assert picture.shape == (900, 800, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_scalars_are_written(tmp_path):
    curves.write_scalars(str(tmp_path), history(2))
    content = b''.join(path.read_bytes() for path in tmp_path.iterdir())
    for name in LOSSES + ('lr', 'mAP', 'metrics/dog'):
        assert name.encode() in content


def test_the_table_has_a_row_an_epoch(tmp_path):
    path = tmp_path / 'history.csv'
    curves.write_table(str(path), history(4))
    curves.write_table(str(path), history(3))  # whole
    with open(path, newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*LOSSES, 'epoch', 'lr', 'mAP', 'metrics/dog', 'metrics/mAP']
    assert [row['epoch'] for row in rows] == ['0', '1', '2'] and [row['metrics/dog'] for row in rows] == ['', '0.1', '']
    assert [float(row['ClassLoss']) for row in rows] == [10, 5, 10 / 3]
