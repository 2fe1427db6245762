"""prepare_coco.py: COCO 2017 arrives where training looks for it, and its images are counted."""
import hashlib
import io
import zipfile

import pytest

import prepare_coco

CONTENT = {
    'train2017': {'train2017/%012d.jpg' % number: b'train %d' % number for number in range(7)},
    'val2017': {'val2017/%012d.jpg' % number: b'val %d' % number for number in range(3)},
    'annotations': {'annotations/%s_%s2017.json' % (task, split): b'{}'
                    for task in ('captions', 'instances', 'person_keypoints') for split in ('train', 'val')}}
EXPECTED = {'train2017': 7, 'val2017': 3, 'annotations': 2}


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """prepare() runs the script's main() on small archives, those of tmp_path/there, for tmp_path/coco."""
    archives = []
    (tmp_path / 'there').mkdir()
    for original in prepare_coco.ARCHIVES:
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w') as archive:
            for name, data in CONTENT[original.part].items():
                archive.writestr(name, data)
        (tmp_path / 'there' / original.url.rsplit('/')[-1]).write_bytes(out.getvalue())
        archives.append(original._replace(sha1=hashlib.sha1(out.getvalue()).hexdigest(), size=len(out.getvalue()),
                                          unpacked=100, expected=EXPECTED[original.part]))

    def main():
        monkeypatch.setattr(prepare_coco, 'ARCHIVES', archives)
        prepare_coco.main(['--root', str(tmp_path / 'coco'), '--archives', str(tmp_path / 'there')])
    return main


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_layout(prepare, tmp_path, capsys):
    prepare()
    assert files(tmp_path / 'coco') == {name: data for part in CONTENT.values() for name, data in part.items()}
    line = '%s: complete (annotations 2, val2017 3, train2017 7)\n' % (tmp_path / 'coco')
    assert capsys.readouterr().out == line
    for path in (tmp_path / 'there').iterdir():
        path.unlink()
    prepare()
    assert capsys.readouterr().out == line


@pytest.mark.parametrize('lost', ['train2017/000000000006.jpg', 'annotations/instances_train2017.json'])
def test_a_missing_file_is_restored(prepare, tmp_path, lost):
    prepare()
    before = files(tmp_path / 'coco')
    (tmp_path / 'coco' / lost).unlink()
    prepare()
    assert files(tmp_path / 'coco') == before


def test_the_real_archives():
    """As GluonCV has them."""
    assert [(archive.url, archive.sha1, archive.expected) for archive in prepare_coco.ARCHIVES] == [
        ('http://images.cocodataset.org/annotations/annotations_trainval2017.zip',
         '8551ee4bb5860311e79dace7e79cb91e432e78b3', 2),
        ('http://images.cocodataset.org/zips/val2017.zip', '4950dc9d00dbe1c933ee0170f5797584351d2a41', 5000),
        ('http://images.cocodataset.org/zips/train2017.zip', '10ad623668ab00c62c096f0ed636d6aff41faca5', 118287)]
    assert all(archive.size < archive.unpacked for archive in prepare_coco.ARCHIVES)
