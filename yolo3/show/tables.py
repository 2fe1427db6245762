"""The numbers of an evaluation as lines of text."""
import math


def print_values(values):
    """For each metric a line for each class and number, the summary last; `values` is {metric: {name: number}}."""
    for metric, numbers in values.items():
        if len(values) > 1:
            print('--metric %s' % metric)
        width = max(map(len, numbers))
        for name, value in numbers.items():
            print('%-*s  %s' % (width, name, '  none' if math.isnan(value) else '%.4f' % value))


def print_without_tta(values):
    """A line for each metric: its summary without test-time augmentation."""
    for numbers in values.values():
        print('without --tta %s was %.4f' % list(numbers.items())[-1])


def print_f1(found):
    """The threshold at which an F1 of `yolo3.f1` is best, and a line for each class there."""
    width = max(map(len, found.names))
    print('best mean F1, %.4f, at --thresh %.3f:' % (found.mean[found.best], found.threshold))
    print('%-*s  precision  recall      F1' % (width, ''))
    for name, numbers in found.table().items():
        print('%-*s  %9.4f  %6.4f  %6.4f' % (width, name, *numbers.values()))


def print_sizes(results):
    """A line for each input size: the summary number of each metric and the milliseconds per image."""
    names = list(results[0]['values'])
    heads = names if len(names) > 1 else [list(results[0]['values'][names[0]])[-1]]
    print('%6s  %s  ms/image' % ('size', '  '.join('%6s' % head for head in heads)))
    for result in results:
        summaries = ['%6.4f' % list(values.values())[-1] for values in result['values'].values()]
        print('%6d  %s  %8.1f' % (result['data_shape'], '  '.join(summaries), result['milliseconds']))
