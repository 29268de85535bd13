"""Yosys, which maps a design to gates of a generic library or to an FPGA's look-up tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from csrc.rtl.design import Design

# Modules that are optimized on their own, so that each gate belongs to one of them or to what is around them. This also
# makes less of everything than Yosys does of a flat design.
BLOCKS = ("product", "term", "adder_tree", "float_add", "log_add", "collector", "queue")


def version() -> str:
    """As Yosys tells it: "Yosys 0.23"."""
    return subprocess.run(["yosys", "-V"], capture_output=True, text=True).stdout.partition(" (")[0].strip()


def gates(design: Design) -> dict:
    """The design as inverters, two-input gates, multiplexers and flip-flops: its module in Yosys' JSON, flat, with
    cells named by the instance that they belong to; raises as :func:`run`."""
    return run(
        design,
        f"""
        {_kept(design)}
        synth -flatten -top {design.top}
        dfflegalize -cell $_DFF_P_ x
        abc -g simple
        opt_clean
        {_FLATTEN}
    """,
    )


def cells(design: Design, liberty: Path, verilog: Path) -> dict:
    """The design in the cells of a Liberty file, as :func:`gates`, and written as Verilog; raises as :func:`run`."""
    return run(
        design,
        f"""
        {_kept(design)}
        synth -flatten -top {design.top}
        dfflegalize -cell $_DFF_P_ x
        dfflibmap -liberty {liberty}
        abc -liberty {liberty} -script {_ABC}
        opt_clean
        {_FLATTEN}
        design -save mapped
        splitnets -ports
        opt_clean -purge
        write_verilog -noattr -noexpr {verilog}
        design -load mapped
    """,
    )


# Restructured and mapped for delay, area given back off the slowest paths, buffers where a net has many readers.
_ABC = "+strash;ifraig;scorr;&get,-n;&dch,-f;&nf;&put;buffer,-c;topo;upsize;dnsize"


def luts(design: Design) -> int:
    """Look-up tables of up to six inputs, on a Xilinx FPGA of series 7, multipliers included; raises as :func:`run`."""
    module = run(
        design,
        f"{_kept(design)}\nsynth_xilinx -flatten -nowidelut -nodsp -noiopad -noclkbuf -top {design.top}\n{_FLATTEN}",
    )
    return sum(cell["type"].startswith("LUT") for cell in module["cells"].values())


_FLATTEN = "setattr -mod -unset keep_hierarchy *\nflatten\nopt_clean"


def _kept(design: Design) -> str:
    return (
        f"hierarchy -top {design.top}\nsetattr -mod -set keep_hierarchy 1 {' '.join(f'*{block}*' for block in BLOCKS)}"
    )


def run(design: Design, commands: str) -> dict:
    """The top module, in Yosys' JSON, after commands on a design.

    Raises:
        RuntimeError: Yosys is missing, or fails; the message is its own.
    """
    yosys = shutil.which("yosys")
    if yosys is None:
        raise RuntimeError("this needs Yosys: on Debian, apt-get install yosys")
    given = " ".join(
        f"-set {name} 32'b{value % (1 << 32):032b}" for name, value in design.parameters
    )  # Yosys reads no minus
    with tempfile.TemporaryDirectory() as folder:
        script, out = Path(folder) / "script.ys", Path(folder) / "out.json"
        script.write_text(f"""
            read_verilog -sv -DSYNTHESIS {" ".join(design.paths())}
            chparam {given} {design.top}
            {commands}
            write_json {out}
        """)
        done = subprocess.run([yosys, "-q", str(script)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Yosys, on {design.name}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        return json.loads(out.read_text())["modules"][design.top]
