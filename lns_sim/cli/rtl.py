"""lns-sim rtl: the hardware's sources for a datapath, with what a tool needs to read them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.cli.command import DATAPATH, LOG_DATAPATH, command, flag, given
from lns_sim.cli.console import Output
from lns_sim.cli.options import Force, run_folder
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.environment import caption, provenance
from lns_sim.rtl import GUIDES, ROOT
from lns_sim.rtl.design import MICROARCHITECTURES, Design, log_pe
from lns_sim.rtl.design import datapath as design_of
from lns_sim.rtl.tables import module

FOLDERS = {
    "pe": "the processing element and its post-processing",
    "common": "what they are built of",
    "log": "the processing element that adds logarithms",
    "rivals": "vectors of integer and floating-point products with the same shell and accumulators, for comparisons",
    "simulation": "`testbench.cpp`, a bench for Verilator, which says how its vectors are laid out; "
    "`cocotb_vectors.py`, a cocotb test of golden vectors through `lns_datapath`",
    "guides": "scripts to read and run, `vectors_for_rtl.py` first",
}
README = """# {top}

{what} in synthesizable SystemVerilog.

| | |
|---|---|
{folders}
| `files.f` | the sources of `{top}`, in the order in which tools read them |
| `parameters.f` | the parameters of this datapath, as Verilator takes them |

    verilator --lint-only --unroll-count 512 --top-module {top} -f files.f -f parameters.f
    lns-sim vectors golden {options}--count 50
{check}
The ports are those of `{ports}`. This instance is

```systemverilog
{top} #(
{parameters}
) pe (...);
```

Made by {caption}.
"""


PAPERS = "The processing element of a logarithmic-number-system training chip, with its post-processing,"
LOG = "A processing element that adds logarithms, with the corrections of this datapath in `{corrections}`,"
COCOTB = "    python simulation/cocotb_vectors.py golden\n"  # is of the paper's


def write(design: Design, options: str, made: str, folder: Path) -> list[str]:
    """Writes the files and tells their names."""
    shipped = [path for path in ROOT.glob("*/*.sv") if path.parent.name != "formal"]
    shipped += [ROOT / "simulation" / name for name in ("testbench.cpp", "cocotb_vectors.py")]
    shipped += GUIDES.glob("*.py")
    for path in shipped:
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    folders = sorted({path.parent.name for path in shipped})
    sources, what, check = list(design.sources), PAPERS, COCOTB
    if design.corrections is not None:
        sources.append("log/log_correction.sv")
        (folder / sources[-1]).write_text(module(design.corrections))
        what, check = LOG.format(corrections=sources[-1]), ""
    (folder / "files.f").write_text("".join(f"{path}\n" for path in sources))
    (folder / "parameters.f").write_text("".join(f"-G{name}={value}\n" for name, value in design.parameters))
    about = README.format(
        top=design.top,
        what=what,
        check=check,
        ports=next(path for path in sources if Path(path).stem == design.top),
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
    datapath: AnyDatapath,
    output: Output,
) -> None:
    """Write the processing element in SystemVerilog with the parameters of a datapath: sources, test benches, guides, a
    file list and a README.
    """
    if microarchitecture not in MICROARCHITECTURES:
        raise ValueError(f"--microarchitecture is {' or '.join(MICROARCHITECTURES)}, got {microarchitecture!r}")
    if isinstance(datapath, Datapath):
        design = design_of(datapath, microarchitecture)
    elif "microarchitecture" in given(ctx):
        raise ValueError("--microarchitecture is of the PE that adds in the linear domain, not of --log-...")
    else:
        design = log_pe(datapath)
    record = provenance(top=design.top, parameters=dict(design.parameters))
    chosen = {name: value for name, value in given(ctx).items() if name in {"bits", "gamma", *DATAPATH, *LOG_DATAPATH}}
    options = "".join(f"{flag(name)} {value} " for name, value in chosen.items())
    files = write(design, options, caption(record), run_folder(out, "rtl", force))
    output.show(f"Wrote {len(files)} files to {out}; README.md says what they are and how to simulate them.")
    output.result({**record, "files": files})
