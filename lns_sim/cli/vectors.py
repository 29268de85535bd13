"""lns-sim vectors and check-vectors: golden vectors for a hardware design, and its results held against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.cli.command import command, refuse
from lns_sim.cli.console import Output
from lns_sim.cli.options import Force, run_folder
from lns_sim.datapath import Datapath
from lns_sim.environment import provenance
from lns_sim.files import write_json
from lns_sim.golden import check_results, make_vectors, read_vectors


@command
def vectors(
    ctx: typer.Context,
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
    if source != "random":
        refuse(ctx, ["count"] if source == "corner" else ["count", "k"], f"the source {source} has its own")
    made = make_vectors(datapath, source, count, k, seed)
    path = made.write(run_folder(out, "vectors", force))
    output.show(
        f"Wrote {len(made.a):,} dot products of {made.a.shape[1]} codes to {path.parent}: a.hex, b.hex, "
        f"acc.hex, {path.name}.",
        plain=True,
    )
    record = provenance(**{"seed": seed, **json.loads(path.read_text())})
    write_json(record, path)
    output.result(record)


@command
def check_vectors(
    golden: Annotated[Path, typer.Argument(help="folder that 'lns-sim vectors' wrote")],
    results: Annotated[Path, typer.Argument(help="the design's accumulators, one hex word for each dot product")],
    *,
    output: Output,
) -> None:
    """Compare a design's accumulators with the golden ones; names the first that differs, with every intermediate."""
    vectors = read_vectors(golden)
    mismatch = check_results(vectors, results)
    if mismatch:
        output.show(str(mismatch), plain=True)
        output.result(
            {
                "equal": False,
                "index": mismatch.index,
                "name": mismatch.name,
                "got": mismatch.got,
                "expected": mismatch.expected,
            }
        )
        raise typer.Exit(1)
    output.show(f"All {len(vectors.accumulators):,} accumulators are equal.", plain=True)
    output.result({"equal": True, "dot_products": len(vectors.accumulators)})
