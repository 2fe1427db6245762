"""Which training samples make up an epoch's batches: their images, input sizes, mixup partners and random seeds.

The samples form one endless stream: a permutation of the data set, then another, and so on. Batch k is the k-th run of
`batch_size` samples of that stream, so what an epoch leaves over opens the next one (GluonCV's last_batch='rollover').
All randomness of a sample comes from a seed made of the run's seed and the sample's place in the stream. So a batch is
the same whichever worker makes it, and training can continue at any batch.
"""
from typing import NamedTuple

import numpy as np

WINDOW = 10  # batches that share one input size, as in GluonCV's recipe
MIXUP_ALPHA = 1.5  # the mixup ratio is drawn from Beta(1.5, 1.5) (Bag of Freebies, section 3.1)


class SampleSpec(NamedTuple):
    """One training sample to be made."""
    index: int  # of the image in the data set
    size: int  # of the input, pixels
    mixup: bool
    seed: tuple  # (the run's seed, the sample's place in the stream)
    others: tuple = ()  # three more images, if the sample is to be a mosaic of four


class TrainSampler:
    """Batch sampler: iterating yields the batches of one epoch, each a list of SampleSpec.

    length: images in the data set. sizes: the input sizes to draw from, pixels. samples_per_epoch: an epoch is that
    many samples, not `length`. part: the slice of each batch that this process makes.
    """

    def __init__(self, length, batch_size, sizes, seed, samples_per_epoch=None, part=slice(None)):
        self.length = length
        self.batch_size = batch_size
        self.sizes = list(sizes)
        self.share = len(range(batch_size)[part])  # this process's images of a batch
        self._part = part
        self._seed = seed
        self._samples_per_epoch = samples_per_epoch or length
        self._permutations = {}
        self.set_epoch(0)

    def set_epoch(self, epoch, mixup=False, mosaic=0, first=None):
        """Make the next iteration yield `epoch`, from batch number `first` on if given.

        mixup: whether to blend pairs of images. mosaic: the probability that a sample is made of four images instead.
        """
        batches = self.batches(epoch)
        self._batches = batches if first is None else range(first, batches.stop)
        self._mixup, self._mosaic = mixup, mosaic

    def batches(self, epoch):
        """The range of batch numbers, counted from the start of training, that make up `epoch`."""
        return range(epoch * self._samples_per_epoch // self.batch_size,
                     (epoch + 1) * self._samples_per_epoch // self.batch_size)

    def __len__(self):
        return len(self._batches)

    def __iter__(self):
        mixup, mosaic = self._mixup, self._mosaic
        for number in self._batches:
            yield self.batch(number, mixup, mosaic)

    def batch(self, number, mixup=False, mosaic=0):
        """The samples of batch `number`, counted from the start of training, that this process makes."""
        size = self._size(number // WINDOW)
        return [SampleSpec(self._index(place), size, mixup, (self._seed, place), self._others(place, mosaic))
                for place in range(number * self.batch_size, (number + 1) * self.batch_size)[self._part]]

    def _others(self, place, mosaic):
        if not mosaic:
            return ()
        generator = np.random.RandomState([self._seed, 2, place])
        return tuple(generator.randint(self.length, size=3).tolist()) if generator.uniform() < mosaic else ()

    def _size(self, window):
        return self.sizes[np.random.RandomState([self._seed, 1, window]).randint(len(self.sizes))]

    def _index(self, place):
        round_, offset = divmod(place, self.length)
        if round_ not in self._permutations:
            generator = np.random.RandomState([self._seed, 0, round_])
            self._permutations = {round_: generator.permutation(self.length)}
        return int(self._permutations[round_][offset])


def mixup_partner(spec, generator, length):
    """The mixup ratio and the other image of a SampleSpec: the first numbers drawn from its generator.

    As gluoncv.data.MixupDetection: any other image of the `length`.
    """
    ratio = generator.beta(MIXUP_ALPHA, MIXUP_ALPHA)
    return ratio, (spec.index + 1 + int(generator.integers(length - 1))) % length
