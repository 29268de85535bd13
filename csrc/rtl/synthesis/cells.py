"""Area, clock period and energy of all designs in the cells of a Liberty file, from one netlist a design.

Run it: python -m csrc.rtl.synthesis.cells (`make cells`; needs Yosys, OpenSTA and, without a Liberty file of your own,
Debian's qflow-tech-osu018). Yosys maps the design, OpenSTA times that netlist, and the netlist is simulated on the
operands of :mod:`csrc.rtl.synthesis.operands`, with the cells' delays and without; :mod:`csrc.rtl.synthesis.power`
prices its switching.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tomlkit

from csrc.rtl.design import RTL
from csrc.rtl.synthesis import gates, glitches, operands, picture, timing, yosys
from csrc.rtl.synthesis.blocks import BLOCKS
from csrc.rtl.synthesis.library import Library
from csrc.rtl.synthesis.netlist import Netlist
from csrc.rtl.synthesis.operands import HELD, SOURCES, TRANSFORMER
from csrc.rtl.synthesis.power import Power
from csrc.rtl.synthesis.table import Row, rows
from lns_sim.environment import provenance
from lns_sim.recipes import PASSES

STREAMS, VECTORS = 64, 2  # of each source, simulated side by side; of K
OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
MEASURED = RTL.parents[1] / "lns_sim/studies/energy/measured.toml"
# By a library's name: what it is called, node in nm, source.
PROCESSES = {
    "osu018_stdcells": ("OSU 0.18 um", 180, "Oklahoma State University's standard cells, Debian's qflow-tech-osu018"),
    "osu035_stdcells": ("OSU 0.35 um", 350, "Oklahoma State University's standard cells, Debian's qflow-tech-osu035"),
    "osu05_stdcells": ("OSU 0.5 um", 500, "Oklahoma State University's standard cells, Debian's qflow-tech-osu050"),
}
# Ways to count a design's energy: with the cells' delays, without, and those with clocks that run where words change.
WAYS = ("fj", "fj_zero_delay", "fj_gated_clock")


def measure(row: Row, library: Library) -> dict:
    """What measured.toml tells of a design."""
    design = row.design
    generic = gates.netlist(design)
    with tempfile.TemporaryDirectory() as folder:
        verilog = Path(folder) / f"{design.top}.v"
        netlist = Netlist(yosys.cells(design, library.path, verilog), library.cells)
        period = timing.minimum_period(verilog, design.top, library.path)
    power = Power(netlist, library)
    found = {
        **row.about,
        "transistors": sum(gates.transistors(generic).values()),
        "luts": yosys.luts(design),
        "area_um2": round(float(netlist.per_cell(lambda cell: cell.area).sum())),
        "period_ns": round(period, 3),
    }
    inputs = operands.inputs(row, SOURCES, STREAMS, VECTORS, netlist)
    activity = netlist.run(inputs, skip=row.warm_up)
    glitching = glitches.run(netlist, inputs, power.steps(glitches.LONGEST), skip=row.warm_up)
    clocks = (len(inputs["in_first"]) - 1 - row.warm_up) * STREAMS
    energies: dict[str, dict[str, dict[str, float]]] = {way: {} for way in WAYS}
    for source, plain, written, glitchy in zip(SOURCES, activity.switched.T, activity.written.T, glitching.T):
        always = np.full(netlist.nets, clocks)
        for way, switched, ticks in zip(WAYS, (glitchy, plain, glitchy), (always, always, written)):
            blocks = power.by_block(switched, ticks, clocks * period)
            energies[way][source] = {BLOCKS[b]: 1000 * pj / clocks / 32 for b, pj in blocks.items()}
    for way, sources in energies.items():
        found[way] = {source: round(sum(blocks.values()), 1) for source, blocks in sources.items()}
        found[way]["blocks"] = {
            block: round(float(np.mean([sources[p].get(block, 0.0) for p in PASSES])), 1) for block in BLOCKS.values()
        }
    return found


def toml(found: dict[str, dict], process: dict, command: str) -> str:
    """The text of measured.toml."""
    header = f"""\
