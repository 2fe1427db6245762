"""What demo.py's flags let through: classes, how many detections, and how much they may overlap."""
import numpy as np
import pytest

from yolo3.defaults import NMS, Suppression
from yolo3.cli import ArgumentParser, UserError
from yolo3.detector import add_detector_flags
from yolo3.show import finder
from yolo3.show.flags import add_finder_flags
from yolo3.tiles import Tiled

CLASSES = ['RBC', 'Guinea pig', '狗']


def flags(*argv):
    parser = ArgumentParser()
    add_detector_flags(parser, default='net.params')
    add_finder_flags(parser)
    return parser.parse_args(argv)


@pytest.mark.parametrize('argv, settings', [
    ((), NMS), (('--nms-thresh', '0.3'), Suppression(thresh=0.3)),
    (('--max-detections', '20'), Suppression(kept=20)),  # no fewer than 400 boxes take part
    (('--vote',), Suppression(vote=True)), (('--max-detections', '300'), Suppression(kept=300, topk=1200)),
    (('--max-detections', '20', '--only', '狗'), Suppression(kept=400)),  # other classes take no places
    (('--max-detections', '300', '--nms-thresh', '1', '--tiles'), Suppression(thresh=1, kept=300, topk=1200))])
def test_settings_of_nms(monkeypatch, argv, settings):
    class Detector:
        info, streams = {'classes': CLASSES}, 2
    opened = []
    monkeypatch.setattr(finder, 'open_detector', lambda args, *settings: opened.append(settings) or Detector())
    detector = finder.open_finder(flags(*argv), 9)
    assert opened == [(settings, 9)] and detector.streams == 2 and isinstance(detector, Tiled) == ('--tiles' in argv)
    assert detector.info['classes'] == CLASSES


@pytest.mark.parametrize('only, chosen', [
    ((), dict(enumerate(CLASSES))), (['狗', 'rbc'], {0: 'RBC', 2: '狗'}), (['guinea  PIG'], {1: 'Guinea pig'})])
def test_chosen_classes(only, chosen):
    assert finder.choose(CLASSES, only, 'net.params') == chosen


def test_an_unknown_class_is_named_with_those_there_are():
    with pytest.raises(UserError, match='--only cat: no class of net.params, which finds RBC, Guinea pig, 狗'):
        finder.choose(CLASSES, ['RBC', 'cat'], 'net.params')


def test_detections_of_chosen_classes_from_a_score_on():
    found = np.array([2, 0, 1, 0]), np.float32([0.9, 0.8, 0.7, 0.6]), np.arange(16).reshape(4, 4) / 3
    assert finder.detections(found, {0: 'RBC', 1: 'Guinea pig'}, 0.65) == [
        {'class': 'RBC', 'score': 0.8, 'box': [1.33, 1.67, 2.0, 2.33]},
        {'class': 'Guinea pig', 'score': 0.7, 'box': [2.67, 3.0, 3.33, 3.67]}]
    assert [entry['score'] for entry in finder.detections(found, {0: 'RBC', 1: 'Guinea pig'}, 0.1, 2)] == [0.8, 0.7]


@pytest.mark.parametrize('argv', [('--only', ','), ('--only', ''), ('--nms-thresh', '45'), ('--nms-thresh', 'nan'),
                                  ('--max-detections', '0'), ('--max-detections', '-1'), ('--max-detections', '1e2')])
def test_nonsense_is_refused_by_the_flags_name(argv):
    with pytest.raises(UserError, match=argv[0]):
        flags(*argv)
