"""What a finished experiment shows: one table, and the curves as a picture."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from lns_sim.environment import caption
from lns_sim.studies.pictures import finish, pyplot
from lns_sim.studies.training.trainer import Result


def by_recipe(results: list[Result]) -> dict[str, list[Result]]:
    """Results grouped by recipe, in order of appearance."""
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(r.recipe, []).append(r)
    return groups


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation over seeds."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def share(part: float, whole: float) -> str:
    """A count with its share."""
    if whole == 0:
        return "-"
    return "0" if part == 0 else f"{part:.3g} ({100 * part / whole:.2g} %)"


def rows(results: list[Result], measure: str) -> list[list[str]]:
    """The table's cells, one row per recipe, under :func:`header`."""
    table = []
    for name, group in by_recipe(results).items():
        macs, vectors, saturated, vanished = (
            sum(r.total(name) for r in group) / len(group) for name in ("macs", "vectors", "saturations", "vanished")
        )
        table.append(
            [
                name,
                spread([r.test[-1] for r in group], 4 if measure == "validation loss" else 2),
                f"{statistics.mean(r.seconds for r in group):.1f}",
                f"{macs:.3g}" if macs else "-",
                f"{group[0].weight_bytes:,}",
                share(saturated, vectors),
                share(vanished, macs),
            ]
        )
    return table


def header(measure: str) -> list[str]:
    """The table's columns."""
    return ["recipe", measure, "seconds", "MACs simulated", "weight bytes", "saturated", "vanished"]


def draw_curves(results: list[Result], title: str, measure: str, path: Path, made: dict) -> None:
    """Training loss and the test's measure by epoch; a line per recipe, and of few recipes a band over seeds.

    Args:
        results: of all runs.
        title: model, data and epochs.
        measure: what a test gives.
        path: a PNG, or whatever its ending asks for.
        made: a record's provenance, for the caption (:func:`lns_sim.environment.caption`).
    """
    plt = pyplot()
    groups = by_recipe(results)
    many = len(groups) > 6
    height = max(4, 0.27 * len(by_recipe(results)) + 0.5)  # of the legend
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5 if many else 10, height), layout="constrained")
    styles = ["-", "--", ":", "-."]
    for i, (name, group) in enumerate(groups.items()):
        color = plt.get_cmap("tab20")(i % 20) if many else f"C{i}"
        for axes, attribute in ((left, "loss"), (right, "test")):
            curves = torch.tensor([getattr(r, attribute) for r in group], dtype=torch.float64)
            epochs = range(1, curves.shape[1] + 1)
            axes.plot(
                epochs,
                curves.mean(0),
                styles[i % 4],
                color=color,
                label=name,
                marker="." if curves.shape[1] == 1 else None,
            )
            if not many:
                axes.fill_between(epochs, curves.amin(0), curves.amax(0), color=color, alpha=0.15, linewidth=0)
    left.set(title="training loss", xlabel="epoch", yscale="log")
    right.set(title=measure, xlabel="epoch")
    if many:
        figure.legend(*right.get_legend_handles_labels(), loc="outside right center")
    else:
        right.legend(loc="best")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    seeds = len({r.seed for r in results})
    title += f"; mean{'' if many else ' and range'} of {seeds} seed{'s' if seeds > 1 else ''}"
    finish(figure, title, caption(made), path)
