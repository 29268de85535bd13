"""Models and inputs by name, of which nothing is computed: what `energy` and `cycles` take."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from lns_sim.checks import check_choice, check_int
from lns_sim.studies import models
from lns_sim.studies.energy import paper
from lns_sim.studies.own import made_by

ModelName = Annotated[
    str, typer.Argument(help=f"{', '.join((*models.NAMES, *paper.BERTS))}, or module:function, which returns a model")
]
Input = Annotated[str | None, typer.Option(help="shape of a sample, e.g. 3x224x224", show_default="by model")]
TokensOfSample = Annotated[int | None, typer.Option(help="tokens of a sample", show_default="by model", min=1)]
BatchSize = Annotated[int, typer.Option(help="samples of the iteration")]
TechnologyName = Annotated[
    str,
    typer.Option(
        help="where all prices come from: paper, measured (this project's RTL on real cells) or a price file.toml "
        "(docs/energy.md)"
    ),
]

# What models of ours take where nothing else is said: channels, height and width, or tokens.
_INPUTS = {
    "cnn": (1, 8, 8),
    "mlp": (1, 8, 8),
    "logistic": (1, 8, 8),
    "lenet": (1, 28, 28),
    "resnet8": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "resnet18-imagenet": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "gpt": (128,),
    "gpt256": (128,),
    "llama-small": (256,),
    "llama": (512,),
}
_TOKENS = (*models.DECODERS, *paper.BERTS)  # models of these
_VOCABULARY = {"llama-small": 8192, "llama": 8192}  # where it is not bytes


def _sizes(text: str) -> tuple[int, ...]:
    """A shape such as "3x224x224" or "64"."""
    try:
        sizes = tuple(int(n) for n in text.split("x"))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ValueError(f"--input is a sample's shape such as 3x224x224, got {text!r}")
    return sizes


def build(name: str, input: str | None, context: int | None, batch: int) -> tuple[nn.Module, Tensor, str]:
    """The model and a batch, on the meta device, and what to call them."""
    check_int("batch_size", batch, 1, None)
    if input is not None and context is not None:
        raise ValueError("--input is for numbers, --context for tokens: give one of them")
    shape = _sizes(input) if input is not None else (context,) if context is not None else None
    tokens = context is not None if ":" in name else name in _TOKENS
    if input is not None and tokens:
        raise ValueError(f"{name} takes tokens: give --context")
    if context is not None and not tokens:
        raise ValueError(f"{name} takes numbers: give --input")
    with torch.device("meta"):
        if ":" in name:
            if shape is None:
                raise ValueError(f"{name} needs --input (a sample's shape, e.g. 3x224x224) or --context (tokens)")
            model = made_by(name).to("meta")
        else:
            check_choice("model", name, (*models.NAMES, *paper.BERTS))
            shape = shape or ((paper.TOKENS,) if name in paper.BERTS else _INPUTS[name])
            classes = _VOCABULARY.get(name, 256) if tokens else 1000 if shape[-1] >= 64 else 10
            model = paper.bert(name) if name.startswith("bert") else models.build(name, shape, classes)
        x = torch.zeros(batch, *shape, dtype=torch.int64 if tokens else torch.float32)
    title = f"{name}, {batch} x {'x'.join(map(str, shape))}{' tokens' if tokens else ''}"
    return model.eval(), x, title
