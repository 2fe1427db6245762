"""Small data sets as labelling tools export them, written by hand after the formats that their makers document.

Each has the images a and b to train on and c to validate on, of 100 x 80 pixels, and the classes cat and dog. A dog is
on each, from 10, 20 up to 40, 60; on b, where the form allows it, as a polygon.
"""
import json

from small_sets import BOX as XML, SIZE, picture, write

CLASSES = ['cat', 'dog']
BOX, POLYGON = '1 0.25 0.5 0.3 0.5\n', '1.0 0.1 0.25 0.4 0.5 0.25 0.75\n'
DOG = [10, 20, 39, 59, 1]  # as the data sets give it: both ends inside the box


def yolo(root, places):
    """Images and rows: {path of an image below `root`: path of its label}, the second label a polygon."""
    for number, (image, label) in enumerate(places.items()):
        picture(root / image)
        write(root / label, POLYGON if number == 1 else BOX)


def ultralytics(root):
    """docs.ultralytics.com/datasets/detect: images/train beside labels/train, names as a mapping."""
    yolo(root, {'images/%s/%s.jpg' % place: 'labels/%s/%s.txt' % place
                for place in (('train', 'a'), ('train', 'b'), ('val', 'c'))})
    write(root / 'data.yaml', 'path: ../datasets/pets  # dataset root dir\ntrain: images/train  # relative to path\n'
          'val: images/val\ntest:  # optional\n\nnames:\n  0: cat\n  1: dog\n')
    return root


def ultralytics_lists(root):
    """As Ultralytics' coco.yaml: list files, whose lines begin with ./; here a list of lists, too."""
    yolo(root, {'images/%s.jpg' % stem: 'labels/%s.txt' % stem for stem in 'abc'})
    for name, stem in ('one', 'a'), ('two', 'b'), ('val', 'c'):
        write(root / (name + '.txt'), './images/%s.jpg\n' % stem)
    write(root / 'data.yaml', 'path: .\ntrain: [one.txt, two.txt]\nval: val.txt\nnames: [cat, dog]\n')
    return root


def roboflow(root):
    """Roboflow's "YOLOv8": its data.yaml lies among train/, valid/ and test/, but says ../train."""
    yolo(root, {'%s/images/%s.jpg' % place: '%s/labels/%s.txt' % place
                for place in (('train', 'a'), ('train', 'b'), ('valid', 'c'))})
    write(root / 'data.yaml', "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
          "names: ['cat', 'dog']\n\nroboflow:\n  workspace: me\n  project: pets\n  version: 1\n  license: CC BY 4.0\n")
    return root


def cvat_yolo(root):
    """CVAT's "YOLO 1.1", which is Darknet's: obj.data, obj.names, and lists with a folder data/ that is not there."""
    yolo(root, {'obj_%s_data/%s.jpg' % place: 'obj_%s_data/%s.txt' % place
                for place in (('train', 'a'), ('train', 'b'), ('valid', 'c'))})
    write(root / 'obj.names', 'cat\ndog\n')
    write(root / 'obj.data', 'classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n'
          'backup = backup/\n')
    write(root / 'train.txt', 'data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n')
    write(root / 'valid.txt', 'data/obj_valid_data/c.jpg\n')
    return root


YOLO = ultralytics, ultralytics_lists, roboflow, cvat_yolo


def coco_file(path, names, categories, folder=''):
    """A COCO annotation file of the images `names`; the dog of b has only a polygon. The last category is the dog's."""
    annotations = [{'id': number, 'image_id': number, 'category_id': categories[-1]['id'], 'iscrowd': 0,
                    'bbox': [10, 20, 30, 40], 'area': 1200, 'segmentation': []} for number in range(len(names))]
    if len(names) > 1:
        annotations[1].update(bbox=[], segmentation=[[10, 20, 40, 60, 10, 60]])
    images = [{'id': number, 'file_name': folder + name, 'width': 100, 'height': 80}
              for number, name in enumerate(names)]
    write(path, json.dumps({'info': {}, 'images': images, 'categories': categories, 'annotations': annotations}))


