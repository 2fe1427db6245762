"""What demo.py finds: the detector that its flags name, and the function of an image that stands behind `detect`."""
from yolo3.cli import UserError, shorten
from yolo3.data.labelled import class_key
from yolo3.defaults import NMS
from yolo3.detector import open_detector
from yolo3.tiles import Tiled


def open_finder(args, at_once=1):
    """The detector that the flags `args` name, with their settings of NMS; see `open_detector`. Raises UserError."""
    # As many boxes for each that is kept as in GluonCV take part.
    topk = max(NMS.topk, NMS.topk // NMS.kept * args.max_detections)
    # With --only, `detections` applies the limit instead: other classes would use up the places of the chosen ones.
    kept = topk if args.only else args.max_detections
    nms = NMS._replace(thresh=args.nms_thresh, topk=topk, kept=kept, vote=args.vote)
    detector = open_detector(args, nms, at_once)
    return Tiled(detector, nms) if args.tiles else detector


def choose(classes, only, params):
    """{number: name} of those of the `classes` that are named `only`, or of all. Raises UserError.

    params: the detector's file, for the message.
    """
    wanted = {class_key(name): name for name in only}
    chosen = {number: name for number, name in enumerate(classes) if not only or wanted.pop(class_key(name), None)}
    if wanted:
        raise UserError('--only %s: no class of %s, which finds %s'
                        % (next(iter(wanted.values())), params, shorten(classes, 20)))
    return chosen


def detections(found, classes, thresh, most=None):
    """`found`, the (ids, scores, boxes) of an image, as `yolo3.show.draw` takes them, but for scores under `thresh`.

    classes: {number: name} of those to keep. most: how many to keep at most, None for all.
    """
    chosen = [{'class': classes[id_], 'score': round(float(score), 4), 'box': [round(float(side), 2) for side in box]}
              for id_, score, box in zip(*found) if score >= thresh and id_ in classes]
    return chosen[:most]
