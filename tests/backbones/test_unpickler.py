"""Pickles: arrays come out as they went in, and nothing else does: no file runs anything, or takes memory or time."""
import builtins
import collections
import io
import operator
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from sources import write_torch
from yolo3.backbones.readers import read
from yolo3.backbones.unpickler import read_pickle
from yolo3.cli import UserError

ARRAYS = {'a': np.arange(6, dtype='float32').reshape(2, 3), 'b': np.asfortranarray(np.arange(6.).reshape(3, 2)),
          'c': np.array([1, 2], '>i8')}


@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize('wrap', [dict, collections.OrderedDict, lambda arrays: {'epoch': 3, 'state_dict': arrays}])
def test_arrays(protocol, wrap):
    found = read_pickle(pickle.dumps(wrap(ARRAYS), protocol))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_tensors(tmp_path):
    arrays = {'a': np.arange(24, dtype='float32').reshape(2, 3, 4), 'b': np.ones(2, 'float32')}
    arrays['channels last'] = arrays['a'].copy().transpose(2, 0, 1)
    path = tmp_path / 'net.pth'
    write_torch(path, arrays)
    found = read_pickle(path.read_bytes())
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


class Call:
    """What a pickle can have called."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bomb(depth=60):
    """A tuple of two references to a tuple of two references ... whose hash, or text, takes for ever."""
    item = ()
    for _ in range(depth):
        item = item, item
    return item


def key_bomb():
    return b'\x80\x02}' + pickle.dumps(bomb(), 2)[2:-1] + b'K\x01s.'


def encode_bomb():
    """One text of a million letters, turned into bytes ten thousand times: 10 GB."""
    text = b'c_codecs\nencode\nq\x00X' + struct.pack('<I', 10 ** 6) + b'a' * 10 ** 6 + b'q\x01\x8c\x06latin1q\x02'
    return b'\x80\x04' + text + b'](' + b'h\x00h\x01h\x02\x86R' * 10 ** 4 + b'e.'


def tensor_pickle(offset, size, stride, reference=('storage', 'float', '0', 'cpu', 4)):
    """A pickle of {'a': tensor} over a storage of 4 numbers."""
    def item(value):
        return pickle.dumps(value, 2)[2:-1]
    kind, _, key, place, count = reference
    storage = b'(' + item(kind) + b'ctorch\nFloatStorage\n' + item(key) + item(place) + item(count) + b'tQ'
    return (b'\x80\x02}' + item('a') + b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + item(offset) + item(size)
            + item(stride) + b'tRs.')


def archive(content, compression=zipfile.ZIP_STORED, storage=bytes(16)):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as members:
        members.writestr('archive/data.pkl', content)
        members.writestr('archive/data/0', storage)
    return file.getvalue()


def test_a_tensor_of_the_size_of_its_storage_is_read():
    assert read_pickle(archive(tensor_pickle(0, (2, 2), (2, 1))))['a'].shape == (2, 2)


HOSTILE = {
    'os.system': lambda: pickle.dumps(Call(os.system, 'touch ran')),
    'eval': lambda: pickle.dumps({'a': Call(builtins.eval, 'open("ran", "w")')}, 2),
    'getattr': lambda: pickle.dumps(Call(getattr, Call(getattr, Call(__import__, 'os'), 'path'), 'exists')),
    'attrgetter': lambda: pickle.dumps(Call(operator.attrgetter('system'), 1)),
    'nested name': lambda: b'\x80\x04\x8c\x05numpy\x8c\x09os.system\x93\x8c\x09touch ran\x85R.',
    'protocol 0': lambda: b"cos\nsystem\n(S'touch ran'\ntR.",
    'class': lambda: pickle.dumps({'a': Call, 'b': io.BytesIO()}),
    'numpy.load': lambda: b'\x80\x02cnumpy\nload\nX\x01\x00\x00\x00a\x85R.',
    'state of a function': lambda: b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb.',
    'objects': lambda: pickle.dumps({'a': np.array([{}, []], dtype=object)}),
    'records': lambda: pickle.dumps({'a': np.zeros(2, 'f4,i4')}),
    'texts': lambda: pickle.dumps({'a': np.array(['a'])}),
    'shape': lambda: pickle.dumps({'a': np.zeros(2)}, 2).replace(b'K\x02\x85', b'K\x03\x85'),
    'key bomb': key_bomb,
    'key bomb of items': lambda: b'\x80\x02}(' + pickle.dumps(bomb(), 2)[2:-1] + b'K\x01u.',
    'key bomb of a dict': lambda: b'\x80\x02ccollections\nOrderedDict\n](' + pickle.dumps(bomb(), 2)[2:-1]
                                  + b'K\x01\x86e\x85R.',
    'key bomb of an encoding': lambda: b'\x80\x02c_codecs\nencode\n' + pickle.dumps(bomb(), 2)[2:-1] + b'K\x01\x86R.',
    'dtype bomb': lambda: b'\x80\x02cnumpy\ndtype\n' + pickle.dumps(bomb(), 2)[2:-1] + b'\x85R.',
    'memory': lambda: b'\x80\x04\x8e' + struct.pack('<Q', 2 ** 45) + b'abc.',
    'frame': lambda: b'\x80\x04\x95' + struct.pack('<Q', 2 ** 45) + b'abc.',
    'memo slots': lambda: b'\x80\x02]r\xff\xff\xff\x7f.',
    'encode bomb': encode_bomb,
    'opcodes': lambda: b'\x80\x04' + b']' * 2 * 10 ** 5 + b'.',
    'cut off': lambda: pickle.dumps(ARRAYS)[:-30],
    'empty': lambda: b'',
    'set': lambda: pickle.dumps({1, 2}),
    'a number': lambda: pickle.dumps(1),
    'a circle': lambda: b'\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.',
    'no storage': lambda: tensor_pickle(0, (2,), (1,)),
    'beyond its storage': lambda: archive(tensor_pickle(1, (2, 2), (2, 1))),
    'repeated': lambda: archive(tensor_pickle(0, (10 ** 6, 10 ** 6), (0, 0))),
    'before its storage': lambda: archive(tensor_pickle(3, (2, 2), (-1, -1))),
    'a text as shape': lambda: archive(tensor_pickle(0, ('a' * 9,), (10 ** 10,))),
    'another member': lambda: archive(tensor_pickle(0, (2,), (1,), ('storage', 0, '../../etc', 'cpu', 4))),
    'another reference': lambda: archive(tensor_pickle(0, (2,), (1,), ('module', 0, '0', 'cpu', 4))),
    'zip bomb': lambda: archive(tensor_pickle(0, (2,), (1,)), zipfile.ZIP_DEFLATED, bytes(10 ** 7)),
    'PyTorch 1.5': lambda: pickle.dumps(0x1950a86a20f9469cfc6c, 2) + b'more',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'net.pdparams').write_bytes(HOSTILE[name]())
    with pytest.raises(UserError) as error:
        read('net.pdparams')
    assert str(error.value).startswith('net.pdparams: ') and len(str(error.value)) < 300
    assert os.listdir(str(tmp_path)) == ['net.pdparams']


@pytest.mark.parametrize('name, said', [('os.system', 'it names %s.system' % os.name),
                                        ('eval', r'builtin\w*\.eval, which is no array'),
                                        ('nested name', 'numpy.os.system'), ('PyTorch 1.5', 'before 1.6'),
                                        ('repeated', 'larger than its storage'),
                                        ('state of a function', 'more than arrays')])
def test_what_it_names_is_said(name, said, tmp_path):
    (tmp_path / 'net.pth').write_bytes(HOSTILE[name]())
    with pytest.raises(UserError, match=said):
        read(str(tmp_path / 'net.pth'))
