"""One epoch: which samples, at which size, mixed with which; and their batches, from worker processes.

The training samples form one endless stream: a permutation of the data set, then another, ... Batch k is the k-th run
of `batch_size` samples of that stream, so that what an epoch leaves over opens the next one (GluonCV's
last_batch='rollover'). All randomness of a sample is drawn from a seed made of the run's seed and the sample's place
in the stream, so a batch is the same whichever worker makes it, and training can be taken up at any batch.
"""
from typing import NamedTuple

import numpy as np

from yolo3.mxnet_setup import mx

from yolo3.data.augment import augment, squeeze
from yolo3.cli import UserError
from yolo3.boxes import resize
from yolo3.data.images import BadImage, Blend
from yolo3.data.anchors import ANCHORS
from yolo3.data.targets import sparse_targets
from yolo3.data.workers import Workers

WINDOW = 10  # batches that share one input size, as in GluonCV's recipe
EXTRA = 2 ** 16  # bytes of a batch's memory an image, for its boxes: 1365 of them
MIXUP_ALPHA = 1.5  # mixup's ratio is drawn from Beta(1.5, 1.5) (Bag of Freebies, section 3.1)


class Request(NamedTuple):
    """One training sample to be made."""
    index: int  # of the image in the data set
    size: int  # of the input, pixels
    mixup: bool
    seed: tuple  # (the run's seed, the sample's place in the stream)


