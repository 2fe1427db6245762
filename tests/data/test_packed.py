"""Arrays and texts packed into a few objects are the same sequence as before."""
import numpy as np
import pytest

from yolo3.data.packed import Rows, Texts


def test_rows():
    arrays = [np.ones((2, 5)), np.empty((0, 5)), np.full((1, 5), 3)]
    rows = Rows(arrays)
    assert len(rows) == 3 and all(map(np.array_equal, rows, arrays)) and np.array_equal(rows[-1], arrays[-1])
    assert rows.counts.tolist() == [2, 0, 1] and np.array_equal(rows.all, np.concatenate(arrays))
    with pytest.raises(IndexError):
        rows[3]
    assert len(Rows([])) == 0


def test_texts():
    texts = ['/data/a.jpg', '', '/data/图 1.jpg', '/data/\udcff.jpg']  # the last: a name that is no UTF-8
    packed = Texts(texts)
    assert list(packed) == texts and len(packed) == 4 and packed[-1] == texts[-1]
    with pytest.raises(IndexError):
        packed[4]
