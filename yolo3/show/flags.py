"""demo.py's flags for what it finds and writes, without imports that take long: so that --help takes no time."""
import argparse

from yolo3.cli import comma_list, positive, share
from yolo3.defaults import NMS

OUTPUTS = '--json', '--csv', '--sheet', '--save-txt', '--save-crops'


def add_finder_flags(parser):
    """The flags of `yolo3.show.finder`, next to those of `yolo3.detector`."""
    add = parser.add_argument
    add('--only', default=(), type=class_names, metavar='A,B', help='show these classes only')
    add('--nms-thresh', type=share, default=NMS.thresh, metavar='IOU', help='IoU, 0..1, above which the better of two '
        'boxes of a class suppresses the other; default: %(default)s')
    add('--max-detections', type=positive, default=NMS.kept, metavar='N',
        help='most detections in an image or, with --tiles, in a window; default: %(default)s')
    add_vote_flag(parser)
    add('--tiles', action='store_true', help='for small objects in large pictures: look at overlapping windows of the '
        'input size as well')


def add_vote_flag(parser):
    """--vote, of demo.py and eval_yolo3.py."""
    parser.add_argument('--vote', action='store_true', help='move each box to the mean of the boxes of its class that '
                        'overlap it by half, weighted by their scores (box voting)')


def class_names(text):
    """'a,b' -> ['a', 'b'], at least one."""
    found = comma_list(text)
    if not found:
        raise argparse.ArgumentTypeError('names no class')
    return found


def add_output_flags(parser):
    """The flags of `yolo3.show.outputs`."""
    add = parser.add_argument
    add('--json', default='', metavar='FILE', help='also write the detections to this file')
    add('--csv', default='', metavar='FILE', help='also write a table of the detections, a row each, to this file')
    add('--sheet', default='', metavar='FILE', help='also draw all pictures, small, into one .png or .jpg')
    add('--save-txt', action='store_true', help="also write YOLO's label files, to labels/ in --out-dir")
    add('--save-crops', action='store_true', help='also cut each detection out, to crops/CLASS/ in --out-dir')


def flags_given(args):
    """Those of OUTPUTS that are in use."""
    return [flag for flag in OUTPUTS if vars(args)[flag[2:].replace('-', '_')]]
