"""Switching activity of the PE, gate by gate, on tensors of networks in training and on random ones, beside integer
and floating-point vectors.

Run it: python -m csrc.rtl.synthesis.activity (`make activity`; needs Yosys). The gates of `make area` are simulated,
one operand held for as many clocks as the collector has entries, 16 in most, and these in turn (the paper's
local-A-stationary dataflow). The unit is one switched gate input: a net that changes counts once for each gate input
that it drives; a flip-flop's clock input changes twice a clock. Without delays, and with one of a step for each gate,
so that glitches count.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from csrc.rtl.synthesis import gates, glitches, operands, picture, yosys
from csrc.rtl.synthesis.blocks import BLOCKS, CONVERSION
from csrc.rtl.synthesis.operands import SOURCES, TRANSFORMER
from csrc.rtl.synthesis.table import Row, papers_conversion, rows
from lns_sim.environment import provenance
from lns_sim.files import write_json
from lns_sim.recipes import PASSES

STREAMS, VECTORS = 512, 9  # of each source, simulated side by side; of K
GLITCH_STREAMS, GLITCH_VECTORS = 64, 2  # with delays


def measure(row: Row) -> dict[str, dict[str, float]]:
    """Switched gate inputs for each product: by source, then by block; "gated clock" and "glitches" instead of a source
    for the mean of the convolution's passes with clocks that run only where a word changes, and with delays.
    """
    netlist = gates.netlist(row.design)
    inputs = operands.inputs(row, SOURCES, STREAMS, VECTORS, netlist)
    products = (len(inputs["in_first"]) - 1 - row.warm_up) * STREAMS * 32
    activity = netlist.run(inputs, skip=row.warm_up)
    inputs = operands.inputs(row, PASSES, GLITCH_STREAMS, GLITCH_VECTORS, netlist)
    glitching = glitches.run(netlist, inputs, np.ones(netlist.nets, int), skip=row.warm_up)
    clock = 2 * netlist.flip_flops / 32
    switched, written = (
        x.reshape(netlist.nets, len(SOURCES), -1).sum(-1) for x in (activity.switched, activity.written)
    )
    found = {source: _by_block(netlist, n, products, clock) for source, n in zip(SOURCES, switched.T)}
    gated = {source: 2 * float(n.sum()) / products for source, n in zip(SOURCES, written.T)}
    passes = {block: float(np.mean([found[p][block] for p in PASSES])) for block in BLOCKS.values()}
    found["gated clock"] = passes | {"clock": float(np.mean([gated[p] for p in PASSES]))}
    products = len(PASSES) * (len(inputs["in_first"]) - 1 - row.warm_up) * GLITCH_STREAMS * 32
    found["glitches"] = _by_block(netlist, glitching.sum(1), products, clock)
    return found


def _by_block(netlist, switched: np.ndarray, products: int, clock: float) -> dict[str, float]:
    found = dict.fromkeys(BLOCKS.values(), 0.0)
    for block, count in netlist.by_block(switched * netlist.loads).items():
        found[BLOCKS[block]] = count / products
    return found | {"clock": clock}


def mean(found: dict[str, dict[str, float]], sources: tuple[str, ...], blocks: tuple[str, ...] | None = None) -> float:
    """Over sources, of some blocks or of all."""
    return float(np.mean([sum(found[s][b] for b in blocks or BLOCKS.values()) for s in sources]))


def main(out: Path) -> None:
    """Measures all designs, two at a time; prints the table, writes activity.json and activity.png."""
    from rich.table import Table

    from lns_sim.cli.console import make_console

    operands.trained()
    console = make_console(170)
    with ThreadPoolExecutor(2) as pool, console.status("synthesizing and simulating"):
        found = dict(zip((row.name for row in rows()), pool.map(measure, rows())))
    table = Table(
        title="Switched gate inputs for each product",
        caption="mean: of the convolution's passes, to its left; conversion: what stands between registers and "
        "collector, of that mean, to LUT 1; paper: its energy of conversion (LNS-Madam, IEEE TC 2022), to LUT 1",
    )
    shown = ("random", "idle", *PASSES)
    heads = ("mean", "gated clock", "glitches", "transformer", "conversion", "paper")
    for name in ("design", *(s.replace("_", " ") for s in shown), *heads):
        table.add_column(name, justify="left" if name == "design" else "right")
    paper = papers_conversion()
    for name, sources in found.items():
        means = (PASSES, ("gated clock",), ("glitches",), TRANSFORMER)
        numbers = [*(mean(sources, (s,)) for s in shown), *(mean(sources, group) for group in means)]
        first, energy = paper.get(name, (None, 0.0))
        ratio = mean(sources, PASSES, CONVERSION) / mean(found[first], PASSES, CONVERSION) if first else 0.0
        table.add_row(name, *(f"{x:.0f}" for x in numbers), *((f"{ratio:.2f}", f"{energy:.2f}") if first else ("", "")))
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    record = provenance(tools=yosys.version(), designs=found)
    write_json(record, out / "activity.json")
    shares = {
        name: {block: float(np.mean([sources[p][block] for p in PASSES])) for block in BLOCKS.values()}
        for name, sources in found.items()
    }
    label = "switched gate inputs for each product, mean of three passes"
    title = "Switching activity, 32 lanes, 16 accumulators, no delays"
    picture.bars(shares, title, label, record, out / "activity.png")
    print(f"Wrote {out / 'activity.json'} and {out / 'activity.png'}.")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/activity"))
    except RuntimeError as error:
        sys.exit(str(error))
