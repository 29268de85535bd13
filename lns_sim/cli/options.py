"""Options that several commands have, and what they choose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lns_sim import recipes
from lns_sim.cli.command import flag
from lns_sim.files import new_folder
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies import models
from lns_sim.studies.sweep.space import changed
from lns_sim.studies.training.trainer import Settings

Data = Annotated[
    str,
    typer.Option(
        help="digits (bundled with scikit-learn), npz:PATH with arrays x_train, y_train, x_test, "
        "y_test, openml:NAME, text:FILE, text:FOLDER (its *.py), text:python (Python's standard library), text (its "
        "first megabyte), or module:function, which returns such"
    ),
]
Context = Annotated[int | None, typer.Option(help="text: tokens that the model sees", show_default="128")]
Tokens = Annotated[str | None, typer.Option(help="text: byte, or bpe:N for N byte-pair tokens", show_default="byte")]
Model = Annotated[
    str | None,
    typer.Option(
        help=f"one of {', '.join(models.NAMES)}, or module:function, which returns a model from samples to logits",
        show_default="cnn, for text gpt",
    ),
]
Batch = Annotated[int, typer.Option(help="samples per step")]
Lr = Annotated[float, typer.Option(help="LNS-Madam: octaves per unit of normalized gradient")]
PScale = Annotated[
    float, typer.Option(help="LNS-Madam: how far weights may grow, in root mean squares of the initial ones")
]
FirstSeed = Annotated[int, typer.Option(help="first seed", min=0)]
FloatOptimizer = Annotated[
    str | None,
    typer.Option(help="sgd or adamw, for float32 training and float parameters", show_default="sgd, for text adamw"),
]
FloatLr = Annotated[float | None, typer.Option(help="its learning rate", show_default="0.1, for text 0.003")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N")]
Force = Annotated[bool, typer.Option("--force", help="write over what lies in the folder")]

RECIPE_HELP = (
    "fp32, lns-madam-fake-quant, lns-madam, another system (docs/comparators.md) or a file.toml (docs/recipes.md)"
)


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


def chosen_recipes(names: list[str], changes: dict[str, Any]) -> list[Recipe | ModelRecipe | None]:
    """Recipes by name, with the formats and datapaths that options give to those that have such.

    Raises:
        ValueError: an option that none of them has a place for; two recipes of one name; or see
            :func:`lns_sim.recipes.get`.
        FileNotFoundError: no such file.
    """
    found = [recipes.get(name) for name in names]
    recipes.check_names(found)
    return changed(found, changes, flag)


def simulating(name: str, changes: dict[str, Any], what: str) -> Recipe | ModelRecipe:
    """One recipe as :func:`chosen_recipes` takes it; also raises ValueError where it simulates nothing."""
    found = chosen_recipes([name], changes)[0]
    if found is None:
        raise ValueError(f"{what} needs a recipe that simulates products, got fp32")
    return found


def check_folder(out: Path | None, force: bool, *others: Path | None) -> None:
    """Refuses, before work begins, what :func:`run_folder` would; and the same of other folders.

    Raises:
        FileExistsError: something lies in a folder, and nobody said that it may be written over.
        ValueError: there is nothing to write over.
    """
    told = [folder for folder in (out, *others) if folder is not None]
    if force and not told:
        raise ValueError("--force would change nothing: without --out a new folder is made")
    for folder in told:
        if not force and folder.is_dir() and any(folder.iterdir()):
            raise FileExistsError(
                f"{folder} is not empty; choose another folder, or --force to write over what lies there"
            )


def run_folder(out: Path | None, command: str, force: bool) -> Path:
    """Where a command writes: the folder it was told, or a new one, ``runs/COMMAND/1`` and so on.

    Raises:
        OSError: it cannot be made; or see :func:`check_folder`.
    """
    check_folder(out, force)
    if out is None:
        return new_folder(Path("runs") / command)
    out.mkdir(parents=True, exist_ok=True)
    return out
