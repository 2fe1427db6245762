"""One sample: image and boxes -> uint8 network input and its boxes, distorted and cropped as GluonCV does it.

GluonCV's YOLO3DefaultTrainTransform processes the whole image, in float32, at every step. Here expansion and crop are
one rectangle, the `view`, so that only the pixels that remain are processed, in uint8.
"""
from typing import NamedTuple

import cv2
import numpy as np

from yolo3.mxnet_setup import mx
from gluoncv.data.transforms import bbox as box_transforms

from yolo3.boxes import MEAN, STD, iou, resize

FILL = tuple(round(255 * mean) for mean in MEAN)  # around an expanded image

# Degrees. GluonCV means these too, but multiplies by pi without dividing by 180, so that any hue comes out. On blood
# cells (BCCD) these give the better detector.
HUE = 18

GRAY = np.array([0.299, 0.587, 0.114])
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
FROM_YIQ = np.array([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.107, 1.705]])

# The least IoU of a crop with every box, one of these; how many crops are tried for each; their scales (SSD, section
# 2.2).
CROP_IOUS = (0.1, 0.3, 0.5, 0.7, 0.9, -np.inf)
CROP_TRIALS = 50
CROP_SCALES = (0.3, 1)

# By the number that GluonCV draws. It means OpenCV's, with Lanczos as number 4: cubic differs from it by 1.3 levels of
# 255 on photographs, and takes a twelfth of its time.
INTERPOLATIONS = cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_CUBIC

MOSAIC_MARGIN = 0.2  # share of a mosaic's side: its images meet at least that far from its edges


class Parts(NamedTuple):
    """Which parts of the augmentation take place. Without any, a sample is made as in validation."""
    colour: bool = True
    crop: bool = True  # with expansion, and an interpolation drawn at random
    flip: bool = True


ALL, NONE = Parts(), Parts(False, False, False)


class Distortion(NamedTuple):
    """What is drawn at random for one sample."""
    colour: np.ndarray  # (3, 4) matrix for RGB, or None
    view: tuple  # (left, top, width, height) in pixels of the image
    interpolation: int  # OpenCV's number, 0 to 4; None for that of validation
    flip: bool  # left to right


def augment(image, label, size, generator, parts=ALL):
    """A training sample with its parameters drawn from `generator`, a numpy.random.Generator.

    Colour distortion, expansion, constrained crop, resize and flip as in GluonCV's YOLO3DefaultTrainTransform.
    image: an ImageFile or Blend. label: (M, 4 + k), the corners of the boxes in pixels first; M may be 0.
    Returns (size, size, 3) uint8, RGB, and the label of the boxes that remain, in its pixels.
    """
    colour = draw_colour(generator) if parts.colour else None
    view, interpolation = (0, 0, image.width, image.height), None
    if parts.crop:
        view, label = draw_view(generator, label, image.width, image.height)
        interpolation = int(generator.integers(5))
    flip = parts.flip and generator.random() < 0.5
    return render(image, label, size, Distortion(colour, view, interpolation, flip))


def draw_colour(generator):
    """Brightness, contrast, saturation and hue, each with probability 0.5, as one (3, 4) matrix for RGB; or None.

    As in gluoncv.data.transforms.experimental.image.random_color_distort, except for the hue: see HUE.
    """
    def brightness():
        return np.eye(3), generator.uniform(-32, 32)

    def contrast():
        return generator.uniform(0.5, 1.5) * np.eye(3), 0

    def saturation():
        kept = generator.uniform(0.5, 1.5)
        return kept * np.eye(3) + (1 - kept) * GRAY, 0

    def hue():
        angle = np.radians(generator.uniform(-HUE, HUE))
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        return FROM_YIQ @ turn @ TO_YIQ, 0

    late = generator.random() < 0.5
    steps = (brightness, saturation, hue, contrast) if late else (brightness, contrast, saturation, hue)
    steps = [step() for step in steps if generator.random() < 0.5]
    if not steps:
        return None
    matrix, offset = np.eye(3), np.zeros((3, 1))
    for factor, summand in steps:
        matrix, offset = factor @ matrix, factor @ offset + summand
    return np.hstack((matrix, offset))


def draw_view(generator, label, width, height):
    """The rectangle (left, top, width, height) to crop to, and the boxes whose centres are in it, clipped to it.

    It is in pixels of the `width` x `height` image and may reach beyond it: half the images are first expanded, up to
    4 times. As in GluonCV's random_expand and random_crop_with_constraints.
    """
    left = top = 0
    if generator.random() < 0.5:
        ratio = generator.uniform(1, 4)
        expanded = int(width * ratio), int(height * ratio)
        left = -int(generator.integers(expanded[0] - width, endpoint=True))
        top = -int(generator.integers(expanded[1] - height, endpoint=True))
        width, height = expanded
    views = draw_crops(generator, label[:, :4], left, top, width, height)
    while len(label) and views:
        view = views.pop(generator.integers(len(views)))
        kept = box_transforms.crop(label, view, allow_outside_center=False)
        if len(kept):
            kept[:, :4] += (view[:2] * 2)
            return view, kept
    return views[0] if views else (left, top, width, height), label


