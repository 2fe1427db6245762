"""Save and load a training exactly: weights, momentum and where it stood, in one file that holds no pickle."""
import contextlib
import dataclasses
import glob
import hashlib
import io
import itertools
import json
import logging
import os
import zipfile

import numpy as np

from yolo3.mxnet_setup import mx

from yolo3.atomic import replacing, sync
from yolo3.cli import RunError, UserError
from yolo3.files import open_input
from yolo3.log import LOSSES
from yolo3.sidecar import require_fact

logger = logging.getLogger('yolo3')


@dataclasses.dataclass
class State:
    """Where a training stands: with the weights, the momentum and batch norm's statistics, all that a checkpoint holds.

    The order of the images, mixup and all other random numbers follow from the seed and the number of the batch.
    """
    epoch: int  # under way, or the next
    batch: int  # the next, counted from the start of training
    losses: list  # in this epoch so far: the sums of the four losses, and of how many images; None at its start
    best_map: float  # of all validations; -1 before the first
    history: list  # for each epoch what `show.curves` shows
    anchors: list  # as ANCHORS, in pixels of --data-shape: what the loader makes targets for and the network decodes
    classes: list  # names, in the network's order
    data: dict  # {'training': digest, 'validation': digest} of the data sets
    flags: dict  # {flag: value} that yolo3.resume compares
    averaged: int = 0  # steps that the average of --ema is of
    seconds: float = 0  # of training in this epoch so far
    # How often each of the trainer's parameters was updated: adam corrects its averages by it.
    updates: list = dataclasses.field(default_factory=list)


def save(path, net, trainer, state, keep=2, average=None):
    """Write weights, momentum and the State to `path`, a NumPy .npz, replacing it whole.

    average: the network of --ema, written too. Only batch norm's running statistics differ between the devices, and are
    kept for each. The `keep` - 1 files before it are kept, under the names of `versions`. Raises OSError if it cannot
    be written, and RunError if the weights are no longer finite; the files are then as they were.
    """
    arrays = {'%s/%d/%s' % (kind, number, name): array.asnumpy()
              for kind, network in networks_by_kind(net, average).items()
              for name, parameter in network._collect_params_with_prefix().items()
              for number, array in enumerate(parameter.list_data() if 'running' in name else parameter.list_data()[:1])}
    names = trainer_names(net, trainer)
    for index, momentum in trainer._updaters[0].states.items():
        for part, array in enumerate(as_tuple(momentum)):
            arrays['momentum/%s/%d' % (names[index], part)] = array.asnumpy()
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise RunError('the weights are no longer finite numbers, so %s stays as it was: go on from it with '
                       '--resume auto, and a lower --lr or a longer --warmup-epochs' % path)
    arrays['state'] = np.frombuffer(json.dumps(dataclasses.asdict(state)).encode(), 'uint8')
    arrays['checksum'] = checksum(arrays)
    # In memory first: if the disk is full, NumPy leaves a half-open archive that complains when it is collected.
    content = io.BytesIO()
    np.savez(content, **arrays)
    with replacing(path) as temporary:
        with open(temporary, 'wb') as file:
            file.write(content.getbuffer())
        sync(temporary)
        names = versions(path, keep)
        for older, newer in list(zip(names[1:], names))[::-1]:
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)


def load(path, net, trainer, keep=2, average=None):
    """Put the weights and momentum of the checkpoint at `path` into `net` and `trainer`; returns its State.

    average: the network of --ema, which gets the average if the checkpoint has one. Raises UserError as `newest`, and
    if it is from another network.
    """
    name, arrays, state = newest(path, keep)
    put(name, arrays, net, trainer, average if state.averaged else None)
    return state


def newest(path, keep=2):
    """The newest sound checkpoint of the `versions` of `path`: its name, its arrays and its State.

    A damaged one is set aside with a warning. Raises UserError if there is none, or if it has an older form.
    """
    names = existing(path, keep)
    for name in names:
        try:
            arrays = read(name)
            content = decoded(arrays.pop('state'))
            require_form(name, content)
            return name, arrays, checked(content)
        except UserError:
            raise
        except Exception as error:  # NumPy and zipfile raise nearly anything for damaged bytes
            problem = '%s is damaged or not a training checkpoint (%s)' % (name, error)
            if name == names[-1]:
                raise UserError('--resume: ' + problem)
            with contextlib.suppress(OSError):
                os.replace(name, name + '.damaged')
            logger.warning('%s: set aside as %s.damaged; going back to the checkpoint before', problem, name)
    raise UserError('--resume: there is no checkpoint %s' % path)


def decoded(array):
    """The JSON value in the array 'state' of a checkpoint. Raises ValueError and others."""
    return json.loads(array.tobytes().decode())


def require_form(name, content):
    """Raise UserError if the state in the checkpoint `name` is of a version that kept no anchors, classes and data."""
    if isinstance(content, dict) and 'settings' in content:
        raise UserError('--resume auto: %s is from an earlier version of this project: go on from its weights with '
                        '--resume %s_best.params --start-epoch %s, or finish it with that version'
                        % (name, name.split('_last.')[0], content.get('epoch')))


def read(path):
    """The arrays in the checkpoint file at `path`, their checksum verified. Raises ValueError and others."""
    with open_input(path) as file:
        with zipfile.ZipFile(file) as archive:
            # Ours are not compressed, so a small untrusted file cannot become a large one in memory.
            if sum(member.file_size for member in archive.infolist()) > os.path.getsize(path):
                raise ValueError('it declares more than it holds')
        file.seek(0)
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    if not np.array_equal(arrays.pop('checksum'), checksum(arrays)):
        raise ValueError('its checksum is wrong')
    return arrays


