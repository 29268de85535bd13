"""Several recipes and seeds on the same data and settings, with one checkpoint for all of it."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lns_sim.files import write_atomically
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.trainer import Result, Settings, Trainer


class ForeignCheckpoint(ValueError):
    """A checkpoint of another experiment."""


def save_atomically(state: dict, path: Path) -> None:
    """A checkpoint by :func:`write_atomically`.

    Raises:
        OSError: it cannot be written; the file from before is still there.
    """
    try:
        write_atomically(lambda file: torch.save(state, file), path)
    except OSError as error:
        kept = f"; {path} still holds the epochs before" if path.exists() else ""
        raise OSError(f"cannot write {path}: {error.strerror or error}{kept}") from error


def read_checkpoint(path: Path) -> dict:
    """The state that an experiment saved, on the CPU, wherever it trained; nothing in the file is executed.

    torch writes a checksum of every record, but does not read it.

    Raises:
        FileNotFoundError: there is none.
        ForeignCheckpoint: it is damaged, or something else.
    """
    try:
        with zipfile.ZipFile(path) as records:
            if records.testzip() is not None:
                raise ValueError("a checksum differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch's own message would advise to execute it
        raise ForeignCheckpoint(f"{path} is no checkpoint of lns-sim train, or is damaged") from error
    if not isinstance(state, dict) or not {"experiment", "results", "trainer"} <= state.keys():
        raise ForeignCheckpoint(f"{path} is no checkpoint of lns-sim train")
    return state


class Experiment:
    """Runs every recipe with every seed, one after another, saving after each epoch.

    Args:
        data: the data set.
        recipes: recipes to compare; None stands for float32.
        seeds: seeds to run each with.
        settings: shared by all runs.
        checkpoint: the file to save to.
        device: where to train.
    """

    def __init__(
        self,
        data: Data,
        recipes: list[Recipe | ModelRecipe | None],
        seeds: list[int],
        settings: Settings,
        checkpoint: Path,
        device: str = "cpu",
    ):
        self.data, self.settings, self.checkpoint, self.device = data, settings, checkpoint, device
        self.runs = [(recipe, seed) for recipe in recipes for seed in seeds]
        self.results: list[Result] = []
        self.trainer: Trainer | None = None

    def describe(self) -> dict:
        """What makes this experiment what it is, as plain data."""
        return {
            "data": self.data.name,
            "settings": dataclasses.asdict(self.settings),
            "runs": [["fp32" if recipe is None else json.loads(recipe.encode()), seed] for recipe, seed in self.runs],
        }

    def resume(self) -> None:
        """Takes up the checkpoint.

        Raises:
            FileNotFoundError: there is none.
            ForeignCheckpoint: it is damaged, or belongs to an experiment with other settings.
        """
        state = read_checkpoint(self.checkpoint)
        if state["experiment"] != self.describe():
            raise ForeignCheckpoint(f"{self.checkpoint} was made with other settings; use another --out, or the same")
        try:
            self.results = [Result(**r) for r in state["results"]]
            if state["trainer"] is not None:
                self.trainer = self._new_trainer()
                self.trainer.load_state_dict(state["trainer"])
        except Exception as error:  # whatever a damaged file makes of itself
            raise ForeignCheckpoint(f"{self.checkpoint} is damaged: {error}") from error

    def save(self) -> None:
        """Writes the checkpoint: finished results, and the state of the run in progress (or of the last one)."""
        state = {
            "experiment": self.describe(),
            "results": [dataclasses.asdict(r) for r in self.results],
            "trainer": self.trainer.state_dict() if self.trainer is not None else None,
        }
        save_atomically(state, self.checkpoint)

    def _new_trainer(self) -> Trainer:
        recipe, seed = self.runs[min(len(self.results), len(self.runs) - 1)]
        return Trainer(self.data, recipe, seed, self.settings, self.device)

    @property
    def steps(self) -> int:
        """Training steps of the whole experiment."""
        per_epoch = -(-len(self.data.x_train) // self.settings.batch_size)
        return per_epoch * self.settings.epochs * len(self.runs)

    @property
    def steps_done(self) -> int:
        """Steps of finished epochs."""
        epochs = self.settings.epochs * len(self.results)
        if self.trainer is not None and len(self.results) < len(self.runs):
            epochs += self.trainer.epoch
        return epochs * (self.steps // (self.settings.epochs * len(self.runs)))

    def run(self, on_step: Callable[[Trainer], None] | None = None) -> list[Result]:
        """Runs what is left; ``on_step(trainer)`` is called after every step."""
        while len(self.results) < len(self.runs):
            trainer = self.trainer = self.trainer or self._new_trainer()
            while trainer.epoch < self.settings.epochs:
                trainer.run_epoch(partial(on_step, trainer) if on_step else None)
                if trainer.epoch < self.settings.epochs:
                    self.save()
            if self.data.tokenizer is not None:
                trainer.result.sample = trainer.sample()
            self.results.append(trainer.result)
            if len(self.results) < len(self.runs):
                self.trainer = None
            self.save()
        return self.results
