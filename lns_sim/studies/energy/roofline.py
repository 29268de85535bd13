"""The roofline of a training iteration: how fast every pass can be by its products for each byte of DRAM, and where
its energy goes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lns_sim.recipes import PASSES
from lns_sim.studies.energy.cycles import Cycles
from lns_sim.studies.pictures import colors, finish, pyplot, stack


def draw(found: Cycles, title: str, origin: str, path: Path) -> None:
    """Writes a PNG or whatever the path's ending asks for; ``origin`` is the line below that says what made it."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), width_ratios=[2, 1], layout="constrained")
    steps = [s for s in found.steps if s.products]
    intensity = {id(s): s.products / sum(s.dram.values()) for s in steps}
    ridge = found.peak / found.bandwidth
    ends = [min([ridge / 4, *intensity.values()]) / 2, max([ridge * 4, *intensity.values()]) * 2]
    x = np.geomspace(*ends, 200)
    left.plot(x, np.minimum(x * found.bandwidth, found.peak), color="0.3", lw=1.2)
    offset = dict(textcoords="offset points", fontsize=8)
    text = f"{found.peak / 1e12:.3g} T products a second"
    left.annotate(text, (ends[1], found.peak), xytext=(0, 8), ha="right", **offset)
    text = f"DRAM {found.bandwidth / 1e9:.4g} GB/s"
    left.annotate(text, (ends[0], ends[0] * found.bandwidth), xytext=(8, -3), **offset)
    for i, (name, marker) in enumerate(zip(PASSES, "os^")):
        chosen = [s for s in steps if s.name == name]
        points = [intensity[id(s)] for s in chosen], [s.products / s.seconds for s in chosen]
        left.plot(*points, marker, color=f"C{i}", alpha=0.5, ms=6, label=name.replace("_", " "))
    left.set(
        xscale="log",
        yscale="log",
        ylim=(None, 3 * found.peak),
        xlabel="products for each byte of DRAM",
        ylabel="products a second",
    )
    left.set_title("roofline, a point for each layer and pass")
    left.grid(alpha=0.3)
    left.legend(frameon=False, loc="lower right")
    bars = {name.replace("_", " "): found.components(name) for name in found.names}
    stack(right, bars, colors(list(found.components())))
    right.tick_params(axis="x", rotation=90)
    right.set(title="energy by component", ylabel="mJ a training iteration")
    figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    finish(figure, title, origin, path)
