"""lns-sim rtl: the hardware's sources for a datapath, with what a tool needs to read them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.cli.command import DATAPATH, command, flag, given
from lns_sim.cli.console import Output
from lns_sim.cli.options import Force, run_folder
from lns_sim.datapath import Datapath
from lns_sim.environment import caption, provenance
from lns_sim.rtl import GUIDES, ROOT
from lns_sim.rtl.design import MICROARCHITECTURES, Design
from lns_sim.rtl.design import datapath as design_of

FOLDERS = {
    "pe": "the processing element and its post-processing",
    "common": "what it is built of",
    "log": "a processing element that adds logarithms, but for its correction tables (docs/rtl.md)",
    "rivals": "vectors of integer and floating-point products with the same shell and accumulators, for comparisons",
    "simulation": "`testbench.cpp`, a bench for Verilator, which says how its vectors are laid out; "
    "`cocotb_vectors.py`, a cocotb test of golden vectors",
    "guides": "scripts to read and run, `vectors_for_rtl.py` first",
}
README = """# {top}

The processing element of a logarithmic-number-system training chip in synthesizable SystemVerilog, with its
post-processing.

| | |
|---|---|
{folders}
| `files.f` | the sources of `{top}`, in the order in which tools read them |
| `parameters.f` | the parameters of this datapath, as Verilator takes them |

    verilator --lint-only --unroll-count 512 --top-module {top} -f files.f -f parameters.f
    lns-sim vectors golden {options}--count 50
    python simulation/cocotb_vectors.py golden

The ports are those of `pe/{top}.sv`. This instance is

```systemverilog
{top} #(
{parameters}
) pe (...);
```

Made by {caption}.
"""


def write(design: Design, options: str, made: str, folder: Path) -> list[str]:
    """Writes the files and tells their names."""
    shipped = [path for path in ROOT.glob("*/*.sv") if path.parent.name != "formal"]
    shipped += [ROOT / "simulation" / name for name in ("testbench.cpp", "cocotb_vectors.py")]
    shipped += GUIDES.glob("*.py")
    for path in shipped:
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    folders = sorted({path.parent.name for path in shipped})
    (folder / "files.f").write_text("".join(f"{path}\n" for path in design.sources))
    (folder / "parameters.f").write_text("".join(f"-G{name}={value}\n" for name, value in design.parameters))
    about = README.format(
        top=design.top,
        folders="\n".join(f"| `{name}` | {FOLDERS[name]} |" for name in folders),
        parameters=",\n".join(f"    .{name}({value})" for name, value in design.parameters),
        options=options,
        caption=made,
    )
    (folder / "README.md").write_text(about)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@command
def rtl(
    ctx: typer.Context,
    out: Annotated[Path, typer.Argument(help="folder for the sources")],
    microarchitecture: Annotated[
        str, typer.Option(help=f"{' or '.join(MICROARCHITECTURES)} (docs/rtl.md)")
    ] = MICROARCHITECTURES[0],
    force: Force = False,
    *,
    datapath: Datapath,
    output: Output,
) -> None:
    """Write the processing element in SystemVerilog with the parameters of a datapath: sources, test benches, guides, a
    file list and a README.
    """
    if microarchitecture not in MICROARCHITECTURES:
        raise ValueError(f"--microarchitecture is {' or '.join(MICROARCHITECTURES)}, got {microarchitecture!r}")
    design = design_of(datapath, microarchitecture)
    record = provenance(top=design.top, parameters=dict(design.parameters))
    chosen = {name: value for name, value in given(ctx).items() if name in {"bits", "gamma", *DATAPATH}}
    options = "".join(f"{flag(name)} {value} " for name, value in chosen.items())
    files = write(design, options, caption(record), run_folder(out, "rtl", force))
    output.show(f"Wrote {len(files)} files to {out}; README.md says what they are and how to simulate them.")
    output.result({**record, "files": files})
