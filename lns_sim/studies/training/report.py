"""What a finished experiment shows: one table, and the curves as a picture."""

from __future__ import annotations

import itertools
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
        macs, narrowed, saturated, vanished = (
            sum(r.total(name) for r in group) / len(group) for name in ("macs", "narrowed", "saturations", "vanished")
        )
        table.append(
            [
                name,
                spread([r.test[-1] for r in group], 4 if measure == "validation loss" else 2),
                f"{statistics.mean(r.seconds for r in group):.1f}",
                f"{macs:.3g}" if macs else "-",
                f"{group[0].weight_bytes:,}",
                share(saturated, narrowed),
                share(vanished, macs),
            ]
        )
    return table


def gpu_lines(results: list[Result]) -> list[str]:
    """What runs on a GPU tell beside the table: each recipe's peak of memory, and whose steps were no CUDA graph."""
    groups = {name: group for name, group in by_recipe(results).items() if group[0].peak_bytes}
    peaks = [f"{name} {max(r.peak_bytes for r in group) / 1e9:.2f} GB" for name, group in groups.items()]
    eager = [
        f"{name}: steps were launched operation by operation, not as a CUDA graph: {group[0].eager}."
        for name, group in groups.items()
        if group[0].eager
    ]
    return [f"GPU memory at its peak: {', '.join(peaks)}.", *eager] if peaks else []


def header(measure: str) -> list[str]:
    """The table's columns."""
    return ["recipe", measure, "seconds", "MACs simulated", "weight bytes", "saturated", "vanished"]


def draw_curves(results: list[Result], title: str, measure: str, path: Path, made: dict, tokens: int = 0) -> None:
    """Training loss and the test's measure by epoch, of text by tokens, and its validation loss by seconds of training:
    mean and range over seeds of each recipe, in a panel of its own where there are many.

    Args:
        results: of all runs.
        title: model, data and epochs.
        measure: what a test gives.
        path: a PNG, or whatever its ending asks for; the same as SVG is written beside it.
        made: a record's provenance, for the caption (:func:`lns_sim.environment.caption`).
        tokens: of an epoch; 0: the data are no text.
    """
    groups = {
        attribute: {
            name: torch.tensor([getattr(r, attribute) for r in group], dtype=torch.float64)
            for name, group in by_recipe(results).items()
        }
        for attribute in ("loss", "test")
    }
    seeds = len({r.seed for r in results})
    title += f"; mean and range of {seeds} seeds" if seeds > 1 else "; 1 seed"
    if len(groups["loss"]) > 6:
        figure = _panels(groups, measure)
    else:
        figure = _overlaid(groups, measure, tokens, _times(results) if tokens else None)
    finish(figure, title, caption(made), path)


def _times(results: list[Result]) -> dict[str, torch.Tensor] | None:
    """Seconds of training until the end of each epoch, mean over seeds; None where some are not known."""
    if any(len(r.epoch_seconds) != len(r.test) for r in results):
        return None
    return {
        name: torch.tensor([r.epoch_seconds for r in group], dtype=torch.float64).mean(0).cumsum(0)
        for name, group in by_recipe(results).items()
    }


def _curve(axes, curves: torch.Tensor, places=None, **how) -> None:
    """A recipe's mean, with a band from the lowest to the highest seed, by epoch or at places along the axis."""
    if places is None:
        places = range(1, curves.shape[1] + 1)
        axes.xaxis.get_major_locator().set_params(integer=True)
    (line,) = axes.plot(places, curves.mean(0), marker="." if curves.shape[1] == 1 else None, **how)
    axes.fill_between(places, curves.amin(0), curves.amax(0), color=line.get_color(), alpha=0.15, linewidth=0)
    axes.grid(alpha=0.3)


def _overlaid(
    groups: dict[str, dict[str, torch.Tensor]], measure: str, tokens: int, times: dict[str, torch.Tensor] | None
):
    """A panel of each quantity, with a line for each recipe."""
    panels = [("training loss", "loss", None), (measure, "test", None)] + ([(measure, "test", times)] if times else [])
    figure, all_axes = pyplot().subplots(1, len(panels), figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, attribute, places) in zip(all_axes, panels):
        for style, (name, found) in zip(itertools.cycle(["-", "--", ":", "-."]), groups[attribute].items()):
            million = [tokens * epoch / 1e6 for epoch in range(1, found.shape[1] + 1)] if tokens else None
            _curve(axes, found, million if places is None else places[name], ls=style, label=name)
        unit = "million tokens" if tokens else "epoch"
        axes.set(title=title, xlabel=unit if places is None else "seconds of training")
    all_axes[0].set_yscale("log")
    all_axes[-1].legend(loc="best")
    return figure


def _panels(groups: dict[str, dict[str, torch.Tensor]], measure: str):
    """A panel of each quantity for each recipe, before the means of all others in grey."""
    across = 5
    down = -(-len(groups["loss"]) // across)
    figure = pyplot().figure(figsize=(12, 2 * (1.55 * down + 0.5)), layout="constrained")
    for part, (attribute, curves), name in zip(figure.subfigures(2), groups.items(), ("training loss", measure)):
        part.suptitle(name, fontweight="bold")
        digits = 2 if "%" in name else 3
        places = part.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for place in places.flat[len(curves) :]:
            place.set_axis_off()
        for place, recipe in zip(places.flat, curves):
            for other in curves.values():
                place.plot(range(1, other.shape[1] + 1), other.mean(0), color="0.85", lw=0.8)
            _curve(place, curves[recipe], color="C0", lw=1.6)
            place.set_title(f"{recipe}: {spread(curves[recipe][:, -1].tolist(), digits)}", fontsize=7)
            place.tick_params(labelsize=8)
            if attribute == "loss":
                place.set_yscale("log")
        part.supxlabel("epoch", fontsize=9)
    return figure
