"""What the stock loader's workers make, printed as JSON.

It runs in a process of its own: its workers compute with MXNet, and might hang if forked from the tests' many threads.
python stock_loader.py ROOT: [[a random number of each of 32 samples], [whether each image of a data set was mixed]].
"""
import json
import sys

import numpy as np

from yolo3.mxnet_setup import gluoncv
from mxnet.gluon.data import DataLoader, Dataset

from yolo3.data.gluon import VOCDetection


class Draws(Dataset):
    """One random number a sample."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return np.random.uniform()


def mixed(images):
    """Whether each image was mixed: GluonCV's `set_mixup` comes after the workers are forked."""
    images = gluoncv.data.MixupDetection(images)
    loader = DataLoader(images.transform(lambda image, label: float((label[:, -1] < 1).any())), 1, num_workers=2)
    images.set_mixup(np.random.beta, 1.5, 1.5)
    return loader


if __name__ == '__main__':
    images = VOCDetection(sys.argv[1], ['2007_trainval'], ['red', 'blue'])
    loaders = DataLoader(Draws(), 1, num_workers=4), mixed(images)
    print(json.dumps([[float(batch.asscalar()) for batch in loader] for loader in loaders]))
