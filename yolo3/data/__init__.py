"""From files on disk to batches: data sets, images, augmentation, targets, loader."""
