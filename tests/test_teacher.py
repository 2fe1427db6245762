"""What a teacher predicts and what is learned from it: on any device, from any kind of file, and after a resume."""
import argparse
import os
import re
import signal
from unittest import mock

import numpy as np
import pytest

from conftest import learned, slow, zoo as gluoncv_zoo
from steps import flags, steps
from test_train import SCRIPT, TINY, assert_same
from yolo3.mxnet_setup import mx

import train_yolo3_mobilenet as training
from yolo3 import weights, zoo
from yolo3.cli import Interrupted, UserError
from yolo3.data.anchors import ANCHORS
from yolo3.data.augment import normalize
from yolo3.data.targets import BACKGROUND
from yolo3.loss import DetectionLoss, distillation
from yolo3.teacher import Teacher, columns

KNOWN = ['cat', 'Blue', 'RED']  # the teacher's classes; the student's are red and blue


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """{'net.params' or the variant of an .onnx file: path} of one network, and the network."""
    onnx = pytest.importorskip('onnx')
    from test_export_onnx import detector, export_onnx
    folder = tmp_path_factory.mktemp('teacher')
    net, info = detector(classes=KNOWN, anchors=ANCHORS)
    weights.save_detector(net, str(folder / 'net.params'), **info)
    for name, how in ('heads', {}), ('bytes', {'uint8_input': True}), ('plain', {'only_heads': False}):
        onnx.save(export_onnx.export(net, info, **{'only_heads': True, **how}), str(folder / (name + '.onnx')))
    return folder


def pictures(count=2, size=96, seed=0):
    return mx.nd.array(np.random.RandomState(seed).randint(0, 256, (count, size, size, 3)), dtype='uint8')


def taught_by(path, classes=('red', 'blue'), anchors=ANCHORS, devices=(mx.cpu(),)):
    return Teacher(argparse.Namespace(teacher=str(path), devices=list(devices)),
                   argparse.Namespace(classes=list(classes), anchors=anchors))


# ---- What is learned from it

def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logits, labels):
    found = sigmoid(logits)
    return -labels * np.log(found) - (1 - labels) * np.log(1 - found)