def categories(first, group=''):
    """COCO's categories cat and dog, with ids from `first` on."""
    return [{'id': first + number, 'name': name, 'supercategory': group} for number, name in enumerate(CLASSES)]


def roboflow_coco(root):
    """Roboflow's "COCO": _annotations.coco.json beside the images; category 0 is the project, without boxes."""
    for split, stems in ('train', 'ab'), ('valid', 'c'):
        coco_file(root / split / '_annotations.coco.json', ['%s_jpg.rf.0123.jpg' % stem for stem in stems],
                  [{'id': 0, 'name': 'pets', 'supercategory': 'none'}, *categories(1, 'pets')])
        for stem in stems:
            picture(root / split / ('%s_jpg.rf.0123.jpg' % stem))
    return root


def cvat_coco(root):
    """CVAT's "COCO 1.0": annotations/instances_SUBSET.json and images/SUBSET/."""
    for split, stems in ('train', 'ab'), ('val', 'c'):
        coco_file(root / ('annotations/instances_%s.json' % split), [stem + '.jpg' for stem in stems], categories(1))
        for stem in stems:
            picture(root / 'images' / split / (stem + '.jpg'))
    return root


def label_studio_coco(root):
    """Label Studio's "COCO": one result.json, which says images/ before each name; ids count from 0."""
    coco_file(root / 'result.json', ['a.jpg', 'b.jpg', 'c.jpg'], categories(0), 'images/')
    for stem in 'abc':
        picture(root / ('images/%s.jpg' % stem))
    return root


def roboflow_voc(root, splits=('train', 'train', 'valid')):
    """Roboflow's "Pascal VOC": an .xml beside each image of train/, valid/ and test/."""
    for split, stem in zip(splits, 'abc'):
        name = root / split / ('%s_jpg.rf.0123.jpg' % stem)
        picture(name)
        write(name.with_suffix('.xml'), '<annotation><folder></folder><filename>%s</filename><path>%s</path><source>'
              '<database>roboflow.com</database></source>%s<segmented>0</segmented>%s</annotation>' % (
                  name.name, name.name, SIZE, XML % ('dog', 11, 21, 40, 60)))
    return root


def label_studio_voc(root, folder='Annotations'):
    """Label Studio's "Pascal VOC XML": images/ and Annotations/, without splits."""
    for stem in 'abc':
        picture(root / ('images/%s.jpg' % stem))
        write(root / folder / (stem + '.xml'), '<annotation><folder>images</folder><filename>%s.jpg</filename><owner>'
              '<name>Label Studio</name></owner>%s%s</annotation>' % (stem, SIZE, XML % ('dog', 11, 21, 40, 60)))
    return root


def cvat_voc(root):
    """CVAT's "PASCAL VOC 1.1": without VOC2007/, and with labelmap.txt, whose first class is the background."""
    for split, stems in ('train', 'ab'), ('val', 'c'):
        write(root / ('ImageSets/Main/%s.txt' % split), ''.join(stem + '\n' for stem in stems))
        for stem in stems:
            picture(root / ('JPEGImages/%s.jpg' % stem))
            dog = (XML % ('dog', 11, 21, 40, 60)).replace('</object>', '<attributes><attribute><name>rotation</name>'
                                                          '<value>0.0</value></attribute></attributes></object>')
            write(root / ('Annotations/%s.xml' % stem), '<annotation><folder></folder><filename>%s.jpg</filename>'
                  '<source><database>Unknown</database></source>%s<segmented>0</segmented>%s</annotation>' % (
                      stem, SIZE, dog))
    write(root / 'labelmap.txt',
          '# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:52,209,183::\ndog:250,50,83::\n')
    return root


COCO = roboflow_coco, cvat_coco
