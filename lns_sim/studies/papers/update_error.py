"""LNS-Madam (IEEE TC 2022): what rounding an update to a logarithmic grid costs, and the theorem's bounds."""

from __future__ import annotations

import math
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.studies import models
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.lns_madam import PAPER
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset
from lns_sim.studies.papers.study import Cell, Claim, Row, Study, find, groups, panels

RULES = ("gradient descent", "multiplicative", "sign-multiplicative")
RATES = tuple(0.2 / 4**n for n in range(6))  # none of them a whole step of a grid
GAMMAS = (8, 32, 128, 512)
DRAWS = 8
NOISE = 3  # standard errors, within which errors are level


def update(rule: str, w: Tensor, g: Tensor, lr: float) -> Tensor:
    """log2 of the weights' magnitudes after an update.

    Gradient descent takes ``lr g`` off a weight, a multiplicative update ``lr g sign(w)`` off its logarithm, a
    sign-multiplicative one ``lr sign(g) sign(w)``.
    """
    if rule == "gradient descent":
        return torch.log2((w - lr * g).abs())
    moved = g if rule == "multiplicative" else g.sign()
    return torch.log2(w.abs()) - lr * moved * w.sign()


def bound(rule: str, w: Tensor, g: Tensor, lr: float, gamma: int) -> float:
    """The theorem's bound of the expected squared error in log2, for weights on the grid and stochastic rounding."""
    d = w.numel()
    if rule == "gradient descent":
        moved = torch.log2(w.abs()) - update(rule, w, g, lr)
        return math.sqrt(d) / gamma * moved.norm().item()
    return math.sqrt(d) * lr / gamma * g.norm().item() if rule == "multiplicative" else d * lr / gamma


def error(x: Tensor, gamma: int, seed: int, draws: int) -> tuple[float, float]:
    """The mean squared distance of logarithms from where stochastic rounding puts them, on a grid of gamma an octave,
    over so many draws, and the standard error of that mean.
    """
    g, variances, means = torch.Generator().manual_seed(seed), [], []
    for _ in range(draws):
        u = torch.rand(x.shape, generator=g, dtype=x.dtype)
        squares = (torch.floor(gamma * x + u) / gamma - x).square()
        means.append(squares.mean().item())
        variances.append(squares.var().item())
    return statistics.mean(means), math.sqrt(statistics.mean(variances) / (draws * x.numel()))


