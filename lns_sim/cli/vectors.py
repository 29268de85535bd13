"""lns-sim vectors and check-vectors: golden vectors for a hardware design, and its results held against them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.accumulators import AccumulatorConverter
from lns_sim.cli.command import command, flag, integers_of, refuse
from lns_sim.cli.console import Output
from lns_sim.cli.options import Force, run_folder
from lns_sim.datapaths import AnyDatapath
from lns_sim.format import LNSFormat
from lns_sim.golden import WordLayout, check_results, make_vectors, read_vectors
from lns_sim.golden.vectors import NAME
from lns_sim.log_datapath import LogDatapath

CODES = "Codes of accumulators"


@command
def vectors(
    ctx: typer.Context,
    out: Annotated[Path, typer.Argument(help="folder for hex files and vectors.json")],
    source: Annotated[
        str,
        typer.Option(
            help="random, corner, or npz:PATH with integer codes a and b of shape (dot products, K), with --block also "
            "their shifts a_shifts and b_shifts of shape (dot products, blocks)"
        ),
    ] = "random",
    count: Annotated[int, typer.Option(help="dot products (random)")] = 1000,
    k: Annotated[int, typer.Option(help="length of a dot product (random, corner)")] = 128,
    seed: Annotated[int, typer.Option(help="of random codes and scales")] = 0,
    intermediates: Annotated[
        bool, typer.Option("--intermediates", help="write bins, Y and Z of every vector, too")
    ] = False,
    word: Annotated[
        str | None,
        typer.Option(
            help="layout of a code, highest bit first: s sign, z zero flag, eN the exponent of N bits, less half of "
            "--product-offset; e.g. s,z,e7",
            show_default="the code itself",
        ),
    ] = None,
    a_format: Annotated[
        str | None, typer.Option(help="bits:gamma of a's codes, e.g. 5:2", show_default="the datapath's")
    ] = None,
    b_format: Annotated[str | None, typer.Option(help="of b's codes", show_default="the datapath's")] = None,
    block: Annotated[
        int | None, typer.Option(help="elements along K that share a scale, on either side", show_default="no blocks")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="of all, in octaves", show_default="they change", rich_help_panel=CODES)
    ] = None,
    code_underflow: Annotated[
        str, typer.Option(help="clamp or flush", rich_help_panel=CODES)
    ] = AccumulatorConverter.underflow,
    code_range: Annotated[
        str | None,
        typer.Option(help="lowest:highest exponent", show_default="all that codes have", rich_help_panel=CODES),
    ] = None,
    code_thresholds: Annotated[
        str | None,
        typer.Option(help="between them, gamma mantissas", show_default="the paper's", rich_help_panel=CODES),
    ] = None,
    code_mantissa_bits: Annotated[
        int, typer.Option(help="bits of an accumulator that are converted", rich_help_panel=CODES)
    ] = AccumulatorConverter.mantissa_bits,
    code_rounding: Annotated[
        str, typer.Option(help="to these bits: nearest or truncate", rich_help_panel=CODES)
    ] = AccumulatorConverter.rounding,
    force: Force = False,
    *,
    datapath: AnyDatapath,
    output: Output,
) -> None:
    """Write operands, accumulators and their codes for a hardware design: hex for $readmemh, JSON that says how to
    read it.
    """
    if source != "random":
        refuse(ctx, ["count"] if source == "corner" else ["count", "k"], f"the source {source} has its own")
        if source != "corner" or scale is not None:
            refuse(ctx, ["seed"], "nothing is drawn")
    log = isinstance(datapath, LogDatapath)
    if log:
        codes = [p.name for p in ctx.command.params if getattr(p, "rich_help_panel", None) == CODES]
        refuse(ctx, ["word", *codes], "accumulators of a datapath that adds logarithms are not converted")
        refuse(ctx, ["block"], "a datapath that adds logarithms has no shifts for blocks")
    bias, odd = divmod(0 if log else datapath.product_offset, 2)
    if word is not None and odd:
        raise ValueError(f"--word takes half of --product-offset as its bias, got {datapath.product_offset}")
    layout = None if word is None else WordLayout(word, bias)
    exponents = None if code_range is None else integers_of("code_range", code_range, ":")
    converter = AccumulatorConverter(
        datapath.format,
        underflow=code_underflow,
        exponents=exponents or (layout and layout.exponents(datapath.format)),
        offset=bias if layout else 0,
        mantissa_bits=code_mantissa_bits,
        rounding=code_rounding,
        thresholds=None if code_thresholds is None else integers_of("code_thresholds", code_thresholds, ","),
    )
    formats = None
    if a_format is not None or b_format is not None:
        formats = (_format("a_format", a_format, datapath), _format("b_format", b_format, datapath))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = make_vectors(datapath, source, count, k, seed, None if log else converter, scale, layout, formats, block)
    for warning in caught:
        output.tell(f"Warning: {warning.message}.")
    record = made.write(run_folder(out, "vectors", force), intermediates)
    results = ["plus.hex", "minus.hex"] if log else ["scale.hex", "code.hex"]
    of_vectors = ["products.hex", "sums.hex"] if log else ["bins.hex", "y.hex", "z.hex"]
    operands = ["a.hex", "b.hex", *["a_shift.hex", "b_shift.hex"] * (block is not None)]
    files = [*operands, "acc.hex", *results, *of_vectors * intermediates]
    fates = ("saturated", "cancelled", "vanished", "zero")
    output.show(
        f"Wrote {len(made.a):,} dot products of {made.a.shape[1]} codes to {out}: {', '.join(files)}, {NAME}.",
        "Of the accumulators " + ", ".join(f"{made.coverage[name]:,} {name}" for name in fates) + ".",
    )
    output.result(record)


def _format(name: str, text: str | None, datapath: AnyDatapath) -> LNSFormat:
    if text is None:
        return datapath.format
    fields = integers_of(name, text, ":")
    if len(fields) != 2:
        raise ValueError(f"{flag(name)} takes bits:gamma, got {text!r}")
    return LNSFormat(*fields)


@command
def check_vectors(
    golden: Annotated[Path, typer.Argument(help="folder that 'lns-sim vectors' wrote")],
    results: Annotated[Path, typer.Argument(help="the design's accumulators, one hex word for each dot product")],
    codes: Annotated[Path | None, typer.Option(help="the codes that it made of them, in the same form")] = None,
    *,
    output: Output,
) -> None:
    """Compare a design's accumulators with the golden ones; names the first that differs, with every intermediate."""
    vectors = read_vectors(golden)
    mismatch = check_results(vectors, results, codes)
    if mismatch:
        output.show(str(mismatch), plain=True)
        if output.quiet:
            typer.echo(f"lns-sim: {str(mismatch).splitlines()[0]}", err=True)
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
    output.show(f"All {len(vectors.accumulators):,} accumulators{' and codes' if codes else ''} are equal.")
    output.result({"equal": True, "dot_products": len(vectors.accumulators)})
