"""What each of the other systems' papers shows first, on synthetic data or digits.

Run it: python -m benchmarks.papers.headlines [NAME ...]

Functions return the numbers; the tests hold them, the command prints them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lns_sim
from lns_sim.optim import Diverged
from lns_sim.optim.halp import HALP, least_squares_in_integers
from lns_sim.quantizers import Quantizer
from lns_sim.quantizers.integer import Integer
from lns_sim.quantizers.luq import LUQ
from lns_sim.quantizers.shiftquant import ShiftQuant, optimal_grouping
from lns_sim.random import random_state
from lns_sim.recipes import Recipe
from lns_sim.studies.training import data

# ---- HALP: least squares


def least_squares(n: int = 1000, d: int = 100) -> tuple[Tensor, Tensor]:
    """Float64 data x (n, d) and y (n,) of a noisy linear model."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    w = 0.55 * torch.randn(d, generator=g, dtype=torch.float64)
    return x, x @ w + torch.randn(n, generator=g, dtype=torch.float64)


def gradient_norms(method: str, epochs: int = 30, lr: float = 0.002, **options) -> list[float]:
    """Norms of the full gradient of ``mean (x_i w - y_i)^2 / 2``, before the first and after every epoch of n steps on
    one sample.
    """
    x, y = least_squares()
    w = nn.Parameter(torch.zeros(x.shape[1], dtype=x.dtype))
    optimizer = HALP([w], lr, method, **options)
    generator = torch.Generator().manual_seed(1)

    def full() -> None:
        w.grad = x.T @ (x @ w.detach() - y) / len(x)

    norms = []
    for _ in range(epochs):
        full()
        norms.append(w.grad.norm().item())
        if optimizer.two_gradients:
            optimizer.outer(full)
        for i in torch.randint(len(x), (len(x),), generator=generator).tolist():

            def one(i=i) -> None:
                w.grad = x[i] * (x[i] @ w.detach() - y[i])

            optimizer.step(one)
    full()
    return [*norms, w.grad.norm().item()]


def halp() -> None:
    """Norms by method; HALP goes on where quantized weights stop."""
    for method in ("halp", "svrg", "lp-svrg", "lp-sgd", "sgd"):
        norms = gradient_norms(method)
        print(
            f"{method:8} 8 bits: gradient norm {norms[0]:.2g}, after 10 epochs {norms[10]:.2g}, after 30 "
            f"{norms[-1]:.2g}"
        )
    x, y = least_squares()
    print(f"halp, all in integers of 8 bits: {least_squares_in_integers(x, y, 0.002, 30)[-1]:.2g}")
    try:
        gradient_norms("halp", mu=0.1)
    except Diverged as error:
        print(f"mu 0.1: {error}")


# ---- LUQ: bias, samples, ablation


def z_scores(q: LUQ, draws: int = 4000, elements: int = 2000) -> Tensor:
    """Of the mean over draws of every quantized element against the element, in units of what LUQ's own variance gives:
    standard normal without bias."""
    x = torch.randn(elements, generator=torch.Generator().manual_seed(0)) * torch.exp(torch.linspace(-6, 1, elements))
    x[0] = x.abs().max()
    drawn = q.quantize(x.expand(draws, -1).contiguous(), random_state(1), -1)[0].double()
    size, alpha = x.abs().double(), x.abs().max().double() * 2.0**-q.exponents
    lower = torch.where(size < alpha, 0.0, alpha * torch.exp2(torch.floor(torch.log2(size / alpha))))
    variance = (size - lower) * (torch.where(lower > 0, 2 * lower, alpha) - size)
    return ((drawn.mean(0) - x) / (variance / draws).sqrt())[variance > 1e-4 * alpha**2]


def gradient_errors(samples: list[int]) -> dict[int, float]:
    """Relative error of a weight gradient by the number of LUQ's samples; 0: one, rounded to nearest and flushed."""
    g = torch.Generator().manual_seed(0)
    dy, x = (
        torch.randn(256, 64, generator=g) * torch.exp(torch.randn(256, 64, generator=g)),
        torch.randn(256, 64, generator=g),
    )
    exact = dy.T @ x
    found = {}
    for n in [0, *samples]:
        q = LUQ(below="flush", above="nearest") if n == 0 else LUQ()
        mean = sum(q.quantize(dy, random_state(i) if n else None, -1)[0] for i in range(max(n, 1))) / max(n, 1)
        found[n] = ((mean.T @ x - exact).norm() / exact.norm()).item()
    return found


