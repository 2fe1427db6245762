"""prepare_voc.py: VOC07 and VOC12 arrive where training looks for them, and their images are counted."""
import hashlib
import io
import os
import tarfile

import pytest

import prepare_voc
from yolo3.cli import UserError

SPLITS = {'2007_trainval': ['000005', '000007'], '2007_test': ['000001', '000002', '000003'],
          '2012_trainval': ['2008_000002']}


def content(part):
    """Path -> bytes of one archive, as VOC has them: also images of no split, and files of other tasks."""
    year, split = part.split('_')
    files = {'ImageSets/Main/%s.txt' % split: ''.join(stem + '\n' for stem in SPLITS[part]).encode(),
             'ImageSets/Main/dog_%s.txt' % split: b''.join(stem.encode() + b' -1\n' for stem in SPLITS[part])}
    for stem in SPLITS[part] + ['segmentation_of_' + split]:
        files['JPEGImages/%s.jpg' % stem] = b'jpeg ' + stem.encode()
        files['Annotations/%s.xml' % stem] = b'xml ' + stem.encode()
    return {'VOC%s/%s' % (year, name): data for name, data in files.items()}


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """prepare() runs the script's main() on small archives, those of tmp_path/there, for tmp_path/voc."""
    archives = []
    (tmp_path / 'there').mkdir()
    for original in prepare_voc.ARCHIVES:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode='w') as archive:
            for name, data in content(original.part).items():
                member = tarfile.TarInfo('VOCdevkit/' + name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        data = out.getvalue()
        (tmp_path / 'there' / original.url.rsplit('/')[-1]).write_bytes(data)
        archives.append(original._replace(sha1=hashlib.sha1(data).hexdigest(), size=len(data), unpacked=len(data),
                                          expected=len(SPLITS[original.part])))

    def main():
        monkeypatch.setattr(prepare_voc, 'ARCHIVES', archives)
        prepare_voc.main(['--root', str(tmp_path / 'voc'), '--archives', str(tmp_path / 'there')])
    return main


def test_layout(prepare, tmp_path, capsys):
    prepare()
    expected = {name: data for part in SPLITS for name, data in content(part).items()}
    assert {str(path.relative_to(tmp_path / 'voc')): path.read_bytes()
            for path in (tmp_path / 'voc').rglob('*') if path.is_file()} == expected
    line = '%s: complete (2007_trainval 2, 2007_test 3, 2012_trainval 1)\n' % (tmp_path / 'voc')
    assert capsys.readouterr().out == line
    for path in (tmp_path / 'there').iterdir():
        path.unlink()
    prepare()
    assert capsys.readouterr().out == line


@pytest.mark.parametrize('lost', ['VOC2007/JPEGImages/000002.jpg', 'VOC2007/Annotations/000003.xml',
                                  'VOC2012/ImageSets/Main/trainval.txt'])
def test_a_missing_file_is_restored(prepare, tmp_path, lost):
    prepare()
    before = (tmp_path / 'voc' / lost).read_bytes()
    (tmp_path / 'voc' / lost).unlink()
    prepare()
    assert (tmp_path / 'voc' / lost).read_bytes() == before


def test_own_split_file_is_kept(prepare, tmp_path):
    own = tmp_path / 'voc' / 'VOC2007' / 'ImageSets' / 'Main' / 'trainval.txt'
    own.parent.mkdir(parents=True)
    own.write_text('mine\n')
    with pytest.raises(UserError, match='trainval.txt'):
        prepare()
    assert own.read_text() == 'mine\n' and os.listdir(tmp_path / 'voc' / 'VOC2007') == ['ImageSets']


def test_the_training_reads_it(prepare, tmp_path):
    """By GluonCV's own list of images."""
    pytest.importorskip('yolo3.mxnet_setup', reason='needs MXNet and GluonCV')
    from gluoncv.data import VOCDetection
    prepare()
    dataset = VOCDetection(root=str(tmp_path / 'voc'), splits=[(2007, 'trainval'), (2012, 'trainval')],
                           preload_label=False)
    assert [stem for _, stem in dataset._items] == SPLITS['2007_trainval'] + SPLITS['2012_trainval']


def test_the_real_archives():
    assert [(archive.url, archive.sha1, archive.expected) for archive in prepare_voc.ARCHIVES] == [
        ('http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar',
         '34ed68851bce2a36e2a223fa52c661d592c66b3c', 5011),
        ('http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar',
         '41a8d6e12baa5ab18ee7f8f8029b9e11805b4ef1', 4952),
        ('http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar',
         '4e443f8a2eca6b1dac8a6c57641b67dd40621a49', 11540)]
    assert all(archive.size < archive.unpacked < 1.2 * archive.size for archive in prepare_voc.ARCHIVES)
