"""From the command to the first batch on a data set of COCO 2017's size, and the memory that it takes.

The data set is made for it: 640 x 480 pictures of noise under many names, and boxes drawn at random.
"""
import json
import os
import tempfile

import numpy as np

from benchmarks import measure

IMAGES, BOXES_EACH, CLASSES = 118287, 7.27, 80  # COCO train2017's
FEW = 1000  # images, to compare with
PICTURES = 8  # files: one may have no more than some 65,000 names
WIDTH, HEIGHT = 640, 480
WORKERS = 2


def figures(args):
    """For FEW and for all images: seconds to the first batch, peak of the main process, and private memory of a worker
    after its first batch and after --epochs epochs of FEW images. --quick: a tenth of all."""
    if args.only:
        return until_first_batch(args)
    many = IMAGES // 10 if args.quick else IMAGES
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in FEW, many:
            args.command += ['--dataset-root', write(os.path.join(folder, str(count)), count)]
            results[str(count)] = measure.by_turns(args, [str(count)])[str(count)]
    found = measure.medians(results)
    return dict(found, **{'worker MB, %d / %d' % (many, FEW): measure.ratio(
        results, 'MB private, worker, later', str(many), str(FEW))})


def write(root, count):
    """Make a data set in COCO's form of `count` images, all in train and one in val. Returns its folder."""
    import cv2
    generator = np.random.RandomState(0)
    os.makedirs(os.path.join(root, 'train'))
    os.makedirs(os.path.join(root, 'annotations'))
    names = ['%012d.jpg' % number for number in range(count)]
    for number, name in enumerate(names):
        path = os.path.join(root, 'train', name)
        if number < PICTURES:
            coarse = generator.randint(0, 256, (HEIGHT // 16, WIDTH // 16, 3)).astype('uint8')
            cv2.imwrite(path, cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
        else:
            os.link(os.path.join(root, 'train', names[number % PICTURES]), path)
    owners = np.sort(generator.randint(0, count, round(count * BOXES_EACH)))
    corners = generator.uniform(0, 0.6, (len(owners), 2)) * [WIDTH, HEIGHT]
    sides = generator.uniform(0.05, 0.4, (len(owners), 2)) * [WIDTH, HEIGHT]
    boxes = np.concatenate((corners, sides), axis=1).round(2).tolist()
    classes = generator.randint(1, CLASSES + 1, len(owners)).tolist()
    outline = 15 * [320.25, 240.75]  # COCO's files are mostly such
    annotations = [{'id': number, 'image_id': owner, 'category_id': class_, 'bbox': box, 'area': box[2] * box[3],
                    'iscrowd': 0, 'segmentation': [outline]}
                   for number, (owner, class_, box) in enumerate(zip(owners.tolist(), classes, boxes))]
    images = [{'id': number, 'file_name': name, 'width': WIDTH, 'height': HEIGHT} for number, name in enumerate(names)]
    categories = [{'id': number, 'name': 'class %d' % number} for number in range(1, CLASSES + 1)]
    for split, last in ('train', len(annotations)), ('val', 1):
        with open(os.path.join(root, 'annotations', split + '.json'), 'w', encoding='utf-8') as file:
            json.dump({'images': images if split == 'train' else images[owners[0]:owners[0] + 1],
                       'annotations': annotations[:last], 'categories': categories}, file)
    os.symlink('train', os.path.join(root, 'val'))
    return root


def until_first_batch(args):
    """What one process measures: it does as the training does up to its first batch, and then only loads."""
    import train_yolo3_mobilenet as training
    from yolo3.data.loader import start_workers, train_loader
    from yolo3.data.sampler import TrainSampler
    from yolo3.distributed.group import ONE_PROCESS
    flags = training.parse_args(['--dataset', 'coco', '--dataset-root', args.dataset_root, '--train-splits', 'train',
                                 '--val-splits', 'val', '--save-prefix', os.path.join(args.dataset_root, 'log', '')])
    train_set, _ = training.open_data(flags, ONE_PROCESS)
    sampler = TrainSampler(len(train_set), args.batch_size, args.sizes, 1, FEW)
    loader = train_loader(train_set, sampler)
    workers = start_workers(WORKERS, loader).processes
    next(iter(loader))
    found = {'s to the first batch': measure.age(), 'MB peak, main': measure.resident('self', 'VmHWM'),
             'MB then, main': measure.resident('self'),
             'MB private, worker, at once': max(measure.private(worker.pid) for worker in workers)}
    for number in range(args.epochs):
        sampler.set_epoch(number)
        for _ in loader:
            pass
    return dict(found, **{'MB private, worker, later': max(measure.private(worker.pid) for worker in workers)})
