"""Area of the PE by Yosys, against integer and floating-point vectors with the same lanes and accumulators.

Run it: python -m benchmarks.area (`make area`; needs Yosys, Debian's package `yosys`). Cells of a generic library
(inverters, two-input
gates, multiplexers, flip-flops); transistors as Yosys estimates them for static CMOS; depth in gates between registers.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lns_sim import Datapath, LNSFormat

RTL = Path(__file__).parent.parent / "csrc/rtl"
PE = ("lns_pkg.sv", "lns_lane.sv", "lns_adder_tree.sv", "lns_bin.sv", "collector.sv", "lns_pe.sv")
OTHERS = ("lns_pkg.sv", "lns_adder_tree.sv", "collector.sv", "sum_vector.sv")
FLIP_FLOP = 16  # transistors, in Yosys' estimate
# LNS-Madam, IEEE TC 2022: energy of converting a product, fJ, by LUT entries; gamma 8.
PAPER_CONVERSION = {1: 12.29, 2: 14.71, 4: 17.24, 8: 19.02}


@dataclass(frozen=True)
class Design:
    """One design: its name in tables, its top module, sources and parameters."""

    name: str
    top: str
    sources: tuple[str, ...]
    parameters: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Area:
    """What Yosys found."""

    name: str
    cells: int
    transistors: int
    flip_flops: int
    depth: int


def pe(name: str, d: Datapath) -> Design:
    """The PE of a datapath."""
    parameters = {
        "BITS": d.format.bits,
        "GAMMA": d.format.gamma,
        "LANES": d.vector_size,
        "LUT_ENTRIES": d.lut_entries,
        "LUT_BITS": d.lut_bits,
        "ACC_BITS": d.acc_bits,
        "ACC_LSB": d.lsb,
        "NEAREST": int(d.rounding == "nearest"),
        "WRAP": int(d.overflow == "wrap"),
    }
    return Design(name, "lns_pe", PE, tuple(parameters.items()))


def comparison_designs() -> list[Design]:
    """INT8 and FP8 vectors of the PE's lanes and accumulators."""
    return [
        Design("INT8", "int8_vector", (*OTHERS, "int8_vector.sv"), (("LANES", 32), ("ACC_BITS", 24))),
        Design("FP8 (E4M3)", "fp8_vector", (*OTHERS, "fp8_vector.sv"), (("LANES", 32), ("ACC_BITS", 24), ("DROP", 18))),
    ]


def designs() -> list[Design]:
    """The table's rows: the LUT, gamma and the accumulator each varied from the default, and the other vectors."""
    base = Datapath()
    rows = [pe(f"LNS, LUT {n}", replace(base, lut_entries=n)) for n in PAPER_CONVERSION]
    rows += [pe(f"LNS, gamma {g}, LUT {g}", Datapath(LNSFormat(8, g))) for g in (4, 16)]
    rows += [pe(f"LNS, LUT 8, {b}-bit accumulator", Datapath(acc_bits=b)) for b in (16, 32)]
    return rows + comparison_designs()


def run_yosys(design: Design, options: str, then: str) -> None:
    """Maps a design to the generic library, with Yosys' `synth` given options, and runs further commands on it.

    Raises:
        RuntimeError: Yosys is missing, or fails; the message is its own.
    """
    yosys = shutil.which("yosys")
    if yosys is None:
        raise RuntimeError("this needs Yosys: on Debian, apt-get install yosys")
    sources = " ".join(str(RTL / name) for name in design.sources)
    given = " ".join(
        f"-set {name} 32'b{value % (1 << 32):032b}" for name, value in design.parameters
    )  # Yosys reads no minus
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.ys"
        script.write_text(f"""
            read_verilog -sv -DSYNTHESIS {sources}
            chparam {given} {design.top}
            synth {options} -top {design.top}
            dfflegalize -cell $_DFF_P_ x
            abc -g simple
            opt_clean
            {then}
        """)
        run = subprocess.run([yosys, "-q", str(script)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"Yosys, on {design.name}: {(run.stderr or run.stdout).strip().splitlines()[-1]}")


def synthesize(design: Design) -> Area:
    """What a design, flattened, comes to; raises as :func:`run_yosys`."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "area.log"
        run_yosys(design, "-flatten", f"tee -q -a {log} stat -tech cmos\ntee -q -a {log} ltp -noff")
        text = log.read_text()

    def number(pattern: str) -> int:
        found = re.search(pattern, text)
        if not found:
            raise RuntimeError(f"Yosys printed no {pattern!r} for {design.name}")
        return int(found[1])

    return Area(
        design.name,
        number(r"Number of cells: +(\d+)"),
        number(r"number of transistors: +(\d+)"),
        number(r"\$_DFF_P_ +(\d+)"),
        number(r"\(length=(\d+)\)"),
    )


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
        areas = list(pool.map(synthesize, rows))
    known = {a.name: a for a in areas}
    first = known["LNS, LUT 1"].transistors
    table = Table(
        title="32 lanes, 16 accumulators",
        caption="to LUT 1: transistors; paper's energy: of converting one product (LNS-Madam, IEEE TC 2022), to LUT 1",
    )
    for name in ("design", "cells", "transistors", "flip-flops", "depth", "to LUT 1", "paper's energy"):
        table.add_column(name, justify="left" if name == "design" else "right")
    paper = {f"LNS, LUT {n}": f"{fj / PAPER_CONVERSION[1]:.2f}" for n, fj in PAPER_CONVERSION.items()}
    for a in areas:
        table.add_row(
            a.name,
            f"{a.cells:,}",
            f"{a.transistors:,}",
            f"{a.flip_flops:,}",
            str(a.depth),
            f"{a.transistors / first:.2f}",
            paper.get(a.name, ""),
        )
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "area.json").write_text(json.dumps([asdict(a) for a in areas], indent=1))
    draw(areas, out / "area.png")
    print(f"Wrote {out / 'area.json'} and {out / 'area.png'}.")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/area"))
    except RuntimeError as error:
        sys.exit(str(error))