def draw_crops(generator, boxes, left, top, width, height):
    """The crops to choose from, in the coordinates of the boxes (M, 4).

    They are the whole rectangle, and for each of CROP_IOUS the first of CROP_TRIALS random crops whose IoU with every
    box is at least that. Without boxes: one random crop.
    """
    shape = len(CROP_IOUS), CROP_TRIALS
    scale = generator.uniform(*CROP_SCALES, shape)
    least, most = np.maximum(0.5, scale * scale), np.minimum(2, 1 / (scale * scale))
    stretch = np.sqrt(least + (most - least) * generator.random(shape))
    crops = np.empty((4,) + shape, int)
    crops[2:] = np.maximum((width * scale * stretch, height * scale / stretch), 1)
    crops[0] = left + (generator.random(shape) * (width - crops[2])).astype(int)
    crops[1] = top + (generator.random(shape) * (height - crops[3])).astype(int)
    if not len(boxes):
        return [tuple(crops[:, 0, 0].tolist())]

    corners = np.concatenate((crops[:2], crops[:2] + crops[2:])).reshape(4, -1).T
    fit = iou(boxes, corners).min(0).reshape(shape) >= np.array(CROP_IOUS)[:, None]
    chosen = crops[:, np.arange(len(fit)), fit.argmax(1)].T[fit.any(1)]
    return [(left, top, width, height)] + [tuple(crop) for crop in chosen.tolist()]


def render(image, label, size, distortion):
    """What `augment` returns, for a Distortion and the label of the boxes in its view.

    If the view has several times the pixels of the result, the image is decoded at reduced scale.
    """
    left, top, width, height = distortion.view
    reduction = next((reduction for reduction in (8, 4, 2) if min(width, height) >= reduction * size
                      and distortion.interpolation is not None), 1)
    pixels = image.pixels(reduction)
    rows, columns = pixels.shape[:2]
    across, down = columns / image.width, rows / image.height
    # At a reduced scale the edges of the view are rounded to pixels again; the boxes follow the rounded ones.
    x0, y0, x1, y1 = [round(edge * scale) for edge, scale in
                      ((left, across), (top, down), (left + width, across), (top + height, down))]
    x, u = _covered(x0, x1, columns, size)
    y, v = _covered(y0, y1, rows, size)
    if u[0] < u[1] and v[0] < v[1]:
        result = pixels[y[0]:y[1], x[0]:x[1]]
        extent = u[1] - u[0], v[1] - v[0]
        if distortion.interpolation is None:
            result = resize(result, size)
        else:
            result = cv2.resize(result, extent, interpolation=INTERPOLATIONS[distortion.interpolation])
        if distortion.colour is not None:
            result = cv2.transform(result, distortion.colour)
        if extent != (size, size):
            result = cv2.copyMakeBorder(result, v[0], size - v[1], u[0], size - u[1], cv2.BORDER_CONSTANT, value=FILL)
        if distortion.flip:
            result = cv2.flip(result, 1)
    else:
        result = np.full((size, size, 3), FILL, 'uint8')

    label = label.astype(float)
    label[:, 0:4:2] = u[0] + (label[:, 0:4:2] * across - x[0]) * ((u[1] - u[0]) / max(x[1] - x[0], 1))
    label[:, 1:4:2] = v[0] + (label[:, 1:4:2] * down - y[0]) * ((v[1] - v[0]) / max(y[1] - y[0], 1))
    label[:, :4] = np.minimum(np.maximum(label[:, :4], 0), size)
    if distortion.flip:
        label[:, [0, 2]] = size - label[:, [2, 0]]
    return result, label


def _covered(start, end, length, size):
    """Of an axis `length` pixels long, the part that the view from `start` to `end` shows, and where in the result.

    Both are (first, behind the last) in whole pixels: those of the image, and those of the `size` pixels of the result.
    """
    shown = max(start, 0), min(end, length)
    return shown, tuple(round((edge - start) * size / (end - start)) for edge in shown)


def mosaic(samples, size, generator):
    """One sample of four: each fills the rectangle between a random point and a corner with a part of itself.

    As YOLOv4's darknet makes it (Bochkovskiy et al. 2020, section 3.3). samples: as `augment` returns them, of `size`.
    A box remains if its centre is in the part, clipped to it.
    """
    split = np.round(generator.uniform(MOSAIC_MARGIN, 1 - MOSAIC_MARGIN, 2) * size).astype(int)
    result, labels = np.empty((size, size, 3), 'uint8'), []
    for (image, label), corner in zip(samples, ([0, 0], [1, 0], [0, 1], [1, 1])):
        left, top = start = split * corner
        width, height = sides = np.where(corner, size - split, split)
        x, y = generator.integers(size - sides, endpoint=True)
        result[top:top + height, left:left + width] = image[y:y + height, x:x + width]
        label = box_transforms.crop(label, (x, y, width, height), allow_outside_center=False)
        label[:, :4] += np.tile(start, 2)
        labels.append(label)
    return result, np.concatenate(labels)


def normalize(images):
    """The network's input, (B, 3, H, W) float32, of images (B, H, W, 3) uint8, an NDArray, made on their device."""
    return mx.nd.image.normalize(mx.nd.image.to_tensor(images), mean=MEAN, std=STD)
