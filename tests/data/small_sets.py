"""Small data sets in VOC's and COCO's form for the tests of yolo3.data."""
import json

import cv2
import numpy as np

BOX = '<object><name>%s</name><difficult>0</difficult><bndbox><xmin>%s</xmin><ymin>%s</ymin><xmax>%s</xmax>' \
      '<ymax>%s</ymax></bndbox></object>'
SIZE = '<size><width>100</width><height>80</height><depth>3</depth></size>'


def write(path, content):
    """A file of text or bytes with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def picture(path, width=100, height=80):
    """A file with a real image in the format of its extension."""
    pixels = np.random.RandomState(0).randint(0, 255, (height, width, 3), np.uint8)
    return write(path, cv2.imencode(path.suffix, pixels)[1].tobytes())


def voc(root, annotations, split='2007_train', image='%s.jpg'):
    """A VOC set of `annotations` {stem: the inside of the XML, or [(name, xmin, ymin, xmax, ymax)]}; its root."""
    year, name = split.split('_', 1)
    folder = root / ('VOC' + year)
    for stem, inside in annotations.items():
        if not isinstance(inside, str):
            inside = SIZE + ''.join(BOX % box for box in inside)
        write(folder / 'Annotations' / (stem + '.xml'), '<annotation>%s</annotation>' % inside)
        picture(folder / 'JPEGImages' / (image % stem))
    write(folder / 'ImageSets' / 'Main' / (name + '.txt'), '\n'.join(annotations) + '\n')
    return str(root)


def coco(root, images, annotations, categories={1: 'cat', 2: 'dog'}, split='instances_train', folder='train'):
    """A COCO set: `images` {id: file name}, `annotations` of dicts, each on 100 x 80 pixels; its root."""
    write(root / 'annotations' / (split + '.json'), '\ufeff' + json.dumps({
        'images': [{'id': number, 'file_name': name, 'width': 100, 'height': 80} for number, name in images.items()],
        'annotations': [dict({'id': i}, **annotation) for i, annotation in enumerate(annotations)],
        'categories': [{'id': number, 'name': name} for number, name in categories.items()]}, ensure_ascii=False))
    for name in images.values():
        picture(root / folder / name)
    return str(root)


def box(image, category=1, bbox=(10, 20, 30, 40), **more):
    """A COCO annotation."""
    return dict({'image_id': image, 'category_id': category, 'bbox': list(bbox)}, **more)


def rows(dataset):
    """All labels as lists."""
    return [dataset.label(i).tolist() for i in range(len(dataset))]
