"""A file is replaced whole or not at all."""
import errno
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from yolo3.atomic import remove_leftovers, replacing, write_json


def test_a_file_is_replaced_without_leaving_temporary_files(tmp_path):
    path = tmp_path / 'a file.json'
    write_json(str(path), {'name': '数字'})
    write_json(str(path), {'name': 'b'})
    assert json.loads(path.read_text()) == {'name': 'b'} and os.listdir(tmp_path) == ['a file.json']


def test_a_failed_write_keeps_the_old_content(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with pytest.raises(RuntimeError):
        with replacing(str(path)) as temporary:
            with open(temporary, 'w') as file:
                file.write('half of the n')
            assert path.read_text() == 'old'
            raise RuntimeError
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['file']


def test_a_file_in_the_current_folder_needs_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json('here.json', [1])
    assert json.loads((tmp_path / 'here.json').read_text()) == [1]


def test_two_writers_have_a_file_each(tmp_path):
    path = str(tmp_path / 'file')
    with replacing(path) as first:
        with replacing(path) as second:
            assert first != second
            for temporary, text in (first, 'one'), (second, 'two'):
                with open(temporary, 'w', encoding='utf-8') as file:
                    file.write(text)
        assert (tmp_path / 'file').read_text() == 'two'
    assert (tmp_path / 'file').read_text() == 'one' and os.listdir(tmp_path) == ['file']


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    code = ('import os, sys\nfrom yolo3.atomic import replacing\nwith replacing(sys.argv[1]):\n'
            ' print("writing", flush=True); input()')
    command = [sys.executable, '-c', code, str(tmp_path / 'file')]
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == b'writing\n'
        assert len(os.listdir(tmp_path)) == 2
        processes[0].kill()
        processes[0].wait()
        remove_leftovers(str(tmp_path))
        assert len(os.listdir(tmp_path)) == 1
        processes[1].communicate(b'\n')
        assert processes[1].returncode == 0 and os.listdir(tmp_path) == ['file']
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_other_files_are_not_taken_for_leftovers(tmp_path):
    for name in 'yolo3-notes.tmp', 'a.tmp', 'yolo3-0123456789abcdef':
        (tmp_path / name).write_text('')
    write_json(str(tmp_path / 'new.json'), [])
    assert len(os.listdir(tmp_path)) == 4


def test_files_have_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(str(tmp_path / 'file'), [])
    finally:
        os.umask(before)
    assert os.stat(tmp_path / 'file').st_mode & 0o777 == 0o640


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    with pytest.raises(OSError) as error:
        with replacing(str(tmp_path / 'file')):
            raise OSError(errno.ENOSPC, 'No space left on device')
    assert error.value.filename == str(tmp_path / 'file')


def test_a_name_that_is_not_utf8_comes_back_from_json(tmp_path):
    write_json(str(tmp_path / 'a.json'), ['\udcff 数 \udc80'])
    assert json.loads((tmp_path / 'a.json').read_text(encoding='utf-8')) == ['\udcff 数 \udc80']
