"""Options that several commands have."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer
from torch import nn

from lns_sim import recipes
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies import models
from lns_sim.studies.training.trainer import Settings

Data = Annotated[
    str,
    typer.Option(
        help="digits (bundled with scikit-learn), npz:PATH with arrays x_train, y_train, x_test, "
        "y_test, openml:NAME, text:PATH, or text (Python's standard library)"
    ),
]
Context = Annotated[int, typer.Option(help="text: tokens that the model sees")]
Tokens = Annotated[str, typer.Option(help="text: byte, or bpe:N for N byte-pair tokens")]
Model = Annotated[str | None, typer.Option(help=f"one of {', '.join(models.NAMES)}", show_default="cnn, for text gpt")]
FloatOptimizer = Annotated[
    str | None,
    typer.Option(help="sgd or adamw, for float32 training and float parameters", show_default="sgd, for text adamw"),
]
FloatLr = Annotated[float | None, typer.Option(help="its learning rate", show_default="0.1, for text 0.003")]
Bits = Annotated[int, typer.Option(help="bits of a code")]
Gamma = Annotated[int, typer.Option(help="base factor: codes per octave")]
UpdateBits = Annotated[int, typer.Option(help="bits of a weight between steps")]
LutEntries = Annotated[int | None, typer.Option(help="constants of the datapath", show_default="gamma")]
AccBits = Annotated[int, typer.Option(help="bits of the accumulator")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N")]

RECIPE_HELP = (
    "fp32, lns-madam-fake-quant, lns-madam, another system (docs/comparators.md) or a file.toml (docs/recipes.md)"
)


def made_by(name: str) -> nn.Module:
    """What the function given as module:function returns; modules of the current directory are found, too.

    Raises:
        ImportError, ValueError, TypeError: no such module or function, or it returns no module of torch.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    made = getattr(importlib.import_module(module), function, None)
    if made is None:
        raise ValueError(f"{module} has no {function}")
    model = made()
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}() must return a torch module, got {type(model).__name__}")
    return model


def chosen_settings(
    data: str, model: str | None, float_optimizer: str | None, float_lr: float | None, **others
) -> Settings:
    """Settings whose defaults follow the kind of data: for text a GPT and AdamW.

    Raises:
        TypeError, ValueError: see :class:`lns_sim.studies.training.trainer.Settings`.
    """
    text = data.partition(":")[0] == "text"
    return Settings(
        model=model or ("gpt" if text else Settings.model),
        float_optimizer=float_optimizer or ("adamw" if text else Settings.float_optimizer),
        float_lr=float_lr or (0.003 if text else Settings.float_lr),
        **others,
    )


def chosen_recipe(
    name: str, bits: int, gamma: int, update_bits: int, lut_entries: int | None, acc_bits: int
) -> Recipe | ModelRecipe | None:
    """A preset with these formats and this datapath, or a file's recipe.

    Raises:
        ValueError, FileNotFoundError: see :func:`lns_sim.recipes.get`.
    """
    datapath = Datapath(LNSFormat(bits, gamma), lut_entries=lut_entries, acc_bits=acc_bits)
    return recipes.get(name, bits=bits, gamma=gamma, update_bits=update_bits, datapath=datapath)
