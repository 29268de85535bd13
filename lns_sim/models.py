"""Networks for experiments, in plain torch: convert them with ``lns_sim.convert``."""

from __future__ import annotations

import torch
from torch import nn

from lns_sim.checks import check_choice


def _conv_bn(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


def cnn(channels: int, classes: int, width: int = 32) -> nn.Module:
    """Three convolutions with batch norm, global average pooling, one linear layer; for images of 8 x 8 and more."""
    return nn.Sequential(
        _conv_bn(channels, width),
        nn.ReLU(),
        _conv_bn(width, 2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _conv_bn(2 * width, 2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )


def mlp(features: int, classes: int, width: int = 256) -> nn.Module:
    """Two hidden layers on flattened input."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, classes),
    )  # fmt: skip


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.second = _conv_bn(inputs, outputs, stride), _conv_bn(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv_bn(inputs, outputs, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def resnet(channels: int, classes: int, widths=(16, 32, 64), blocks=(3, 3, 3)) -> nn.Module:
    """A CIFAR-form residual network: ResNet-20 by default."""
    layers: list[nn.Module] = [_conv_bn(channels, widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks)):
        for i in range(count):
            layers.append(ResidualBlock(inputs, width, 2 if stage and i == 0 else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


NAMES = ("cnn", "mlp", "resnet20", "resnet18")


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network by name for inputs of shape (C, H, W) or (features,).

    Raises:
        ValueError: an unknown name, or a convolutional network for inputs that are no images.
    """
    check_choice("model", name, NAMES)
    if name == "mlp":
        features = 1
        for n in input_shape:
            features *= n
        return mlp(features, classes)
    if len(input_shape) != 3:
        raise ValueError(f"model {name!r} needs images (C, H, W), but the data has shape {input_shape}; use 'mlp'")
    if name == "cnn":
        return cnn(input_shape[0], classes)
    if name == "resnet20":
        return resnet(input_shape[0], classes)
    return resnet(input_shape[0], classes, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))
