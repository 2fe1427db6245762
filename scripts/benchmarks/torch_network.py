"""The same network in PyTorch, for benchmark.py to measure against: in eager mode, channels last."""
import statistics
import time

import torch
from torch import nn


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
                x = nn.functional.interpolate(self.transitions[number](x), scale_factor=2)
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


def step_seconds(batch_size, size, count=3):
    """The median time of a training step, the first two left out. The loss is a stand-in that costs nothing."""
    net = Detector().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), 1e-6, 0.9, weight_decay=5e-4)
    images = torch.rand(batch_size, 3, size, size).to(memory_format=torch.channels_last)
    times = []
    for _ in range(count + 2):
        start = time.perf_counter()
        optimizer.zero_grad()
        sum((output ** 2).mean() for output in net(images)).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])
