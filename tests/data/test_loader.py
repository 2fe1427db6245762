"""An epoch's samples: all of them once, at shared sizes, really mixed, each with its own random numbers, for any -j."""
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from yolo3.mxnet_setup import mx
from yolo3.data.augment import NONE, normalize
from yolo3.cli import UserError
from yolo3.boxes import resize
from yolo3.data.datasets import open_train
from yolo3.data.gluon import VOCDetection
from yolo3.data.loader import TrainSamples, start_workers, train_loader, val_loader
from yolo3.data.sampler import SampleSpec, TrainSampler
from yolo3.data.anchors import ANCHORS

from conftest import ROOT

CLASSES = ['red', 'blue']


@pytest.fixture(scope='module')
def images(squares):
    return VOCDetection(str(squares), ['2007_trainval'], CLASSES)


def part_of(rank, size):
    """`Group.part` of one process of several."""
    return lambda count: slice(count * rank // size, count * (rank + 1) // size)


def epochs(sampler, count, **kwargs):
    result = []
    for epoch in range(count):
        sampler.set_epoch(epoch, **kwargs)
        result.append(list(sampler))
    return result


def test_rollover_uses_every_sample_once_a_round():
    sampler = TrainSampler(22, 8, [320], seed=1)
    batches = epochs(sampler, 4)  # 88 samples, 11 batches
    assert [len(epoch) for epoch in batches] == [2, 3, 3, 3]
    stream = [spec.index for epoch in batches for batch in epoch for spec in batch]
    for round_ in range(4):
        assert sorted(stream[22 * round_:22 * round_ + 22]) == list(range(22))
    assert stream[:22] != stream[22:44]
    seeds = [spec.seed for epoch in batches for batch in epoch for spec in batch]
    assert len(set(seeds)) == len(seeds)


def test_num_samples_sets_the_epoch():
    sampler = TrainSampler(22, 4, [320], seed=1, samples_per_epoch=10)
    assert [len(epoch) for epoch in epochs(sampler, 4)] == [2, 3, 2, 3]


def test_an_epoch_can_be_taken_up_at_any_batch():
    sampler = TrainSampler(100, 4, range(320, 609, 32), seed=1)
    whole = epochs(sampler, 3)[2]
    sampler.set_epoch(2, mixup=False, first=sampler.batches(2).start + 9)
    assert list(sampler) == whole[9:] and len(sampler) == len(whole) - 9


@pytest.mark.parametrize('count', [2, 3, 7])
def test_the_ranks_share_each_batch_and_its_size(count):
    whole = TrainSampler(22, 8, range(320, 609, 32), seed=1)
    parts = [TrainSampler(22, 8, range(320, 609, 32), 1, part=part_of(rank, count)(8)) for rank in range(count)]
    for number in range(25):
        assert sum([part.batch(number, True) for part in parts], []) == whole.batch(number, True)
        assert all(part.batches(3) == whole.batches(3) for part in parts)


def test_without_augmentation_a_sample_is_its_image(images):
    sampler = TrainSampler(len(images), 11, [64], seed=1)
    loader = train_loader(images, sampler, parts=NONE)
    batch = next(iter(loader)).images.asnumpy()
    for picture, spec in zip(batch, next(iter(sampler))):
        np.testing.assert_array_equal(picture, resize(images.image_file(spec.index).pixels(), 64))


def test_ten_batches_share_a_size_and_all_sizes_are_used():
    sizes = list(range(320, 609, 32))
    sampler = TrainSampler(4000, 2, sizes, seed=3)
    batches = epochs(sampler, 1)[0]
    windows = [{spec.size for batch in batches[start:start + 10] for spec in batch}
               for start in range(0, len(batches), 10)]
    assert all(len(window) == 1 for window in windows)
    drawn = [window.pop() for window in windows]
    assert set(drawn) == set(sizes)
    assert max(drawn.count(size) for size in sizes) < 3 * len(drawn) / len(sizes)


def batches_of(images, workers, mixup=True, seed=7, mosaic=0):
    sampler = TrainSampler(len(images), 4, [64, 96], seed)
    loader = train_loader(images, sampler)
    start_workers(workers, loader)
    result = []
    for epoch in range(2):
        sampler.set_epoch(epoch, mixup, mosaic)
        result += [[array.asnumpy() for array in batch[:5]] for batch in loader]
    return result


@pytest.mark.parametrize('mosaic', [0, 0.5])
def test_batches_do_not_depend_on_the_number_of_workers(images, mosaic):
    reference = batches_of(images, 0, mosaic=mosaic)
    assert len(reference) == 11
    for workers in 1, 4:
        for ours, theirs in zip(reference, batches_of(images, workers, mosaic=mosaic)):
            for mine, other in zip(ours, theirs):
                np.testing.assert_array_equal(mine, other)
    assert any((mine != other).any() for mine, other in zip(reference[0], batches_of(images, 0, seed=8)[0])
               if mine.shape == other.shape)


@pytest.fixture
def scored(squares, tmp_path):
    """scored(score) -> the squares, with that score on every box."""
    def opened(score):
        root = tmp_path / str(score)
        shutil.copytree(squares, root)
        for path in (root / 'VOC2007/Annotations').iterdir():
            path.write_text(path.read_text().replace('<bndbox>', '<score>%s</score><bndbox>' % score))
        return VOCDetection(str(root), ['2007_trainval'], CLASSES)
    return opened


@pytest.mark.parametrize('mixup, mosaic', [(False, 0), (True, 0), (True, 0.5)])
@pytest.mark.parametrize('score', [1, 0.5])
def test_a_score_weighs_as_a_mixup_ratio_does_and_1_changes_nothing(images, scored, score, mixup, mosaic):
    plain, weighed = batches_of(images, 0, mixup, mosaic=mosaic), batches_of(scored(score), 2, mixup, mosaic=mosaic)
    assert len(plain) == len(weighed)
    for one, other in zip(plain, weighed):
        one[2][:, :, 6] *= score  # exact for these
        for mine, theirs in zip(one, other):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
    assert mixup or {share for batch in weighed for share in batch[2][:, :, 6].ravel()} == {0, np.float32(score)}


def test_mixup_reaches_the_workers_and_stops(images):
    sampler = TrainSampler(len(images), 2, [64], seed=1)
    loader = train_loader(images, sampler)
    start_workers(2, loader)
    for mixup in True, False, True:
        sampler.set_epoch(0, mixup)
        for batch in loader:
            ratios = batch.mixup_ratios.asnumpy()
            assert ((ratios > 0) & (ratios < 1)).all() if mixup else (ratios == 1).all()
            for ratio, rows in zip(ratios, batch.targets.asnumpy()):
                for share in rows[rows[:, 7] >= 0, 6]:
                    assert min(abs(share - ratio), abs(share - (1 - ratio))) < 1e-6


def test_an_image_may_have_more_targets_than_boxes(images):
    loader = train_loader(images, TrainSampler(len(images), 11, [64], seed=1), multi_anchor=0, parts=NONE)
    for batch in loader:
        boxes, rows = batch.boxes.asnumpy(), batch.targets.asnumpy()
        assert rows.shape[1] > boxes.shape[1]
        for mine, corners in zip(rows, boxes):
            mine = np.unique(mine[mine[:, 7] >= 0], axis=0)  # one for each of the nine anchors, or of their cell
            assert {tuple(row) for row in mine[:, 8:]} == {tuple(box) for box in corners[corners[:, 0] >= 0]}


def test_a_batch_pads_boxes_with_minus_1_and_repeats_the_last_target():
    counts = 2, 0, 3
    samples = [(None, np.full((count, 4), 5., 'float32'), np.arange(12. * max(count, 1)).reshape(-1, 12), 1, None)
               for count in counts]
    _, boxes, targets, _, _ = TrainSamples.stack(samples)
    for count, mine, rows in zip(counts, boxes, targets):
        assert mine.tolist() == [[5] * 4] * count + [[-1] * 4] * (3 - count)
        assert [row[0] / 12 for row in rows] == [min(number, max(count, 1) - 1) for number in range(3)]
    assert TrainSamples.stack(samples[1:2])[1].tolist() == [[[-1] * 4]]


def test_mosaics_are_a_share_of_the_samples_and_stop(images):
    sampler = TrainSampler(len(images), 4, [64], seed=1, samples_per_epoch=400)
    for mosaic in 0.25, 1, 0:
        sampler.set_epoch(1, mosaic=mosaic)
        specs = [spec for batch in sampler for spec in batch]
        assert np.mean([len(spec.others) == 3 for spec in specs]) == pytest.approx(mosaic, abs=0.06)
    sampler.set_epoch(1, mixup=True, mosaic=0.25)
    specs = [spec for batch in sampler for spec in batch if spec.others]
    assert {other for spec in specs for other in spec.others} == set(range(len(images)))
    samples = TrainSamples(images, ANCHORS)
    names = samples.name(specs[0]).split(' mixed with ')
    assert names == [images.image_path(index) for index in (specs[0].index, *specs[0].others)]
    for spec in specs[:20]:  # not mixed in another way, too
        picture, boxes, targets, ratio, _ = samples[spec]
        assert ratio == 1 and set(targets[:, 6]) <= {0, 1} and boxes.min(initial=0) >= 0 and boxes.max(initial=0) <= 64


def test_mixup_ratio_is_beta_distributed(images):
    from scipy.stats import beta, kstest
    sampler = TrainSampler(len(images), 11, [32], seed=2)
    loader = train_loader(images, sampler)
    ratios = []
    for epoch in range(14):
        sampler.set_epoch(epoch, mixup=True)
        ratios += [ratio for batch in loader for ratio in batch.mixup_ratios.asnumpy()]
    assert kstest(ratios, beta(1.5, 1.5).cdf).pvalue > 0.01


@pytest.fixture(scope='module')
def stock(squares):
    """What the stock loader's workers make: see stock_loader.py."""
    script = os.path.join(os.path.dirname(__file__), 'stock_loader.py')
    done = subprocess.run([sys.executable, script, str(squares)], env=dict(os.environ, PYTHONPATH=ROOT),
                          capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout)


def test_workers_share_no_random_numbers(images, stock):
    draws, _ = stock
    assert len(draws) == 32 and len(set(draws)) < 32  # the defect: workers forked from one process draw the same
    sampler = TrainSampler(len(images), 1, [64], seed=5)
    loader = train_loader(images, sampler)
    start_workers(4, loader)
    sampler.set_epoch(0, mixup=True)
    ratios = [float(batch.mixup_ratios.asscalar()) for batch in loader]
    assert len(set(ratios)) == len(ratios)


def test_stock_mixup_does_nothing_with_workers(stock):
    _, mixed = stock
    assert mixed == [0] * 22


def test_validation_keeps_the_last_uneven_batch(squares):
    images = VOCDetection(str(squares), ['2007_test'], CLASSES)
    for workers in 0, 2:
        loader = val_loader(images, 64, 4)
        start_workers(workers, loader)
        batches = list(loader)
        assert [batch.images.shape for batch in batches] == [(4, 64, 64, 3), (1, 64, 64, 3)]
        assert [row for batch in batches for row in batch.originals.asnumpy().tolist()] == [
            [index, 128, 96] for index in range(5)]


def test_the_ranks_share_the_validation(squares):
    images = VOCDetection(str(squares), ['2007_test'], CLASSES)
    shares = [[batch.originals.asnumpy()[:, 0].tolist() for batch in val_loader(images, 64, 4, part_of(rank, 3))]
              for rank in range(3)]
    assert shares == [[[0]], [[1]], [[2, 3], [4]]]


def test_batches_from_workers_run_in_a_hybridized_network(images):
    # They live in shared memory, a context of its own that a hybridized network on the CPU refuses.
    net = mx.gluon.nn.Conv2D(4, 3)
    net.initialize()
    net.hybridize()
    sampler = TrainSampler(len(images), 4, [64], seed=1)
    loader = train_loader(images, sampler)
    start_workers(1, loader)
    for batch in loader:
        part, = mx.gluon.utils.split_and_load(batch.images, [mx.cpu()])
        part = normalize(part)
        assert net(part).shape == (4, 4, 62, 62)


def test_a_batch_costs_few_bytes(data):
    images = open_train('coco', data + '/coco-mini')
    sampler = TrainSampler(len(images), 8, [608], seed=1)
    for workers in 0, 1:
        loader = train_loader(images, sampler)
        start_workers(workers, loader)
        for batch in loader:
            assert batch.images.dtype == np.uint8 and batch.images.shape == (8, 608, 608, 3)
            assert sum(array.size * np.dtype(array.dtype).itemsize for array in batch[:5]) / 8 <= 1.2e6


def test_the_other_image_of_a_mixup_is_any_other(images):
    seen = {}

    class Recorder(TrainSamples):
        def _read(self, index, ratio):
            seen.setdefault('pair', []).append(index)
            return super()._read(index, ratio)
    pairs = set()
    for place in range(400):
        seen.clear()
        Recorder(images, ANCHORS)[SampleSpec(3, 64, True, (1, place))]
        pairs.add(tuple(seen['pair']))
    assert pairs == {(3, other) for other in range(len(images)) if other != 3}


def test_memory_is_pinned_for_gpus_only(images):
    sampler = TrainSampler(len(images), 4, [64], seed=1)
    assert train_loader(images, sampler)._context == mx.cpu()
    assert train_loader(images, sampler, pin_memory=True)._context == mx.cpu_pinned()
    assert val_loader(images, 64, 4, pin_memory=True)._context == mx.cpu_pinned()


@pytest.fixture
def one_goes_bad(squares, tmp_path):
    """The squares, opened, and then the file of number 3 emptied."""
    shutil.copytree(squares, tmp_path / 'squares')
    images = open_train('voc', str(tmp_path / 'squares'), CLASSES, ['2007_trainval'], on_bad_image='skip')
    with open(images.image_path(3), 'wb'):
        pass
    return images


def test_a_bad_image_gives_way_to_the_next(one_goes_bad):
    samples, seed = TrainSamples(one_goes_bad, ANCHORS), (1, 5)
    for ours, theirs in zip(samples[SampleSpec(3, 64, False, seed)][:4], samples[SampleSpec(4, 64, False, seed)]):
        np.testing.assert_array_equal(ours, theirs)
    assert samples[SampleSpec(3, 64, False, seed)][4].tolist() == [3, -1, -1, -1]
    assert samples[SampleSpec(5, 64, False, seed)][4].tolist() == [-1] * 4
    reference = batches_of(one_goes_bad, 0)
    assert {index for batch in reference for index in batch[4].ravel()} == {-1, 3}
    for ours, theirs in zip(reference, batches_of(one_goes_bad, 2)):
        for mine, other in zip(ours[:4], theirs):
            np.testing.assert_array_equal(mine, other)


def test_stop_ends_at_an_unreadable_image(one_goes_bad):
    one_goes_bad.on_bad_image = 'stop'
    loader = train_loader(one_goes_bad, TrainSampler(len(one_goes_bad), 11, [64], seed=1))
    start_workers(1, loader)
    with pytest.raises(UserError, match='trainval_03'):
        list(loader)