class Requests:
    """Batch sampler: iterating yields the batches of one epoch, each a list of Request.

    length: images in the data set. sizes: the input sizes to draw from, pixels. samples_per_epoch: where given, an
    epoch is that many samples instead of `length`. part: the slice of each batch that is this process' share.
    """

    def __init__(self, length, batch_size, sizes, seed, samples_per_epoch=None, part=slice(None)):
        self.length = length
        self.batch_size = batch_size
        self.sizes = list(sizes)
        self._part = part
        self.share = len(range(batch_size)[part])  # this process' images of a batch
        self._seed = seed
        self._samples_per_epoch = samples_per_epoch or length
        self._permutations = {}
        self.begin(0, mixup=False)

    def batch(self, number, mixup):
        """The Requests of batch `number`, counted from the start of the training; of it this process' part."""
        size = self._size(number // WINDOW)
        return [Request(self._index(place), size, mixup, (self._seed, place))
                for place in range(number * self.batch_size, (number + 1) * self.batch_size)[self._part]]

    def batches(self, epoch):
        """The range of batch numbers, counted from the start of the training, that make up `epoch`."""
        return range(epoch * self._samples_per_epoch // self.batch_size,
                     (epoch + 1) * self._samples_per_epoch // self.batch_size)

    def begin(self, epoch, mixup, first=None):
        """Make the next iteration yield `epoch`, from batch number `first` on where that is given."""
        batches = self.batches(epoch)
        self._batches = batches if first is None else range(first, batches.stop)
        self.mixup = mixup

    def __len__(self):
        return len(self._batches)

    def __iter__(self):
        mixup = self.mixup
        for number in self._batches:
            yield self.batch(number, mixup)

    def _size(self, window):
        return self.sizes[np.random.RandomState([self._seed, 1, window]).randint(len(self.sizes))]

    def _index(self, place):
        round_, offset = divmod(place, self.length)
        if round_ not in self._permutations:
            generator = np.random.RandomState([self._seed, 0, round_])
            self._permutations = {round_: generator.permutation(self.length)}
        return int(self._permutations[round_][offset])


def partner(request, generator, length):
    """Mixup's ratio and the other image of a Request, drawn first from its generator.

    As gluoncv.data.MixupDetection: any other image of the `length`.
    """
    ratio = generator.beta(MIXUP_ALPHA, MIXUP_ALPHA)
    return ratio, (request.index + 1 + int(generator.integers(length - 1))) % length


class TrainSamples:
    """Request -> (image (size, size, 3) uint8, boxes (M, 4), sparse targets, mixup ratio, these float32, and the bad).

    An image that cannot be read is replaced by the next sound one, where the data set's `on_bad_image` lets it be. The
    last item, (2,) int32, has the number of such an image and of such a partner in mixup, where there is one, else -1.
    """

    def __init__(self, dataset, anchors, augmented=True):
        self.dataset = dataset
        self._anchors = anchors
        self._transform = augment if augmented else squeeze
        self._bad = set()  # those this process has met; another's lead to the same samples

    def __getitem__(self, request):
        while True:
            try:
                return self._sample(request)
            except BadImage as error:
                if self.dataset.on_bad_image in (None, 'stop'):
                    raise
                self._bad.add(error.path)

    def _sample(self, request):
        generator = np.random.default_rng(request.seed)
        ratio = 1.
        bad = [self._bad_or_none(request.index), -1]
        image, label = self._read(request.index, ratio)
        if request.mixup and len(self.dataset) > 1:
            ratio, other = partner(request, generator, len(self.dataset))
            bad[1] = self._bad_or_none(other)
            second, second_label = self._read(other, 1 - ratio)
            label[:, -1] = ratio
            image, label = Blend(image, second, ratio), np.concatenate((label, second_label))
        image, label = self._transform(image, label, request.size, generator)
        boxes = label[:, :4].astype('float32')
        targets = sparse_targets(boxes, label[:, 4], label[:, -1], request.size, self._anchors)
        return image, boxes, targets, np.float32(ratio), np.array(bad, 'int32')

    def _bad_or_none(self, index):
        return index if self.dataset.image_path(index) in self._bad else -1

    def _read(self, index, ratio):
        """One image, or the next sound one, and its label with `ratio` as the last column."""
        for place in range(index, index + len(self.dataset)):
            place %= len(self.dataset)
            if self.dataset.image_path(place) not in self._bad:
                label = self.dataset.label(place)
                return self.dataset.image_file(place), np.hstack((label, np.full((len(label), 1), ratio)))
        raise UserError('no image of the training set can be read')

    def name(self, request):
        """The image file of a Request, and with mixup its partner's."""
        name = self.dataset.image_path(request.index)
        if request.mixup and len(self.dataset) > 1:
            other = partner(request, np.random.default_rng(request.seed), len(self.dataset))[1]
            name += ' mixed with ' + self.dataset.image_path(other)
        return name


class ValSamples:
    """Index -> (image (size, size, 3) uint8, index, width and height of the original image)."""

    def __init__(self, dataset, size):
        self.dataset = dataset
        self._size = size

    def __getitem__(self, index):
        pixels = self.dataset.image_file(index).pixels()
        return resize(pixels, self._size), np.array([index, pixels.shape[1], pixels.shape[0]], 'int32')

    def name(self, index):
        """The image file of a sample."""
        return self.dataset.image_path(index)


def stack_train(samples):
    """A batch of `TrainSamples` as lists of equal arrays: boxes padded with -1, targets by repeating a row."""
    images, boxes, targets, *rest = zip(*samples)
    longest = max(1, *map(len, boxes))
    boxes = [np.pad(box, ((0, longest - len(box)), (0, 0)), constant_values=-1) for box in boxes]
    targets = [np.pad(rows, ((0, longest - len(rows)), (0, 0)), 'edge') for rows in targets]
    return [images, boxes, targets, *rest]


def stack_val(samples):
    """A batch of `ValSamples` as lists of equal arrays."""
    return list(zip(*samples))


def together(parts, context):
    """Equal NumPy arrays, or one array of them, as an NDArray in `context`."""
    parts = np.asarray(parts)
    return mx.nd.array(parts, context, parts.dtype)


class Loader:
    """Iterating yields the batches of `sampler`, as lists of NDArrays on the CPU, made by `num_workers` processes.

    samples[item] is one sample, `stack` makes lists of equal arrays of several. slot_bytes: see `yolo3.data.workers`;
    shared: whether the workers share memory with this process, or else send through pipes. pin_memory: for GPUs, which
    copy faster out of page-locked memory.
    """

    def __init__(self, samples, sampler, stack, num_workers, slot_bytes, pin_memory=False, shared=True):
        self.dataset, self.name = samples.dataset, samples.name
        self.context = mx.cpu_pinned() if pin_memory else mx.cpu()
        self._samples, self._sampler, self._stack = samples, sampler, stack
        self._told = set()
        self.workers = num_workers and Workers(self._make, samples.name, num_workers, slot_bytes if shared else 0)

    def __len__(self):
        return len(self._sampler)

    def __iter__(self):
        made = self.workers.batches(self._sampler) if self.workers else map(self._make, self._sampler)
        for arrays in made:  # those of the workers are gone with the next batch
            yield [together(parts, self.context) for parts in arrays]

    def tell_bad(self, batch, logger):
        """Name the images of a training batch that could not be read, once each. Raises UserError where there are too
        many."""
        new = set(batch[4].asnumpy().ravel().tolist()) - {-1} - self._told
        for index in sorted(new):
            logger.warning('skipped image, unreadable: %s', self.dataset.image_path(index))
        self._told |= new
        if new:
            self.dataset.require_few(len(self._told), self.dataset.image_path(min(new)))

    def _make(self, items, note=lambda number: None):
        made = []
        for number, item in enumerate(items):
            note(number)
            made.append(self._samples[item])
        return self._stack(made)


def train_loader(dataset, requests, num_workers, anchors=ANCHORS, augmented=True, pin_memory=False, shared=True):
    """Loader of an epoch's batches: what `TrainSamples` gives, stacked; `requests.begin` chooses the epoch.

    anchors: as ANCHORS in `yolo3.data.anchors`. pin_memory, shared: see `Loader`.
    """
    loader = Loader(TrainSamples(dataset, anchors, augmented), requests, stack_train, num_workers,
                    requests.share * (3 * max(requests.sizes) ** 2 + EXTRA), pin_memory, shared)
    loader.requests = requests
    return loader


def val_loader(dataset, size, batch_size, num_workers, pin_memory=False, shared=True, part=lambda count: slice(count)):
    """Loader over all of `dataset` in order, the last batch smaller where it must: what `ValSamples` gives.

    part(count): the slice of a batch of that many images that is this process' share; it may be empty.
    """
    batches = [range(len(dataset))[start:start + batch_size] for start in range(0, len(dataset), batch_size)]
    batches = [share for share in (batch[part(len(batch))] for batch in batches) if share]
    return Loader(ValSamples(dataset, size), batches, stack_val, num_workers,
                  max(map(len, batches), default=0) * (3 * size ** 2 + EXTRA), pin_memory, shared)
