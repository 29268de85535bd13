"""LUQ (arXiv 2112.10769): which passes and which of its roundings matter, their bias and error, samples."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lns_sim import recipes
from lns_sim.quantizers import LUQ, Integer, Quantizer
from lns_sim.random import random_state
from lns_sim.recipes import Recipe
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset, length
from lns_sim.studies.papers.study import Cell, Claim, Row, Study, compared, find, groups, panels, points
from lns_sim.studies.papers.training import searching, training

PAPER = "LUQ, arXiv 2112.10769"
BOTH = recipes.get("luq")
FP4 = BOTH.error


def with_error(error: Quantizer | None) -> Recipe:
    """LUQ's recipe with gradients quantized otherwise."""
    return dataclasses.replace(BOTH, error=error)


# Gradients by the paper's figure 2; the forward pass is INT4 in all.
_GRADIENTS: dict[str, Quantizer] = {
    "FP4": dataclasses.replace(FP4, below="flush", above="nearest"),
    "FP4 + stochastic rounding": dataclasses.replace(FP4, below="flush"),
    "FP4 + stochastic underflow": dataclasses.replace(FP4, above="nearest"),
    "FP4 + both (LUQ)": FP4,
    "INT4, unbiased": Integer(4, "stochastic"),
}


class Training(Study):
    """Which passes lose accuracy, and which of LUQ's two roundings must be unbiased."""

    name = "luq-training"
    title = "LUQ: passes, and parts of the gradients' rounding"
    paper = f"{PAPER}, figure 2: both roundings must be unbiased; INT4 gradients fail"

    def cells(self, preset: Preset) -> list[Cell]:
        task = preset.network
        lr = searching(preset, task, None)
        variants: dict[str, Recipe | None] = {
            "float32": None,
            "forward only": with_error(None),
            "backward only": dataclasses.replace(BOTH, activation=None, weight=None),
        } | {name: with_error(error) for name, error in _GRADIENTS.items()}
        tuned = dict(epochs=task.epochs + 1, fine_tune=1)
        runs = {name: (recipe, {}) for name, recipe in variants.items()} | {"LUQ, fine-tuned": (BOTH, tuned)}
        return [
            Cell(
                {"quantized": name},
                task.measure,
                [training(task, recipe, seed, name=name, after=lr, **changes) for seed in range(preset.seeds)],
            )
            for name, (recipe, changes) in runs.items()
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        points(figure.subplots(), rows, "quantized")

    def claims(self, rows: list[Row]) -> list[Claim]:
        full = find(rows, quantized="FP4 + both (LUQ)")
        others = [name for name in _GRADIENTS if "both" not in name]
        found = [compared(f"LUQ is better than {name}", full, find(rows, quantized=name)) for name in others]
        text = "LUQ loses less than a point against float32"
        found.append(compared(text, full, find(rows, quantized="float32"), margin=-1))
        return [*found, compared("fine-tuning (table 3) helps", find(rows, quantized="LUQ, fine-tuned"), full)]

    def note(self, preset: Preset) -> str:
        return (
            f"{length(preset.network)}; products of the codes' values; float32's learning rate for all, searched; "
            "fine-tuned: an epoch more, which quantizes weights alone"
        )


# ---- Bias and error of roundings (table 1).

_SCHEMES: dict[str, Quantizer] = {
    "INT4, nearest": Integer(4),
    "INT4, stochastic": Integer(4, "stochastic"),
    "LUQ": FP4,
    "LUQ, nearest above alpha": dataclasses.replace(FP4, above="nearest"),
    "LUQ, flushed below alpha": dataclasses.replace(FP4, below="flush"),
    "LUQ, nearest and flushed": dataclasses.replace(FP4, below="flush", above="nearest"),
}


def spread_normal(elements: int) -> Tensor:
    """Normal numbers whose sizes spread over seven e-folds, as gradients' do."""
    x = torch.randn(elements, generator=torch.Generator().manual_seed(0)) * torch.exp(torch.linspace(-6, 1, elements))
    x[0] = x.abs().max()
    return x


def rounding(scheme: Quantizer, draws: int) -> dict[str, float]:
    """Squared bias, variance and squared error of a quantizer over so many draws, relative to the mean square of what
    is rounded; "z": root mean square of the bias in units of the standard error of unbiased rounding, 1 where there is
    no bias.
    """
    x = spread_normal(2000)
    values, whole = _drawn(scheme, x, draws), x.double().square().mean()
    bias = values.mean(0) - x
    unbiased = {"below": "stochastic", "above": "stochastic"} if isinstance(scheme, LUQ) else {"rounding": "stochastic"}
    least = _drawn(dataclasses.replace(scheme, **unbiased), x, draws).var(0)
    where = least > 1e-6 * whole
    return {
        "bias^2": (bias.square().mean() / whole).item(),
        "variance": (values.var(0, correction=0).mean() / whole).item(),
        "error": ((values - x).square().mean() / whole).item(),
        "z": (bias / (least / draws).sqrt())[where].square().mean().sqrt().item(),
    }


def _drawn(scheme: Quantizer, x: Tensor, draws: int) -> Tensor:
    """What it makes of x, draw by draw, in float64."""
    many = x.expand(draws, -1).contiguous()
    return scheme.value(*scheme.quantize(many, random_state(1) if scheme.stochastic else None, -1)).double()


def roundings(bench: Bench, scheme: str, draws: int) -> dict[str, float]:
    """:func:`rounding` of a scheme by name."""
    return rounding(_SCHEMES[scheme], draws)


class Rounding(Study):
    """Bias, variance and error of rounding gradients."""

    name = "luq-rounding"
    title = "LUQ: bias, variance and error of roundings"
    paper = f"{PAPER}, table 1: stochastic rounding has no bias, and more error than rounding to nearest"

    def cells(self, preset: Preset) -> list[Cell]:
        draws = 4000
        return [
            Cell(
                {"rounding": name},
                "squared error, relative",
                [Run(f"rounding by {name}", roundings, {"scheme": name, "draws": draws}, seconds=3)],
                lambda result: result["error"],
                more=lambda results: {k: v for k, v in results[0].items() if k != "error"},
            )
            for name in _SCHEMES
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        axes, names = figure.subplots(), [row.labels["rounding"] for row in rows]
        left = [0.0] * len(rows)
        for part in ("bias^2", "variance"):
            values = [row.more[part] for row in rows]
            axes.barh(names, values, left=left, label=part)
            left = [a + b for a, b in zip(left, values)]
        axes.invert_yaxis()
        axes.set(xlabel=rows[0].measure)
        axes.legend()
        axes.grid(axis="x", alpha=0.3)

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for name in ("INT4, stochastic", "LUQ"):
            row = find(rows, rounding=name)
            if row is not None and row.values:
                holds = abs(row.more["z"] - 1) < 0.1
                found.append(
                    Claim(f"{name} has no bias (z {row.more['z']:.3f})", "holds" if holds else "does not hold")
                )
        near, random = (find(rows, rounding=f"INT4, {how}") for how in ("nearest", "stochastic"))
        if near and random and near.values and random.values:
            less = near.mean < random.mean
            text = "rounding to nearest has less error than stochastic rounding"
            found.append(Claim(text, "holds" if less else "does not hold"))
        return found

    def note(self, preset: Preset) -> str:
        return (
            "4,000 draws of 2,000 normal numbers of sizes over seven e-folds; z: bias in units of the standard "
            "error of unbiased rounding, 1 without bias"
        )


# ---- Samples of the weight gradient (figure 5).

SAMPLES = (1, 2, 4, 8, 16)


def gradient_error(samples: int) -> float:
    """Relative error of a weight gradient of so many samples of LUQ's; 0: one, rounded to nearest and flushed."""
    g = torch.Generator().manual_seed(0)
    dy = torch.randn(256, 64, generator=g) * torch.exp(torch.randn(256, 64, generator=g))
    x = torch.randn(256, 64, generator=g)
    q = FP4 if samples else dataclasses.replace(FP4, below="flush", above="nearest")
    drawn = [q.quantize(dy, random_state(i) if samples else None, -1)[0] for i in range(max(samples, 1))]
    exact = dy.T @ x
    return ((sum(drawn).T / len(drawn) @ x - exact).norm() / exact.norm()).item()


def sampled(bench: Bench, samples: int) -> float:
    """:func:`gradient_error`, as a run."""
    return gradient_error(samples)


class Samples(Study):
    """Accuracy and error of the weight gradient by the number of samples that are averaged, gradients of few bits."""

    name = "luq-samples"
    title = "LUQ: samples of the weight gradient"
    paper = f"{PAPER}, figure 5: with 2-bit gradients samples recover accuracy"
    few = LUQ(exponents=0)

    def cells(self, preset: Preset) -> list[Cell]:
        task, lr = preset.network, searching(preset, preset.network, None)
        trained = [
            Cell(
                {"gradients": f"{self.few.bits} bits", "samples": n},
                "test accuracy %",
                [
                    training(
                        task,
                        with_error(dataclasses.replace(self.few, samples=n)),
                        seed,
                        name=f"{self.few.bits}-bit gradients, {n} samples",
                        after=lr,
                    )
                    for seed in range(preset.seeds)
                ],
            )
            for n in SAMPLES
        ]
        return trained + [
            Cell(
                {"gradients": f"{FP4.bits} bits", "samples": n},
                "relative error of a weight gradient",
                [Run(f"error of {n} samples", sampled, {"samples": n})],
                lambda result: result,
            )
            for n in (0, *SAMPLES)
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        for axes, group in panels(figure, groups(rows, "gradients")):
            known = [r for r in group if r.labels["samples"] and r.values]
            errors = [r.deviation or 0.0 for r in known]
            axes.errorbar([r.labels["samples"] for r in known], [r.mean for r in known], errors, marker="o", capsize=3)
            axes.set_xscale("log", base=2)
            axes.set_xticks(SAMPLES, [str(n) for n in SAMPLES])
            axes.set(xlabel="samples", ylabel=group[0].measure, title=f"{group[0].labels['gradients']} of gradients")
            axes.grid(alpha=0.3)

    def claims(self, rows: list[Row]) -> list[Claim]:
        label = f"{self.few.bits} bits"
        pair = (find(rows, gradients=label, samples=n) for n in (SAMPLES[-1], 1))
        return [compared(f"{label}: {SAMPLES[-1]} samples are better than one", *pair)]

    def note(self, preset: Preset) -> str:
        return f"{length(preset.network)}; float32's learning rate, searched; 0 samples: rounded to nearest and flushed"
