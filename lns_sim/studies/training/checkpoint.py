"""A run's checkpoint: whole or not there, of plain data and tensors, and enough to make its model again."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lns_sim import recipes
from lns_sim.files import write_atomically
from lns_sim.nn import convert
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies import models
from lns_sim.studies.training.trainer import Result, Settings

_KEYS = {"data", "settings", "recipe", "seed", "trainer"}


class ForeignFile(ValueError):
    """A file of another experiment, or a damaged one."""


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds.

    Attributes:
        model: converted by the recipe, with the weights of the last epoch saved.
        recipe: by which it was trained; None: float32.
        settings, seed: of the training.
        result: what came of it, an entry an epoch.
        data: of the data set, as plain data: "name", "origin" (for :func:`lns_sim.studies.training.data.load`),
            "fingerprint", "measure", "shape" of a sample, "classes".
    """

    model: nn.Module
    recipe: Recipe | ModelRecipe | None
    settings: Settings
    seed: int
    result: Result
    data: dict


def save_checkpoint(state: dict, path: Path) -> None:
    """Writes a checkpoint.

    Raises:
        OSError: it cannot be written; the file from before is still there.
    """
    try:
        write_atomically(lambda file: torch.save(state, file), path)
    except OSError as error:
        kept = f"; {path} still holds the epochs before" if path.exists() else ""
        raise OSError(f"cannot write {path}: {error.strerror or error}{kept}") from error


def read_checkpoint(path: Path) -> dict:
    """The state of a run, on the CPU, wherever it trained; nothing in the file is executed.

    torch writes a checksum of every record, but does not read it.

    Raises:
        FileNotFoundError: there is none.
        ForeignFile: it is damaged, or something else.
    """
    try:
        with zipfile.ZipFile(path) as records:
            if records.testzip() is not None:
                raise ValueError("a checksum differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch's own message would advise to execute it
        raise ForeignFile(f"{path} is no checkpoint of lns-sim train, or is damaged") from error
    if not isinstance(state, dict) or not state.keys() >= _KEYS or not isinstance(state["trainer"], dict):
        raise ForeignFile(f"{path} is no checkpoint of lns-sim train")
    return state


def load(path: str | Path, model: nn.Module | str | None = None) -> Trained:
    """A trained model, and how it was trained, from a checkpoint of ``lns-sim train``; nothing in the file is executed.

    Args:
        path: ``RECIPE-seedN.pt``.
        model: float32, of the same shape, where the training was given one of one's own; it is converted in place. Or a
            name (:func:`lns_sim.studies.models.build`). None: the name in the checkpoint.

    Raises:
        FileNotFoundError: there is none.
        ForeignFile: it is damaged, something else, or of another model.
        ImportError, ValueError: a model of one's own is not where it was.
    """
    path = Path(path)
    state = read_checkpoint(path)
    try:
        recipe, settings = recipes.from_plain(state["recipe"]), Settings(**state["settings"])
        result, data = Result(**state["trainer"]["result"]), dict(state["data"])
        shape, classes = tuple(data["shape"]), int(data["classes"])
        values = dict(state["trainer"]["model"])
    except Exception as error:  # whatever a damaged file makes of itself
        raise ForeignFile(f"{path} is damaged: {error}") from error
    built = model if isinstance(model, nn.Module) else models.build(model or settings.model, shape, classes)
    converted = convert(built, recipe)
    try:
        converted.load_state_dict(values)
    except Exception as error:  # other names and shapes, or no tensors
        raise ForeignFile(f"{path} is of another model, or damaged: {str(error).splitlines()[-1].strip()}") from error
    return Trained(converted, recipe, settings, int(state["seed"]), result, data)