def test_a_hand_computed_case():
    # Two predictions of which the student knows nothing: half an object for the teacher, and none.
    taught = mx.nd.array([[[0, 0, 1, -2, 0, 0, 0, 0], [3, 3, 9, 9, -50, 3, 3, 3]]])
    losses = distillation(mx.nd, mx.nd.zeros((1, 2, 8)), taught)
    half = np.log(2) / 2
    expected = [[2 * half], [2 * half]], [[half, half], [0, 0]], [[0.5, 1], [0, 0]], [[half] * 3, [0] * 3]
    for loss, values in zip(losses, expected):
        np.testing.assert_allclose(loss.asnumpy(), [values], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('hybrid, kind', [(True, 'float32'), (False, 'float32'), (False, 'float16')])
def test_each_loss_has_its_term_added(hybrid, kind):
    generator = np.random.RandomState(0)
    mine, taught = generator.normal(0, 2, (2, 3, 7, 8)).astype(kind)
    loss = DetectionLoss(3)
    loss.hybridize(hybrid)
    arrays = [mx.nd.array(mine, dtype=kind), mx.nd.zeros((3, 7, 4)), -mx.nd.ones((3, 1, 4)),
              mx.nd.array([BACKGROUND] * 3)]
    more = [np.zeros(3) for _ in range(4)]
    for image in range(3):
        for own, other in zip(mine[image].astype('float64'), taught[image].astype('float64')):
            weight = sigmoid(other[4])
            more[0][image] += cross_entropy(own[4], weight)
            more[1][image] += weight * cross_entropy(own[:2], sigmoid(other[:2])).sum()
            more[2][image] += weight * np.abs(own[2:4] - other[2:4]).sum()
            more[3][image] += weight * cross_entropy(own[5:], sigmoid(other[5:])).sum()
    alone = DetectionLoss(3)(*arrays)
    for total, before, term in zip(loss(*arrays, mx.nd.array(taught.astype('float32'))), alone, more):
        assert total.dtype == np.float32
        np.testing.assert_allclose(total.asnumpy(), before.asnumpy() + term, rtol=1e-5)


def test_a_student_equal_to_its_teacher_learns_nothing():
    # But for rounding: an L1 loss has a slope of 1 or -1 next to its minimum.
    taught = np.random.RandomState(0).normal(0, 2, (2, 7, 8)).astype('float32')
    gradients = []
    for added in 0, 0.01:
        mine = mx.nd.array(taught + np.float32(added))
        mine.attach_grad()
        with mx.autograd.record():
            losses = distillation(mx.nd, mine, mx.nd.array(taught))
        mx.autograd.backward(losses)
        gradients.append([np.abs(part).max() for part in np.split(mine.grad.asnumpy(), (2, 4, 5), axis=2)])
    assert max(gradients[0]) < 1e-6 and min(gradients[1]) > 1e-4


# ---- What it predicts

def decoded(raw, size):
    """Boxes (B, N, 4) and scores (B, N, classes) of a Teacher's predictions, as YOLOv3 defines them."""
    boxes, start = [], 0
    for stride, anchors in zip((32, 16, 8), ANCHORS[::-1]):
        side = size // stride
        part = raw[:, start:start + side * side * 3].reshape(-1, side, side, 3, raw.shape[-1])
        rows, cells = np.meshgrid(range(side), range(side), indexing='ij')
        centres = (sigmoid(part[..., :2]) + np.stack((cells, rows), -1)[:, :, None]) * stride
        extents = np.exp(part[..., 2:4]) * np.reshape(anchors, (3, 2))
        boxes.append(np.concatenate((centres - extents / 2, centres + extents / 2), -1).reshape(len(raw), -1, 4))
        start += side * side * 3
    return np.concatenate(boxes, 1), sigmoid(raw[..., 5:]) * sigmoid(raw[..., 4:5])


def check_predictions(raw, net, images):
    """GluonCV's own detections of `net`, without NMS, are those of the Teacher's predictions `raw`."""
    net.set_nms(0)
    ids, scores, boxes = [array.asnumpy() for array in net(normalize(images))]
    mine, own = decoded(raw.asnumpy(), images.shape[1])
    assert own.max() > 0.1
    for number in range(len(net.classes)):
        chosen = ids[0, :, 0] == number
        np.testing.assert_allclose(boxes[:, chosen], mine, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(scores[:, chosen, 0], own[..., number], atol=1e-5)


def test_it_predicts_what_gluoncv_decodes(files):
    net, _ = weights.load_detector(str(files / 'net.params'))
    check_predictions(taught_by(files / 'net.params', KNOWN)(pictures()), net, pictures())


@pytest.mark.slow
def test_darknet_predicts_what_gluoncv_decodes(tmp_path, monkeypatch):
    name = 'yolo3_darknet53_coco'
    net = gluoncv_zoo('darknet53', zoo.DARKNETS[name])
    net.initialize()
    net(mx.nd.zeros((1, 3, 64, 64)))
    for output in net.yolo_outputs:
        output.prediction.weight.data()[:] *= 0.01  # random weights make large numbers
    net.save_parameters(str(tmp_path / 'darknet.params'))
    monkeypatch.setattr(zoo, 'detector_file', lambda asked: str(tmp_path / 'darknet.params') * (asked == name))
    check_predictions(taught_by(name, zoo.DARKNETS[name])(pictures()), net, pictures())


@pytest.mark.parametrize('variant', ['heads', 'bytes'])
def test_onnx_files_predict_the_same(files, variant):
    for size in 64, 96:
        results = [taught_by(files / name)(pictures(size=size)) for name in ('net.params', variant + '.onnx')]
        assert results[0].shape == (2, size * size * 21 // 1024 * 3, 7)
        np.testing.assert_allclose(*[result.asnumpy() for result in results], atol=1e-4)


def test_classes_are_chosen_by_name(files):
    assert columns(KNOWN, ['red', 'blue']) == [0, 1, 2, 3, 4, 7, 6]
    whole, part = [taught_by(files / 'net.params', classes)(pictures()).asnumpy()
                   for classes in (KNOWN, ('red', 'blue'))]
    np.testing.assert_array_equal(part, whole[..., [0, 1, 2, 3, 4, 7, 6]])


# ---- In training

def apart(ours, theirs):
    return np.sqrt(sum(((ours[name] - theirs[name]) ** 2).sum() for name in ours))


@pytest.fixture(scope='module')
def stepped(squares, files):
    """stepped(file, devices, parts) -> the weights after two steps of 8 images, without a teacher if `file` is None."""
    def weights_after(file, devices=1, parts=1):
        places, real = [mx.cpu(number) for number in range(devices)], training.train_step
        teacher = taught_by(files / file, devices=places) if file else None

        def step(net, batch, *rest):
            seen = []

            def watched(images):
                seen.append(images.asnumpy())
                return teacher(images)
            real(net, batch, *rest, watched if teacher else None)
            np.testing.assert_array_equal(np.concatenate(seen or [batch.images.asnumpy()]), batch.images.asnumpy())
        with mock.patch.object(training, 'train_step', step):
            return steps(squares, flags(places, parts), 8, 2)[1]
    return weights_after


@pytest.fixture(scope='module')
def whole(stepped):
    """Those by the .params file on one device, and how far they are from those without a teacher."""
    learned = stepped('net.params')
    return learned, apart(learned, stepped(None))


@pytest.mark.parametrize('file, devices, parts', [('net.params', 2, 1), slow('net.params', 2, 2),
                                                  slow('net.params', 1, 2), ('heads.onnx', 1, 1),
                                                  slow('heads.onnx', 2, 2)])
def test_devices_parts_and_files_give_the_same_weights(stepped, whole, file, devices, parts):
    learned, moved = whole
    assert apart(stepped(file, devices, parts), learned) < 1e-3 * moved and moved > 0


@pytest.mark.parametrize('ema', [0.9, slow(0)])
def test_a_resumed_training_is_the_straight_one(squares, files, run, tmp_path, ema):
    real, states = training.train_step, []
    for stop in None, 2:  # of 3 steps
        calls, folder = [], tmp_path / str(stop)

        def step(net, batch, trainer, args, group, teacher):
            calls.append(teacher is not None)
            if len(calls) == stop:
                raise Interrupted(signal.SIGINT)
            return real(net, batch, trainer, args, group, teacher)
        with mock.patch.object(training, 'train_step', step):
            for code in (130, 0) if stop else (0,):
                done = run(SCRIPT, '--dataset-root', squares, *TINY, '--epochs', 1, '--num-samples', 12, '-j', 0,
                           '--save-interval', 0, '--ema', ema, '--resume', 'auto', '--teacher',
                           files / 'net.params', '--save-prefix', '%s/' % folder)
                assert done.returncode == code, done.stderr
                assert 'learning from' in done.stderr
        assert all(calls) and len(calls) == (4 if stop else 3)
        states.append(learned(folder / 'yolo3_mobilenet0_25_voc_last.npz'))
    assert_same(*states)


# ---- What is refused

def renamed(files, path, change):
    """An .onnx file of raw heads, changed."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load(str(files / 'heads.onnx'))
    change(model)
    onnx.save(model, str(path))


def one_head_twice(model):
    output = next(node for node in model.graph.node if node.output[0] == 'head_32')
    output.input[0] = next(node for node in model.graph.node if node.output[0] == 'head_16').input[0]


def no_number(model):
    weight = model.graph.initializer[0]
    values = np.frombuffer(weight.raw_data, 'float32').copy()
    values[0] = np.nan
    weight.raw_data = values.tobytes()


def without_head(model):
    del model.graph.output[0]


def one_class_less(model):
    next(entry for entry in model.metadata_props if entry.key == 'classes').value = '["blue", "red"]'


def params_with(files, path, change):
    """A copy of the .params file with its arrays changed, or other bytes."""
    arrays = mx.nd.load(str(files / 'net.params'))
    name = 'yolo_outputs.0.prediction.bias'
    arrays[name] = change(arrays[name])
    mx.nd.save(str(path), arrays)
    path.with_suffix('.json').write_text((files / 'net.json').read_text())


BAD = {'gone.params': (None, 'no such'), 'gone.onnx': (None, 'no such'), 'yolo3_darknet53_foo': (None, 'no such'),
       'fifo.params': (os.mkfifo, 'no such'), 'fifo.onnx': (os.mkfifo, 'not a regular file'),
       'junk.onnx': (lambda path: path.write_bytes(b'junk'), 'not a readable'),
       'one_head_twice.onnx': (one_head_twice, 'strides'), 'no_number.onnx': (no_number, 'finite'),
       'without_head.onnx': (without_head, '--heads'), 'one_class_less.onnx': (one_class_less, 'export it again'),
       'nan.params': (lambda bias: bias * np.nan, 'finite'), 'short.params': (lambda bias: bias[:3], 'does not hold')}


@pytest.mark.parametrize('name', BAD)
def test_bad_files_are_refused(files, tmp_path, name):
    make, words = BAD[name]
    path = tmp_path / name
    if make in (one_head_twice, no_number, without_head, one_class_less):
        renamed(files, path, make)
    elif name in ('nan.params', 'short.params'):
        params_with(files, path, make)
    elif make:
        make(path)
    with pytest.raises(UserError, match='^--teacher %s: .*%s' % (re.escape(str(path)), words)) as error:
        taught_by(path)
    assert '\n' not in str(error.value)


def test_a_file_cut_short_or_without_sidecar_is_refused(files, tmp_path):
    content = (files / 'net.params').read_bytes()
    (tmp_path / 'a.params').write_bytes(content)
    with pytest.raises(UserError, match='a.params: it has no sidecar'):
        taught_by(tmp_path / 'a.params')
    (tmp_path / 'a.json').write_text((files / 'net.json').read_text())
    (tmp_path / 'a.params').write_bytes(content[:len(content) // 2])
    with pytest.raises(UserError, match='a.params is not a readable'):
        taught_by(tmp_path / 'a.params')


@pytest.mark.parametrize('name', ['net.params', 'heads.onnx'])
def test_other_classes_or_anchors_are_refused(files, name):
    with pytest.raises(UserError, match=r'does not know 1 of the 2 classes to learn \(dog\)'):
        taught_by(files / name, ['red', 'dog'])
    other = [[side + 1 for side in row] for row in ANCHORS]
    with pytest.raises(UserError, match='--anchors 10,13,16,30,33,23,30,61,62,45,59,119,116,90,156,198,373,326$'):
        taught_by(files / name, anchors=other)


def test_decoded_boxes_are_not_enough(files, squares, run, tmp_path):
    done = run(SCRIPT, '--dataset-root', squares, *TINY, '-j', 0, '--epochs', 1, '--teacher', files / 'plain.onnx',
               '--save-prefix', '%s/' % tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert '--teacher' in done.stderr.splitlines()[-1] and '--heads' in done.stderr.splitlines()[-1]
