"""Networks for experiments, in plain torch: convert them with ``lns_sim.convert``."""

from __future__ import annotations

import math

from torch import nn

from lns_sim.checks import check_choice
from lns_sim.studies.models.decoders import GPT, Llama
from lns_sim.studies.models.images import Bottleneck, ResidualBlock, cnn, imagenet_resnet, lenet, mlp, resnet
from lns_sim.studies.own import made_by

DECODERS = {
    "gpt": (GPT, dict(width=128, layers=4, heads=4)),
    "gpt256": (GPT, dict(width=256, layers=4, heads=8)),
    "llama-small": (Llama, dict(width=256, layers=4, heads=4)),
    "llama": (Llama, dict(width=512, layers=5, heads=8)),
}
"""Models that read text, by name: 7 and 24 million parameters the last two with 8192 tokens."""
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
    *DECODERS,
)


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network by name for inputs of shape (C, H, W), (features,), or for ``DECODERS`` (context,) tokens of so many
    classes; or one's own, named as module:function (:mod:`lns_sim.studies.own`).

    Raises:
        ValueError: an unknown name, or a convolutional network for inputs that are no images.
        ImportError, TypeError: of one's own: there is none.
    """
    if ":" in name:
        return made_by(name)
    check_choice("model", name, NAMES)
    if name in DECODERS:
        decoder, size = DECODERS[name]
        return decoder(classes, input_shape[0], **size)
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
