"""Area of the PE by Yosys, against integer and floating-point vectors with the same lanes and accumulators.

Run it: python -m csrc.rtl.synthesis.area (`make area`; needs Yosys, Debian's package `yosys`). Cells of a generic
library (inverters, two-input gates, multiplexers, flip-flops); transistors as Yosys estimates them for static CMOS;
depth in gates between registers; look-up tables of an FPGA.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from csrc.rtl.design import MICROARCHITECTURES, Design, fp8_vector, int8_vector, pe
from csrc.rtl.synthesis import yosys
from csrc.rtl.synthesis.netlist import FLIP_FLOP, Netlist
from lns_sim import Datapath, LNSFormat

# LNS-Madam, IEEE TC 2022: energy of converting a product, fJ, by LUT entries; gamma 8.
PAPER_CONVERSION = {1: 12.29, 2: 14.71, 4: 17.24, 8: 19.02}


@dataclass(frozen=True)
class Area:
    """What a design comes to."""

    name: str
    cells: int
    transistors: int
    flip_flops: int
    depth: int


def designs() -> list[Design]:
    """The table's rows: microarchitectures, the LUT, gamma and the accumulator each varied from the default, and the
    other vectors.
    """
    base = Datapath()
    rows = [
        pe(replace(base, lut_entries=n), m, name=f"LNS {m}, LUT {n}")
        for m in MICROARCHITECTURES
        for n in PAPER_CONVERSION
    ]
    rows += [pe(Datapath(LNSFormat(8, g)), name=f"LNS rom, gamma {g}, LUT {g}") for g in (4, 16)]
    rows += [pe(Datapath(acc_bits=b), name=f"LNS rom, LUT 8, {b}-bit accumulator") for b in (16, 32)]
    rows += [pe(base, handshake=False, name="LNS rom, LUT 8, no handshake")]
    return [*rows, int8_vector(), fp8_vector()]


def synthesize(design: Design) -> Area:
    """What a design comes to, in the gates whose switching is counted; raises as :func:`yosys.run`."""
    netlist = Netlist(design)
    return Area(design.name, netlist.cells, sum(netlist.transistors.values()), netlist.flip_flops, netlist.depth)


def draw(areas: list[Area], path: Path) -> None:
    """Transistors of logic and of flip-flops, a bar a design."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.42 * len(areas) + 1.4), layout="constrained")
    registers = [FLIP_FLOP * a.flip_flops / 1000 for a in areas]
    logic = [a.transistors / 1000 - r for a, r in zip(areas, registers)]
    names = [a.name for a in areas]
    axes.barh(names, logic, color="C0", label="logic")
    axes.barh(names, registers, left=logic, color="C1", label="flip-flops")
    axes.invert_yaxis()
    axes.set(xlabel="thousand transistors (Yosys' estimate for static CMOS)", title="32 lanes, 16 accumulators")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(out: Path) -> None:
    """Synthesizes all designs, two at a time; prints the table, writes area.json and area.png."""
    from rich.console import Console
    from rich.table import Table

    rows = designs()
    with ThreadPoolExecutor(2) as pool, Console().status("synthesizing"):
        areas, luts = list(pool.map(synthesize, rows)), list(pool.map(yosys.luts, rows))
    known = {a.name: a for a in areas}
    first = known["INT8"].transistors
    table = Table(
        title="32 lanes, 16 accumulators",
        caption="to INT8: transistors; paper's energy: of converting one product (LNS-Madam, IEEE TC 2022), to LUT 1",
    )
    for name in ("design", "cells", "transistors", "flip-flops", "depth", "LUTs", "to INT8", "paper's energy"):
        table.add_column(name, justify="left" if name == "design" else "right")
    paper = {
        f"LNS {m}, LUT {n}": f"{fj / PAPER_CONVERSION[1]:.2f}"
        for m in MICROARCHITECTURES
        for n, fj in PAPER_CONVERSION.items()
    }
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
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "area.json").write_text(json.dumps([{**asdict(a), "luts": n} for a, n in zip(areas, luts)], indent=1))
    draw(areas, out / "area.png")
    print(f"Wrote {out / 'area.json'} and {out / 'area.png'}.")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/area"))
    except RuntimeError as error:
        sys.exit(str(error))
