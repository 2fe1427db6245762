"""Detections as the evaluation servers take them: COCO's result JSON, or VOC's text file for each class."""
import json
import os

from yolo3.atomic import replacing
from yolo3.metrics import coco_results


def write(path, images, detections):
    """Write a metric's `detections` in `images` to `path`: VOC's files into it if it is a folder, else COCO's."""
    if os.path.isdir(path):
        return write_voc(path, images, detections)
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        json.dump(coco_results(images, detections), file)


def write_voc(folder, images, detections):
    """Write comp4_det_test_dog.txt and so on: image, score, and corners in pixels counted from 1, in each line."""
    split = '+'.join(name.partition('_')[2] or name for name in images.name.split('+'))  # without VOC's year
    for number, name in enumerate(images.classes):
        path = os.path.join(folder, ('comp4_det_%s_%s.txt' % (split, name)).replace(os.sep, '_'))
        with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            for index, ids, scores, boxes in detections:
                for score, box in zip(scores[ids == number], boxes[ids == number] + 1):
                    file.write('%s %.6f %.2f %.2f %.2f %.2f\n' % (images.image_id(index), score, *box))
