"""One epoch: which samples, at which size, mixed with which; and their batches, from worker processes.

The training samples form one endless stream: a permutation of the data set, then another, ... Batch k is the k-th run
of `batch_size` samples of that stream, so that what an epoch leaves over opens the next one (GluonCV's
last_batch='rollover'). All randomness of a sample is drawn from a seed made of the run's seed and the sample's place
in the stream, so a batch is the same whichever worker makes it, and training can be taken up at any batch.
"""
import functools
import os
import random
from typing import NamedTuple

import numpy as np

from yolo3.runtime import mx
from gluoncv.data import MixupDetection
from mxnet.gluon.data import DataLoader, Dataset

from yolo3.augment import augment, resize, squeeze
from yolo3.targets import make_targets

WINDOW = 10  # batches that share one input size, as in GluonCV's recipe
MIXUP_ALPHA = 1.5  # mixup's ratio is drawn from Beta(1.5, 1.5) (Bag of Freebies, section 3.1)


class Request(NamedTuple):
    """One training sample to be made."""
    index: int  # of the image in the data set
    size: int  # of the input, pixels
    mixup: bool
    seed: tuple  # (the run's seed, the sample's place in the stream)


class Requests:
    """Batch sampler for MXNet's DataLoader: iterating yields the batches of one epoch, each a list of Request.

    length: images in the data set. sizes: the input sizes to draw from, pixels. samples_per_epoch: where given, an
    epoch is that many samples instead of `length`.
    """

    def __init__(self, length, batch_size, sizes, seed, samples_per_epoch=None):
        self.length = length
        self._batch_size = batch_size
        self._sizes = list(sizes)
        self._seed = seed
        self._samples_per_epoch = samples_per_epoch or length
        self._permutations = {}
        self.begin(0, mixup=False)

    def batches(self, epoch):
        """The range of batch numbers, counted from the start of the training, that make up `epoch`."""
        return range(epoch * self._samples_per_epoch // self._batch_size,
                     (epoch + 1) * self._samples_per_epoch // self._batch_size)

    def begin(self, epoch, mixup, first=None):
        """Make the next iteration yield `epoch`, from batch number `first` on where that is given."""
        batches = self.batches(epoch)
        self._batches = batches if first is None else range(first, batches.stop)
        self._mixup = mixup

    def __len__(self):
        return len(self._batches)

    def __iter__(self):
        mixup = self._mixup
        for batch in self._batches:
            size = self._size(batch // WINDOW)
            yield [Request(self._index(place), size, mixup, (self._seed, place))
                   for place in range(batch * self._batch_size, (batch + 1) * self._batch_size)]

    def _size(self, window):
        return self._sizes[np.random.RandomState([self._seed, 1, window]).randint(len(self._sizes))]

    def _index(self, place):
        round_, offset = divmod(place, self.length)
        if round_ not in self._permutations:
            generator = np.random.RandomState([self._seed, 0, round_])
            self._permutations = {round_: generator.permutation(self.length)}
        return int(self._permutations[round_][offset])


class TrainSamples(Dataset):
    """Request -> (image, boxes, five targets, mixup ratio): float32 arrays, see `make_targets`."""

    def __init__(self, dataset, num_class, augmented=True):
        self._dataset = dataset
        self._mixed = MixupDetection(dataset)
        self._num_class = num_class
        self._transform = augment if augmented else squeeze

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, request):
        random.seed('%d %d' % request.seed)
        np.random.seed(request.seed)
        mixup = request.mixup and len(self._dataset) > 1
        ratio = np.random.beta(MIXUP_ALPHA, MIXUP_ALPHA) if mixup else 1.
        self._mixed.set_mixup(lambda: ratio)
        image, label = self._mixed[request.index]  # adds the ratio as the label's last column
        image, label = self._transform(image, label, request.size)
        boxes = label[:, :4].astype('float32')
        targets = make_targets(boxes, label[:, 4], label[:, -1], request.size, self._num_class)
        return (image.asnumpy(), boxes) + targets + (np.float32(ratio),)


class ValSamples(Dataset):
    """Index -> (image as float32 array, index, width and height of the original image)."""

    def __init__(self, dataset, size):
        self._dataset = dataset
        self._size = size

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        image, _ = self._dataset[index]
        return resize(image, self._size).asnumpy(), np.array([index, image.shape[1], image.shape[0]], 'int32')


def stack(samples, context):
    """Batch the samples' arrays, padding those that differ in rows (boxes) with -1, as NDArrays in `context`."""
    batch = []
    for arrays in zip(*samples):
        if arrays[0].ndim and any(array.shape != arrays[0].shape for array in arrays) or arrays[0].size == 0:
            padded = np.full((len(arrays), max(1, *map(len, arrays))) + arrays[0].shape[1:], -1, arrays[0].dtype)
            for row, array in zip(padded, arrays):
                row[:len(array)] = array
            arrays = padded
        arrays = np.stack(arrays)
        batch.append(mx.nd.array(arrays, ctx=context, dtype=arrays.dtype))
    return batch


def _data_loader(samples, num_workers, **kwargs):
    context = mx.Context('cpu_shared', 0) if num_workers else mx.cpu()
    loader = DataLoader(samples, batchify_fn=functools.partial(stack, context=context), num_workers=num_workers,
                        **kwargs)
    if num_workers:
        for worker in loader._worker_pool._pool:
            # A signal to the whole process group (Ctrl-C, a cluster's preemption) is for the main process alone: it
            # still needs its workers, and a pool whose worker was killed while it waited for work never ends.
            os.setpgid(worker.pid, worker.pid)
    return loader


def train_loader(dataset, requests, num_class, num_workers, augmented=True):
    """DataLoader of an epoch's batches: what `TrainSamples` gives, stacked; `requests.begin` chooses the epoch."""
    loader = _data_loader(TrainSamples(dataset, num_class, augmented), num_workers, batch_sampler=requests)
    loader.requests = requests
    return loader


def val_loader(dataset, size, batch_size, num_workers):
    """DataLoader over all of `dataset` in order, the last batch smaller where it must: what `ValSamples` gives."""
    return _data_loader(ValSamples(dataset, size), num_workers, batch_size=batch_size, last_batch='keep')