# Our hardware on real cells: written by `{command}`; not to be edited. {", ".join(versions())}.
# Of each design: transistors (Yosys' estimate for static CMOS of a generic library) and look-up tables of a series 7
# FPGA; area and shortest clock period on the process' cells, no wires; fj: femtojoule a product at that netlist's
# activity with gate delays (glitches), by source of operands: the passes of a convolution, those of a transformer
# (linear and attention), random codes, and idle (all codes zero). blocks: mean of the three passes of the convolution.
# fj_zero_delay: without glitches; fj_gated_clock: as fj, with clocks that run only where a word changes.
"""
    return header + "\n" + tomlkit.dumps({"process": process, "designs": found})


def versions() -> list[str]:
    """Of the tools."""
    sta = subprocess.run(["sta", "-version"], capture_output=True, text=True).stdout
    return [yosys.version(), f"OpenSTA {sta.split()[0]}"]


def main() -> None:
    """Measures all designs, two at a time; prints a table, writes the TOML file and a picture."""
    from rich.table import Table

    from lns_sim.cli.console import make_console

    parser = argparse.ArgumentParser(prog="python -m csrc.rtl.synthesis.cells", description=__doc__.split("\n")[0])
    parser.add_argument("--liberty", type=Path, help="cells of your own; OSU 0.18 um otherwise")
    parser.add_argument("--node", type=int, help="the node, nm, of a Liberty file of your own")
    parser.add_argument(
        "--out", type=Path, help="the file; what the energy model reads otherwise, or runs/cells/NAME.toml"
    )
    parser.add_argument(
        "--designs", nargs="+", metavar="NAME", help="only these; others that the file has already are kept"
    )
    given = parser.parse_args()
    path = given.liberty or OSU018
    if given.liberty is None and not path.exists():
        raise RuntimeError(
            "this needs cells: on Debian, apt-get install qflow-tech-osu018, or LIBERTY=FILE of your own"
        )
    library = Library(path)
    name, node, source = PROCESSES.get(library.name, (library.name, given.node, path.name))
    if node is None:
        raise RuntimeError(f"{library.name} is not known here: give its node in nm (NODE=...)")
    if given.node is not None and node != given.node:
        raise RuntimeError(f"{name} has a node of {node} nm, got {given.node}")
    process = {"name": name, "node_nm": node, "voltage": library.voltage, "wires": False, "source": source}
    chosen = [row for row in rows() if given.designs is None or row.name in given.designs]
    if given.designs and len(chosen) != len(given.designs):
        raise RuntimeError(f"designs are: {'; '.join(row.name for row in rows())}")
    complete = given.liberty is None and given.designs is None
    out = given.out or (MEASURED if complete else Path(f"runs/cells/{library.name}.toml"))
    kept = _designs(out, process) if given.designs and out.exists() else {}

    operands.trained()
    console = make_console(160)
    with ThreadPoolExecutor(2) as pool, console.status("synthesizing and simulating"):
        found = dict(zip((row.name for row in chosen), pool.map(lambda row: measure(row, library), chosen)))
    table = Table(
        title=f"{name}, {library.voltage} V, no wires: pJ a product at the cells' delays, "
        f"{STREAMS * HELD * (VECTORS - 1)} vectors"
    )
    sources = (*PASSES, "random", "idle")
    heads = ["design", "um2", "period, ns", *(s.replace("_", " ") for s in sources)]
    for head in (*heads, "mean of passes", "no glitches", "gated clock", "transformer"):
        table.add_column(head, justify="left" if head == "design" else "right")
    for design, content in found.items():
        means = [mean_of(content[way], PASSES) for way in WAYS] + [mean_of(content["fj"], TRANSFORMER)]
        energies = [*(content["fj"][s] for s in sources), *means]
        numbers = [f"{content['area_um2']:,}", f"{content['period_ns']:.2f}", *(f"{fj / 1000:.1f}" for fj in energies)]
        table.add_row(design, *numbers)
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    own = "".join(f" {k}={v}" for k, v in (("LIBERTY", given.liberty and path.name), ("NODE", given.node)) if v)
    found = kept | found
    out.write_text(toml(found, process, f"make cells{own}"))
    drawn = Path(f"runs/cells/{library.name}.png")
    drawn.parent.mkdir(parents=True, exist_ok=True)
    draw(found, f"{name}, {library.voltage} V, no wires, with glitches", drawn)
    print(f"Wrote {out} and {drawn}.")


def _designs(path: Path, process: dict) -> dict[str, dict]:
    """Those that a file has of the process."""
    held = tomlkit.parse(path.read_text()).unwrap()
    if held["process"] != process:
        raise RuntimeError(f"{path} holds designs of {held['process']['name']}, not of {process['name']}")
    return held["designs"]


def draw(found: dict[str, dict], title: str, path: Path) -> None:
    """Energy by design and block, mean of the convolution's passes."""
    shares = {name: {b: fj / 1000 for b, fj in content["fj"]["blocks"].items()} for name, content in found.items()}
    record = provenance(tools=", ".join(versions()))
    picture.bars(shares, title, "pJ a product, mean of three passes", record, path)


def mean_of(energies: dict[str, float], sources: tuple[str, ...]) -> float:
    """Over sources, fJ a product."""
    return float(np.mean([energies[s] for s in sources]))


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
