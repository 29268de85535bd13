"""ShiftQuant (arXiv 2411.10948): gradients in groups of channels, L1 norms, and the loss around a trained network."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim import recipes
from lns_sim.quantizers import Integer, Quantizer, ShiftQuant
from lns_sim.quantizers.quantizer import scale_to
from lns_sim.quantizers.shiftquant import optimal_grouping
from lns_sim.random import draw, random_state
from lns_sim.recipes import PASSES, Recipe
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset, length
from lns_sim.studies.papers.study import Cell, Claim, Row, Study, compared, find, panels, points
from lns_sim.studies.papers.training import searching, training
from lns_sim.studies.training.trainer import Settings, Trainer

PAPER = "ShiftQuant, arXiv 2411.10948"
BITS = 4


@dataclass(frozen=True)
class PerChannel(Quantizer):
    """Integers with a scale and a zero point for each channel, rounded at random: what no integer product along the
    channels can take, so that values stand for codes.
    """

    bits: int = BITS
    dtype: ClassVar[torch.dtype] = torch.float32
    stochastic: ClassVar[bool] = True

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        assert rng is not None
        if x.numel() == 0:
            return x, x.new_ones(())
        top = (1 << self.bits) - 1
        others = [d for d in range(x.dim()) if d != dim % x.dim()]
        low, high = x.amin(others, keepdim=True).clamp(max=0), x.amax(others, keepdim=True).clamp(min=0)
        scale = scale_to(high / 2 - low / 2, top / 2)
        lowest = (low / scale).round_()
        return (x / scale).add_(draw(x, rng)).floor_().clamp_(lowest, lowest + top).mul_(scale), x.new_ones(())

    def value(self, codes: Tensor, scale: Tensor) -> Tensor:
        return codes


WHOLE = recipes.get(f"shiftquant{BITS}")
_PER_TENSOR, _PER_CHANNEL = "per tensor", "per channel"
_GROUPED, _WITH_L1 = "ShiftQuant, 4 groups", "ShiftQuant, 4 groups, L1 norms"
_RECIPES: dict[str, Recipe | None] = {
    "float32": None,
    _PER_TENSOR: replace(WHOLE, error=Integer(BITS, "stochastic", zero_point=True), l1_norms=False),
    _PER_CHANNEL: replace(WHOLE, error=PerChannel(), l1_norms=False),
    _GROUPED: replace(WHOLE, l1_norms=False),
    _WITH_L1: WHOLE,
}


class Gradients(Study):
    """4-bit training with gradients quantized per tensor, per channel and by ShiftQuant."""

    name = "shiftquant-gradients"
    title = "ShiftQuant: how 4-bit gradients are scaled"
    paper = f"{PAPER}: 4-bit ResNets come near per-channel quantization, which integer products cannot have"

    def cells(self, preset: Preset) -> list[Cell]:
        task = preset.network
        lr = searching(preset, task, None)
        return [
            Cell(
                {"gradients": name},
                "test accuracy %",
                [training(task, recipe, seed, name=f"4 bits, {name}", after=lr) for seed in range(preset.seeds)],
            )
            for name, recipe in _RECIPES.items()
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        points(figure.subplots(), rows, "gradients")

    def claims(self, rows: list[Row]) -> list[Claim]:
        ours = find(rows, gradients=_GROUPED)
        return [
            compared("ShiftQuant is better than per tensor", ours, find(rows, gradients=_PER_TENSOR)),
            compared(
                "ShiftQuant loses less than a point against per channel",
                ours,
                find(rows, gradients=_PER_CHANNEL),
                margin=-1,
            ),
        ]

    def note(self, preset: Preset) -> str:
        return (
            f"{length(preset.network)}; weights and activations 4-bit integers per tensor; batch norms in float32 "
            "unless told otherwise; float32's learning rate, searched"
        )


class L1Norms(Study):
    """Batch norms by mean magnitudes against the usual ones."""

    name = "shiftquant-l1-norms"
    title = "ShiftQuant: L1 and L2 batch norms"
    paper = f"{PAPER}: L1 norms, quantized, lose nothing against L2 norms"

    def cells(self, preset: Preset) -> list[Cell]:
        task = preset.network
        found = []
        for name, recipe in (("L2", None), ("L1, 8 bits", l1_norms())):
            lr = searching(preset, task, None)
            runs = [training(task, recipe, seed, name=f"{name} norms", after=lr) for seed in range(preset.seeds)]
            found.append(Cell({"norms": name}, "test accuracy %", runs))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        points(figure.subplots(), rows, "norms")

    def claims(self, rows: list[Row]) -> list[Claim]:
        one, two = find(rows, norms="L1, 8 bits"), find(rows, norms="L2")
        return [compared("L1 norms lose less than a point", one, two, margin=-1)]

    def note(self, preset: Preset) -> str:
        return f"{length(preset.network)}; all else in float32; float32's learning rate, searched"


def l1_norms() -> Recipe:
    """Float32 with L1 norms."""
    return Recipe("l1-norms", None, None, None, None, **dict.fromkeys(PASSES), l1_norms=True)


# ---- Variance by the number of groups.


def variances(groups: int) -> dict[str, float]:
    """Measured variance of channels whose ranges spread over six octaves, quantized in so many groups; its bound, and
    the bound of the best grouping into any scales. Means over elements, in units of the per-tensor bound.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(512, 32, generator=g) * torch.exp2(-6 * torch.rand(32, generator=g))
    ranges = x.abs().amax(0).tolist()
    whole = (max(ranges) / ((1 << (BITS - 1)) - 1)) ** 2 / 4
    q = ShiftQuant(BITS, groups)
    _, scale = q.quantize(x, random_state(0), -1)
    drawn = torch.stack([q.quantize(x, random_state(i), -1)[0] * scale for i in range(200)])
    steps = scale * 2.0 ** (groups - 1) * torch.exp2(-q.octaves(x, -1).float())
    best = optimal_grouping(ranges, groups, BITS)
    return {
        "measured": drawn.var(0).mean().item() / whole,
        "bound": steps.square().mean().item() / 4 / whole,
        "best grouping's bound": statistics.mean(s * s for s in best) / 4 / whole,
    }


