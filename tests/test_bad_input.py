"""Malformed input, file by file and flag by flag: each is refused by one line that names it, with exit code 2."""
import functools
import json
import os
import struct
import tempfile
import zlib

import cv2
import numpy as np
import pytest

from conftest import ANNOTATION, OBJECT
from yolo3 import checkpoint, cli, network, weights
from yolo3.data.datasets import open_train
from yolo3.data.images import ImageFile
from yolo3.data.anchors import ANCHORS
from yolo3.show.annotate import OutputFolder
from yolo3.mxnet_setup import mx

BOX = OBJECT % ('a', 1, 1, 20, 20)
GOOD_XML = ANNOTATION % ('one', 64, 48, BOX)
BILLION_LAUGHS = '<!DOCTYPE l [<!ENTITY a "ha">%s]><annotation>&k;</annotation>' % ''.join(
    '<!ENTITY %s "%s">' % (name, '&%s;' % before * 10) for before, name in zip('abcdefghij', 'bcdefghijk'))


def check_refusal(code, error, named):
    """Exit code 2 and one short line on stderr, which names the file or flag `named`."""
    assert code == 2 and len(error.splitlines()) == 1, error
    assert named in error and 'Traceback' not in error and len(error) < 2000


@pytest.fixture
def refused(capsys):
    """refused(action, named): `action` called as a command's main() is refused by a line that names `named`."""
    def check(action, named):
        with pytest.raises(SystemExit) as end:
            cli.run(action)
        check_refusal(end.value.code, capsys.readouterr().err, named)
    return check


def voc(root, xml=GOOD_XML, split='one\n'):
    """Write a VOC set of one image into `root` and open it."""
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / 'VOC2007' / folder).mkdir(parents=True)
    cv2.imwrite(str(root / 'VOC2007/JPEGImages/one.jpg'), np.zeros((48, 64, 3), 'uint8'))
    for path, content in ('Annotations/one.xml', xml), ('ImageSets/Main/trainval.txt', split):
        (root / 'VOC2007' / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_train('voc', str(root), ['a'], ['2007_trainval'], on_bad_image='stop')


def test_well_formed_input_is_accepted(tmp_path):
    assert len(voc(tmp_path / 'voc')) == len(coco(tmp_path / 'coco', GOOD_COCO)) == 1
    (tmp_path / 'a.png').write_bytes(png(8, 8))
    ImageFile(str(tmp_path / 'a.png')).pixels()
    assert weights.load_detector(params(tmp_path, {}))


@pytest.mark.parametrize('xml', [
    b'', b'\x00' * 100, b'\xff\xfe<\x00', b'no xml', '<annotation>', '<annotation></object></annotation>',
    GOOD_XML[:-20], GOOD_XML + '<more/>', BILLION_LAUGHS, '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
    '<?xml version="1.0" encoding="x"?><a/>', '<annotation>' + '<object>' * 100000,
    ANNOTATION % ('one', 64, 48, '<object><bndbox/></object>'),
    ANNOTATION % ('one', 64, 48, '<object><name>a</name></object>'),
    GOOD_XML.replace('<xmin>1<', '<xmin>one<'), GOOD_XML.replace('<xmin>1<', '<xmin>nan<'),
    GOOD_XML.replace('<xmax>20<', '<xmax>1e999<'), GOOD_XML.replace('<xmin>1</xmin>', ''),
    GOOD_XML.replace('<name>a</name>', '<name/>')], ids=lambda xml: str(xml)[:30])
def test_a_malformed_annotation_is_refused(tmp_path, refused, xml):
    refused(lambda: voc(tmp_path, xml), 'one.xml')


@pytest.mark.parametrize('xml, named', [
    (GOOD_XML.replace('<width>64', '<width>640'), 'one.jpg'), (GOOD_XML.replace('>a<', '>b<'), '--classes')])
def test_an_annotation_of_another_image_or_class_is_refused(tmp_path, refused, xml, named):
    refused(lambda: voc(tmp_path, xml), named)


def test_a_filename_outside_the_image_folder_is_refused(tmp_path, refused):
    voc(tmp_path)
    os.remove(tmp_path / 'VOC2007/JPEGImages/one.jpg')
    (tmp_path / 'VOC2007/one.jpg').write_bytes(JPEG)
    (tmp_path / 'VOC2007/Annotations/one.xml').write_text(GOOD_XML.replace('one.jpg', '../one.jpg'))
    refused(lambda: open_train('voc', str(tmp_path), ['a'], ['2007_trainval']), 'one.xml')


@pytest.mark.parametrize('split', [
    b'', b'\n\n', b'\xff\xfeo\x00', b'two\n', b'../../one\n', b'/etc/passwd\n', b'one\x00\n'])
def test_a_malformed_split_file_is_refused(tmp_path, refused, split):
    refused(lambda: voc(tmp_path, split=split), 'trainval.txt')


IMAGE = {'id': 1, 'file_name': 'one.jpg', 'width': 64, 'height': 48}
LABEL = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 20, 20]}
GOOD_COCO = {'images': [IMAGE], 'categories': [{'id': 1, 'name': 'a'}], 'annotations': [LABEL]}


