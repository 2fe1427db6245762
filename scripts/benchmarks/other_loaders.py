"""The training loaders of Ultralytics and torchvision for a data set of ours, for benchmark.py to measure against."""
import os

import numpy as np


def ultralytics(images, size, batch_size, workers, mosaic, folder):
    """Ultralytics' loader with its default augmentation, whose images are all decoded anew; `folder` is for its files.

    Its buffer of decoded images is switched off: on a large data set it makes the images of a mosaic those of the last
    mosaics, which is why it is fast.
    """
    os.environ.update(YOLO_CONFIG_DIR=folder, YOLO_VERBOSE='False')
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_dataloader, build_yolo_dataset
    write_yolo(images, folder)
    dataset = build_yolo_dataset(get_cfg(overrides={'imgsz': size, 'mosaic': mosaic}), folder + '/images', batch_size,
                                 {'names': dict(enumerate(images.classes)), 'channels': 3})
    dataset.augment = False  # the transforms are made already: of what remains, it fills the buffer
    dataset.transforms.transforms[0].transforms[0].buffer_enabled = False  # mosaic
    return build_dataloader(dataset, batch_size, workers, pin_memory=False, device='cpu')


def write_yolo(images, folder):
    """Links to the images and their labels in YOLO's form, in `folder`."""
    for part in 'images', 'labels':
        os.makedirs(os.path.join(folder, part), exist_ok=True)
    for index in range(len(images)):
        path, label, image = images.image_path(index), images.label(index), images.image_file(index)
        link = os.path.join(folder, 'images', os.path.basename(path))
        if not os.path.lexists(link):
            os.symlink(os.path.abspath(path), link)
        sides = np.array([image.width, image.height])
        rows = np.column_stack((label[:, 4], (label[:, :2] + label[:, 2:4]) / 2 / sides,
                                (label[:, 2:4] - label[:, :2]) / sides))
        np.savetxt(os.path.join(folder, 'labels', os.path.splitext(os.path.basename(path))[0] + '.txt'), rows,
                   ['%d'] + 4 * ['%.6f'])


def torchvision(images, size, batch_size, workers):
    """torchvision's SSD augmentation (its references/detection) as v2 transforms of uint8 tensors."""
    import torch
    from torchvision import tv_tensors
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2
    transform = v2.Compose([v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=[123, 117, 104]), v2.RandomIoUCrop(),
                            v2.RandomHorizontalFlip(), v2.Resize((size, size)), v2.SanitizeBoundingBoxes()])

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            pixels = tv_tensors.Image(decode_image(images.image_path(index), ImageReadMode.RGB))
            label = torch.from_numpy(images.label(index))
            boxes = tv_tensors.BoundingBoxes(label[:, :4], format='XYXY', canvas_size=pixels.shape[-2:])
            return transform(pixels, {'boxes': boxes, 'labels': label[:, 4].long()})

    def collate(samples):
        pixels, targets = zip(*samples)
        return {'img': torch.stack(pixels), 'targets': targets}
    return torch.utils.data.DataLoader(Samples(), batch_size, True, num_workers=workers, collate_fn=collate,
                                       persistent_workers=workers > 0)