def grouped(bench: Bench, groups: int) -> dict[str, float]:
    """:func:`variances`, as a run."""
    return variances(groups)


class Variance(Study):
    """Variance of ShiftQuant's rounding by the number of groups, beside the best grouping into any scales."""

    name = "shiftquant-variance"
    title = "ShiftQuant: variance by the number of groups"
    paper = f"{PAPER}: groups by powers of two come near the best grouping"

    def cells(self, preset: Preset) -> list[Cell]:
        return [
            Cell(
                {"groups": n},
                "variance to the per-tensor bound",
                [Run(f"variance of {n} groups", grouped, {"groups": n})],
                lambda result: result["measured"],
                more=lambda results: {k: v for k, v in results[0].items() if k != "measured"},
            )
            for n in (1, 2, 4, 8)
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        axes, x = figure.subplots(), [row.labels["groups"] for row in rows]
        axes.plot(x, [row.mean for row in rows], "o-", label="measured")
        for name in ("bound", "best grouping's bound"):
            axes.plot(x, [row.more[name] for row in rows], "--", label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(n) for n in x])
        axes.set(xlabel="groups", ylabel=rows[0].measure)
        axes.legend()
        axes.grid(alpha=0.3)

    def claims(self, rows: list[Row]) -> list[Claim]:
        done = [r for r in rows if r.values]
        below = all(r.mean <= r.more["bound"] for r in done)
        text = "the variance is below its bound for every number of groups"
        return [Claim(text, "not measured" if not done else "holds" if below else "does not hold")]

    def note(self, preset: Preset) -> str:
        return "512 rows of 32 normal channels whose ranges spread over six octaves, 4 bits, 200 draws"


# ---- The loss around a trained network.


