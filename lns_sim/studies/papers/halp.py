"""HALP (arXiv 1803.03383): least squares, where its few bits go on to where those of its rivals stop."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from lns_sim import recipes
from lns_sim.optim.halp import HALP, least_squares_in_integers
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset, length
from lns_sim.studies.papers.study import Cell, Claim, Published, Row, Study, compared, find, groups, panels, points
from lns_sim.studies.papers.training import searching, training

PAPER = "HALP, arXiv 1803.03383"
IN_INTEGERS = "halp, all in integers"
METHODS = ("halp", IN_INTEGERS, "svrg", "lp-svrg", "lp-sgd", "sgd")
LR = 0.002  # of least squares


def least_squares() -> tuple[Tensor, Tensor]:
    """Float64 data x (1000, 100) and y (1000,) of a noisy linear model."""
    n, d = 1000, 100
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    w = 0.55 * torch.randn(d, generator=g, dtype=torch.float64)
    return x, x @ w + torch.randn(n, generator=g, dtype=torch.float64)


def gradient_norms(method: str, epochs: int = 30, tick=lambda: None, **options) -> list[float]:
    """Norms of the full gradient of ``mean (x_i w - y_i)^2 / 2``, before the first and after every epoch of n steps on
    one sample.
    """
    x, y = least_squares()
    if method == IN_INTEGERS:
        return least_squares_in_integers(x, y, LR, epochs, **options)
    w = nn.Parameter(torch.zeros(x.shape[1], dtype=x.dtype))
    optimizer = HALP([w], LR, method, **options)
    generator = torch.Generator().manual_seed(1)

    def full() -> None:
        w.grad = x.T @ (x @ w.detach() - y) / len(x)

    norms = []
    for _ in range(epochs):
        tick()
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


def norms(bench: Bench, method: str, bits: int, epochs: int) -> list[float]:
    """:func:`gradient_norms`, as a run."""
    return gradient_norms(method, epochs, tick=bench.tick, bits=bits)


class LeastSquares(Study):
    """Norm of the full gradient by epoch, on a strongly convex problem."""

    name = "halp-least-squares"
    title = "HALP: least squares in 8 and 4 bits"
    paper = (
        f"{PAPER}, figure 1: HALP converges linearly, as SVRG does, where LP-SVRG and LP-SGD stop at their grid's noise"
    )

    def cells(self, preset: Preset) -> list[Cell]:
        return [
            Cell(
                {"method": method, "bits": bits if "lp" in method or "halp" in method else 64},
                "norm of the full gradient",
                [
                    Run(
                        f"least squares by {method}, {bits} bits",
                        norms,
                        dict(method=method, bits=bits, epochs=preset.convex),
                        seconds=10,
                    )
                ],
                lambda result: result[-1],
            )
            for bits in (8, 4)
            for method in METHODS
            if bits == 8 or method in ("halp", "lp-svrg")
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        axes = figure.subplots()
        for row in rows:
            name = f"{row.labels['method']}, {row.labels['bits']} bits"
            axes.plot(*(row.results or [[]]), label=name if row.results else f"{name}: diverged")
        axes.set(yscale="log", xlabel="epoch", ylabel=rows[0].measure)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)

    def claims(self, rows: list[Row]) -> list[Claim]:
        def at(method: str, bits: int) -> float | None:
            row = find(rows, method=method, bits=bits)
            return math.inf if row and row.diverged else row and row.mean

        def claim(text: str, low: float | None, high: float | None, factor: float) -> Claim:
            if low is None or high is None:
                return Claim(text, "not measured")
            return Claim(text, "holds" if low * factor < high else "does not hold")

        svrg, svrg_lp, sgd_lp = at("svrg", 64), at("lp-svrg", 8), at("lp-sgd", 8)
        return [
            claim("HALP in 8 bits ends within ten times SVRG's norm", at("halp", 8), svrg and 10 * svrg, 1),
            claim("HALP in 8 bits ends a thousand times below LP-SVRG", at("halp", 8), svrg_lp, 1000),
            claim("HALP in 8 bits ends a thousand times below LP-SGD", at("halp", 8), sgd_lp, 1000),
            claim("HALP in 4 bits ends a thousand times below LP-SVRG in 8", at("halp", 4), svrg_lp, 1000),
        ]

    def note(self, preset: Preset) -> str:
        return f"n = 1,000, d = 100, float64, learning rate 0.002, mu 3, fixed grids of 1/64, {preset.convex} epochs"


# ---- A deep net, by bits of the offset and epochs from one full gradient to the next.

_HALP = {(8, 0.5): 92.1, (8, 1): 90.9, (8, 3): 88.4, (4, 0.5): 89.1, (2, 0.5): 32.0}
_SVRG = {0.5: 91.0, 1: 85.4}
EPOCHS = 6


class Grid(Study):
    """Accuracy of a deep net by bits and T, beside SVRG in full precision and SGD."""

    name = "halp-grid"
    title = "HALP: bits and epochs between full gradients"
    paper = (
        f"{PAPER}: HALP in 8 bits is above SVRG in full precision, the more so the oftener it re-centers; SGD is above "
        "both"
    )

    def cells(self, preset: Preset) -> list[Cell]:
        task, found = preset.network, []

        def cell(method: str, bits: int, period: float | None, recipe, lr, printed: float | None) -> None:
            name = f"{method}, {bits} bits, T {period}"
            trained = [training(task, recipe, seed, name=name, after=lr, epochs=EPOCHS) for seed in range(preset.seeds)]
            source = printed and Published(printed, "published", f"{PAPER}, ResNet-18 on CIFAR-10, 150 epochs")
            found.append(Cell({"method": method, "bits": bits, "T": period}, task.measure, trained, published=source))

        halp, svrg = recipes.get("halp"), recipes.get("svrg")
        lr = searching(preset, task, halp)
        for bits in (8, 4, 2):
            for period in (0.5, 1, 3):
                options = {**dict(halp.optimizer_options), "bits": bits, "period": period}
                used = dataclasses.replace(halp, optimizer_options=options)
                cell("halp", bits, period, used, lr, _HALP.get((bits, period)))
        lr = searching(preset, task, svrg)
        for period in (0.5, 1):
            used = dataclasses.replace(svrg, optimizer_options={"period": period})
            cell("svrg", 32, period, used, lr, _SVRG[period])
        cell("sgd, momentum", 32, None, None, searching(preset, task, None), 94.5)
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        axes = figure.subplots()
        named = [dataclasses.replace(r, labels={"run": ", ".join(_said(r))}) for r in rows]
        points(axes, named, "run")

    def claims(self, rows: list[Row]) -> list[Claim]:
        def at(method: str, bits: int, period: float | None) -> Row | None:
            return find(rows, method=method, bits=bits, T=period)

        eight = at("halp", 8, 0.5)
        return [
            compared("HALP in 8 bits is better than SVRG", eight, at("svrg", 32, 0.5)),
            compared("HALP is better with T 1/2 than with T 3", eight, at("halp", 8, 3)),
            compared("8 bits are better than 4", eight, at("halp", 4, 0.5)),
            compared("4 bits are better than 2", at("halp", 4, 0.5), at("halp", 2, 0.5)),
            compared("SGD is better than HALP", at("sgd, momentum", 32, None), eight),
        ]

    def note(self, preset: Preset) -> str:
        task = dataclasses.replace(preset.network, epochs=EPOCHS)
        return f"{length(task)}; mu 20; learning rates searched at 8 bits and T 1/2, of SVRG and SGD for themselves"


def _said(row: Row) -> list[str]:
    period = row.labels["T"]
    said = [row.labels["method"], f"{row.labels['bits']} bits"]
    return said if period is None else [*said, f"T {period:g}"]


# ---- Bit-centered layers.


class BitCentered(Study):
    """Logistic regression and LeNet whose products, too, are in 8 bits."""

    name = "halp-bit-centered"
    title = "HALP: bit-centered layers of 8 bits"
    paper = f"{PAPER}: with bit-centered layers training in 8 bits ends where SVRG in full precision does"

    def cells(self, preset: Preset) -> list[Cell]:
        found = []
        halp, svrg, fixed = (recipes.get(name) for name in ("halp", "svrg", "lp-sgd"))
        centered = dataclasses.replace(halp, optimizer_options={**dict(halp.optimizer_options), "layer_bits": 8})
        for network in ("logistic", "lenet"):
            task = dataclasses.replace(preset.network, network=network)
            of_halp = searching(preset, task, halp)
            for method, recipe, lr in (
                ("SGD with momentum, float32", None, searching(preset, task, None)),
                ("SVRG, float32", svrg, searching(preset, task, svrg)),
                ("HALP, offset in 8 bits", halp, of_halp),
                ("HALP, bit-centered layers in 8 bits", centered, of_halp),
                ("LP-SGD, weights in 8 bits", fixed, searching(preset, task, fixed)),
            ):
                trained = [
                    training(task, recipe, seed, name=method, after=lr, epochs=EPOCHS) for seed in range(preset.seeds)
                ]
                found.append(Cell({"network": network, "method": method}, task.measure, trained))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        for axes, group in panels(figure, groups(rows, "network")):
            points(axes, group, "method")

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for network, group in groups(rows, "network").items():
            ours = find(group, method="HALP, bit-centered layers in 8 bits")
            for other, text in (("SVRG, float32", "SVRG"), ("HALP, offset in 8 bits", "HALP with float32 products")):
                claim = f"{network}: bit-centered layers lose less than a point against {text}"
                found.append(compared(claim, ours, find(group, method=other), margin=-1))
        return found

    def note(self, preset: Preset) -> str:
        tasks = (dataclasses.replace(preset.network, network=n, epochs=EPOCHS) for n in ("logistic", "lenet"))
        return f"{length(*tasks)}; mu 20, T 1/2; learning rates searched, of HALP with float32 products"
