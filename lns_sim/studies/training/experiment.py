"""Several recipes and seeds on the same data and settings, in a folder that holds what came of each."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lns_sim import recipes as by_name
from lns_sim.checks import check_same
from lns_sim.environment import provenance
from lns_sim.files import write_atomically, write_json
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies.training import ranks
from lns_sim.studies.training.checkpoint import ForeignFile, read_checkpoint, save_checkpoint
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.trainer import Result, Settings, Trainer, check_precision, check_runs

RECORD = "run.json"
METRICS = "metrics.jsonl"


def read_record(folder: Path) -> dict:
    """What an experiment wrote into ``run.json``.

    Raises:
        FileNotFoundError: there is none.
        ForeignFile: it is damaged, or something else.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text())
        Settings(**record["settings"])
        for recipe, seed in record["runs"]:
            by_name.from_plain(recipe), int(seed)
        record["data"]["origin"], list(record["commands"])
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no {RECORD}: nothing was trained there") from None
    except Exception as error:  # whatever a damaged file makes of itself
        raise ForeignFile(f"{path} is no record of lns-sim train, or is damaged") from error
    return record


class Experiment:
    """Runs every recipe with every seed, one after another, saving after each epoch.

    The folder gets ``run.json`` (what was run and what came of it), ``metrics.jsonl`` (a line an epoch, as it ends),
    and a checkpoint a run, ``RECIPE-seedN.pt``, which :func:`lns_sim.studies.training.load` reads. Of several processes
    the first one writes, and all of them read where they resume.

    Args:
        data: the data set.
        recipes: recipes to compare; None stands for float32.
        seeds: seeds to run each with.
        settings: shared by all runs.
        folder: where to write.
        device: where to train.
        model: see :class:`lns_sim.studies.training.trainer.Trainer`.
        overwrite: the folder may hold another experiment, which goes.

    Raises:
        ValueError: two recipes of one name, or a name that no file can have.
    """

    def __init__(
        self,
        data: Data,
        recipes: list[Recipe | ModelRecipe | None],
        seeds: list[int],
        settings: Settings,
        folder: Path,
        device: str = "cpu",
        model: torch.nn.Module | None = None,
        overwrite: bool = False,
    ):
        by_name.check_names(recipes)
        check_precision(settings.precision, recipes, device)
        for recipe in recipes:
            if recipe is not None and Path(recipe.name).name != recipe.name:
                raise ValueError(f"the recipe's name {recipe.name!r} is to be a file's, and holds a separator")
        if model is not None:
            settings = dataclasses.replace(settings, model=type(model).__name__)
        self.data, self.settings, self.folder, self.device, self.model = data, settings, folder, device, model
        self.runs = [(recipe, seed) for recipe in recipes for seed in seeds]
        self.results: list[Result] = []
        self._known: dict[int, Result] = {}  # of earlier processes, by run
        self._ours = overwrite  # may what lies in the folder go, or is it this experiment's?
        self._record = provenance()

    def describe(self) -> dict:
        """What makes this experiment what it is, as plain data."""
        return {
            "data": self.data.describe(),
            "settings": dataclasses.asdict(self.settings),
            "runs": [[by_name.to_plain(recipe), seed] for recipe, seed in self.runs],
        }

    @property
    def record(self) -> dict:
        """All that is known of it: the commands that made it, what was run, in which environment, and the results."""
        results = [dataclasses.asdict(r) for r in self.results]
        made = {**self._record, "device": self.device, "processes": ranks.count()}
        return {**made, **self.describe(), "results": results}

    def checkpoint(self, run: int) -> Path:
        """Where a run's checkpoint is."""
        recipe, seed = self.runs[run]
        return self.folder / f"{self.settings.run_name(recipe)}-seed{seed}.pt"

    def _describe_run(self, run: int) -> dict:
        recipe, seed = self.runs[run]
        settings = dataclasses.asdict(self.settings)
        return {"data": self.data.describe(), "settings": settings, "recipe": by_name.to_plain(recipe), "seed": seed}

    def resume(self) -> None:
        """Takes up what the folder holds. The epochs of the settings may be more than they were: then the learning rate
        follows the longer schedule from where it is, which is not what so many epochs from the beginning give.

        Raises:
            FileNotFoundError: it holds no experiment.
            ForeignFile: a file is damaged, or of another experiment; the message says what differs.
        """
        record = read_record(self.folder)
        self._ours = True
        _check_same(record, self.describe(), f"{self.folder} was made with other settings")
        self._record["commands"] = [*record["commands"], *self._record["commands"]]
        for run in range(len(self.runs)):
            path = self.checkpoint(run)
            if path.exists():
                state = read_checkpoint(path)
                try:
                    _check_same(state, self._describe_run(run), f"{path} was made with other settings")
                    self._known[run] = Result(**state["trainer"]["result"])
                except ForeignFile:
                    raise
                except Exception as error:  # whatever a damaged file makes of itself
                    raise ForeignFile(f"{path} is damaged: {error}") from error

    def _save(self, run: int, trainer: Trainer) -> None:
        state = {**self._describe_run(run), "trainer": trainer.state_dict()}
        if ranks.first():
            save_checkpoint(state, self.checkpoint(run))

    def _trainer(self, run: int) -> Trainer:
        recipe, seed = self.runs[run]
        trainer = Trainer(self.data, recipe, seed, self.settings, self.device, self.model)
        if run in self._known:
            path = self.checkpoint(run)
            try:
                trainer.load_state_dict(read_checkpoint(path)["trainer"])
            except Exception as error:  # whatever a damaged file makes of itself
                raise ForeignFile(f"{path} is damaged: {error}") from error
        return trainer

    @property
    def _steps_per_epoch(self) -> int:
        return self.settings.steps_per_epoch(len(self.data.x_train))

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of text that an epoch trains on; 0: the data are no text."""
        if self.data.tokenizer is None:
            return 0
        return self.settings.epoch_of(len(self.data.x_train)) * self.data.input_shape[0]

    @property
    def steps(self) -> int:
        """Training steps of the whole experiment."""
        return self._steps_per_epoch * self.settings.epochs * len(self.runs)

    @property
    def steps_done(self) -> int:
        """Steps of epochs that earlier processes finished."""
        return self._steps_per_epoch * sum(len(r.test) for r in self._known.values())

    def run(
        self, on_step: Callable[[Trainer], None] | None = None, on_epoch: Callable[[Trainer], None] | None = None
    ) -> list[Result]:
        """Runs what is left.

        Args:
            on_step, on_epoch: called with the trainer after each step, and after each epoch when it is saved.

        Raises:
            Diverged: a run made NaN or Inf; finished epochs are kept.
            FileExistsError: the folder holds an experiment that was not resumed.
            ValueError: a recipe and the model do not fit together, or a seed is too large; nothing was written.
        """
        each, seeds = {id(recipe): recipe for recipe, _ in self.runs}, [seed for _, seed in self.runs]
        check_runs(self.data, each.values(), seeds, self.settings, self.device, self.model)
        ranks.from_first(self._begin)
        self._ours = True
        with open(self.folder / METRICS if ranks.first() else os.devnull, "a") as log:
            for run in range(len(self.runs)):
                known = self._known.get(run)
                if known and len(known.test) >= self.settings.epochs:
                    self.results.append(known)
                    continue
                self.results.append(self._run_one(run, log, on_step, on_epoch))
                if ranks.first():
                    write_json(self.record, self.folder / RECORD)
        return self.results

    def _begin(self) -> None:
        """Leaves nothing in the folder but what is known."""
        if not self._ours and (self.folder / RECORD).exists():
            raise FileExistsError(
                f"{self.folder} holds an experiment; resume() goes on with it, overwrite=True begins anew"
            )
        for run in range(len(self.runs)):
            if run not in self._known:
                self.checkpoint(run).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.record, self.folder / RECORD)
        lines = [metrics(r, epoch) for r in self._known.values() for epoch in range(len(r.test))]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(lambda file: file.write(text.encode()), self.folder / METRICS)

    def _run_one(self, run: int, log: Any, on_step, on_epoch) -> Result:
        trainer = self._trainer(run)

        def epoch_ended(trainer: Trainer) -> None:
            if self.data.tokenizer is not None and trainer.epoch == self.settings.epochs:
                trainer.result.sample = trainer.sample()
            self._save(run, trainer)
            log.write(json.dumps(metrics(trainer.result, trainer.epoch - 1)) + "\n")
            log.flush()
            if on_epoch:
                on_epoch(trainer)

        return trainer.run(on_step, epoch_ended)


def metrics(result: Result, epoch: int) -> dict:
    """A line of ``metrics.jsonl``: loss and test of an epoch, counted from 0; there and in tables they count from 1."""
    known = {"recipe": result.recipe, "seed": result.seed, "epoch": epoch + 1}
    return {**known, "loss": result.loss[epoch], "test": result.test[epoch]}


def _check_same(known: dict, new: dict, what: str) -> None:
    """Raises ForeignFile that says what differs; more epochs, and data of another path, do not."""

    def told(d: dict) -> dict:
        kept = {name: value for name, value in d.items() if name in new and name not in ("data", "settings")}
        settings = {**dataclasses.asdict(Settings()), **d["settings"], "epochs": None}  # an older version had fewer
        return {"data": {"fingerprint": d["data"].get("fingerprint")}, "settings": settings, **kept}

    try:
        check_same(told(known), told(new), what)
        before, epochs = known["settings"]["epochs"], new["settings"]["epochs"]
        if epochs < before:
            raise ValueError(f"{what}: settings.epochs is {before}, which {epochs} would cut short")
    except ValueError as error:
        raise ForeignFile(str(error)) from None
