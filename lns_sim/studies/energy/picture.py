"""An energy as a picture: formats side by side, and every layer of the simulated one, stacked by component."""

from __future__ import annotations

from pathlib import Path

from lns_sim.studies.energy.energy import COMPONENTS, Energy

_NAMED = 60  # layers whose names have room below the axis


def draw(found: Energy, title: str, path: Path) -> None:
    """Writes a PNG or whatever the path's ending asks for."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    layers = found.layers()
    width = min(max(10.0, 0.2 * len(layers) + 4), 20.0)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(width, 5.5), width_ratios=[1, max(2.0, width / 4)], layout="constrained"
    )
    color = {name: f"C{i}" for i, name in enumerate(COMPONENTS)}
    _stack(left, {name: found.components(name) for name in found.formats}, color)
    left.set(title="formats", ylabel="mJ a training iteration")
    left.tick_params(axis="x", rotation=90)
    _stack(right, layers, color)
    right.set(title="LNS by layer, all passes", ylabel="mJ a training iteration")
    if len(layers) <= _NAMED:
        right.tick_params(axis="x", rotation=90, labelsize=8)
    else:
        right.set_xticks(range(0, len(layers), 10), range(1, len(layers) + 1, 10))
        right.set_xlabel("layer, in the order of the forward pass")
    right.margins(x=0.01)
    handles = {h.get_label(): h for axes in (left, right) for h in axes.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _stack(axes, bars: dict[str, dict[str, float]], color: dict[str, str]) -> None:
    bottom = [0.0] * len(bars)
    for name in COMPONENTS:
        values = [parts.get(name, 0.0) for parts in bars.values()]
        if any(values):
            axes.bar(range(len(bars)), values, bottom=bottom, color=color[name], label=name)
            bottom = [b + v for b, v in zip(bottom, values)]
    axes.set_xticks(range(len(bars)), bars)
    axes.grid(axis="y", alpha=0.3)
