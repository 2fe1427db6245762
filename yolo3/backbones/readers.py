"""The file of another framework -> a Source, by the extension of its name."""
import importlib
import os

import numpy as np

from yolo3.backbones.naming import recognise
from yolo3.backbones.tflite import read_tflite
from yolo3.backbones.unpickler import as_array, read_pickle
from yolo3.cli import UserError
from yolo3.files import open_input

MOST_BYTES = 2 ** 28  # of a file; MobileNetV1 1.0 has 17 million, and three times that with an optimizer's state
SAFETENSORS = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': 'bfloat16'}


def read(path):
    """The Source in the file at `path`. Raises UserError if it is unreadable or no MobileNetV1."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in READERS:
        raise UserError('%s: its name ends in none of %s' % (path, ', '.join(READERS)))
    try:
        with open_input(path) as file:
            content = file.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise ValueError('it is larger than %d MB, too large for a MobileNetV1' % (MOST_BYTES >> 20))
            return READERS[extension](content, file)
    except UserError:
        raise
    except OSError as error:
        raise UserError('%s: %s' % (path, error.strerror or error))
    except ValueError as error:
        raise UserError('%s: %s' % (path, error))
    except Exception as error:  # the libraries raise errors of every kind for damaged bytes
        raise UserError('%s: it is damaged (%s: %s)' % (path, type(error).__name__, error))


def library(name):
    """The Python module `name`. Raises UserError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError('Python has no module %s here: pip install -r requirements/convert.txt' % name)


def read_safetensors(content, file):
    """The Source in a .safetensors file of timm's."""
    arrays = {name: as_array(bytes(part['data']), SAFETENSORS[part['dtype']]).reshape(part['shape'])
              for name, part in library('safetensors').deserialize(content) if part['dtype'] in SAFETENSORS}
    return recognise(arrays)


def read_keras(content, file):
    """The Source in an .h5 file: weights, or a whole model."""
    arrays = {}

    def add(path, item):
        owner, _, name = path.rpartition('/')
        if owner.endswith('/vars'):
            raise ValueError("it is in the form of Keras 3: load it there and model.save('mobilenet.h5')")
        if not hasattr(item, 'dtype') or item.dtype.kind != 'f' or path.startswith('optimizer_weights/'):
            return
        if item.is_virtual or item.external or item.nbytes > MOST_BYTES:
            raise ValueError('%s is too large, or in another file' % path)
        arrays['%s/%s' % (owner.rpartition('/')[2], name.split(':')[0])] = np.asarray(item)

    with library('h5py').File(file, 'r') as content:
        content.visititems(add)  # does not follow links
    return recognise(arrays)


READERS = {
    '.safetensors': read_safetensors,
    '.h5': read_keras,
    '.hdf5': read_keras,
    '.tflite': lambda content, file: read_tflite(content, library('tflite')),
    '.pdparams': lambda content, file: recognise(read_pickle(content)),
}
READERS.update(dict.fromkeys(('.pth', '.pt', '.bin'), READERS['.pdparams']))
