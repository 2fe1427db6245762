"""Save and resume a training run exactly: weights, momentum and where it stood, in one file that holds no pickle."""
import json
import zipfile

import numpy as np

from yolo3.runtime import mx
from yolo3.cli import UserError
from yolo3.files import replacing


def save(path, net, trainer, state):
    """Write weights, momentum and `state` (a dict for JSON) to `path`, a NumPy .npz, replacing it whole.

    Only batch norm's running statistics differ between the devices, and are kept for each.
    """
    arrays = {'weight/%d/%s' % (number, name): array.asnumpy()
              for name, parameter in net._collect_params_with_prefix().items()
              for number, array in enumerate(parameter.list_data() if 'running' in name else parameter.list_data()[:1])}
    names = trainer_names(net, trainer)
    for index, momentum in trainer._updaters[0].states.items():
        for part, array in enumerate(as_tuple(momentum)):
            arrays['momentum/%s/%d' % (names[index], part)] = array.asnumpy()
    arrays['state'] = np.frombuffer(json.dumps(state).encode(), 'uint8')
    with replacing(path) as temporary:
        with open(temporary, 'wb') as file:
            np.savez(file, **arrays)


def load(path, net, trainer):
    """Put the weights and momentum of the file at `path` into `net` and `trainer`; returns its state.

    Raises UserError where the file is unreadable, damaged, or from another network.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(arrays.pop('state').tobytes().decode())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise UserError('--resume: %s is not a whole checkpoint of this project (%s)' % (path, error))
    parameters = net._collect_params_with_prefix()
    shapes = {name[len('weight/0/'):]: array.shape for name, array in arrays.items() if name.startswith('weight/0/')}
    if shapes != {name: parameter.shape for name, parameter in parameters.items()}:
        raise UserError('--resume: %s is from a network of other --network or --classes' % path)
    for name, parameter in parameters.items():
        for number, array in enumerate(parameter.list_data()):
            array[:] = arrays.get('weight/%d/%s' % (number, name), arrays['weight/0/' + name])
    for updater, device in zip(trainer._updaters, trainer._contexts):
        for index, name in trainer_names(net, trainer).items():
            momentum = [mx.nd.array(arrays[key], ctx=device, dtype=arrays[key].dtype)
                        for key in ('momentum/%s/%d' % (name, part) for part in range(2)) if key in arrays]
            if momentum:
                updater.states[index] = momentum[0] if len(momentum) == 1 else tuple(momentum)
                updater.states_synced[index] = True
    return state


def trainer_names(net, trainer):
    """{the trainer's number of a parameter: its name in the network's structure}, the same in every process."""
    names = {id(parameter): name for name, parameter in net._collect_params_with_prefix().items()}
    return {index: names[id(parameter)] for index, parameter in enumerate(trainer._params)}


def as_tuple(momentum):
    """The arrays of an optimizer's state for one parameter: none, one, or the two of multi-precision SGD."""
    return () if momentum is None else momentum if isinstance(momentum, tuple) else (momentum,)


def average_running_statistics(net):
    """Give all devices the mean of their batch norm statistics, which is what GluonCV writes to a .params file.

    So what is validated, saved and continued from is one network.
    """
    for parameter in net.collect_params('.*running_(mean|var)').values():
        if len(parameter.list_ctx()) > 1:
            parameter.set_data(parameter._reduce())


def path(prefix):
    """Where the run whose files begin with `prefix` keeps its checkpoint."""
    return prefix + '_last.npz'


def require_same(path, old, new):
    """Raise UserError where `new` settings differ from the `old` ones of the checkpoint at `path`."""
    for name, value in new.items():
        if old.get(name) != value:
            raise UserError('--resume: %s was made with %s %s, not %s: give the same, or another --save-prefix'
                            % (path, name, old.get(name), value))
