"""Names on demo.py's command line: the files they stand for, addresses, and stdin."""
import contextlib
import os
import pty
import tempfile

import pytest

from yolo3.cli import UserError
from yolo3.show import inputs
from yolo3.show.inputs import expand, file_name, is_video


@contextlib.contextmanager
def stdin(number):
    """Meanwhile the open file `number` is stdin."""
    before = os.dup(0)
    os.dup2(number, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_names_stand_for_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in 'b.jpg', 'a.JPEG', 'clip.MP4', 'x,y.png', '[1].jpg', 'notes.txt', 'deep/c.jpg', 'deep/er/d.webp':
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    assert expand('.') == [os.path.join('.', n) for n in ('[1].jpg', 'a.JPEG', 'b.jpg', 'clip.MP4', 'x,y.png')]
    assert expand('notes.txt') == ['notes.txt']
    assert expand('x,y.png') == ['x,y.png'] and expand('[1].jpg') == ['[1].jpg']
    assert expand('b.jpg, deep') == ['b.jpg', os.path.join('deep', 'c.jpg')]
    assert expand('*') == ['[1].jpg', 'a.JPEG', 'b.jpg', 'clip.MP4', os.path.join('deep', 'c.jpg'), 'x,y.png']
    assert expand('**/*.webp') == [os.path.join('deep', 'er', 'd.webp')]
    with pytest.raises(UserError, match='gone.jpg'):
        expand('b.jpg,gone.jpg')


def test_addresses_and_stdin_stand_for_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '-').write_bytes(b'')
    for name in '-', 'http://host/a,b.jpg', 'HTTPS://host/clip.mp4', 'https://host/*.jpg?x=[1]':
        assert expand(name) == [name] and not is_video(name)
    assert expand('./-') == ['./-'] and is_video('http/clip.MP4')
    with pytest.raises(UserError, match='ftp://host/a.jpg'):
        expand('ftp://host/a.jpg')


@pytest.mark.parametrize('name, file', [
    ('-', 'stdin'), ('in/a.jpg', 'in/a.jpg'), ('http://host/in/a.JPG?b=/c.png#d', 'a.JPG'), ('http://host', 'image'),
    ('https://host/%E7%8B%97%20x.png', '狗 x.png'), ('http://host/%2e%2e%2f%2e%2e', 'image'),
    ('http://host/%00%0a.jpg', '__.jpg'), ('http://host/' + 99 * '狗' + '.jpg', 60 * '狗' + '.jpg')])
def test_names_of_files_to_write(name, file):
    assert file_name(name) == file


def test_what_comes_from_stdin(monkeypatch):
    with tempfile.TemporaryFile() as file:
        file.write(b'12345')
        for most, ends in (5, True), (4, False):
            monkeypatch.setattr(inputs, 'MOST_BYTES', most)
            file.seek(0)
            with stdin(file.fileno()):
                if ends:
                    assert inputs.content('-') == b'12345'
                else:
                    with pytest.raises(UserError, match='-: stdin has more than 4 bytes'):
                        inputs.content('-')
    assert inputs.content('a.jpg') is None


def test_a_terminal_or_a_folder_is_no_image():
    terminal, other = pty.openpty()
    folder = os.open(os.curdir, os.O_RDONLY)
    for number, why in (other, 'terminal'), (folder, 'directory'):
        with stdin(number), pytest.raises(UserError, match='-: .*' + why):
            inputs.content('-')
    for number in terminal, other, folder:
        os.close(number)
