"""Energies as pictures: formats side by side, passes and layers of LNS stacked by component; the paper's table."""

from __future__ import annotations

from pathlib import Path

from lns_sim.recipes import PASSES
from lns_sim.studies.energy.energy import Energy
from lns_sim.studies.energy.paper import RECALLED, TABLE
from lns_sim.studies.pictures import colors, finish, pyplot, stack

_AROUND = ("idle lanes", "buffer A", "buffer B")  # beside the products, on top of them
_NAMED = 60  # layers whose names have room below the axis


def draw(found: Energy, title: str, origin: str, path: Path) -> None:
    """Writes a PNG or whatever the path's ending asks for; ``origin`` is the line below that says what made it."""
    plt = pyplot()
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
    plt = pyplot()
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
