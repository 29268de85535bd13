"""Area of the PE by Yosys, against integer and floating-point vectors with the same lanes and shell.

Run it: python -m csrc.rtl.synthesis.area (`make area`; needs Yosys, Debian's package `yosys`). Cells of a generic
library (inverters, two-input gates, multiplexers, flip-flops); transistors as Yosys estimates them for static CMOS;
depth in gates between registers; look-up tables of an FPGA.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from csrc.rtl.design import Design
from csrc.rtl.synthesis import gates, picture, yosys
from csrc.rtl.synthesis.blocks import BLOCKS
from csrc.rtl.synthesis.table import papers_conversion, rows
from lns_sim.environment import provenance
from lns_sim.files import write_json


@dataclass(frozen=True)
class Area:
    """What a design comes to; transistors by block."""

    name: str
    cells: int
    blocks: dict[str, int]
    flip_flops: int
    depth: int

    @property
    def transistors(self) -> int:
        return sum(self.blocks.values())


def synthesize(design: Design) -> Area:
    """What a design comes to, in the gates whose switching is counted; raises as :func:`yosys.run`."""
    netlist = gates.netlist(design)
    blocks = {BLOCKS[block]: n for block, n in gates.transistors(netlist).items()}
    return Area(design.name, netlist.cells, blocks, netlist.flip_flops, netlist.depth)


def main(out: Path) -> None:
    """Synthesizes all designs, two at a time; prints the table, writes area.json and area.png."""
    from rich.table import Table

    from lns_sim.cli.console import make_console

    designs = [row.design for row in rows()]
    console = make_console()
    with ThreadPoolExecutor(2) as pool, console.status("synthesizing"):
        areas, luts = list(pool.map(synthesize, designs)), list(pool.map(yosys.luts, designs))
    known = {a.name: a for a in areas}
    first = known["INT8"].transistors
    table = Table(
        title="32 lanes, 16 accumulators",
        caption="to INT8: transistors; paper's energy: of converting one product (LNS-Madam, IEEE TC 2022), to LUT 1",
    )
    for name in ("design", "cells", "transistors", "flip-flops", "depth", "LUTs", "to INT8", "paper's energy"):
        table.add_column(name, justify="left" if name == "design" else "right")
    paper = {name: f"{ratio:.2f}" for name, (_, ratio) in papers_conversion().items()}
    for a, n in zip(areas, luts):
        table.add_row(
            a.name,
            f"{a.cells:,}",
            f"{a.transistors:,}",
            f"{a.flip_flops:,}",
            str(a.depth),
            f"{n:,}",
            f"{a.transistors / first:.2f}",
            paper.get(a.name, ""),
        )
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    found = [{**asdict(a), "transistors": a.transistors, "luts": n} for a, n in zip(areas, luts)]
    record = provenance(tools=yosys.version(), designs=found)
    write_json(record, out / "area.json")
    thousands = {a.name: {block: n / 1000 for block, n in a.blocks.items()} for a in areas}
    label = "thousand transistors (Yosys' estimate for static CMOS)"
    picture.bars(thousands, "32 lanes, 16 accumulators", label, record, out / "area.png")
    print(f"Wrote {out / 'area.json'} and {out / 'area.png'}.")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/area"))
    except RuntimeError as error:
        sys.exit(str(error))
