"""Networks for experiments, in plain torch: convert them with ``lns_sim.convert``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from lns_sim.checks import check_choice
from lns_sim.studies.own import made_by


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
        nn.Flatten(),
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
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


class DecoderBlock(nn.Module):
    """Causal self-attention and a feed-forward part, each behind a layer norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        attention = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attention.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A small decoder (Radford et al., 2019): tokens (N, T) to logits (N, T, vocabulary), T up to ``context``."""

    def __init__(self, vocabulary: int, context: int, width: int = 128, layers: int = 4, heads: int = 4):
        super().__init__()
        self.context = context
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([DecoderBlock(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                deep = name.endswith(("out.weight", "down.weight"))  # they add up along the residual path
                nn.init.normal_(p, std=0.7 * width**-0.5 / ((2 * layers) ** 0.5 if deep else 1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def resnet(channels: int, classes: int, widths=(16, 32, 64), blocks=(3, 3, 3)) -> nn.Module:
    """A CIFAR-form residual network: ResNet-20 by default."""
    layers: list[nn.Module] = [_conv_bn(channels, widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks)):
        for i in range(count):
            layers.append(ResidualBlock(inputs, width, 2 if stage and i == 0 else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


NAMES = (
    "cnn",
    "mlp",
    "logistic",
    "lenet",
    "resnet8",
    "resnet20",
    "resnet18",
    "resnet18-imagenet",
    "resnet50",
    "gpt",
    "gpt256",
)


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network by name for inputs of shape (C, H, W), (features,), or for "gpt" and "gpt256" (of width 128 and
    256) (context,) tokens of so many classes; or one's own, named as module:function (:mod:`lns_sim.studies.own`).

    Raises:
        ValueError: an unknown name, or a convolutional network for inputs that are no images.
        ImportError, TypeError: of one's own: there is none.
    """
    if ":" in name:
        return made_by(name)
    check_choice("model", name, NAMES)
    if name == "gpt":
        return GPT(classes, input_shape[0])
    if name == "gpt256":
        return GPT(classes, input_shape[0], width=256, heads=8)
    if name == "mlp":
        return mlp(math.prod(input_shape), classes)
    if name == "logistic":
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes))
    if len(input_shape) != 3:
        raise ValueError(f"model {name!r} needs images (C, H, W), but the data has shape {input_shape}; use 'mlp'")
    if name == "lenet":
        return lenet(input_shape, classes)
    if name == "cnn":
        return cnn(input_shape[0], classes)
    if name == "resnet50":
        return imagenet_resnet(input_shape[0], classes, Bottleneck, (3, 4, 6, 3))
    if name == "resnet18-imagenet":
        return imagenet_resnet(input_shape[0], classes, ResidualBlock, (2, 2, 2, 2))
    if name in ("resnet8", "resnet20"):
        return resnet(input_shape[0], classes, blocks=(1, 1, 1) if name == "resnet8" else (3, 3, 3))
    return resnet(input_shape[0], classes, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))
