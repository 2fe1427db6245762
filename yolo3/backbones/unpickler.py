"""Arrays out of a pickle (.pdparams, .pth) without running it: everything that is not an array is refused.

Nothing of NumPy or PyTorch is called that the file names: its names stand for the few functions below.
"""
import io
import math
import pickle
import re
import zipfile
from pickletools import code2op

import numpy as np

# What pickles of arrays are made of, in the protocols 2 to 4. Left out are sets, objects with a class of their own,
# extensions and protocol 0, whose numbers are text of any length.
OPCODES = set('''PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
    SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE
    TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
    BINPERSID'''.split())
STORAGES = {'torch.FloatStorage': '<f4', 'torch.DoubleStorage': '<f8', 'torch.HalfStorage': '<f2',
            'torch.BFloat16Storage': 'bfloat16', 'torch.LongStorage': '<i8', 'torch.IntStorage': '<i4',
            'torch.ByteStorage': 'u1', 'torch.BoolStorage': 'u1'}
MOST_OPCODES = 10 ** 5  # of a file; a state dict of MobileNetV1 has 5,000
LEGACY_PYTORCH = 0x1950a86a20f9469cfc6c  # the number with which files of PyTorch before 1.6 begin


def read_pickle(content):
    """{name: array} in the bytes of a file of paddle.save or torch.save. Raises ValueError, KeyError and others.

    If it is a whole checkpoint, the arrays are those of the dict in it that has most of them.
    """
    found = read_zip(content) if zipfile.is_zipfile(io.BytesIO(content)) else _Unpickler(content).load()
    if found == LEGACY_PYTORCH:
        raise ValueError('PyTorch before 1.6 wrote it: load it and torch.save it again with a newer one')
    dicts = [part for part in [found, *found.values()] if isinstance(part, dict)] if isinstance(found, dict) else [{}]
    return max(({str(name): array.value for name, array in part.items() if isinstance(array, _Array)}
                for part in dicts), key=len)


def read_zip(content):
    """What is pickled in the bytes of an archive that torch.save wrote. Raises as `read_pickle`."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # PyTorch does not compress, so a small file cannot become a large one in memory.
        if sum(member.file_size for member in archive.infolist()) > len(content):
            raise ValueError('it declares more than it holds')
        names = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(names) != 1:
            raise ValueError('it is an archive, but none of PyTorch')
        folder = names[0][:-len('data.pkl')]
        return _Unpickler(archive.read(names[0]), lambda key: archive.read(folder + 'data/' + key)).load()


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with fewer opcodes, and stand-ins for all that a file can name.

    The one written in Python: that in C allocates whatever number of memo slots the file asks for. What it loads are
    dicts, lists, numbers, texts and _Arrays. storage: function of the key of a PyTorch storage that returns its bytes.
    """

    def __init__(self, content, storage=None):
        super().__init__(io.BytesIO(content))
        self.dispatch = _Dispatch()
        self._storage = storage
        self._arrays, self._encoded = {}, {}  # what is read once however often the file refers to it

    def find_class(self, module, name):
        """The stand-in for `module.name`; raises ValueError if there is none."""
        name = '%s.%s' % (module.replace('numpy._core', 'numpy.core'), name)
        if name == '_codecs.encode':
            return self._encode
        if name in STORAGES:
            return STORAGES[name]
        if name not in STAND_INS:
            raise ValueError('it names %s, which is no array: save the state dict (names and arrays) alone' % name)
        return STAND_INS[name]

    def persistent_load(self, pid):
        """The 1-D array of a PyTorch storage: ('storage', type, key, location, number of elements)."""
        kind, dtype, key, _, _ = pid
        if kind != 'storage' or self._storage is None or not isinstance(key, str) or not isinstance(dtype, str):
            raise ValueError('it refers to something outside of it')
        if key not in self._arrays:
            self._arrays[key] = as_array(self._storage(key), dtype)
        return _Array(self._arrays[key])

    def _encode(self, text, _):
        """Of _codecs.encode, with which protocol 2 writes bytes."""
        if not isinstance(text, str):
            raise ValueError('it holds more than arrays')
        if text not in self._encoded:
            self._encoded[text] = text.encode('latin1')
        return self._encoded[text]