def coco(root, content):
    """Write a COCO set of one image into `root` and open it."""
    (root / 'annotations').mkdir(parents=True)
    cv2.imwrite(str(root / 'one.jpg'), np.zeros((48, 64, 3), 'uint8'))
    (root / 'annotations/all.json').write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return open_train('coco', str(root), splits=['all'])


def changed(**changes):
    return dict(GOOD_COCO, **changes)


@pytest.mark.parametrize('content', [
    b'', b'\xff\xfe', b'{"images": [', b'[' * 100000, b'{"a":' * 100000, [], 3, None, {}, changed(images=None),
    changed(images=[]), changed(images=[3]), changed(images=[{}]), changed(images=[IMAGE, IMAGE]),
    changed(images={'id': 1}), changed(categories=[{}]), changed(categories=[{'id': 'x', 'name': 'a'}]),
    changed(categories=[{'id': 1, 'name': 3}]), changed(categories=3),
    changed(annotations=[3]), changed(annotations=[dict(LABEL, bbox=[1, 2, 3])]),
    changed(annotations=[dict(LABEL, bbox='abcd')]), changed(annotations=[dict(LABEL, bbox=[1, 2, 3, float('inf')])]),
    changed(annotations=[dict(LABEL, category_id=None)]), changed(annotations=[dict(LABEL, area='x')]),
    changed(annotations=[{'bbox': [1, 2, 3, 4]}]), changed(annotations=3), changed(images=[dict(IMAGE, id=[1])])],
    ids=lambda content: str(content)[:40])
def test_a_malformed_coco_file_is_refused(tmp_path, refused, content):
    refused(lambda: coco(tmp_path, content), 'all.json')


@pytest.mark.parametrize('image, named', [
    (dict(IMAGE, file_name='../../etc/passwd'), 'outside'), (dict(IMAGE, file_name='/etc/passwd'), 'outside'),
    (dict(IMAGE, file_name='two.jpg'), 'two.jpg'), ({'id': 1}, 'file_name')])
def test_a_coco_image_outside_the_folder_or_missing_is_refused(tmp_path, refused, image, named):
    refused(lambda: coco(tmp_path, changed(images=[image])), named)


def png(width, height, data=None):
    """A PNG file that declares `width` x `height` grey pixels."""
    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    data = zlib.compress(b'\0' * (width + 1) * height) if data is None else data
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)) +
            chunk(b'IDAT', data) + chunk(b'IEND', b''))


JPEG = cv2.imencode('.jpg', np.random.RandomState(0).randint(0, 256, (64, 64, 3), 'uint8'))[1].tobytes()


