"""Samples and their batches: from the images and labels of a data set to NDArrays, made by worker processes."""
from typing import NamedTuple

import numpy as np

from yolo3.mxnet_setup import mx

from yolo3.cli import UserError
from yolo3.data.anchors import ANCHORS
from yolo3.data.augment import ALL, augment, mosaic
from yolo3.data.datasets import val_sample_or_black
from yolo3.data.images import BadImage, Blend
from yolo3.data.sampler import mixup_partner
from yolo3.data.targets import sparse_targets
from yolo3.data.workers import Workers

BOXES_BYTES = 2 ** 16  # of a batch's memory, an image, for its boxes: 1024 of them


class Batch(NamedTuple):
    """A training batch of B images, as NDArrays on the CPU."""
    images: mx.nd.NDArray  # (B, H, W, 3) uint8, RGB
    boxes: mx.nd.NDArray  # (B, M, 4) float32, corners in pixels of the input; -1 if the image has fewer than M
    targets: mx.nd.NDArray  # (B, K, 12) float32: see `sparse_targets`
    mixup_ratios: mx.nd.NDArray  # (B,) float32, the first image's share; 1 without mixup
    unreadable: mx.nd.NDArray  # (B, 4) int32: the numbers of a sample's images if unreadable, else -1
    samples: list  # of SampleSpec


class ValBatch(NamedTuple):
    """A validation batch of B images, as NDArrays on the CPU."""
    images: mx.nd.NDArray  # (B, H, W, 3) uint8, RGB
    originals: mx.nd.NDArray  # (B, 3) int32: number in the data set, width and height before resizing
    samples: list  # of the numbers in the data set


class TrainSamples:
    """SampleSpec -> the parts of a Batch for one image, as NumPy arrays, the boxes and targets not yet padded.

    The next readable image takes the place of one that cannot be read, if the data set's `on_bad_image` allows it.
    """

    def __init__(self, images, anchors, multi_anchor=1, parts=ALL):
        self.images = images
        self._anchors, self._multi_anchor, self._parts = anchors, multi_anchor, parts
        self._unreadable = set()  # met by this process; another that meets others makes the same samples

    def __getitem__(self, spec):
        while True:
            try:
                return self._sample(spec)
            except BadImage as error:
                if self.images.on_bad_image in (None, 'stop'):
                    raise
                self._unreadable.add(error.path)

    def _drawn(self, spec):
        """The generator of a sample's random numbers, the numbers of its images, and their mixup ratios."""
        generator = np.random.default_rng(spec.seed)
        if spec.mixup and not spec.others and len(self.images) > 1:
            ratio, other = mixup_partner(spec, generator, len(self.images))
            return generator, [spec.index, other], [ratio, 1 - ratio]
        return generator, [spec.index, *spec.others], [1.] * (1 + len(spec.others))

    def _sample(self, spec):
        generator, indices, ratios = self._drawn(spec)
        unreadable = [self._number_if_unreadable(index) for index in indices] + [-1] * (4 - len(indices))
        sources = [self._read(*each) for each in zip(indices, ratios)]
        if len(sources) == 2:
            (first, label), (second, second_label) = sources
            sources = [(Blend(first, second, ratios[0]), np.concatenate((label, second_label)))]
        samples = [augment(*source, spec.size, generator, self._parts) for source in sources]
        image, label = mosaic(samples, spec.size, generator) if len(samples) > 1 else samples[0]
        boxes = label[:, :4].astype('float32')
        targets = sparse_targets(boxes, label[:, 4], label[:, -1], spec.size, self._anchors, self._multi_anchor)
        return image, boxes, targets, np.float32(ratios[0]), np.array(unreadable, 'int32')

    def _number_if_unreadable(self, index):
        return index if self.images.image_path(index) in self._unreadable else -1

    def _read(self, index, ratio):
        """The image `index`, or the next readable one, and its label with the column `ratio` times score."""
        for number in range(index, index + len(self.images)):
            number %= len(self.images)
            if self.images.image_path(number) not in self._unreadable:
                weights = ratio * self.images.scores(number)
                return self.images.image_file(number), np.column_stack((self.images.label(number), weights))
        raise UserError('no image of the training set can be read')

    def name(self, spec):
        """The image files of a SampleSpec: its own, and those that are mixed with it."""
        return ' mixed with '.join(map(self.images.image_path, self._drawn(spec)[1]))

    @staticmethod
    def stack(samples):
        """The fields of a Batch but its last, each a list of equal arrays: boxes padded with -1, targets by repetition.
        """
        images, boxes, targets, *rest = zip(*samples)
        padded = np.full((len(boxes), max(1, *map(len, boxes)), 4), -1, 'float32')
        for row, box in zip(padded, boxes):
            row[:len(box)] = box
        most = np.arange(max(map(len, targets)))
        targets = [rows[np.minimum(most, len(rows) - 1)] for rows in targets]
        return [images, padded, targets, *rest]


