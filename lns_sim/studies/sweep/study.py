"""A sweep as an Optuna study: any number of workers take trials from one storage; a killed one loses only its own."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from lns_sim.checks import check_choice, check_same
from lns_sim.optim import Diverged
from lns_sim.recipes import ModelRecipe, Recipe, map_recipes, to_plain
from lns_sim.studies.energy.technology import NoSuchDesign
from lns_sim.studies.sweep.costs import check_costs, costs_of
from lns_sim.studies.sweep.space import Point, Space, points, recipe_of, size
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.trainer import Result, Settings, Trainer, check_runs, on_meta
from lns_sim.studies.workers import gone, this_worker

SAMPLERS = ("grid", "random", "nsga2")


def _optuna():
    try:
        import optuna
    except ImportError:
        raise ImportError("sweeps need the library optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class OtherSweep(ValueError):
    """The storage holds a study of that name with other settings."""


class Sweep:
    """Trains a model at points of a space of datapaths and formats.

    Points are judged on samples held out of the training set; the test set, which no choice sees, is reported beside.

    Args:
        data, settings, base: what to train, how, and the recipe that points change.
        space: see :func:`lns_sim.studies.sweep.space.parse`.
        seeds: each point is trained with all of them.
        sampler: "grid" tries every point, "random" and "nsga2" as many as ``trials`` says.
        trials: of all workers together; None: as many as there are points.
        storage: a file (an Optuna journal, made if there is none, also on a network file system), or a database URL.
        name: of the study in it.
        device: where to train.
        grace: seconds without a sign of life after which another machine's trial counts as lost.
        costs: what a point costs beside its accuracy (:data:`lns_sim.studies.sweep.costs.COSTS`), one or more.
        technology: where the costs' prices come from (:func:`lns_sim.energy`).
        held_out: share of the training set that points are judged on.

    Raises:
        ImportError: Optuna is not installed.
        OtherSweep: the study in the storage has other settings.
        ValueError, OSError: an unknown sampler, cost or technology, a cost that the technology does not know, a
            recipe that does not fit the model, a seed that generators do not hold, or a storage that cannot be opened.
    """

    def __init__(
        self,
        data: Data,
        settings: Settings,
        base: Recipe | ModelRecipe,
        space: Space,
        seeds: list[int],
        sampler: str,
        trials: int | None,
        storage: str,
        name: str,
        device: str = "cpu",
        grace: float = 600.0,
        costs: Sequence[str] = ("energy",),
        technology: str = "paper",
        held_out: float = 0.2,
    ):
        check_choice("sampler", sampler, SAMPLERS)
        check_costs(costs, technology)
        check_runs(data, [base], seeds, settings, device)
        self.costs, self.technology = tuple(costs), technology
        self.data, self.settings, self.base, self.space = data, settings, base, space
        self.held_out, self.share = data.held_out(held_out), held_out
        self.seeds, self.sampler, self.device, self.grace = seeds, sampler, device, grace
        self.trials = size(space) if sampler == "grid" or trials is None else trials
        self.maximize = data.tokenizer is None
        self.study = self._open(storage, name)
        self._random = random.Random()  # of this worker alone

    @property
    def criterion(self) -> str:
        """What points are judged by, as columns call it."""
        return f"held-out {'accuracy %' if self.maximize else 'loss'}"

    # ---- The storage.

    def describe(self) -> str:
        """What makes this sweep what it is."""
        parts = {
            "data": self.data.describe(),
            "held out": self.share,
            "settings": asdict(self.settings),
            "recipe": to_plain(self.base),
            "space": self.space,
            "seeds": self.seeds,
            "sampler": self.sampler,
            "costs": self.costs,
            "technology": self.technology,
        }
        return json.dumps(parts, sort_keys=True)

    def _open(self, storage: str, name: str):
        optuna = _optuna()
        directions = ["maximize" if self.maximize else "minimize", *["minimize"] * len(self.costs)]
        try:
            if "://" in storage:
                opened = storage
            else:
                Path(storage).parent.mkdir(parents=True, exist_ok=True)
                opened = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
            study = optuna.create_study(study_name=name, storage=opened, directions=directions, load_if_exists=True)
        except (OSError, ImportError):
            raise
        except Exception as error:  # of Optuna, JSON and databases, none of which name the storage
            raise ValueError(f"{storage} is no storage of Optuna, or is damaged: {error}") from error
        known = study.user_attrs.get("sweep")
        if known is None:
            study.set_user_attr("sweep", self.describe())
        elif known != self.describe():
            try:
                what = f"the study {name!r} in {storage} has other settings"
                check_same(json.loads(known), json.loads(self.describe()), what)
            except ValueError as error:
                raise OtherSweep(f"{error}; use another --study, or the same settings") from None
        # Workers that draw must not draw alike: only a study's first one, begun anew, can be repeated.
        seed = self.seeds[0] if not study.get_trials(deepcopy=False) else None
        make = {
            "grid": lambda: optuna.samplers.RandomSampler(),
            "random": lambda: optuna.samplers.RandomSampler(seed),
            "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=min(20, size(self.space)), seed=seed),
        }
        study.sampler = make[self.sampler]()
        return study

    def _all(self, *states: str) -> list:
        return [t for t in self.study.get_trials(deepcopy=False) if t.state.name in states]

    @property
    def finished(self) -> int:
        """Trials that have ended, also those without a result."""
        return len(self._all("COMPLETE", "PRUNED"))

    def _reclaim(self) -> None:
        """Gives up trials whose worker is gone: on this machine by its process, on others by its last sign of life."""
        state = _optuna().trial.TrialState
        for trial in self._all("RUNNING"):
            worker = trial.user_attrs.get("worker")
            silent = time.time() - trial.user_attrs.get("seen", trial.datetime_start.timestamp())
            if worker is None:  # just asked for, or killed right then
                lost = silent > 10
            else:
                lost = gone(worker, silent, self.grace)
            if lost:
                with contextlib.suppress(ValueError):  # another worker did
                    self.study.tell(trial.number, state=state.FAIL)

    # ---- Trials.

    def _next(self):
        """A trial to run, or None when there are enough."""
        self._reclaim()
        if self.sampler == "grid":
            begun = [tuple(t.params.get(k) for k in self.space) for t in self._all("COMPLETE", "PRUNED", "RUNNING")]
            missing = [p for p in points(self.space) if tuple(p.values()) not in set(begun)]
            if not missing:
                return None
            self.study.enqueue_trial(self._random.choice(missing))
        elif len(self._all("COMPLETE", "PRUNED", "RUNNING")) >= self.trials:
            return None
        trial = self.study.ask()
        trial.set_user_attr("worker", this_worker())
        for key, values in self.space.items():
            trial.suggest_categorical(key, values)
        return trial

    def run(
        self, on_step: Callable[[Point, Trainer], None] | None = None, on_trial: Callable[[object], None] | None = None
    ) -> None:
        """Takes trials until there are enough.

        Args:
            on_step: called after each training step with the point and the trainer.
            on_trial: called with each finished trial (an Optuna FrozenTrial).

        Raises:
            OSError, ValueError: the storage, the technology or a price file does not serve; the trial counts as failed,
                and is run again by whoever goes on.
        """
        optuna = _optuna()
        state = optuna.trial.TrialState
        while (trial := self._next()) is not None:
            try:
                values = self._values(trial, on_step)
            except optuna.exceptions.UpdateFinishedTrialError:
                continue  # another machine took this worker for lost, and the trial is run again
            except BaseException:  # Ctrl-C, too
                self.study.tell(trial, state=state.FAIL, skip_if_finished=True)
                raise
            self.study.tell(trial, values, state.PRUNED if values is None else None, skip_if_finished=True)
            if on_trial:
                on_trial(self.study.get_trials(deepcopy=False)[trial.number])

    def _values(self, trial, on_step) -> list[float] | None:
        """Held-out accuracy (or loss) and costs at the trial's point; None, with a note why, where there is none."""
        point = dict(trial.params)
        for other in self._all("COMPLETE", "PRUNED"):
            if other.params == point:  # the same bits again
                for key, value in other.user_attrs.items():
                    if key not in ("worker", "seen"):
                        trial.set_user_attr(key, value)
                return other.values
        try:
            recipe = map_recipes(self.base, lambda r: recipe_of(point, r))
        except (TypeError, ValueError) as error:
            trial.set_user_attr("none", f"no such datapath: {error}")
            return None
        model, batch = on_meta(self.settings.model, self.data, self.settings.batch_size)
        try:
            costs = costs_of(self.costs, model, batch, recipe, self.technology)
        except NoSuchDesign as error:
            trial.set_user_attr("none", f"no cost: {error}; the cost cycles is known of all")
            return None
        results, tests, start, seen = [], [], time.perf_counter(), time.time()

        def stepped(trainer: Trainer) -> None:
            nonlocal seen
            if time.time() - seen > self.grace / 20:
                seen = time.time()
                trial.set_user_attr("seen", seen)
            if on_step:
                on_step(point, trainer)

        for seed in self.seeds:
            try:
                result, test = self._train(recipe, seed, stepped)
            except Diverged as error:
                trial.set_user_attr("none", f"diverged: {error}")
                return None
            results.append(result)
            tests.append(test)
        saturations, vanished, narrowed, macs = (
            sum(r.total(n) for r in results) for n in ("saturations", "vanished", "narrowed", "macs")
        )
        held_out = [r.test[-1] for r in results]
        trial.set_user_attr("held out", held_out)
        trial.set_user_attr("tests", tests)
        trial.set_user_attr("seconds", round(time.perf_counter() - start, 3))
        trial.set_user_attr("saturated", saturations / max(narrowed, 1))
        trial.set_user_attr("vanished", vanished / max(macs, 1))
        return [statistics.mean(held_out), *costs]

    def _train(self, recipe, seed: int, on_step: Callable[[Trainer], None]) -> tuple[Result, float]:
        """A run on what is not held out, and its test; its trainer goes, with its memory, before the next one comes."""
        trainer = Trainer(self.held_out, recipe, seed, self.settings, self.device)
        return trainer.run(on_step), trainer.test(self.data)
