"""lns-sim check-vectors: a design's results held against golden vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lns_sim.cli.command import command
from lns_sim.cli.console import Output
from lns_sim.golden import check_results, read_vectors


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
