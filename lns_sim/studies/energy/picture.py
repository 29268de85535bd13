"""Energies as pictures: formats side by side, passes and layers of LNS stacked by component; the paper's table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from lns_sim.recipes import PASSES
from lns_sim.studies.energy.energy import Energy
from lns_sim.studies.energy.paper import RECALLED, TABLE

_AROUND = ("idle lanes", "buffer A", "buffer B")  # beside the products, on top of them
_NAMED = 60  # layers whose names have room below the axis


def draw(found: Energy, title: str, origin: str, path: Path) -> None:
    """Writes a PNG or whatever the path's ending asks for; ``origin`` is the line below that says what made it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    layers = found.layers()
    passes = [name for name in PASSES if any(row.name == name for row in found.rows)]
    formats = {name: found.components(name) for name in found.formats}
    stacks = [
        (formats, "formats"),
        ({name.replace("_", " "): found.components("LNS", name) for name in passes}, "LNS by pass"),
        (layers, "LNS by layer, all passes"),
    ]
    names = dict.fromkeys(n for parts in formats.values() for n in parts)
    color = colors(sorted(names, key=_AROUND.__contains__))
    widths = [0.5 * len(formats) + 1, 2.5, min(max(5.0, 0.2 * len(layers)), 14.0)]
    figure, axes = plt.subplots(1, 3, figsize=(sum(widths) + 1, 6.2), width_ratios=widths, layout="constrained")
    for place, (bars, name) in zip(axes, stacks):
        stack(place, bars, color)
        place.set(title=name)
        place.tick_params(axis="x", rotation=90, labelsize=8)
    axes[0].set(ylabel="mJ a training iteration")
    if len(layers) > _NAMED:
        axes[2].set_xticks(range(0, len(layers), 10), range(1, len(layers) + 1, 10))
        axes[2].set_xlabel("layer, in the order of the forward pass")
    axes[2].margins(x=0.01)
    handles = {h.get_label(): h for place in axes for h in place.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=8)
    finish(figure, title, origin, path)


def draw_paper(found: dict[str, Energy], origin: str, path: Path) -> None:
    """The paper's table and this estimate's, model by model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, places = plt.subplots(1, len(TABLE), figsize=(11, 4.5), layout="constrained")
    for place, (model, row) in zip(places, TABLE.items()):
        at = range(len(row))
        place.bar([i - 0.2 for i in at], [found[model].total(f) for f in row], 0.4, color="C0", label="here")
        place.bar([i + 0.2 for i in at], row.values(), 0.4, color="C1", label="LNS-Madam (IEEE TC 2022)")
        place.set_xticks(at, row)
        place.set(title=f"{model}\n(recalled)" if model in RECALLED else model)
        place.grid(axis="y", alpha=0.3)
    places[0].set(ylabel="mJ a training iteration, batch 1")
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    finish(figure, "The paper's table", origin, path)


def finish(figure, title: str, origin: str, path: Path) -> None:
    """Title, the line that says what made it, and the file."""
    import matplotlib.pyplot as plt

    figure.suptitle(title)
    lines = textwrap.wrap(origin, int(15 * figure.get_figwidth()), break_on_hyphens=False)
    figure.supxlabel("\n".join(lines), fontsize=7, color="0.4", x=0.01, ha="left")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def colors(names: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A color of its own for each name."""
    from matplotlib import colormaps

    return dict(zip(names, colormaps["tab10" if len(names) <= 10 else "tab20"].colors))


def stack(place, bars: dict[str, dict[str, float]], color: dict) -> None:
    """A bar for each key, stacked by component."""
    bottom = [0.0] * len(bars)
    for name in color:
        values = [parts.get(name, 0.0) for parts in bars.values()]
        if any(values):
            place.bar(range(len(bars)), values, bottom=bottom, color=color[name], label=name)
            bottom = [b + v for b, v in zip(bottom, values)]
    place.set_xticks(range(len(bars)), bars)
    place.set_ylim(0, 1.05 * max(bottom))
    place.grid(axis="y", alpha=0.3)