def checksum(arrays):
    """The SHA-256 of a dict of arrays, names, types and shapes included, as (32,) uint8."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(('%s %s %s;' % (name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), 'uint8')


def checked(state):
    """The State in a dict read from a checkpoint. Raises ValueError and others if it is not one."""
    def number(value, kinds=(int, float)):
        return isinstance(value, kinds) and not isinstance(value, bool)

    def numbers(table):
        return all(numbers(value) if isinstance(value, dict) else number(value) for value in table.values())

    if not (all(number(value, int) and value >= 0 for value in (
                state['epoch'], state['batch'], state.get('averaged', 0),
                *state.get('updates', ())))
            and number(state['best_map']) and number(state.get('seconds', 0))
            and all(isinstance(state[name], dict) for name in ('data', 'flags'))
            and state['data'].keys() == {'training', 'validation'}
            and (state['losses'] is None or len(state['losses']) == 5 and all(map(number, state['losses'])))
            and all(entry.keys() >= {'epoch', 'lr', *LOSSES} and numbers(entry) for entry in state['history'])):
        raise ValueError('its state is not of a training')
    require_fact('anchors', state['anchors'])
    require_fact('classes', state['classes'])
    return State(**state)


def put(path, arrays, net, trainer, average=None):
    """Put what `read` gave for `path` into `net`, `trainer` and `average`. Raises UserError if it does not fit."""
    networks = networks_by_kind(net, average)
    shapes = {name: parameter.shape for name, parameter in net._collect_params_with_prefix().items()}
    for kind in networks:
        start = kind + '/0/'
        if {name[len(start):]: array.shape for name, array in arrays.items() if name.startswith(start)} != shapes:
            raise UserError('--resume: %s is from another --network or other --classes' % path)
    for name, array in arrays.items():
        kind, *rest = name.split('/')  # 'weight/0/NAME', 'ema/0/NAME' or 'momentum/NAME/0'
        if array.dtype.kind != 'f' or array.shape != shapes.get(
                ((rest if kind == 'momentum' else rest[::-1]) or [''])[0]):
            raise UserError('--resume: %s holds %s with another type or shape than here' % (path, name))
    for kind, network in networks.items():
        for name, parameter in network._collect_params_with_prefix().items():
            for number, array in enumerate(parameter.list_data()):
                array[:] = arrays.get('%s/%d/%s' % (kind, number, name), arrays['%s/0/%s' % (kind, name)])
    for updater, device in zip(trainer._updaters, trainer._contexts):
        for index, name in trainer_names(net, trainer).items():
            momentum = [mx.nd.array(arrays[key], ctx=device, dtype=arrays[key].dtype)
                        for key in ('momentum/%s/%d' % (name, part) for part in range(2)) if key in arrays]
            if momentum:
                updater.states[index] = momentum[0] if len(momentum) == 1 else tuple(momentum)
                updater.states_synced[index] = True


def networks_by_kind(net, average):
    """{what the names of its arrays begin with: network}; average: may be None."""
    return {'weight': net, 'ema': average} if average else {'weight': net}


def trainer_names(net, trainer):
    """{the trainer's number of a parameter: its name in the network's structure}, the same in every process."""
    names = {id(parameter): name for name, parameter in net._collect_params_with_prefix().items()}
    return {index: names[id(parameter)] for index, parameter in enumerate(trainer._params)}


def update_counts(trainer):
    """How often each parameter of `trainer` was updated, a list."""
    counts = trainer._optimizer._all_index_update_counts.get(trainer._contexts[0].device_id, {})
    return [counts.get(index, 0) for index in range(len(trainer._params))]


def set_update_counts(trainer, counts):
    """Have `trainer` go on from the `counts` that `update_counts` gave; none for a new training."""
    trainer._optimizer.num_update = max(counts, default=0)
    for device in trainer._contexts:
        trainer._optimizer._all_index_update_counts[device.device_id] = {
            index: count for index, count in enumerate(counts) if count}


def as_tuple(momentum):
    """The arrays of an optimizer's state for one parameter: none, one, or the two of adam."""
    return () if momentum is None else momentum if isinstance(momentum, tuple) else (momentum,)


def path(prefix):
    """Where the run whose files begin with `prefix` keeps its checkpoint."""
    return prefix + '_last.npz'


def versions(path, keep):
    """The names of the checkpoint at `path` and of the `keep` - 1 before it, the newest first."""
    return [path] + [path[:-len('.npz')] + '.%d.npz' % number for number in range(1, keep)]


def existing(path, keep=2):
    """The `versions` that exist."""
    return [name for name in versions(path, keep) if os.path.exists(name)]


def set_aside(prefix):
    """Rename the checkpoints and best weights whose names begin with `prefix`, so that a new training spares them.

    Returns their new prefix, or None if their training was finished: they stay.
    """
    with contextlib.suppress(Exception):  # a damaged one is kept too
        state = checked(decoded(read(path(prefix))['state']))
        if state.epoch >= state.flags['epochs']:
            return None
    kept = next(name for name in ('%s_earlier%d' % (prefix, number) for number in itertools.count(1))
                if not glob.glob(glob.escape(name) + '_*'))
    for pattern in '_last.npz', '_last.[0-9]*.npz', '_best.params', '_best.json':
        for name in glob.glob(glob.escape(prefix) + pattern):
            os.replace(name, kept + name[len(prefix):])
    return kept