def gradient(bench: Bench, data: dict, network: str, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """All weights of a network as it is initialized, and their gradients on one batch, in float64; those without a
    gradient are left out.
    """
    known = bench.data(**data)
    torch.manual_seed(seed)
    model = models.build(network, known.input_shape, known.classes).to(bench.device)
    x, y = (t[:batch].to(bench.device) for t in (known.x_train, known.y_train))
    F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    weights = [p for p in model.parameters() if p.dim() > 1]
    w, g = (
        torch.cat([t.detach().flatten() for t in found]).double().cpu()
        for found in (weights, [p.grad for p in weights])
    )
    return w[(w != 0) & (g != 0)], g[(w != 0) & (g != 0)]


def errors(bench: Bench, data: dict, network: str, batch: int, seed: int, draws: int) -> list[dict]:
    """Error, its standard error, and bound of each rule, gamma and learning rate, a weight. Gradients are divided by
    their root mean square, as LNS-Madam normalizes them.
    """
    w, g = gradient(bench, data, network, batch, seed)
    g /= g.square().mean().sqrt()
    rms, found = w.square().mean().sqrt(), []
    for gamma in GAMMAS:
        on_grid = w.sign() * torch.exp2(torch.round(gamma * torch.log2(w.abs())) / gamma)
        for rule in RULES:
            for lr in RATES:
                bench.tick()
                scaled = lr * rms.item() if rule == "gradient descent" else lr  # relative to the weights
                x = update(rule, on_grid, g, scaled)
                mean, noise = error(x, gamma, seed, draws)
                b = bound(rule, on_grid, g, scaled, gamma) / w.numel()
                labels = {"rule": rule, "gamma": gamma, "learning rate": lr}
                found.append({**labels, "error": mean, "noise": noise, "bound": b})
    return found


def _cell(runs: list[Run], rule: str, gamma: int, lr: float) -> Cell:
    def read(result: list[dict], what: str = "error") -> float:
        return next(r[what] for r in result if (r["rule"], r["gamma"], r["learning rate"]) == (rule, gamma, lr))

    def more(results: list) -> dict[str, float]:
        noise = math.sqrt(sum(read(r, "noise") ** 2 for r in results)) / len(results)
        return {"bound": statistics.mean(read(r, "bound") for r in results), "standard error": noise}

    labels = {"rule": rule, "gamma": gamma, "learning rate": lr}
    return Cell(labels, "squared error of log2|w|, a weight", runs, read, more=more)


class UpdateError(Study):
    """Squared error of log2|w| by learning rate and gamma, for three kinds of updates."""

    name = "lns-madam-update-error"
    title = "LNS-Madam: error of an update that is rounded to the grid"
    paper = (
        f"{PAPER}: bounds of the error; gradient descent's grows with the change of its logarithms, and that of "
        "sign-multiplicative updates with the learning rate alone"
    )

    def cells(self, preset: Preset) -> list[Cell]:
        task = preset.network
        runs = [
            Run(
                f"{task.network}, errors of updates, seed {seed}",
                errors,
                {"data": task.source, "network": task.network, "batch": task.batch, "seed": seed, "draws": DRAWS},
                seconds=10,
            )
            for seed in range(preset.seeds)
        ]

        return [_cell(runs, rule, gamma, lr) for rule in RULES for gamma in GAMMAS for lr in RATES]

    def draw(self, figure, rows: list[Row]) -> None:
        for axes, group in panels(figure, groups(rows, "rule"), sharey=True):
            for i, (gamma, points) in enumerate(groups(group, "gamma").items()):
                rates = [r.labels["learning rate"] for r in points]
                axes.plot(rates, [r.mean for r in points], "o", color=f"C{i}", label=f"gamma {gamma}")
                axes.plot(rates, [r.more["bound"] for r in points], "--", color=f"C{i}")
            axes.set(xscale="log", yscale="log", xlabel="learning rate")
            axes.set_xscale("log", base=2)
            axes.grid(alpha=0.3)
        axes.legend(fontsize=8, title="lines: bounds")
        figure.axes[0].set(ylabel=rows[0].measure)

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for rule, group in groups(rows, "rule").items():
            done = [r for r in group if r.values]
            over = [r for r in done if r.mean - r.more["bound"] > NOISE * r.more["standard error"]]
            verdict = "not measured" if not done else "does not hold" if over else "holds"
            text = f"{rule}: the error is not above the bound ({len(done) - len(over)} of {len(done)} points)"
            found.append(Claim(text, verdict))
        for rule in RULES[1:]:
            pairs = [
                (row, find(rows, **{**row.labels, "rule": RULES[0]}))
                for row in rows
                if row.labels["rule"] == rule and row.values
            ]
            z = [
                (other.mean - ours.mean) / math.hypot(ours.more["standard error"], other.more["standard error"])
                for ours, other in pairs
            ]
            less, more = sum(v > NOISE for v in z), sum(v < -NOISE for v in z)
            verdict = "does not hold" if more else "holds" if less == len(z) else "within the spread"
            text = f"{rule} updates err less than gradient descent ({less} of {len(z)} points; at {more} more)"
            found.append(Claim(text, verdict if z else "not measured"))
        return found

    def note(self, preset: Preset) -> str:
        return (
            f"weights of {preset.network.network} as initialized and their gradients of one batch "
            "over their root mean square; learning rates of gradient descent times the weights' root mean square; "
            f"weights lie on the grid, {DRAWS} draws of stochastic rounding; no clipping; errors are level within "
            f"{NOISE} standard errors"
        )
