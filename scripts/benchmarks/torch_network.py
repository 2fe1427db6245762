"""The same network and losses in PyTorch, channels last, for benchmark.py to measure against."""
import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, one_hot

from yolo3.boxes import MEAN, STD
from yolo3.data.anchors import ANCHORS, PER_STRIDE
from yolo3.data.targets import LAYERS


def conv(inputs, outputs, kernel, stride=1, groups=1, slope=None):
    """Convolution, batch norm and (leaky) ReLU."""
    act = nn.ReLU() if slope is None else nn.LeakyReLU(slope)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
                         nn.BatchNorm2d(outputs), act)


def separable(inputs, outputs, stride=1):
    return nn.Sequential(conv(inputs, inputs, 3, stride, inputs), conv(inputs, outputs, 1))


def head(inputs, channels):
    return nn.Sequential(*[conv(*shape, slope=0.1) for shape in (
        (inputs, channels, 1), (channels, 2 * channels, 3), (2 * channels, channels, 1), (channels, 2 * channels, 3),
        (2 * channels, channels, 1))])


class Detector(nn.Module):
    """MobileNet1.0-YOLOv3 up to its three raw outputs, coarsest first."""

    def __init__(self, num_class=80):
        super().__init__()
        outputs = 3 * (5 + num_class)
        self.stages = nn.ModuleList([
            nn.Sequential(conv(3, 32, 3, 2), separable(32, 64), separable(64, 128, 2), separable(128, 128),
                          separable(128, 256, 2), separable(256, 256)),
            nn.Sequential(separable(256, 512, 2), *[separable(512, 512) for _ in range(5)]),
            nn.Sequential(separable(512, 1024, 2), separable(1024, 1024))])
        self.heads = nn.ModuleList([head(1024, 512), head(768, 256), head(384, 128)])
        self.tips = nn.ModuleList([conv(channels, 2 * channels, 3, slope=0.1) for channels in (512, 256, 128)])
        self.outputs = nn.ModuleList([nn.Conv2d(2 * channels, outputs, 1) for channels in (512, 256, 128)])
        self.transitions = nn.ModuleList([conv(512, 256, 1, slope=0.1), conv(256, 128, 1, slope=0.1)])

    def forward(self, x):
        routes, results = [], []
        for stage in self.stages:
            x = stage(x)
            routes.append(x)
        for number in range(3):
            x = self.heads[number](x)
            results.append(self.outputs[number](self.tips[number](x)))
            if number < 2:
                x = interpolate(self.transitions[number](x), scale_factor=2)
                x = torch.cat((x, routes[1 - number]), 1)
        return results


def forward(batch_size, size):
    """A function that runs the network once, for inference, on noise."""
    net = Detector().to(memory_format=torch.channels_last).eval()
    images = torch.rand(batch_size, 3, size, size).to(memory_format=torch.channels_last)

    def once():
        with torch.no_grad():
            net(images)
    return once


def joined(outputs):
    """The raw predictions (B, N, 5 + C) of all strides and their boxes' corners in pixels (B, N, 4)."""
    raw, boxes = [], []
    for output, stride, anchors in zip(outputs, LAYERS, ANCHORS[::-1]):
        each = output.permute(0, 2, 3, 1).reshape(len(output), *output.shape[2:], PER_STRIDE, -1)
        rows, columns = torch.meshgrid(*map(torch.arange, output.shape[2:]), indexing='ij')
        centers = (each[..., :2].sigmoid() + torch.stack((columns, rows), -1)[:, :, None]) * stride
        halves = each[..., 2:4].clamp(-20, 20).exp() * torch.tensor(anchors).reshape(-1, 2) / 2
        raw.append(each.flatten(1, 3))
        boxes.append(torch.cat((centers - halves, centers + halves), -1).flatten(1, 3))
    return torch.cat(raw, 1), torch.cat(boxes, 1)


def losses(outputs, boxes, images, rows):
    """The losses of objectness, centres, sizes and classes, each summed over the batch: GluonCV's YOLOV3Loss.

    Like ours, of the predictions that have an object only. boxes: (B, M, 4) corners. rows: (K, 12) of `sparse_targets`,
    of the images of numbers `images` (K,).
    """
    raw, found = joined(outputs)
    numbers, center, scale, weight, ratio, ids, _ = rows.split((1, 2, 2, 1, 1, 1, 4), 1)
    places = images, numbers[:, 0].long()
    with torch.no_grad():
        shared = (torch.minimum(found[:, :, None, 2:], boxes[:, None, :, 2:])
                  - torch.maximum(found[:, :, None, :2], boxes[:, None, :, :2])).clamp(min=0).prod(-1)
        areas, true_areas = [(corners[..., 2:] - corners[..., :2]).prod(-1) for corners in (found, boxes)]
        overlap = (shared / (areas[:, :, None] + true_areas[:, None] - shared)).amax(2)
        ratios = torch.zeros_like(overlap).index_put(places, ratio[:, 0])
        counted = torch.where(ratios > 0, ratios, (overlap <= 0.7).float())
    own, weight = raw[places], weight * ratio
    classes = one_hot(ids[:, 0].long(), own.shape[1] - 5).float()
    return torch.stack((
        binary_cross_entropy_with_logits(raw[..., 4], (ratios > 0).float(), counted, reduction='sum'),
        binary_cross_entropy_with_logits(own[:, :2], center, weight, reduction='sum'),
        ((own[:, 2:4] - scale).abs() * weight).sum(),
        binary_cross_entropy_with_logits(own[:, 5:], classes, ratio, reduction='sum')))


def stepper(images, boxes, targets, compiled, half=False):
    """A function that trains on a batch: uint8 images (B, H, W, 3), and a list of `sparse_targets` rows of each image.

    It returns the losses. compiled: through torch.compile, network and losses as one. half: the network in bfloat16.
    """
    net = Detector().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), 1e-6, 0.9, weight_decay=5e-4, fused=True)
    batch = [torch.from_numpy(array) for array in (boxes, np.repeat(range(len(targets)), [*map(len, targets)]),
                                                   np.concatenate(targets))]
    images, mean, std = map(torch.tensor, (images, MEAN, STD))

    def forward():
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            outputs = net(((images / 255 - mean) / std).permute(0, 3, 1, 2))
        return losses([output.float() for output in outputs], *batch)
    if compiled:
        forward = torch.compile(forward)

    def once():
        optimizer.zero_grad()
        values = forward()
        values.sum().div(len(images)).backward()
        optimizer.step()
        return values.tolist()
    return once
