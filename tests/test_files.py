"""Files that are not regular ones are refused at once, by the function that opens all inputs."""
import os

import pytest

from yolo3.files import open_input


def fifo(folder):
    os.mkfifo(str(folder / 'file'))


def loop(folder):
    (folder / 'file').symlink_to('file')


def folder(folder):
    (folder / 'file').mkdir()


def device(folder):
    (folder / 'file').symlink_to('/dev/zero')


@pytest.mark.parametrize('make, why', [(fifo, 'not a regular file'), (device, 'not a regular file'),
                                       (loop, 'symbolic links'), (folder, 'directory'), (lambda path: None, 'No such')])
def test_what_is_not_a_regular_file_is_refused_at_once(make, why, tmp_path):
    make(tmp_path)
    with pytest.raises(OSError, match=why):
        open_input(str(tmp_path / 'file'))


def test_a_link_to_a_regular_file_is_read(tmp_path):
    (tmp_path / 'target').write_text('content', encoding='utf-8')
    (tmp_path / 'file').symlink_to('target')
    with open_input(str(tmp_path / 'file'), 'r', 'utf-8') as file:
        assert file.read() == 'content'
