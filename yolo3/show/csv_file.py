"""--csv: a table of the detections, a row each."""
import csv

from yolo3.atomic import replacing

COLUMNS = ['file', 'frame', 'width', 'height', 'class', 'score', 'xmin', 'ymin', 'xmax', 'ymax']


def write_csv(path, records):
    """Write the `records` of `annotate_image` and `annotate_video` to the file `path`, UTF-8; images have no frame."""
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8', errors='backslashreplace',
                                            newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        for record in records:
            of_image = [record['file'], record.get('frame', ''), record['width'], record['height']]
            writer.writerows([*of_image, found['class'], found['score'], *found['box']]
                             for found in record['detections'])
