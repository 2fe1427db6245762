"""A file is replaced whole or not at all."""
import json
import os

import pytest

from yolo3.atomic import replacing, write_json


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
