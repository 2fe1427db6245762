"""Many small arrays or texts in a few large ones, for forked workers: one of their own each would cost them memory.

Python counts the references to an object in the object. So a worker that looks at one of its main process's objects
gets a copy of the page that it is on, and after an epoch has copies of all.
"""
import numpy as np


class Rows:
    """The `arrays`, each (n, columns), as a sequence. `all`: their rows. `counts`: how many are of each."""

    def __init__(self, arrays):
        self.all = np.concatenate(arrays) if len(arrays) else np.empty((0, 7))
        self._ends = _ends(arrays)
        self.counts = np.diff(self._ends)

    def __len__(self):
        return len(self._ends) - 1

    def __getitem__(self, index):
        index = range(len(self))[index]
        return self.all[self._ends[index]:self._ends[index + 1]]


class Texts:
    """The `texts` as a sequence."""

    def __init__(self, texts):
        parts = [text.encode('utf-8', 'surrogatepass') for text in texts]
        self._all, self._ends = b''.join(parts), _ends(parts)

    def __len__(self):
        return len(self._ends) - 1

    def __getitem__(self, index):
        index = range(len(self))[index]
        return self._all[self._ends[index]:self._ends[index + 1]].decode('utf-8', 'surrogatepass')


def _ends(parts):
    return np.cumsum([0, *map(len, parts)])
