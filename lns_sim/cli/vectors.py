"""lns-sim vectors: golden vectors for a hardware design."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.cli.command import command
from lns_sim.cli.console import Output
from lns_sim.cli.options import Force, run_folder
from lns_sim.datapath import Datapath
from lns_sim.golden import make_vectors


@command
def vectors(
    out: Annotated[Path, typer.Argument(help="folder for a.hex, b.hex, acc.hex and vectors.json")],
    source: Annotated[
        str, typer.Option(help="random, corner, or npz:PATH with integer codes a and b of shape (dot products, K)")
    ] = "random",
    count: Annotated[int, typer.Option(help="dot products (random)")] = 1000,
    k: Annotated[int, typer.Option(help="length of a dot product (random, corner)")] = 128,
    seed: Annotated[int, typer.Option(help="of the random codes")] = 0,
    force: Force = False,
    *,
    datapath: Datapath,
    output: Output,
) -> None:
    """Write operands and accumulators for a hardware design: hex for $readmemh, JSON that says how to read it."""
    made = make_vectors(datapath, source, count, k, seed)
    path = made.write(run_folder(out, "vectors", force))
    output.show(
        f"Wrote {len(made.a):,} dot products of {made.a.shape[1]} codes to {path.parent}: a.hex, b.hex, "
        f"acc.hex, {path.name}.",
        plain=True,
    )
    output.result(json.loads(path.read_text()))
