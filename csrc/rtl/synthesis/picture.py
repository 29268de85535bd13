"""Pictures of what designs come to, block by block."""

from __future__ import annotations

from pathlib import Path

from csrc.rtl.synthesis.blocks import BLOCKS
from lns_sim.environment import caption
from lns_sim.studies.pictures import finish, pyplot


def bars(found: dict[str, dict[str, float]], title: str, label: str, record: dict, path: Path) -> None:
    """A bar for each name, stacked by block, in a PNG and as SVG; in small print what made it, of the record and its
    tools.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9.5, 0.3 * len(found) + 2.6), layout="constrained")
    left = dict.fromkeys(found, 0.0)
    for i, block in enumerate(BLOCKS.values()):
        values = [blocks.get(block, 0.0) for blocks in found.values()]
        if any(values):
            axes.barh(list(found), values, left=list(left.values()), color=f"C{i}", label=block)
        left = {name: at + value for (name, at), value in zip(left.items(), values)}
    axes.invert_yaxis()
    axes.set(xlabel=label)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    finish(figure, title, f"{caption(record)}; {record['tools']}", path)