def landscape(
    bench: Bench, data: dict, recipe: Any, settings: dict, seed: int, points: int, samples: int, lr: dict | None = None
) -> list[list[float]]:
    """Training losses over a square of so many points, from -1 to 1 along two random directions around a trained
    network; each filter of a direction has its weights' norm (Li et al., arXiv 1712.09913). Parameters of one dimension
    do not move; norms use the batch's statistics.
    """
    made = settings if lr is None else {**settings, "float_lr": lr["lr"]}
    trainer = Trainer(bench.data(**data), recipes.from_plain(recipe), seed, Settings(**made), bench.device)
    trainer.run(on_step=lambda _: bench.tick())
    model, g = trainer.model, torch.Generator().manual_seed(seed)
    weights = [p for p in model.parameters() if p.dim() > 1]
    centre = [p.detach().clone() for p in weights]

    def direction() -> list[Tensor]:
        found = []
        for p in centre:
            d = torch.randn(p.shape, generator=g).to(p.device)
            size, own = d.flatten(1).norm(dim=1), p.flatten(1).norm(dim=1)
            found.append(d * (own / size).view(-1, *[1] * (p.dim() - 1)))
        return found

    one, two = direction(), direction()
    x, y = trainer.x_train[:samples], trainer.y_train[:samples]
    places = torch.linspace(-1, 1, points).tolist()
    model.train()
    losses = []
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for a in places:
            losses.append([])
            for b in places:
                bench.tick()
                for p, c, d, e in zip(weights, centre, one, two):
                    p.copy_(c + a * d + b * e)
                losses[-1].append(F.cross_entropy(model(x), y).item())
    return losses


def roughness(losses: list[list[float]]) -> float:
    """Mean magnitude of second differences along both directions: 0 for a plane."""
    t = torch.tensor(losses, dtype=torch.float64)
    return torch.cat([t.diff(n=2, dim=d).abs().flatten() for d in (0, 1)]).mean().item()


class Landscape(Study):
    """The loss along two filter-normalized directions, with L2 and with quantized L1 norms."""

    name = "shiftquant-landscape"
    title = "ShiftQuant: loss around a trained network"
    paper = f"{PAPER}: quantized L1 norms leave the loss as smooth as L2 norms"

    def cells(self, preset: Preset) -> list[Cell]:
        task = preset.network
        lr, found = searching(preset, task, None), []
        for name, recipe in (("L2", None), ("L1, 8 bits", l1_norms())):
            like = training(task, recipe, 0, after=lr)
            arguments = {
                "data": task.source,
                **{k: like.arguments[k] for k in ("recipe", "settings", "seed")},
                "points": preset.points,
                "samples": 512,
            }
            run = Run(f"{task.network}, landscape with {name} norms", landscape, arguments, lr, like.seconds + 10)
            found.append(Cell({"norms": name}, "roughness", [run], roughness))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        rows = [r for r in rows if r.values]
        levels = torch.tensor([r.results[0] for r in rows]).log()
        low, high = levels.min().item(), levels.max().item()
        found = panels(figure, {f"{r.labels['norms']} norms, roughness {r.shown}": [r] for r in rows})
        for (axes, _), level in zip(found, levels):
            places = torch.linspace(-1, 1, len(level))
            drawn = axes.contourf(places, places, level, torch.linspace(low, high, 21).tolist())
            axes.set(xlabel="direction 1", ylabel="direction 2", aspect="equal")
            figure.colorbar(drawn, ax=axes, label="log of the training loss")

    def claims(self, rows: list[Row]) -> list[Claim]:
        one, two = find(rows, norms="L1, 8 bits"), find(rows, norms="L2")
        if not (one and two and one.values and two.values):
            return []
        smooth = one.mean <= 1.1 * two.mean
        text = "L1 norms' loss is no more than a tenth rougher"
        return [Claim(text, "holds" if smooth else "does not hold")]

    def note(self, preset: Preset) -> str:
        return (
            f"{length(preset.network)}, one seed; directions from -1 to 1, each filter of the weights' norm; loss of "
            "512 training samples with the batch's statistics; roughness: mean magnitude of second differences"
        )