@pytest.mark.parametrize('content', [
    b'', b'\0' * 1000, b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'GIF89a', b'\xff\xd8\xff\xe0', JPEG[:100],
    png(60000, 60000, b''), png(2 ** 31 - 1, 2 ** 31 - 1, b''), png(0, 5, b''), png(9, 9)[:40], b'BM' + b'\xff' * 60,
    b'RIFF\xff\xff\xff\xffWEBPVP8 ' + b'\0' * 20, b'II*\0\xff\xff\xff\xff', b'\x89PNG\r\n\x1a\n'],
    ids=lambda content: str(content)[:30])
def test_a_damaged_image_is_refused(tmp_path, refused, content):
    (tmp_path / 'a.jpg').write_bytes(content)
    refused(lambda: ImageFile(str(tmp_path / 'a.jpg')).pixels(), 'a.jpg')


def test_a_missing_image_is_refused(tmp_path, refused):
    refused(lambda: ImageFile(str(tmp_path / 'none.jpg')), 'none.jpg')
    refused(lambda: ImageFile(str(tmp_path)), str(tmp_path))


FACTS = {'network': 'mobilenet0_25', 'classes': ['a'], 'anchors': ANCHORS, 'data_shape': 64, 'dataset': 'voc'}


@functools.lru_cache(None)
def good_params():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'good.params')
        network.build('mobilenet0_25', ['a']).save_parameters(path)
        with open(path, 'rb') as file:
            return file.read()


def params(folder, facts, content=lambda good: good):
    """The path of a .params file: `content` of a good one, beside a sidecar with `facts` changed."""
    path = str(folder / 'a.params')
    with open(path, 'wb') as file:
        file.write(content(good_params()))
    with open(str(folder / 'a.json'), 'wb') as file:
        file.write(facts if isinstance(facts, bytes) else json.dumps(dict(FACTS, **facts)).encode())
    return path


@pytest.mark.parametrize('facts', [
    b'', b'[]', b'{', b'\xff\xff', b'3', b'[' * 100000, {'network': 'resnet'}, {'network': ['a']}, {'network': None},
    {'classes': 'a'}, {'classes': []}, {'classes': [1]}, {'data_shape': 0}, {'data_shape': '64'}, {'data_shape': 33},
    {'dataset': 'imagenet'}, {'dataset': {}}, {'anchors': 3}, {'anchors': [[1, 2]]}, {'anchors': [[0] * 6] * 3},
    {'anchors': [['a'] * 6] * 3}, {'data_shape': True}, {'data_shape': 10 ** 9}, {'anchors': [[float('nan')] * 6] * 3},
    {'classes': ['a'] * 10 ** 5}], ids=lambda facts: str(facts)[:40])
def test_a_malformed_sidecar_is_refused(tmp_path, refused, facts):
    refused(lambda: weights.load_detector(params(tmp_path, facts)), 'a.json')


