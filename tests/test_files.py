"""The functions that open all inputs and check all outputs: what they refuse and what they take."""
import contextlib
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from yolo3.atomic import write_json
from yolo3.cli import UserError
from yolo3.files import check_output, make_output_folder, open_input, walk


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


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to write into, the current one, with files of several kinds."""
    monkeypatch.chdir(tmp_path)
    for name in 'net.params', 'net.json', 'old.json', 'code.py', 'in.json', 'set/annotations/all.json':
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('content', encoding='utf-8')
    os.mkfifo('fifo')
    os.symlink('net.json', 'link.json')
    os.symlink('in.json', 'input link.json')
    os.symlink('loop', 'loop')
    os.symlink('none/x.json', 'dangling.json')
    os.link('in.json', 'hard.json')
    (tmp_path / 'linked set').symlink_to('set')
    return tmp_path


USED = ['in.json', 'set', 'later.json', '']


@pytest.mark.parametrize('path, why', [
    ('.', 'a file in a folder that exists'), ('new/', 'a folder that exists'), ('no/x.json', 'a folder that exists'),
    ('code.py/x.json', 'a folder that exists'), ('dangling.json', 'a folder that exists'),
    ('net.json', 'describes the weights net.params'), ('link.json', 'describes the weights'),
    ('in.json', 'uses that file already'), ('./set/../in.json', 'uses that file already'),
    ('input link.json', 'uses that file already'), ('hard.json', 'uses that file already'),
    ('later.json', 'uses that file already'), ('set/annotations/all.json', 'in the folder .*set of the input'),
    ('linked set/annotations/all.json', 'in the folder .*set of the input'), ('net.params', 'not a .json file'),
    ('code.py', 'not a .json file'), ('fifo', 'not a regular file'), ('/dev/null', 'not a regular file'),
    ('/dev/zero', 'not a regular file'), ('loop', 'symbolic links'), ('x' * 300 + '.json', 'too long')])
def test_an_output_that_would_destroy_something_or_cannot_be_written_is_refused(path, why, here):
    before = sorted(os.listdir('.'))
    with pytest.raises(UserError, match=r'^--json %s: [^\n]*%s' % (path, why)):
        check_output('--json', path, USED)
    assert sorted(os.listdir('.')) == before


@pytest.mark.parametrize('path', ['new.json', 'old.json', 'new', 'set/new.json', 'x' * 250 + '.json',
                                  '数字\udcff.json'])
def test_an_output_that_is_new_or_of_its_kind_is_taken(path, here):
    before = sorted(os.listdir('.'))
    assert check_output('--json', path, USED) == path and sorted(os.listdir('.')) == before
    write_json(path, [path])
    with open(path, encoding='utf-8') as file:
        assert json.load(file) == [path]


@pytest.mark.parametrize('content, mode, taken', [
    ('', 0o644, True), ('[]\n', 0o644, True), ('{\n  "params": "a"}', 0o644, True), ('{"images": []}', 0o644, False),
    ('[{"params": 1}]', 0o644, False), ('{"params": "a"}', 0o444, False)])
def test_only_a_file_that_this_output_wrote_before_is_replaced(content, mode, taken, here):
    (here / 'a.json').write_text(content, encoding='utf-8')
    (here / 'a.json').chmod(mode)
    with contextlib.nullcontext() if taken else pytest.raises(UserError, match='--json a.json: exists, and is not'):
        check_output('--json', 'a.json', begins='{"params":')


def test_no_output_is_none():
    assert check_output('--json', '') == ''


def test_a_link_stays_one_and_what_it_leads_to_is_written(here):
    (here / 'results.json').symlink_to('set/new.json')
    target = check_output('--json', 'results.json')
    write_json(target, [1])
    assert (here / 'results.json').is_symlink() and (here / 'set/new.json').read_text() == '[\n  1\n]\n'


def test_the_file_that_stdout_goes_to_is_no_output(here):
    script = 'from yolo3.files import check_output; check_output("--json", %r)'
    for path in 'out.json', '/dev/stdout':
        with open('out.json', 'w', encoding='utf-8') as file:
            done = subprocess.run([sys.executable, '-c', script % path], stdout=file, stderr=subprocess.PIPE, text=True,
                                  env=dict(os.environ, PYTHONPATH=ROOT), timeout=60)
        assert done.stderr.splitlines()[-1].endswith('%s: this command uses that file already: name another' % path)


@pytest.mark.parametrize('path, why', [('code.py', 'is not a folder'), ('code.py/x', 'Not a directory'),
                                       ('set/annotations', 'holds input'), ('x' * 300, 'too long')])
def test_a_folder_that_cannot_be_written_is_refused(path, why, here):
    with pytest.raises(UserError, match='^--out-dir %s: .*%s' % (path, why)):
        make_output_folder('--out-dir', path, ['set/annotations'])


def test_a_folder_is_made(here):
    make_output_folder('--out-dir', 'a/b', ['set'])
    assert os.listdir('a/b') == []


def test_walk_follows_links_and_visits_no_folder_twice(tmp_path):
    (tmp_path / 'root/b').mkdir(parents=True)
    (tmp_path / 'other').mkdir()
    for name in 'root/2', 'root/b/1', 'other/3':
        (tmp_path / name).write_bytes(b'')
    for name, target in ('root/b/up', '..'), ('root/a', '../other'), ('root/c', '../other'), ('root/loop', 'loop'):
        (tmp_path / name).symlink_to(target)
    root = str(tmp_path / 'root')
    assert [os.path.relpath(path, root) for path in walk(root)] == ['2', 'loop', 'a/3', 'b/1']
    with pytest.raises(OSError, match='none'):
        list(walk(str(tmp_path / 'none')))
