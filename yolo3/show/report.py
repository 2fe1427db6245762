"""A page to look at of what a detector gets right and wrong: curves, a confusion matrix, best and worst images."""
import html
import math
import os

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from yolo3.show.draw import FONT, draw, font_file
from yolo3.atomic import replacing
from yolo3.boxes import iou
from yolo3.metrics import VOCMetric

IOU = 0.5  # from where on a detection is of an object
SHOWN = 6  # best and worst images, each
LONGEST = 640  # pixels of a shown image's longer side
MOST_NUMBERED = 30  # classes up to which a confusion matrix has room for its numbers

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
<p>At IoU %(iou)g. AP is the area under the falling envelope of the curve; the dot is at score %(threshold)g.</p>
<div class="grid">%(curves)s</div>
<h2>Confusion matrix</h2>
<p>Detections that score %(threshold)g or more. Each goes with at most one object that it overlaps by %(iou)g or more,
of its own class first. What is labelled and not found is found as background, what is found and not labelled is
labelled background. The shade is the share of the row.</p>
<img src="confusion.png" alt="Confusion matrix">
<h2>Best images</h2>
<p>Labels on the left, detections that score %(threshold)g or more on the right.</p>
<div class="grid">%(best)s</div>
<h2>Worst images</h2>
<div class="grid">%(worst)s</div>
</body></html>
'''


def write(folder, title, facts, dataset, detections, values, threshold):
    """Write report.html and its pictures into `folder`, which exists.

    title, facts: texts for the top of the page. detections: all those of a metric of `yolo3.metrics`, values: its
    numbers. threshold: the least score, 0..1, that counts in the confusion matrix and is drawn.
    """
    shown = [(index, *[part[scores >= threshold] for part in (ids, scores, boxes)])
             for index, ids, scores, boxes in detections]
    matrices = [confusion(dataset.label(index), ids, boxes, len(dataset.classes)) for index, ids, _, boxes in shown]
    draw_confusion(os.path.join(folder, 'confusion.png'), sum(matrices), dataset.classes)
    ranked = rank(matrices)
    best, worst = ranked[::-1][:SHOWN], ranked[:max(0, len(ranked) - SHOWN)][:SHOWN]
    page = PAGE % {
        'title': html.escape(title), 'facts': html.escape(facts), 'iou': IOU, 'threshold': threshold,
        'values': ''.join('<tr><td>%s</td><td>%s</td></tr>' % (
            html.escape(name), 'none' if math.isnan(value) else '%.4f' % value) for name, value in values.items()),
        'curves': ''.join(curves(folder, dataset, detections, threshold)),
        'best': ''.join(pictures(folder, 'best', dataset, [(shown[i], matrices[i]) for i in best])),
        'worst': ''.join(pictures(folder, 'worst', dataset, [(shown[i], matrices[i]) for i in worst]))}
    with replacing(os.path.join(folder, 'report.html')) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(page)


def confusion(label, ids, boxes, class_count):
    """The confusion matrix of one image: [labelled class, detected class], the last of each being background.

    label: (n, 5 or 6) as of `yolo3.data.datasets`; objects marked difficult and what is found of them do not count.
    """
    matrix = np.zeros((class_count + 1, class_count + 1), int)
    classes = label[:, 4].astype(int)
    difficult = label[:, 5] > 0 if label.shape[1] > 5 else np.zeros(len(label), bool)
    ends = np.array([0, 0, 1, 1])  # both ends of a box are included
    overlaps = iou(label[:, :4] + ends, boxes + ends)
    # An object that is also found as another class is found right all the same.
    order = np.argsort(-(overlaps + (classes[:, None] == ids)), axis=None, kind='stable')
    free, missed = np.ones(len(ids), bool), np.ones(len(label), bool)
    for row, column in zip(*np.unravel_index(order, overlaps.shape)):
        if missed[row] and free[column] and overlaps[row, column] >= IOU:
            missed[row] = free[column] = False
            if not difficult[row]:
                matrix[classes[row], ids[column]] += 1
    np.add.at(matrix, (classes[missed & ~difficult], -1), 1)
    np.add.at(matrix, (-1, ids[free]), 1)
    return matrix


def rank(matrices):
    """The places of images' confusion `matrices`, the worst F1 first, without images that have nothing on them."""
    def key(place):
        right, wrong, missed = count(matrices[place])
        return 2 * right / (2 * right + wrong + missed), right, -wrong - missed
    return sorted((place for place, matrix in enumerate(matrices) if matrix.any()), key=key)


def count(matrix):
    """How many detections are right, how many wrong, and how many objects are missed, in a confusion matrix."""
    right = np.trace(matrix)
    return right, matrix[:, :-1].sum() - right, matrix[:-1].sum() - right


def curves(folder, dataset, detections, threshold):
    """Draw the precision-recall curve of each class that has objects; yields HTML."""
    metric = VOCMetric(dataset, eleven_points=False)
    metric.detections = detections
    values = metric.get()
    ids, scores = [np.concatenate([found[part] for found in detections]) for part in (1, 2)]
    for number, (name, (recall, precision)) in enumerate(zip(dataset.classes, metric.curves())):
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


def draw_confusion(path, matrix, classes):
    """Draw a confusion matrix to the PNG at `path`."""
    side = 3 + len(matrix) * (0.5 if len(classes) <= MOST_NUMBERED else 0.2)
    image = Figure(figsize=(side, side), layout='constrained')
    axes = image.add_subplot(xlabel='found', ylabel='labelled')
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    names = [*classes, 'background']
    files = [font_file(name) for name in names]  # in any script, as far as there is a font
    for axis in axes.xaxis, axes.yaxis:
        axis.set_ticks(range(len(names)), [name if file else name.encode('unicode_escape').decode()
                                for name, file in zip(names, files)])
        for text, file in zip(axis.get_ticklabels(), files):
            text.set_fontproperties(FontProperties(fname=file or FONT))
            text.set_parse_math(False)  # '$' is no formula
    axes.tick_params(axis='x', rotation=90)
    if len(classes) <= MOST_NUMBERED:
        for row, column in np.argwhere(matrix):
            axes.text(column, row, matrix[row, column], ha='center', va='center',
                      color='white' if shares[row, column] > 0.5 else 'black')
    image.savefig(path)


def pictures(folder, kind, dataset, found):
    """Draw images, labels on the left and detections on the right; yields HTML. found: (detections, matrix) of each."""
    for number, ((index, ids, scores, boxes), matrix) in enumerate(found):
        image = dataset.image_file(index).pixels()
        scale = min(1, LONGEST / max(image.shape[:2]))
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        labels = [{'class': dataset.classes[int(row[4])], 'box': row[:4] * scale} for row in dataset.label(index)]
        detections = [{'class': dataset.classes[id_], 'score': score, 'box': box * scale}
                      for id_, score, box in zip(ids, scores, boxes)]
        gap = np.full((image.shape[0], 8, 3), 255, np.uint8)
        both = cv2.hconcat([draw(image, labels), gap, draw(image, detections)])
        name = '%s_%d.jpg' % (kind, number)
        cv2.imencode('.jpg', cv2.cvtColor(both, cv2.COLOR_RGB2BGR))[1].tofile(os.path.join(folder, name))
        source = html.escape(os.path.basename(dataset.image_path(index)))
        yield figure(name, '%s: %d right, %d wrong, %d missed' % (source, *count(matrix)))


def figure(picture, caption, kind=''):
    """HTML of a picture of the folder, '' for none, and its caption, which is HTML."""
    return '<figure class="%s">%s<figcaption>%s</figcaption></figure>\n' % (
        kind, picture and '<img src="%s" alt="">' % picture, caption)