@pytest.mark.parametrize('content', [
    lambda good: b'', lambda good: b'hello', lambda good: good[:50], lambda good: good[:-7],
    lambda good: good[:len(good) // 2], lambda good: b'\x80\x04cposix\nsystem\n(S"touch pwned"\ntR.',
    lambda good: good[:16] + b'\xff' * 8 + good[24:]])
def test_a_damaged_weights_file_is_refused(tmp_path, refused, content):
    refused(lambda: weights.load_detector(params(tmp_path, {}, content)), 'a.params')


def test_weights_of_another_network_are_refused(tmp_path, refused):
    refused(lambda: weights.load_detector(params(tmp_path, {'network': 'mobilenet0_5'})), 'a.params')
    refused(lambda: weights.load_detector(params(tmp_path, {'classes': ['a', 'b']})), 'a.params')
    mx.nd.save(str(tmp_path / 'list.params'), [mx.nd.ones(3)])
    refused(lambda: weights.load_detector(str(tmp_path / 'list.params'), classes=['a']), 'list.params')


@pytest.mark.parametrize('content', [
    b'', b'PK\x05\x06' + b'\0' * 18, b'\x93NUMPY\x01\x00', b'\x80\x04N.', b'PK\x03\x04' * 100])
def test_a_damaged_checkpoint_is_refused(tmp_path, refused, content):
    (tmp_path / 'run.npz').write_bytes(content)
    refused(lambda: checkpoint.load(str(tmp_path / 'run.npz'), None, None), 'run.npz')


@pytest.mark.parametrize('arrays', [
    {}, {'state': np.zeros(3)}, {'state': np.frombuffer(b'{}', 'uint8')},
    {'state': np.frombuffer(b'[' * 10 ** 5, 'uint8')}, {'state': np.frombuffer(b'null', 'uint8')},
    {'../../x': np.zeros(2)}, {'state': np.array(['a'])}])
def test_a_checkpoint_with_a_right_checksum_and_wrong_content_is_refused(tmp_path, refused, arrays):
    path = str(tmp_path / 'run.npz')
    np.savez(path, checksum=checkpoint.checksum(arrays), **arrays)
    refused(lambda: checkpoint.load(path, None, None), 'run.npz')
    assert os.listdir(tmp_path) == ['run.npz']


@pytest.mark.parametrize('flags', [
    ['--dataset', 'x'], ['--epochs'], ['--epochs', '1e3'], ['--batch-size', '-1'], ['--num-workers', '-1'],
    ['--seed', '-5'], ['--data-shape', '31'], ['--gpus', 'x'], ['--gpus', '99'], ['--lr', 'fast'],
    ['--lr-decay-epoch', '1;2'],
    ['--network', '../x'], ['--classes', 'a,a'], ['--dataset-root', 'no/such'], ['--keep', '0'], ['--unknown'],
    ['--on-bad-image', 'eat'], ['--accumulate', '9999'], ['--lr', 'nan'], ['--momentum', 'inf'], ['--lr', '-1']],
    ids=str)
def test_a_wrong_flag_of_training_is_refused(tmp_path, run, flags):
    (tmp_path / 'empty').mkdir()
    done = run('train_yolo3_mobilenet.py', '--dataset-root', 'empty', '--gpus', '', '--no-pretrained-base', *flags,
               cwd=tmp_path)
    check_refusal(done.returncode, done.stderr, flags[0])


@pytest.mark.parametrize('command', [['eval_yolo3.py'], ['demo.py', 'a.jpg']], ids=str)
@pytest.mark.parametrize('flags, named', [
    ([], '--params'), (['--params', 'none.params'], 'none.params'), (['--params', '.'], '.'),
    (['--params'], '--params'), (['--params', 'none.params', '--gpus', '-3'], '--gpus')])
def test_a_wrong_flag_of_eval_and_demo_is_refused(tmp_path, run, command, flags, named):
    (tmp_path / 'a.jpg').write_bytes(JPEG)
    done = run(*command, *flags, cwd=tmp_path)
    check_refusal(done.returncode, done.stderr, named)


ODD = 'a \'b" $(touch pwned); `c` %s\n{} #?'


def test_odd_names_work_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = str(tmp_path / ODD)
    os.mkdir(out)
    folder = OutputFolder(out, [])
    for name in ODD + '.jpg', '../../' + ODD + '.jpg', '../..', '/etc/..', ODD + '/x.jpg':
        assert os.path.dirname(os.path.realpath(folder.name(name, '.jpg'))) == os.path.realpath(out)
    path = os.path.join(out, ODD + '.params')
    net = network.build('mobilenet0_25', [ODD])
    weights.save_detector(net, path, **dict(FACTS, classes=[ODD]))
    assert weights.load_detector(path)[1]['classes'] == [ODD]
    content = changed(images=[dict(IMAGE, file_name=ODD + '.jpg')])
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / (ODD + '.jpg')).write_bytes(JPEG)
    dataset = coco(tmp_path / 'set', content)
    assert dataset.image_path(0) == str(tmp_path / 'set' / (ODD + '.jpg'))
    assert dataset.image_file(0).pixels().shape == (64, 64, 3)
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name == 'pwned']
