"""What a detector's file says of itself: the sidecar .json beside .params, the metadata in .onnx, checked alike."""
import json
import os

from yolo3.cli import MOST_PIXELS, UserError, shorten
from yolo3.defaults import ANCHORS, DATASETS, NETWORKS, PER_STRIDE, STRIDES
from yolo3.files import open_input

OPTIONAL = 'threshold',  # the score at which F1 is best; without a validation there is none
MOST_CLASSES = 10 ** 4  # as MOST_PIXELS, limits what an untrusted file can cost in memory


def network_name(name):
    """The canonical spelling of a `--network`: 'mobilenet1.0' -> 'mobilenet1_0'. Raises UserError."""
    canonical = name.strip().lower().replace('.', '_')
    if canonical not in NETWORKS:
        raise UserError('--network %s is unknown: choose one of %s' % (name, ', '.join(NETWORKS)))
    return canonical


def sidecar_path(params):
    """The path of the JSON beside a .params file."""
    return os.path.splitext(params)[0] + '.json'


def read_sidecar(path):
    """The facts in the sidecar of the .params file at `path`, or None if it has none. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError('no such .params file: %s' % path)
    if not os.path.lexists(sidecar_path(path)):
        return None
    try:
        with open_input(sidecar_path(path), 'r', 'utf-8') as file:
            facts = json.load(file)
        if isinstance(facts, dict):
            facts.setdefault('anchors', ANCHORS)  # older files have none: all had COCO's
        return checked(facts)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError('%s is not a sidecar of this project (%s): correct it, or remove it and give --classes'
                        % (sidecar_path(path), error))


def checked(facts, *more):
    """`facts` if they are a dict with network, classes, data_shape, dataset, anchors, and the keys `more`, which may be
    mean and std (of the colours, 0..1); and, perhaps, OPTIONAL. Raises ValueError, which says what is wrong."""
    if not isinstance(facts, dict):
        raise ValueError('not a table of facts')
    for key in ('network', 'classes', 'data_shape', 'dataset', 'anchors') + more:
        if key not in facts:
            raise ValueError('"%s" is missing' % key)
        require_fact(key, facts[key])
    for key in OPTIONAL:
        if key in facts:
            require_fact(key, facts[key])
    return facts


def require_fact(key, value):
    """Raise ValueError unless `value` can be the fact `key`."""
    right, kind = CHECKS[key]
    if not right(value):
        raise ValueError('"%s" is not %s' % (key, kind))


def require_given(facts, path, network='', classes=()):
    """Raise UserError if --network or --classes, where given, contradict the `facts` that the file `path` holds."""
    for flag, given, own in (('--network', [network] if network else [], [facts['network']]),
                             ('--classes', classes, facts['classes'])):
        if given and [name.casefold() for name in given] != [name.casefold() for name in own]:
            raise UserError('%s %s contradicts %s, which says %s: leave the flag out'
                            % (flag, shorten(given, 5), path, shorten(own, 5)))


# ---- The facts: whether a JSON value is one, and what it should be

def _numbers(value, count, least, most):
    """Whether `value` is a list of `count` numbers from `least` to `most`."""
    return (isinstance(value, list) and len(value) == count
            and all(type(number) in (int, float) and least <= number <= most for number in value))


def _classes(value):
    return (isinstance(value, list) and 0 < len(value) <= MOST_CLASSES
            and all(isinstance(name, str) and name.strip() for name in value)
            and len({name.casefold() for name in value}) == len(value))


def _anchors(value):
    return (isinstance(value, list) and len(value) == len(STRIDES)
            and all(_numbers(row, 2 * PER_STRIDE, 0.001, MOST_PIXELS) for row in value))


def _size(value):
    return type(value) is int and 0 < value <= MOST_PIXELS and value % max(STRIDES) == 0


CHECKS = {
    'network': (NETWORKS.__contains__, 'one of ' + ', '.join(NETWORKS)),
    'classes': (_classes, 'a list of 1 to %d different names' % MOST_CLASSES),
    'data_shape': (_size, 'a multiple of %d from %d to %d' % (max(STRIDES), max(STRIDES), MOST_PIXELS)),
    'dataset': (DATASETS.__contains__, 'one of ' + ', '.join(DATASETS)),
    'anchors': (_anchors, 'three rows of six positive numbers'),
    'mean': (lambda value: _numbers(value, 3, 0, 1), 'three numbers from 0 to 1'),
    'threshold': (lambda value: _numbers([value], 1, 0, 1), 'a number from 0 to 1'),
    'std': (lambda value: _numbers(value, 3, 0.01, 1), 'three numbers from 0.01 to 1'),
}
