"""Classifiers of images, and of rows of numbers."""

from __future__ import annotations

import torch
from torch import nn


def _conv_bn(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


def cnn(channels: int, classes: int) -> nn.Module:
    """Three convolutions with batch norm, global average pooling, one linear layer; for images of 8 x 8 and more."""
    return nn.Sequential(
        _conv_bn(channels, 32),
        nn.ReLU(),
        _conv_bn(32, 64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _conv_bn(64, 64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 64, classes),
    )


def mlp(features: int, classes: int) -> nn.Module:
    """Two hidden layers on flattened input."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes)
    )


def lenet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al., 1998) with ReLU and maxima, padded so that images of 4 x 4 and more fit."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (height // 4) * (width // 4), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al., 2016)."""

    expansion = 1

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.second = _conv_bn(inputs, outputs, stride), _conv_bn(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv_bn(inputs, outputs, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut, four times as wide outside (He et al., 2016)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = self.expansion * width
        self.first, self.second = _conv_bn(inputs, width, kernel=1), _conv_bn(width, width, stride)
        self.third = _conv_bn(width, outputs, kernel=1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv_bn(inputs, outputs, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.relu(self.third(y) + self.shortcut(x))


def imagenet_resnet(
    channels: int, classes: int, block: type[ResidualBlock | Bottleneck], counts: tuple[int, ...]
) -> nn.Module:
    """A residual network in ImageNet form: a 7 x 7 convolution and pooling first; for images of 64 x 64 and more."""
    layers: list[nn.Module] = [_conv_bn(channels, 64, 2, kernel=7), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(counts):
        for i in range(count):
            layers.append(block(inputs, 64 << stage, 2 if stage and i == 0 else 1))
            inputs = block.expansion * 64 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def resnet(channels: int, classes: int, widths=(16, 32, 64), blocks=(3, 3, 3)) -> nn.Module:
    """A CIFAR-form residual network: ResNet-20 by default."""
    layers: list[nn.Module] = [_conv_bn(channels, widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks)):
        for i in range(count):
            layers.append(ResidualBlock(inputs, width, 2 if stage and i == 0 else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
