"""An HTML page that shows what a detector gets right and wrong: curves, a confusion matrix, best and worst images."""
import html
import math
import os

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from yolo3.atomic import replacing
from yolo3.boxes import iou
from yolo3.f1 import THRESHOLDS, calibration, f1
from yolo3.metrics import BOTH_ENDS, VOC_IOU, VOCMetric, measure
from yolo3.show.draw import FONT, draw, font_file

SHOWN = 6  # best images, and as many worst ones
LONGEST = 640  # pixels of the longer side of a shown image
MOST_NUMBERED = 30  # up to this many classes a confusion matrix has room for its numbers

PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>%(title)s</title>
<style>
body { font-family: sans-serif; margin: 2em auto; max-width: 1320px; padding: 0 1em; }
.values { columns: 18em; } table { border-collapse: collapse; }
td { padding: 0.1em 1em 0.1em 0; } td + td { text-align: right; }
.grid { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0; } figcaption { overflow-wrap: anywhere; }
.curve { width: 300px; } img { max-width: 100%%; }
</style></head><body>
<h1>%(title)s</h1>
<p>%(facts)s</p>
<div class="values"><table>%(values)s</table></div>
<h2>Precision and recall</h2>
<p>At IoU %(iou)g. AP is the area under the curve made to fall; the dot marks score %(threshold)g.</p>
<div class="grid">%(curves)s</div>
<h2>F1 and calibration</h2>
<p>%(balance)s On the right, how often detections of a score are right; a well calibrated detector follows the
diagonal. The area of a dot is the number of detections.</p>
<div class="grid"><img src="f1.png" alt="F1 by threshold"><img src="calibration.png" alt="Calibration"></div>
<h2>Confusion matrix</h2>
<p>Detections that score %(threshold)g or more. Each is matched with at most one object that it overlaps by %(iou)g or
more, preferably of its own class. A missed object counts as found as background; a detection without an object counts
as labelled background. The shade is the share of the row.</p>
<img src="confusion.png" alt="Confusion matrix">
<h2>Best images</h2>
<p>Labels on the left, detections that score %(threshold)g or more on the right.</p>
<div class="grid">%(best)s</div>
<h2>Worst images</h2>
<div class="grid">%(worst)s</div>
</body></html>
'''


def write(folder, title, facts, metric, values, threshold):
    """Write report.html and its pictures into `folder`, which exists.

    title, facts: texts for the top of the page. metric: a metric of `yolo3.metrics` that has all detections; values:
    its numbers. threshold: the lowest score, 0..1, in the confusion matrix and on the pictures.
    """
    images = metric.images
    shown = [(index, *[part[scores >= threshold] for part in (ids, scores, boxes)])
             for index, ids, scores, boxes in metric.detections]
    matrices = [confusion(images, index, ids, boxes) for index, ids, _, boxes in shown]
    draw_confusion(os.path.join(folder, 'confusion.png'), sum(matrices), images.classes)
    draw_calibration(os.path.join(folder, 'calibration.png'), calibration(metric))
    order = worst_first(matrices)
    best, worst = order[::-1][:SHOWN], order[:max(0, len(order) - SHOWN)][:SHOWN]
    page = PAGE % {
        'title': html.escape(title), 'facts': html.escape(facts), 'iou': VOC_IOU, 'threshold': threshold,
        'values': ''.join('<tr><td>%s</td><td>%s</td></tr>' % (
            html.escape(name), 'none' if math.isnan(value) else '%.4f' % value) for name, value in values.items()),
        'curves': ''.join(curves(folder, metric, threshold)),
        'balance': draw_f1(os.path.join(folder, 'f1.png'), f1(metric)),
        'best': ''.join(pictures(folder, 'best', images, [(shown[i], matrices[i]) for i in best])),
        'worst': ''.join(pictures(folder, 'worst', images, [(shown[i], matrices[i]) for i in worst]))}
    with replacing(os.path.join(folder, 'report.html')) as temporary, open(
            temporary, 'w', encoding='utf-8', errors='backslashreplace') as file:
        file.write(page)


def confusion(images, index, ids, boxes):
    """The confusion matrix [labelled class, detected class] of one image; the last row and column are background.

    ids (n,), boxes (n, 4): its detections. Objects marked difficult, and what detects them, do not count.
    """
    label, difficult = images.label(index), images.difficult(index)
    classes = label[:, 4].astype(int)
    matrix = np.zeros((len(images.classes) + 1,) * 2, int)
    overlaps = iou(label[:, :4] + BOTH_ENDS, boxes + BOTH_ENDS)
    # An object that is also detected as another class still counts as right.
    order = np.argsort(-(overlaps + (classes[:, None] == ids)), axis=None, kind='stable')
    free, missed = np.ones(len(ids), bool), np.ones(len(label), bool)
    for row, column in zip(*np.unravel_index(order, overlaps.shape)):
        if missed[row] and free[column] and overlaps[row, column] >= VOC_IOU:
            missed[row] = free[column] = False
            if not difficult[row]:
                matrix[classes[row], ids[column]] += 1
    np.add.at(matrix, (classes[missed & ~difficult], -1), 1)
    np.add.at(matrix, (-1, ids[free]), 1)
    return matrix


def worst_first(matrices):
    """The positions of confusion `matrices`, the worst F1 first, without images that have nothing on them."""
    def quality(position):
        right, wrong, missed = count(matrices[position])
        return 2 * right / (2 * right + wrong + missed), right, -wrong - missed
    return sorted((position for position, matrix in enumerate(matrices) if matrix.any()), key=quality)


def count(matrix):
    """The numbers of right detections, wrong detections and missed objects in a confusion matrix."""
    right = np.trace(matrix)
    return right, matrix[:, :-1].sum() - right, matrix[:-1].sum() - right


def curves(folder, metric, threshold):
    """Draw the precision-recall curve of each class that has objects; yields HTML."""
    voc = VOCMetric(metric.images, eleven_points=False)
    values = measure(voc, metric.detections)
    ids, scores = [np.concatenate([found[part] for found in metric.detections]) for part in (1, 2)]
    for number, (name, (recall, precision)) in enumerate(zip(metric.images.classes, voc.curves())):
        if recall is None:
            yield figure('', html.escape(name) + ': no objects', 'curve')
            continue
        image = Figure(figsize=(3, 3), layout='constrained')
        axes = image.add_subplot(xlabel='recall', ylabel='precision', xlim=(0, 1.02), ylim=(0, 1.02))
        axes.plot(recall, precision)
        above = (scores[ids == number] >= threshold).sum()
        axes.plot(recall[:above][-1:], precision[:above][-1:], 'o')
        axes.grid(alpha=0.3)
        image.savefig(os.path.join(folder, 'curve_%d.png' % number))
        yield figure('curve_%d.png' % number, '%s: AP %.4f' % (html.escape(name), values[name]), 'curve')


def draw_f1(path, found):
    """Draw an F1 of `yolo3.f1`, or None, to the PNG at `path`: a line for each class, and their mean. Returns HTML."""
    image = Figure(figsize=(5, 4), layout='constrained')
    axes = image.add_subplot(xlabel='threshold', ylabel='F1', xlim=(0, 1), ylim=(0, 1.02))
    if found:
        axes.plot(THRESHOLDS, found.f1.T, color='tab:gray', linewidth=0.5)
        axes.plot(THRESHOLDS, found.mean, color='tab:blue', linewidth=2)
        axes.axvline(found.threshold, color='tab:orange')
    axes.grid(alpha=0.3)
    image.savefig(path)
    if not found:
        return 'There are no objects.'
    return ('The mean F1 of the classes, thick, is best at score %.3f: %.4f.'
            % (found.threshold, found.mean[found.best]))


def draw_calibration(path, bins):
    """Draw the `bins` of `yolo3.f1.calibration` to the PNG at `path`."""
    image = Figure(figsize=(4, 4), layout='constrained')
    axes = image.add_subplot(xlabel='mean score', ylabel='share that is right', xlim=(0, 1), ylim=(0, 1))
    axes.plot((0, 1), (0, 1), color='tab:gray', linewidth=0.5)
    axes.scatter(bins[:, 0], bins[:, 1], 10 + 400 * bins[:, 2] / max(1, bins[:, 2].sum()))
    axes.grid(alpha=0.3)
    image.savefig(path)


def draw_confusion(path, matrix, classes):
    """Draw a confusion matrix to the PNG at `path`."""
    side = 3 + len(matrix) * (0.5 if len(classes) <= MOST_NUMBERED else 0.2)
    image = Figure(figsize=(side, side), layout='constrained')
    axes = image.add_subplot(xlabel='found', ylabel='labelled')
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    names = [*classes, 'background']
    files = [font_file(name) for name in names]  # a name in any script, if there is a font for it
    for axis in axes.xaxis, axes.yaxis:
        axis.set_ticks(range(len(names)), [name if file else name.encode('unicode_escape').decode()
                                for name, file in zip(names, files)])
        for text, file in zip(axis.get_ticklabels(), files):
            text.set_fontproperties(FontProperties(fname=file or FONT))
            text.set_parse_math(False)  # a '$' in a name starts no formula
    axes.tick_params(axis='x', rotation=90)
    if len(classes) <= MOST_NUMBERED:
        for row, column in np.argwhere(matrix):
            axes.text(column, row, matrix[row, column], ha='center', va='center',
                      color='white' if shares[row, column] > 0.5 else 'black')
    image.savefig(path)


def pictures(folder, kind, images, found):
    """Draw images, labels on the left, detections on the right; yields HTML. found: (detections, matrix) of each."""
    for number, ((index, ids, scores, boxes), matrix) in enumerate(found):
        image = images.image_file(index).pixels()
        scale = min(1, LONGEST / max(image.shape[:2]))
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        labels = [{'class': images.classes[int(row[4])], 'box': row[:4] * scale} for row in images.label(index)]
        detections = [{'class': images.classes[id_], 'score': score, 'box': box * scale}
                      for id_, score, box in zip(ids, scores, boxes)]
        gap = np.full((image.shape[0], 8, 3), 255, np.uint8)
        both = cv2.hconcat([draw(image, labels), gap, draw(image, detections)])
        name = '%s_%d.jpg' % (kind, number)
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(cv2.imencode('.jpg', cv2.cvtColor(both, cv2.COLOR_RGB2BGR))[1])
        source = html.escape(os.path.basename(images.image_path(index)))
        yield figure(name, '%s: %d right, %d wrong, %d missed' % (source, *count(matrix)))


def figure(picture, caption, kind=''):
    """HTML of a picture in the folder ('': none) and its caption, which is HTML."""
    return '<figure class="%s">%s<figcaption>%s</figcaption></figure>\n' % (
        kind, picture and '<img src="%s" alt="">' % picture, caption)