class ValSamples:
    """Number in the data set -> the parts of a ValBatch for one image."""

    def __init__(self, images, size):
        self.images = images
        self._size = size

    def __getitem__(self, index):
        pixels, original = val_sample_or_black(self.images, index, self._size)
        return pixels, np.array(original, 'int32')

    def name(self, index):
        """The image file of a sample."""
        return self.images.image_path(index)

    @staticmethod
    def stack(samples):
        """The fields of a ValBatch but its last, each a list of equal arrays."""
        return list(zip(*samples))


class Loader:
    """Iterating yields the batches of `sampler` as `kind`, Batch or ValBatch; see `start_workers` for who makes them.

    batch_bytes: the most that a batch takes. pin_memory: for GPUs, which copy faster out of page-locked memory.
    """

    def __init__(self, kind, samples, sampler, batch_bytes, pin_memory):
        self.images, self.name, self.batch_bytes = samples.images, samples.name, batch_bytes
        self._kind, self._samples, self._sampler = kind, samples, sampler
        self._context = mx.cpu_pinned() if pin_memory else mx.cpu()
        self._made = lambda: ((specs, self.make(specs)) for specs in self._sampler)

    def __len__(self):
        return len(self._sampler)

    def __iter__(self):
        for specs, fields in self._made():  # the workers' arrays are only valid until the next batch
            yield self._kind(*[ndarray(field, self._context) for field in fields], specs)

    def make(self, specs, note=lambda number: None):
        """The fields of a batch, lists of equal arrays; `note` is called with each sample's place as it is begun."""
        samples = []
        for place, spec in enumerate(specs):
            note(place)
            samples.append(self._samples[spec])
        return self._samples.stack(samples)

    def use(self, workers, number):
        """Take the batches from `workers`, who know this loader by `number`."""
        self._made = lambda: workers.batches(number, self._sampler)


def ndarray(parts, context):
    """Equal NumPy arrays, or one array of them, as an NDArray in `context`."""
    parts = np.asarray(parts)
    return mx.nd.array(parts, context, parts.dtype)


def start_workers(count, *loaders):
    """Start `count` processes that make the batches of all `loaders`, one loader at a time; returns the Workers.

    They are forked: to be called before anything is on a GPU. With 0 the batches are made in this process.
    """
    if not count:
        return None
    workers = Workers(loaders, count, max(loader.batch_bytes for loader in loaders))
    for number, loader in enumerate(loaders):
        loader.use(workers, number)
    return workers


def train_loader(images, sampler, anchors=ANCHORS, multi_anchor=1, parts=ALL, pin_memory=False):
    """A Loader of training batches; `sampler.set_epoch` chooses the epoch. See `assign` and `augment`."""
    return Loader(Batch, TrainSamples(images, anchors, multi_anchor, parts), sampler,
                  sampler.share * (3 * max(sampler.sizes) ** 2 + BOXES_BYTES), pin_memory)


def val_loader(images, size, batch_size, part=slice, pin_memory=False):
    """A Loader of validation batches: all of `images` in order, the last batch smaller if need be.

    part(count): the slice that this process has of a batch of `count` images; it may be empty.
    """
    batches = [range(len(images))[start:start + batch_size] for start in range(0, len(images), batch_size)]
    batches = [share for share in (batch[part(len(batch))] for batch in batches) if share]
    return Loader(ValBatch, ValSamples(images, size), batches,
                  max(map(len, batches), default=0) * (3 * size ** 2 + BOXES_BYTES), pin_memory)
