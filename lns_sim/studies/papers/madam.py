"""Madam (arXiv 2006.14560): sensitivity to the learning rate."""

from __future__ import annotations

import dataclasses

from lns_sim import recipes
from lns_sim.recipes import Recipe
from lns_sim.studies.papers.presets import Preset, Task, length
from lns_sim.studies.papers.study import (
    Cell,
    Claim,
    Published,
    Row,
    Study,
    compared,
    find,
    groups,
    lines,
    panels,
    points,
)
from lns_sim.studies.papers.training import searching, training

PAPER = "Madam, arXiv 2006.14560"
RATES = (1.0, 0.1, 0.01, 0.001, 0.0001)
_PRINTED = {
    "images": {
        "Madam": (20.2, 80.0, 90.5, 83.5, 71.9),
        "SGD": (87.8, 92.6, 91.6, 86.8, 78.4),
        "Adam": (10, 91.4, 92.2, 93.3, 89.7),
    },
    "text": {
        "Madam": (3791, 368, 214, 268, 552),
        "SGD": (204, 375, 792, 2005, 16328),
        "Adam": (1e5, 25519, 1526, 258, 200),
    },
}
_WHAT = {"images": "CIFAR-10, %", "text": "Wikitext-2, perplexity: another unit than here"}


class LearningRates(Study):
    """Accuracy by learning rate over five decades, for Madam, SGD and Adam in float32."""

    name = "madam-learning-rates"
    title = "Madam, SGD and Adam by learning rate"
    paper = f"{PAPER}: Madam at 0.01 is good on every task, where SGD's and Adam's best rates differ by task"

    def cells(self, preset: Preset) -> list[Cell]:
        return [
            Cell(
                {"network": task.network, "optimizer": optimizer, "learning rate": lr},
                task.measure,
                [_run(task, optimizer, lr, seed) for seed in range(preset.seeds)],
                published=Published(_PRINTED[task.data][optimizer][i], "published", f"{PAPER}, {_WHAT[task.data]}"),
            )
            for task in (preset.network, preset.decoder)
            for optimizer in _PRINTED["images"]
            for i, lr in enumerate(RATES)
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        for axes, group in panels(figure, groups(rows, "network")):
            lines(axes, group, "learning rate", "optimizer", published="%" in group[0].measure)
            axes.set(xscale="log", yscale="linear" if "%" in group[0].measure else "log")

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for optimizer, group in groups(rows, "optimizer").items():
            best = []
            for found_here in groups(group, "network").values():
                known = [r for r in found_here if r.values]
                sign = 1 if known and "%" in known[0].measure else -1
                best += [max(known, key=lambda r: sign * r.mean).labels["learning rate"]] if known else []
            what = (
                "one learning rate is best on both tasks" if optimizer == "Madam" else "the best rates differ by task"
            )
            said = (len(set(best)) == 1) == (optimizer == "Madam")
            verdict = "not measured" if len(best) < 2 else "holds" if said else "does not hold"
            text = f"{optimizer}: {what} (best: {', '.join(f'{lr:g}' for lr in best)})"
            found.append(Claim(text, verdict, min(len(r.values) + r.diverged for r in group)))
        return found

    def note(self, preset: Preset) -> str:
        tasks = length(preset.network, preset.decoder)
        return f"{tasks}; float32; biases and norms of Madam's runs by SGD or AdamW at their usual rates"


# Bits: levels, and e-folds of one.
_LEVELS = {12: (4096, 0.001), 10: (1024, 0.005), 8: (256, 0.01)}


class Integer(Study):
    """Integer Madam by the bits of a weight's magnitude."""

    name = "madam-integer"
    title = "Integer Madam by bits"
    paper = f"{PAPER}: 12 bits are as good as float32, 10 bits nearly so, 8 bits lose more"

    def cells(self, preset: Preset) -> list[Cell]:
        found = []
        for task in (preset.network, preset.decoder):
            recipe = recipes.get("madam")
            runs = {"float32": (recipe, searching(preset, task, recipe))}
            lr = searching(preset, task, integer(12), name="integer Madam")
            runs |= {f"{bits} bits": (integer(bits), lr) for bits in _LEVELS}
            for name, (used, after) in runs.items():
                trained = [training(task, used, s, name=f"Madam, {name}", after=after) for s in range(preset.seeds)]
                found.append(Cell({"network": task.network, "weights": name}, task.measure, trained))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        for axes, group in panels(figure, groups(rows, "network")):
            points(axes, group, "weights")

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for network, group in groups(rows, "network").items():
            margin, unit = (-1.0, "a point") if "%" in group[0].measure else (-0.05, "0.05 nats")
            full = find(group, weights="float32")
            for bits in _LEVELS:
                text = f"{network}: {bits} bits lose less than {unit} against float32"
                found.append(compared(text, find(group, weights=f"{bits} bits"), full, margin))
        return found

    def note(self, preset: Preset) -> str:
        levels = ", ".join(f"{bits} bits {n} of {size:g}" for bits, (n, size) in _LEVELS.items())
        tasks = length(preset.network, preset.decoder)
        return f"{tasks}; levels of e-folds: {levels}, and a sign; learning rates of float32 and of 12 bits searched"


def integer(bits: int) -> Recipe:
    """Integer Madam with the paper's levels (of Wikitext-2)."""
    levels, size = _LEVELS[bits]
    return dataclasses.replace(recipes.get("integer-madam"), optimizer_options=dict(levels=levels, base_lr=size))


def _run(task: Task, optimizer: str, lr: float, seed: int):
    name = f"{optimizer} {lr:g}"
    if optimizer == "Madam":
        return training(task, recipes.get("madam"), seed, name=name, lr=lr)
    if optimizer == "SGD":
        return training(task, None, seed, name=name, float_optimizer="sgd", float_lr=lr, weight_decay=5e-4)
    return training(task, None, seed, name=name, float_optimizer="adamw", float_lr=lr, weight_decay=0.0)
