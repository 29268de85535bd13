"""The paper's table of energies, and its four models: what the energy model is calibrated on, and held against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lns_sim.studies import models
from lns_sim.studies.energy.energy import Energy, energy

# LNS-Madam (IEEE TC 2022): millijoule of a training iteration, batch 1.
TABLE = {
    "resnet18-imagenet": {"LNS": 0.54, "FP8": 1.22, "FP16": 2.50, "FP32": 5.99},
    "resnet50": {"LNS": 0.99, "FP8": 2.25, "FP16": 4.59, "FP32": 11.03},
    "bert-base": {"LNS": 7.99, "FP8": 18.23, "FP16": 37.21, "FP32": 89.35},
    "bert-large": {"LNS": 27.85, "FP8": 63.58, "FP16": 129.74, "FP32": 311.58},
}
RECALLED = ("resnet18-imagenet", "resnet50")  # as readers recall the print; nobody checked these rows
TOKENS = 384
_CONFIGURATIONS = {
    "bert-base": {},
    "bert-large": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}
BERTS = tuple(_CONFIGURATIONS)  # names of the models that :func:`bert` makes


def bert(name: str) -> nn.Module:
    """A model of ``BERTS`` (Devlin et al., 2019) with random weights, from the library transformers.

    Raises:
        ImportError: the library is missing.
    """
    try:
        from transformers import BertConfig, BertModel
    except ImportError:
        raise ImportError(f"{name} needs the library transformers: pip install 'lns-sim[energy]'") from None
    return BertModel(BertConfig(**_CONFIGURATIONS[name]))


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A model of the table, and its input, on the meta device: nothing is computed.

    Raises:
        KeyError: another name.
        ImportError: see :func:`bert`.
    """
    with torch.device("meta"):
        if name in BERTS:
            return bert(name).eval(), torch.zeros(1, TOKENS, dtype=torch.int64)
        return models.build(name, (3, 224, 224), 1000).eval(), torch.zeros(1, 3, 224, 224)


def reproduce() -> dict[str, Energy]:
    """The energy of each model of the table; raises as :func:`build`."""
    return {name: energy(*build(name)) for name in TABLE}