class _Dispatch:
    """Opcode -> what _Unpickler does for it, for so many of them and no others than those of arrays."""

    def __init__(self):
        self._left = MOST_OPCODES

    def __getitem__(self, code):
        self._left -= 1
        if self._left < 0:
            raise ValueError('it holds more than arrays')
        if code not in FUNCTIONS:
            raise ValueError('it holds more than arrays (opcode %d)' % code)
        return FUNCTIONS[code]


def _set_items(unpickler):
    """SETITEMS for keys that are names: the hash of tuples in tuples, each twice the one before, takes for ever."""
    if not all(isinstance(key, (str, int)) for key in unpickler.stack[::2]):
        raise ValueError('a key in it is no name')
    unpickler.load_setitems()


def _set_item(unpickler):
    """SETITEM, likewise."""
    if not isinstance(unpickler.stack[-2], (str, int)):
        raise ValueError('a key in it is no name')
    unpickler.load_setitem()


def _build(unpickler):
    """BUILD for the stand-ins, which know what to make of their state."""
    if not isinstance(unpickler.stack[-2], (_Dict, _Dtype, _Array)):
        raise ValueError('it holds more than arrays')
    unpickler.load_build()


FUNCTIONS = {code: function for code, function in pickle._Unpickler.dispatch.items()
             if code2op[chr(code)].name in OPCODES}
FUNCTIONS.update({pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items, pickle.BUILD[0]: _build})


class _Dict(dict):
    """Of collections.OrderedDict, without the attributes that PyTorch gives a state dict."""

    def __init__(self):
        super().__init__()

    def __setstate__(self, state):
        pass


class _Dtype:
    """Of numpy.dtype: ('f4', False, True), then a state whose second part is the byte order."""

    def __init__(self, text, *_):
        self.text, self.order = text, '='

    def __setstate__(self, state):
        self.order = state[1]

    def numpy(self):
        """The numpy.dtype, of numbers only."""
        if not re.fullmatch('[fiub][0-9]', self.text) or self.order not in ('<', '>', '=', '|'):
            raise ValueError('it holds an array of something else than numbers')
        return np.dtype(self.text).newbyteorder(self.order)


class _Array:
    """Of numpy.ndarray, whose state is (version, shape, dtype, whether Fortran's order, bytes), and of a tensor."""

    def __init__(self, value=None):
        self.value = value

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.value = as_array(content, dtype.numpy()).reshape(shape, order='F' if fortran else 'C')


def as_array(content, dtype):
    """The 1-D array in the bytes `content`; dtype: of NumPy, or 'bfloat16', the upper half of a float32."""
    if dtype == 'bfloat16':
        return (np.frombuffer(content, '<u2').astype('<u4') << 16).view('<f4')
    return np.frombuffer(content, dtype)


def _tensor(storage, offset, size, stride, *_):
    """Of torch._utils._rebuild_tensor_v2: a view of a storage."""
    if not all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride)) \
            or not len(size) == len(stride) <= 8:
        raise ValueError('it holds a tensor of an impossible shape')
    elements = storage.value
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if math.prod(size) and max(last + 1, math.prod(size)) > len(elements):
        raise ValueError('it holds a tensor larger than its storage')
    strides = [step * elements.itemsize for step in stride]
    return _Array(np.lib.stride_tricks.as_strided(elements[offset:], size, strides, writeable=False))


STAND_INS = {
    'collections.OrderedDict': _Dict,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': 'numpy.ndarray',  # only passed on to the next
    'numpy.core.multiarray._reconstruct': lambda *_: _Array(),
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
}
