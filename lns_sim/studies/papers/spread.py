"""LUQ and ShiftQuant where channels' gradients differ by many octaves, in 3 bits: what each of them is made for."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lns_sim import recipes
from lns_sim.nn import convert
from lns_sim.quantizers import LUQ, Integer, Quantizer, ShiftQuant
from lns_sim.recipes import PASSES, Recipe
from lns_sim.studies.papers import luq, shiftquant
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset
from lns_sim.studies.papers.study import Cell, Claim, Row, Study, compared, find, points


class SpreadMLP(nn.Module):
    """An MLP whose second hidden layer's channels have gradients of very different sizes: its inputs or outputs are
    scaled by powers of two down to 2^-octaves.

    Args:
        features, classes: of the data.
        octaves: the largest power.
        compensated: the scaled layer's weights are divided by the same, so that the function at first is the
            unscaled network's; otherwise the first hidden layer is scaled.
    """

    def __init__(self, features: int, classes: int, octaves: float, compensated: bool):
        super().__init__()
        width = 128
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, width)
        self.third = nn.Linear(width, classes)
        self.compensated = compensated
        self.register_buffer(
            "spread", torch.exp2(-octaves * torch.rand(width, generator=torch.Generator().manual_seed(7)))
        )
        if compensated:
            with torch.no_grad():
                self.second.weight /= self.spread[:, None]
                self.second.bias /= self.spread

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x.flatten(1)))
        if self.compensated:
            return self.third(torch.relu(self.second(h)) * self.spread)
        return self.third(torch.relu(self.second(h * self.spread)))


def accuracy(
    bench: Bench, data: dict, recipe: Any, octaves: float, compensated: bool, lr: float, epochs: int, seed: int
) -> float:
    """Percent of the test set, trained by SGD with momentum at batch 64."""
    known = bench.data(**data)
    torch.manual_seed(seed)
    model = SpreadMLP(math.prod(known.input_shape), known.classes, octaves, compensated)
    model = convert(model, recipes.from_plain(recipe)).to(bench.device)
    x, y = known.x_train.to(bench.device), known.y_train.to(bench.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for i in torch.randperm(len(x), generator=order).split(64):
            bench.tick()
            optimizer.zero_grad()
            F.cross_entropy(model(x[i]), y[i]).backward()
            optimizer.step()
    with torch.no_grad():
        found = model(known.x_test.to(bench.device)).argmax(1).cpu()
    return (found == known.y_test).float().mean().item() * 100


class Spread(Study):
    """Quantizers of errors alone.

    Attributes:
        errors: by name; None: float32.
        network: arguments of :func:`accuracy`.
        best, others: the one that its paper proposes, and those that it is compared with.
    """

    errors: ClassVar[dict[str, Quantizer | None]]
    network: ClassVar[dict[str, Any]]
    best: ClassVar[str]
    others: ClassVar[tuple[str, ...]]

    def cells(self, preset: Preset) -> list[Cell]:
        task = preset.network
        data = {"name": "images", "train": min(task.train or 1347, 1347), "test": min(task.test or 450, 450)}
        seeds = range(4 * preset.seeds)
        found = []
        for name, error in self.errors.items():
            recipe = recipes.to_plain(Recipe("errors", None, None, error, None, **dict.fromkeys(PASSES)))
            runs = [
                Run(
                    f"{self.name}, {name}, seed {seed}",
                    accuracy,
                    {"data": data, "recipe": recipe, **self.network, "epochs": 2 * task.epochs, "seed": seed},
                    seconds=2,
                )
                for seed in seeds
            ]
            found.append(Cell({"gradients": name}, "test accuracy %", runs, lambda result: result))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        points(figure.subplots(), rows, "gradients")

    def claims(self, rows: list[Row]) -> list[Claim]:
        ours = find(rows, gradients=self.best)
        return [compared(f"{self.best} is better than {n}", ours, find(rows, gradients=n)) for n in self.others]

    def note(self, preset: Preset) -> str:
        scaled = "second layer's gradients spread" if self.network["compensated"] else "first layer is scaled"
        return (
            f"an MLP on up to 1,347 images whose {scaled} over {self.network['octaves']} octaves, 3-bit gradients, all "
            f"else in float32; {2 * preset.network.epochs} epochs, learning rate {self.network['lr']}"
        )


class Roundings(Spread):
    """Which of LUQ's roundings must be unbiased."""

    name = "luq-spread"
    title = "LUQ: parts of the rounding where gradients spread"
    paper = f"{luq.PAPER}: both roundings must be unbiased"
    errors: ClassVar = {
        "LUQ": LUQ(2),
        "stochastic pruning only": LUQ(2, above="nearest"),
        "stochastic rounding only": LUQ(2, below="flush"),
        "neither": LUQ(2, below="flush", above="nearest"),
    }
    network: ClassVar = dict(octaves=4, compensated=False, lr=0.03)
    best, others = "LUQ", ("stochastic pruning only", "stochastic rounding only", "neither")


class Channels(Spread):
    """Groups of channels against one scale for all."""

    name = "shiftquant-spread"
    title = "ShiftQuant: groups where gradients spread"
    paper = f"{shiftquant.PAPER}: groups of channels keep what a scale per tensor loses"
    errors: ClassVar = {
        "float32": None,
        "per tensor": Integer(3, "stochastic"),
        "ShiftQuant, 4 groups": ShiftQuant(3, 4),
    }
    network: ClassVar = dict(octaves=10, compensated=True, lr=0.05)
    best, others = "ShiftQuant, 4 groups", ("per tensor",)
