"""One epoch: which samples, at which size, mixed with which; and their batches, from worker processes.

The training samples form one endless stream: a permutation of the data set, then another, ... Batch k is the k-th run
of `batch_size` samples of that stream, so that what an epoch leaves over opens the next one (GluonCV's
last_batch='rollover'). All randomness of a sample is drawn from a seed made of the run's seed and the sample's place
in the stream, so a batch is the same whichever worker makes it, and training can be taken up at any batch.
"""
import functools
import os
from typing import NamedTuple

import numpy as np

from yolo3.runtime import mx
from mxnet.gluon.data import DataLoader, Dataset

from yolo3.augment import augment, squeeze
from yolo3.geometry import resize
from yolo3.images import Blend
from yolo3.network import ANCHORS
from yolo3.targets import sparse_targets

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
    """Request -> (image (size, size, 3) uint8, boxes (M, 4), sparse targets, mixup ratio), the latter float32."""

    def __init__(self, dataset, anchors, augmented=True):
        self._dataset = dataset
        self._anchors = anchors
        self._transform = augment if augmented else squeeze

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, request):
        generator = np.random.default_rng(request.seed)
        ratio = 1.
        image, label = self._read(request.index, ratio)
        if request.mixup and len(self._dataset) > 1:
            # As gluoncv.data.MixupDetection: any other image, and the labels of both.
            ratio = generator.beta(MIXUP_ALPHA, MIXUP_ALPHA)
            other = (request.index + 1 + int(generator.integers(len(self._dataset) - 1))) % len(self._dataset)
            second, second_label = self._read(other, 1 - ratio)
            label[:, -1] = ratio
            image, label = Blend(image, second, ratio), np.concatenate((label, second_label))
        image, label = self._transform(image, label, request.size, generator)
        boxes = label[:, :4].astype('float32')
        targets = sparse_targets(boxes, label[:, 4], label[:, -1], request.size, self._anchors)
        return image, boxes, targets, np.float32(ratio)

    def _read(self, index, ratio):
        """One image and its label with `ratio` as the last column."""
        label = self._dataset.label(index)
        return self._dataset.image_file(index), np.hstack((label, np.full((len(label), 1), ratio)))


class ValSamples(Dataset):
    """Index -> (image (size, size, 3) uint8, index, width and height of the original image)."""

    def __init__(self, dataset, size):
        self._dataset = dataset
        self._size = size

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        pixels = self._dataset.image_file(index).pixels()
        return resize(pixels, self._size), np.array([index, pixels.shape[1], pixels.shape[0]], 'int32')


def stack_train(samples, context):
    """Batch `TrainSamples` as NDArrays in `context`: boxes padded with -1, targets by repeating a row."""
    images, boxes, targets, ratios = zip(*samples)
    longest = max(1, *map(len, boxes))
    boxes = [np.pad(box, ((0, longest - len(box)), (0, 0)), constant_values=-1) for box in boxes]
    targets = [np.pad(rows, ((0, longest - len(rows)), (0, 0)), 'edge') for rows in targets]
    return [together(parts, context) for parts in (images, boxes, targets, ratios)]


def stack_val(samples, context):
    """Batch `ValSamples` as NDArrays in `context`."""
    return [together(parts, context) for parts in zip(*samples)]


def together(parts, context):
    """Equal NumPy arrays stacked to one NDArray in `context`."""
    return mx.nd.array(np.stack(parts), context, parts[0].dtype)


def _data_loader(samples, stack, num_workers, **kwargs):
    context = mx.Context('cpu_shared', 0) if num_workers else mx.cpu()
    loader = DataLoader(samples, batchify_fn=functools.partial(stack, context=context), num_workers=num_workers,
                        **kwargs)
    if num_workers:
        for worker in loader._worker_pool._pool:
            # A signal to the whole process group (Ctrl-C, a cluster's preemption) is for the main process alone: it
            # still needs its workers, and a pool whose worker was killed while it waited for work never ends.
            os.setpgid(worker.pid, worker.pid)
    return loader


def train_loader(dataset, requests, num_workers, anchors=ANCHORS, augmented=True, pin_memory=False):
    """DataLoader of an epoch's batches: what `TrainSamples` gives, stacked; `requests.begin` chooses the epoch.

    anchors: as ANCHORS in `yolo3.network`. pin_memory: for GPUs, which copy faster out of page-locked memory.
    """
    loader = _data_loader(TrainSamples(dataset, anchors, augmented), stack_train, num_workers, batch_sampler=requests,
                          pin_memory=pin_memory)
    loader.requests = requests
    return loader


def val_loader(dataset, size, batch_size, num_workers, pin_memory=False):
    """DataLoader over all of `dataset` in order, the last batch smaller where it must: what `ValSamples` gives."""
    return _data_loader(ValSamples(dataset, size), stack_val, num_workers, batch_size=batch_size, last_batch='keep',
                        pin_memory=pin_memory)