class SpreadMLP(nn.Module):
    """A digits MLP whose second hidden layer's channels have gradients of very different sizes: its inputs or outputs
    are scaled by powers of two down to 2^-octaves.

    Args:
        octaves: the largest power.
        compensated: the scaled layer's weights are divided by the same, so that the function at first is the
            unscaled network's; otherwise the first hidden layer is scaled.
    """

    def __init__(self, octaves: float, compensated: bool, width: int = 128):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, 10)
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


def spread_accuracy(
    error: Quantizer | None, make: Callable[[], nn.Module], lr: float, seeds: range, epochs: int = 6
) -> list[float]:
    """Percent of the digits' test set, by seed, with this quantizer for errors only and SGD with momentum."""
    digits = data.load("digits")
    recipe = Recipe("errors", None, None, error, None, forward=None, input_gradient=None, weight_gradient=None)
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = lns_sim.convert(make(), recipe)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        order = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for i in torch.randperm(len(digits.x_train), generator=order).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(digits.x_train[i]), digits.y_train[i]).backward()
                optimizer.step()
        with torch.no_grad():
            found.append((model(digits.x_test).argmax(1) == digits.y_test).float().mean().item() * 100)
    return found


def luq_ablation(seeds: range) -> dict[str, list[float]]:
    """Three bits (zero and three powers): which of the two roundings must be unbiased."""
    variants = {
        "full": LUQ(2),
        "stochastic pruning only": LUQ(2, above="nearest"),
        "stochastic rounding only": LUQ(2, below="flush"),
        "naive": LUQ(2, below="flush", above="nearest"),
    }
    return {name: spread_accuracy(q, lambda: SpreadMLP(4, False), 0.03, seeds) for name, q in variants.items()}


def luq() -> None:
    """Bias, error by samples, ablation."""
    for name, q in (
        ("LUQ", LUQ()),
        ("nearest above alpha", LUQ(above="nearest")),
        ("flushed below alpha", LUQ(below="flush")),
    ):
        print(f"root mean square z-score over 4,000 draws, {name}: {z_scores(q).square().mean().sqrt():.3f}")
    for n, error in gradient_errors([1, 2, 4, 8, 16, 32]).items():
        print(f"relative error of a weight gradient, {f'{n} samples' if n else 'nearest and flushed'}: {error:.3f}")
    for name, found in luq_ablation(range(8)).items():
        print(f"digits, 3-bit gradients, channels spread over 4 octaves, {name}: {_spread(found)} %")


# ---- ShiftQuant: channel spread


def shiftquant_accuracies(seeds: range) -> dict[str, list[float]]:
    """Three bits: per tensor, and in four groups."""
    quantizers = {"float32": None, "per tensor": Integer(3, "stochastic"), "ShiftQuant, 4 groups": ShiftQuant(3, 4)}
    return {name: spread_accuracy(q, lambda: SpreadMLP(10, True), 0.05, seeds) for name, q in quantizers.items()}


def shiftquant_variances(groups: list[int], bits: int = 4) -> dict[int, tuple[float, float, float]]:
    """By the number of groups: measured variance of the quantized channels, its bound, and the bound of the best
    grouping into any scales; means over elements, in units of the per-tensor bound."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(512, 32, generator=g) * torch.exp2(-6 * torch.rand(32, generator=g))
    ranges = x.abs().amax(0).tolist()
    whole = (max(ranges) / ((1 << (bits - 1)) - 1)) ** 2 / 4
    found = {}
    for n in groups:
        q = ShiftQuant(bits, n)
        _, scale = q.quantize(x, random_state(0), -1)
        drawn = torch.stack([q.quantize(x, random_state(i), -1)[0] * scale for i in range(200)])
        steps = scale * 2.0 ** (n - 1) * torch.exp2(-q.shifts(q.ranges(x, -1)).float())
        best = optimal_grouping(ranges, n, bits)
        found[n] = (
            drawn.var(0).mean().item() / whole,
            steps.square().mean().item() / 4 / whole,
            statistics.mean(s * s for s in best) / 4 / whole,
        )
    return found


def shiftquant() -> None:
    """Accuracy and variance."""
    for name, found in shiftquant_accuracies(range(8)).items():
        print(f"digits, 3-bit gradients, channels spread over 10 octaves, {name}: {_spread(found)} %")
    for n, (measured, bound, best) in shiftquant_variances([1, 2, 4, 8]).items():
        print(
            f"variance to the per-tensor bound, {n} groups: {measured:.4f}, bound {bound:.4f}; best grouping "
            f"of any scales {best:.4f}"
        )


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


HEADLINES = {"halp": halp, "luq": luq, "shiftquant": shiftquant}

if __name__ == "__main__":
    names = sys.argv[1:] or list(HEADLINES)
    if not set(names) <= set(HEADLINES):
        sys.exit(f"headlines are: {', '.join(HEADLINES)}")
    for name in names:
        HEADLINES[name]()
