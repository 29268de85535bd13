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
        float_lr=(0.003 if text else Settings.float_lr) if float_lr is None else float_lr,
        **others,
    )


_OWN = ("lns-madam", "lns-madam-fake-quant")  # recipes whose formats and datapath the options choose


def chosen_recipes(
    names: list[str], bits: int, gamma: int, update_bits: int, lut_entries: int | None, acc_bits: int
) -> list[Recipe | ModelRecipe | None]:
    """Recipes by name: LNS-Madam's with these formats and this datapath, other systems' and files' with their own.

    Raises:
        ValueError: an option that no recipe takes, or that a file has its own of; two recipes of one name; or see
            :func:`lns_sim.recipes.get`.
        FileNotFoundError: no such file.
    """
    options = {
        "--bits": bits != LNSFormat.bits,
        "--gamma": gamma != LNSFormat.gamma,
        "--update-bits": update_bits != Recipe.update.bits,
        "--lut-entries": lut_entries is not None,
        "--acc-bits": acc_bits != Datapath.acc_bits,
    }
    given = ", ".join(name for name, differs in options.items() if differs)
    files = [name for name in names if name.endswith(".toml")]
    if given and (files or not set(names) & set(_OWN)):
        raise ValueError(f"{given} would change nothing: {(files or names)[0]} has formats and datapaths of its own")
    own = dict(bits=bits, gamma=gamma, update_bits=update_bits)
    datapath = Datapath(LNSFormat(bits, gamma), lut_entries=lut_entries, acc_bits=acc_bits)
    found = [recipes.get(name, **(dict(own, datapath=datapath) if name in _OWN else {})) for name in names]
    called = ["fp32" if recipe is None else recipe.name for recipe in found]
    for name in called:
        if called.count(name) > 1:
            raise ValueError(f"two recipes are called {name!r}; a recipe file's `name` tells them apart")
    return found


def chosen_recipe(name: str, *options) -> Recipe | ModelRecipe | None:
    """One recipe; otherwise as :func:`chosen_recipes`."""
    return chosen_recipes([name], *options)[0]
