"""Runs that train, and runs that search the learning rate for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from lns_sim import recipes
from lns_sim.format import LNSFormat
from lns_sim.log_datapath import LogDatapath
from lns_sim.optim import Diverged
from lns_sim.quantizers import LNS
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies import search as rates
from lns_sim.studies.contest import learns_by
from lns_sim.studies.papers.bench import Bench, part
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset, Task
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.trainer import Settings, Trainer

Any_ = Recipe | ModelRecipe | None
EXTEND, HELD_OUT = 4, 0.2  # of searches: rates beyond an end, and the share of samples that they are judged on

# Milliseconds of a step of ResNet-20 at batch 256 on one H100, bound by launches; what other networks take more.
STEP = {"float32": 12.0, "datapaths": 40.0, "logarithms": 235.0, "LNS": 49.0, "other": 74.0, "random": 87.0}
FURTHER = {"resnet18": 40.0}


def train(
    bench: Bench,
    data: dict,
    recipe: Any,
    settings: dict,
    seed: int,
    update: list[int] | None = None,
    lr: dict | None = None,
) -> dict:
    """Trains a network.

    Args:
        bench: where.
        data: arguments of :meth:`lns_sim.studies.papers.bench.Bench.data`.
        recipe: as plain data (:func:`lns_sim.recipes.to_plain`).
        settings: fields of :class:`lns_sim.studies.training.trainer.Settings`.
        seed: of weights and the order of data.
        update: bits and gamma of an LNS format to which float32 weights are rounded after each step; None: not at all.
        lr: what :func:`search` returned, whose learning rate is taken; None: that of the settings.

    Returns:
        A :class:`lns_sim.studies.training.trainer.Result` as plain data, with "lr".

    Raises:
        Diverged: NaN or Inf, or every learning rate of the search did so.
    """
    chosen, learns = recipes.from_plain(recipe), None
    made = Settings(**settings)
    learns = learns_by(chosen)
    if lr is not None:
        if lr["lr"] is None:
            raise Diverged("every learning rate of the search diverged")
        made = dataclasses.replace(made, **{learns: lr["lr"]})
    return _train(bench, bench.data(**data), chosen, made, seed, update) | {"lr": getattr(made, learns)}


def _train(bench: Bench, data: Data, recipe: Any_, settings: Settings, seed: int, update: list[int] | None) -> dict:
    trainer = Trainer(data, recipe, seed, settings, bench.device)
    if update is not None:
        quantize_updates(trainer, LNSFormat(*update))
    result = trainer.run(on_step=lambda _: bench.tick())
    return dataclasses.asdict(result)


def quantize_updates(trainer: Trainer, format: LNSFormat) -> None:
    """Keeps float32 weights in an LNS format: they are rounded to its nearest number now, and after each update (Q_U of
    LNS-Madam around another optimizer).
    """
    q = LNS(format)
    weights = [p for p in trainer.model.parameters() if p.dim() > 1]

    @torch.no_grad()
    def rounded(*_) -> None:
        for p in weights:
            p.copy_(q.value(*q.quantize(p, None, -1)))

    rounded()
    trainer.optimizer.register_step_post_hook(rounded)


def search(
    bench: Bench,
    data: dict,
    samples: int,
    recipe: Any,
    settings: dict,
    factors: list[float],
    update: list[int] | None = None,
) -> dict:
    """The best learning rate of one epoch on a part of the training set, a fifth of which is held out and tested on.

    See :func:`lns_sim.studies.search.search`.

    Returns:
        "lr" (None: all diverged), "tried": pairs of rate and result (None: it diverged), "end": "smallest" or "largest"
        where the best is that of all tried.
    """
    chosen, made = recipes.from_plain(recipe), dataclasses.replace(Settings(**settings), epochs=1)
    learns = learns_by(chosen)
    whole = bench.data(**data)
    held = part(whole, min(samples, len(whole.x_train)), None).held_out(HELD_OUT)

    def attempt(lr: float) -> float | None:
        try:
            result = _train(bench, held, chosen, dataclasses.replace(made, **{learns: lr}), 0, update)
        except Diverged:
            return None
        return result["test"][-1]

    best = max if "%" in whole.measure else min
    tried = rates.search(attempt, getattr(made, learns), factors, best, EXTEND)
    lr, end = rates.best_of(tried, best)
    return {"lr": lr, "tried": list(tried.items()), "end": end}


# ---- Runs of them.


def _step_seconds(task: Task, recipe: Any_, update: object) -> float:
    r = recipe.default if isinstance(recipe, ModelRecipe) else recipe
    if r is None or not r.quantizes:
        kind = "float32"
    elif r.forward is not None:
        kind = "logarithms" if isinstance(r.forward, LogDatapath) else "datapaths"
    elif isinstance(r.error, LNS) or isinstance(r.activation, LNS):
        kind = "LNS"
    else:
        kind = "random" if r.stochastic else "other"
    gradients = 3.0 if r is not None and r.optimizer in ("halp", "svrg", "lp-svrg") else 1.0  # and full ones
    return gradients * (STEP[kind] + FURTHER.get(task.network, 0.0) + (10 if update else 0)) / 1000


# Samples of the sets that the full preset is for, where a task takes all.
_USUAL = {"images": 50_000, "text": 7_800}


def searching(
    preset: Preset, task: Task, recipe: Any_, *, name: str | None = None, update: list[int] | None = None, **changes
) -> dict[str, Run]:
    """The run that searches a recipe's learning rate, as :func:`training` takes it; nothing where the preset's factors
    are one.
    """
    if len(preset.factors) == 1:
        return {}
    arguments = {
        "data": task.source,
        "samples": task.searched,
        "recipe": recipes.to_plain(recipe),
        "settings": dataclasses.asdict(task.settings(**changes)),
        "factors": list(preset.factors),
        **({"update": update} if update else {}),
    }
    steps = 4 * 0.8 * task.searched / task.batch
    shown = name or (recipe.name if recipe else "fp32")
    seconds = steps * _step_seconds(task, recipe, update)
    return {"lr": Run(f"{task.network}, {shown}, learning rate", search, arguments, seconds=seconds)}


def training(
    task: Task,
    recipe: Any_,
    seed: int,
    *,
    name: str | None = None,
    update: list[int] | None = None,
    after: dict[str, Run] | None = None,
    **changes,
) -> Run:
    """A run that trains the task's network by a recipe.

    Args:
        task, recipe, seed: what.
        name: the recipe's in the run's name.
        update: see :func:`train`.
        after: what :func:`searching` gave.
        changes: of the settings.
    """
    settings = task.settings(**changes)
    arguments = {
        "data": task.source,
        "recipe": recipes.to_plain(recipe),
        "settings": dataclasses.asdict(settings),
        "seed": seed,
        **({"update": update} if update else {}),
    }
    steps = settings.epochs * (task.train or _USUAL[task.data]) / task.batch
    shown = name or (recipe.name if recipe else "fp32")
    return Run(
        f"{task.network}, {shown}, seed {seed}",
        train,
        arguments,
        after or {},
        seconds=steps * _step_seconds(task, recipe, update),
    )
