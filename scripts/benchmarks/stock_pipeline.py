"""What GluonCV's own train_yolo3.py does with the same data and network, for benchmark.py to measure against."""
import numpy as np

from yolo3.mxnet_setup import mx
from gluoncv.data.batchify import Pad, Stack, Tuple
from gluoncv.data.dataloader import RandomTransformDataLoader
from gluoncv.data import MixupDetection
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultTrainTransform
from mxnet import autograd, gluon

from yolo3.data.targets import COLUMNS, LAYERS


class Images(gluon.data.Dataset):
    """The images and labels of one of our datasets, read as GluonCV reads them."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        return mx.image.imread(self._dataset.image_path(index)), self._dataset.label(index)


def loader(dataset, net, sizes, batch_size, num_workers, mixup=False):
    """GluonCV's training loader: random size for every 10 batches, dense float32 targets made by the workers."""
    images = Images(dataset)
    if mixup:
        images = MixupDetection(images)
        images.set_mixup(np.random.beta, 1.5, 1.5)  # before the workers are forked, so that here it has an effect
    transforms = [YOLO3DefaultTrainTransform(size, size, net, mixup=mixup) for size in sizes]
    return RandomTransformDataLoader(
        transforms, images, batch_size=batch_size, interval=10, last_batch='rollover', shuffle=True,
        batchify_fn=Tuple(*[Stack() for _ in range(6)], Pad(axis=0, pad_val=-1)), num_workers=num_workers)


def dense_targets(rows, size, num_class):
    """The five arrays that GluonCV's workers send, of the rows (B, K, 12) of `sparse_targets` for `size` pixels.

    float32: objectness (B, N, 1), 0 without an object; centers, scales and weights (B, N, 2); classes
    (B, N, num_class), one-hot with an object, else -1.
    """
    shape = len(rows), sum((size // stride) ** 2 * 3 for stride in LAYERS)
    objectness, centers, scales, weights, classes = [np.full(shape + (width,), value, 'float32') for width, value in (
        (1, 0), (2, 0), (2, 0), (2, 0), (num_class, -1))]
    for index, image in enumerate(rows):
        for row in image[image[:, 7] >= 0]:
            number, center, scale, weight, ratio, id_, _ = [row[begin:end] for begin, end in COLUMNS]
            place = index, int(number[0])
            objectness[place], centers[place], scales[place], weights[place] = ratio, center, scale, weight
            classes[place] = np.eye(num_class)[int(id_[0])]
    return objectness, centers, scales, weights, classes


def train_step(net, batch, trainer):
    """One step on the CPU, waiting for its four losses, as GluonCV's loop does."""
    image, *targets, boxes = [array.copyto(mx.cpu()) for array in batch]  # out of shared memory, which is refused
    with autograd.record():
        losses = net(image, boxes, *targets)
        total = sum(losses)
    total.backward()
    trainer.step(len(image))
    return [loss.mean().asscalar() for loss in losses]
