"""One sample: image and boxes -> uint8 network input and boxes, distorted and cropped as GluonCV's are.

GluonCV's YOLO3DefaultTrainTransform passes over the whole image, in float32, for every one of its steps. Here expansion
and crop are one rectangle, `view`, of the image's plane, so that only what is left of the image is touched, in uint8.
"""
import cv2
import numpy as np

from yolo3.boxes import MEAN, STD, resize
from yolo3.mxnet_setup import mx
from gluoncv.data.transforms import bbox as boxes_transform

FILL = tuple(round(255 * mean) for mean in MEAN)  # around an expanded image

# Degrees. GluonCV means these, but multiplies by pi without dividing by 180, which gives any hue at all; with these
# blood cells (BCCD) are found better.
HUE = 18

GRAY = np.array([0.299, 0.587, 0.114])
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
FROM_YIQ = np.array([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.107, 1.705]])

# The least IoU with each box that a crop is tried for, how often, and the scales to try (SSD, section 2.2).
CROP_IOUS = (0.1, 0.3, 0.5, 0.7, 0.9, -np.inf)
CROP_TRIALS = 50
CROP_SCALES = (0.3, 1)


def augment(image, label, size, generator):
    """A training sample with its parameters drawn from `generator`, a numpy.random.Generator.

    Colour distortion, expansion, constrained crop, resize and flip as GluonCV's YOLO3DefaultTrainTransform.
    image: see `yolo3.data.images`. label: (M, 4 + k) with the box's corners in pixels first; M may be 0.
    Returns (size, size, 3) uint8, RGB, and the label of the boxes that are left, in its pixels.
    """
    colour = draw_colour(generator)
    view, label = draw_view(generator, label, image.width, image.height)
    interpolation = int(generator.integers(5))
    flip = generator.random() < 0.5
    return render(image, label, size, colour, view, interpolation, flip)


def draw_colour(generator):
    """Brightness, contrast, saturation and hue, each with probability 0.5, as one (3, 4) matrix for RGB; or None.

    As gluoncv.data.transforms.experimental.image.random_color_distort, but for the hue: see HUE.
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
    """The rectangle (left, top, width, height) of the image's plane to look at, and the boxes with a centre in it.

    Half the images are expanded, up to 4 times; then a crop is drawn. The rectangle is in pixels of the `width` x
    `height` image and may reach beyond it; the boxes are cut off at it. As GluonCV's random_expand and
    random_crop_with_constraints.
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
        kept = boxes_transform.crop(label, view, allow_outside_center=False)
        if len(kept):
            kept[:, :4] += (view[:2] * 2)
            return view, kept
    return views[0] if views else (left, top, width, height), label


def draw_crops(generator, boxes, left, top, width, height):
    """The crops to choose from, in the coordinates of the boxes: the whole of the rectangle, and for each of CROP_IOUS
    the first of CROP_TRIALS random ones whose IoU with every box is at least that. Without boxes, one random crop."""
    shape = len(CROP_IOUS), CROP_TRIALS
    scale = generator.uniform(*CROP_SCALES, shape)
    least, most = np.maximum(0.5, scale ** 2), np.minimum(2, scale ** -2)
    stretch = np.sqrt(least + (most - least) * generator.random(shape))
    sides = np.stack((width * scale * stretch, height * scale / stretch), -1).astype(int).clip(1)
    corners = (generator.random(shape + (2,)) * ([width, height] - sides)).astype(int) + [left, top]
    crops = np.concatenate((corners, sides), -1)
    if not len(boxes):
        return [tuple(crops[0, 0].tolist())]

    ends = corners + sides
    overlap = (np.minimum(ends[..., None, :], boxes[:, 2:]) - np.maximum(corners[..., None, :], boxes[:, :2]))
    overlap = overlap.clip(0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    iou = (overlap / (sides.prod(-1)[..., None] + areas - overlap)).min(-1)
    fit = iou >= np.array(CROP_IOUS)[:, None]
    chosen = crops[np.arange(len(crops)), fit.argmax(1)][fit.any(1)]
    return [(left, top, width, height)] + [tuple(crop) for crop in chosen.tolist()]


def render(image, label, size, colour, view, interpolation, flip):
    """What `augment` returns for the parameters drawn.

    colour: a (3, 4) matrix or None; view: (left, top, width, height), pixels of the image; interpolation: OpenCV's
    number, 0 to 4. Where the view holds more pixels than the result, the image is decoded at reduced scale.
    """
    left, top, width, height = view
    reduction = next((reduction for reduction in (8, 4, 2) if min(width, height) >= reduction * size), 1)
    pixels = image.pixels(reduction)
    rows, columns = pixels.shape[:2]
    across, down = columns / image.width, rows / image.height
    # At a reduced scale the view's edges come to lie on whole pixels anew; the boxes are placed by those.
    x0, y0, x1, y1 = [round(edge * scale) for edge, scale in
                      ((left, across), (top, down), (left + width, across), (top + height, down))]
    inside = pixels[max(y0, 0):max(y1, 0), max(x0, 0):max(x1, 0)]
    if inside.size:
        if colour is not None:
            inside = cv2.transform(inside, colour)
        margins = max(-y0, 0), max(y1 - rows, 0), max(-x0, 0), max(x1 - columns, 0)
        if any(margins):
            inside = cv2.copyMakeBorder(inside, *margins, cv2.BORDER_CONSTANT, value=FILL)
        result = cv2.resize(inside, (size, size), interpolation=interpolation)
    else:
        result = np.full((size, size, 3), FILL, 'uint8')

    label = label.astype(float)
    corner, extent = np.array([x0 / across, y0 / down] * 2), np.array([(x1 - x0) / across, (y1 - y0) / down] * 2)
    label[:, :4] = ((label[:, :4] - corner) * (size / extent)).clip(0, size)
    if flip:
        result = cv2.flip(result, 1)
        label[:, [0, 2]] = size - label[:, [2, 0]]
    return result, label


def squeeze(image, label, size, generator):
    """As `augment`, but only resized: nothing is left to chance (GluonCV's YOLO3DefaultValTransform)."""
    return resize(image.pixels(), size), boxes_transform.resize(label, (image.width, image.height), (size, size))


def normalize(images):
    """On their device: uint8 images (B, H, W, 3), an NDArray -> the network's input, (B, 3, H, W) float32."""
    return mx.nd.image.normalize(mx.nd.image.to_tensor(images), mean=MEAN, std=STD)
