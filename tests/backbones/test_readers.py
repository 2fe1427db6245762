"""Files as their frameworks' own libraries write them are read; those that are damaged or of others end in one line."""
import json
import os
import struct

import numpy as np
import pytest

from sources import keras_arrays, random_network, timm_arrays, write_torch
from yolo3.backbones import readers
from yolo3.backbones.readers import read
from yolo3.cli import UserError

NETWORK = random_network()


def same(source, tolerance=0):
    """Whether the Source has NETWORK's kernels."""
    return all(np.allclose(found.weight, layer['weight'], rtol=tolerance, atol=tolerance * 1e-4)
               for found, layer in zip(source.layers, NETWORK[0]))


@pytest.mark.parametrize('kind, tolerance', [('F32', 0), ('F16', 1e-2), ('BF16', 2 ** -7)])
def test_safetensors(kind, tolerance, tmp_path):
    pytest.importorskip('safetensors', reason='pip install -r requirements/convert.txt')
    header, data = {}, b''
    for name, array in timm_arrays(NETWORK).items():
        stored = {'F32': array, 'F16': array.astype('<f2'), 'BF16': (array.view('<u4') >> 16).astype('<u2')}[kind]
        header[name] = {'dtype': kind, 'shape': array.shape, 'data_offsets': [len(data), len(data) + stored.nbytes]}
        data += stored.tobytes()
    header = json.dumps(header).encode()
    content = struct.pack('<Q', len(header)) + header + data
    path = tmp_path / 'net.safetensors'
    path.write_bytes(content)
    assert same(read(str(path)), tolerance)
    path.write_bytes(content[:-5])
    with pytest.raises(UserError, match='net.safetensors: it is damaged'):
        read(str(path))


@pytest.mark.parametrize('place', ['{owner}/{owner}/{name}:0', 'model_weights/{owner}/{owner}/{name}:0',
                                   'mobilenet_1.00_224/{owner}/{name}:0'])
def test_keras(place, tmp_path):
    h5py = pytest.importorskip('h5py', reason='pip install -r requirements/convert.txt')
    path = str(tmp_path / 'net.h5')
    with h5py.File(path, 'w') as file:
        for name, array in keras_arrays(NETWORK).items():
            owner, name = name.split('/')
            file[place.format(owner=owner, name=name)] = array
        file['optimizer_weights/Adam/conv1/kernel:0'] = np.zeros(1)
    assert same(read(path))


@pytest.mark.parametrize('make, said', [
    (lambda file: file.create_dataset('conv1/kernel:0', (2 ** 30, 2 ** 10), 'f4', chunks=True), 'too large'),
    (lambda file: file.create_dataset('conv1/kernel:0', (4,), 'f4', external=[('other', 0, 16)]), 'another file'),
    (lambda file: file.create_dataset('layers/conv2d/vars/0', (4,), 'f4'), r'Keras 3: .*model\.save'),
    (lambda file: file.create_dataset('a/b', (4,), 'f4'), 'it holds a/b')])
def test_hdf5_files_of_other_kinds_are_refused(make, said, tmp_path):
    h5py = pytest.importorskip('h5py', reason='pip install -r requirements/convert.txt')
    with h5py.File(str(tmp_path / 'net.h5'), 'w') as file:
        make(file)
    with pytest.raises(UserError, match='net.h5: .*' + said):
        read(str(tmp_path / 'net.h5'))


@pytest.mark.parametrize('extension', ['.pth', '.pt', '.bin', '.PTH'])
def test_torch(extension, tmp_path):
    path = str(tmp_path / ('net' + extension))
    write_torch(path, timm_arrays(NETWORK))
    assert same(read(path))


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    (tmp_path / 'net.h5').write_bytes(b'')
    monkeypatch.setitem(__import__('sys').modules, 'h5py', None)
    with pytest.raises(UserError, match=r'no module h5py here: pip install -r requirements/convert\.txt'):
        read(str(tmp_path / 'net.h5'))


@pytest.mark.parametrize('name', ['net.pth', 'net.pdparams', 'net.h5', 'net.safetensors', 'net.tflite'])
@pytest.mark.parametrize('content', [b'', b'PK\x03\x04' + bytes(50), b'\x89HDF\r\n\x1a\n' + bytes(50), bytes(8) * 9,
                                     b'\xff\xff\xff\xff\xff\xff\xff\x7f{}', b'\x10\0\0\0TFL3' + b'\xff' * 64])
def test_other_bytes_end_in_one_line(name, content, tmp_path):
    pytest.importorskip({'net.h5': 'h5py', 'net.safetensors': 'safetensors', 'net.tflite': 'tflite'}.get(name, 'numpy'))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read(str(tmp_path / name))


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    os.mkfifo(str(tmp_path / 'fifo.pth'))
    (tmp_path / 'large.pth').write_bytes(bytes(100))
    monkeypatch.setattr(readers, 'MOST_BYTES', 99)
    for name, said in (('fifo.pth', 'not a regular file'), ('gone.pth', 'No such file'),
                       ('net.onnx', 'ends in none of'), ('large.pth', 'too large')):
        with pytest.raises(UserError, match='%s: .*%s' % (name, said)):
            read(str(tmp_path / name))
