"""lns-sim info: what is installed and how it was built."""

from __future__ import annotations

from rich.table import Table

from lns_sim import _extension
from lns_sim.cli.command import command
from lns_sim.cli.console import Output
from lns_sim.environment import environment


@command
def info(*, output: Output) -> None:
    """Show versions, the instruction set in use, threads and how the extension was built."""
    core, env = _extension.load(), environment()
    build = env["build"]
    table = Table(show_header=False)
    table.add_row("lns_sim", env["lns_sim"])
    table.add_row("torch", f"{env['torch']} (extension: stable ABI of torch >= {build['torch_abi']})")
    table.add_row("python", env["python"])
    table.add_row("compiler", build["compiler"])
    table.add_row(
        "CUDA kernels", build["cuda"] or "not built (needs nvcc and a CUDA build of torch when lns_sim is installed)"
    )
    table.add_row("GPUs", ", ".join(env["gpus"]) or "none")
    table.add_row(
        "instruction set", f"{core.isa()} (available: {', '.join(core.available_isas())}; force: LNS_SIM_ISA)"
    )
    table.add_row("threads", str(env["threads"]))
    output.show(table)
    output.result({**env, "available_isas": core.available_isas()})
