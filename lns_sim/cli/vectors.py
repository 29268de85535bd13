"""lns-sim vectors and check-vectors: golden vectors for a hardware design, and its results held against them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.accumulators import AccumulatorConverter
from lns_sim.cli.errors import user_errors
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.golden import WordLayout, check_results, make_vectors, read_vectors


def _integers(option: str, text: str | None, separator: str) -> tuple[int, ...] | None:
    try:
        return text and tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise ValueError(f"{option} takes integers separated by {separator!r}, got {text!r}") from None


def vectors(
    out: Annotated[Path, typer.Argument(help="folder for hex files and vectors.json")],
    source: Annotated[
        str, typer.Option(help="random, corner, or npz:PATH with integer codes a and b of shape (dot products, K)")
    ] = "random",
    count: Annotated[int, typer.Option(help="dot products (random)")] = 1000,
    k: Annotated[int, typer.Option(help="length of a dot product (random, corner)")] = 128,
    seed: Annotated[int, typer.Option(help="of random codes and scales")] = 0,
    bits: Annotated[int, typer.Option(help="bits of a code")] = LNSFormat.bits,
    gamma: Annotated[int, typer.Option(help="base factor: codes per octave")] = LNSFormat.gamma,
    vector_size: Annotated[int, typer.Option(help="lanes per accumulation")] = Datapath.vector_size,
    lut_entries: Annotated[int | None, typer.Option(help="constants", show_default="gamma")] = None,
    lut_bits: Annotated[int, typer.Option(help="bits of a constant")] = Datapath.lut_bits,
    acc_bits: Annotated[int, typer.Option(help="bits of the accumulator")] = Datapath.acc_bits,
    acc_lsb: Annotated[
        int | None, typer.Option(help="log2 of the accumulator's unit", show_default="from --headroom-bits")
    ] = None,
    headroom_bits: Annotated[
        int, typer.Option(help="of the accumulator above the largest product")
    ] = Datapath.headroom_bits,
    rounding: Annotated[str, typer.Option(help="truncate or nearest")] = Datapath.rounding,
    overflow: Annotated[str, typer.Option(help="saturate or wrap")] = Datapath.overflow,
    lut_constants: Annotated[
        str | None, typer.Option(help="the constants themselves, e.g. 128,152,181,215", show_default="the paper's")
    ] = None,
    product_offset: Annotated[
        int, typer.Option(help="taken off the sum of two exponents, twice the codes' bias")
    ] = Datapath.product_offset,
    product_range: Annotated[
        str | None, typer.Option(help="lowest:highest exponent of a product, e.g. 0:200", show_default="all")
    ] = None,
    product_underflow: Annotated[
        str, typer.Option(help="of products below the lowest: flush or saturate")
    ] = Datapath.product_underflow,
    bin_bits: Annotated[
        int | None, typer.Option(help="bits of a bin's sum", show_default="as many as it needs")
    ] = None,
    bin_overflow: Annotated[str, typer.Option(help="of bins: saturate or wrap")] = Datapath.bin_overflow,
    bins: Annotated[str, typer.Option(help="joint, or signed: bins of their own for either sign")] = Datapath.bins,
    keep_fraction: Annotated[
        bool, typer.Option("--keep-fraction", help="a vector's sum is accumulated with its fraction, not aligned")
    ] = Datapath.keep_fraction,
    scale: Annotated[
        int | None, typer.Option(help="of all codes of accumulators, in octaves", show_default="they change")
    ] = None,
    code_underflow: Annotated[str, typer.Option(help="of such codes: clamp or flush")] = AccumulatorConverter.underflow,
    code_range: Annotated[
        str | None, typer.Option(help="their lowest:highest exponent", show_default="all that codes have")
    ] = None,
    code_thresholds: Annotated[
        str | None, typer.Option(help="between them, gamma mantissas", show_default="the paper's")
    ] = None,
    code_mantissa_bits: Annotated[
        int, typer.Option(help="bits of an accumulator that are converted")
    ] = AccumulatorConverter.mantissa_bits,
    code_rounding: Annotated[
        str, typer.Option(help="to these bits: nearest or truncate")
    ] = AccumulatorConverter.rounding,
    word: Annotated[
        str | None,
        typer.Option(
            help="layout of a code, highest bit first: s sign, z zero flag, eN the exponent of N bits, less half of "
            "--product-offset; e.g. s,z,e7",
            show_default="the code itself",
        ),
    ] = None,
    intermediates: Annotated[
        bool, typer.Option("--intermediates", help="write bins, Y and Z of every vector, too")
    ] = False,
) -> None:
    """Write operands and accumulators for a hardware design: hex for $readmemh, JSON that says how to read it."""
    with user_errors():
        datapath = Datapath(
            LNSFormat(bits, gamma),
            vector_size=vector_size,
            lut_entries=lut_entries,
            lut_bits=lut_bits,
            acc_bits=acc_bits,
            acc_lsb=acc_lsb,
            headroom_bits=headroom_bits,
            rounding=rounding,
            overflow=overflow,
            product_offset=product_offset,
            lut_constants=_integers("--lut-constants", lut_constants, ","),
            product_range=_integers("--product-range", product_range, ":"),
            product_underflow=product_underflow,
            bin_bits=bin_bits,
            bin_overflow=bin_overflow,
            bins=bins,
            keep_fraction=keep_fraction,
        )
        bias, odd = divmod(product_offset, 2)
        if word is not None and odd:
            raise ValueError(f"--word takes half of --product-offset as its bias, got {product_offset}")
        layout = None if word is None else WordLayout(word, bias)
        exponents = _integers("--code-range", code_range, ":")
        converter = AccumulatorConverter(
            datapath.format,
            underflow=code_underflow,
            exponents=exponents or (layout and layout.exponents(datapath.format)),
            offset=bias if layout else 0,
            mantissa_bits=code_mantissa_bits,
            rounding=code_rounding,
            thresholds=_integers("--code-thresholds", code_thresholds, ","),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = make_vectors(datapath, source, count, k, seed, converter, scale, layout)
        for warning in caught:
            typer.echo(f"Warning: {warning.message}.", err=True)
        path = made.write(out, intermediates)
        files = ["a.hex", "b.hex", "acc.hex", "scale.hex", "code.hex", *["bins.hex", "y.hex", "z.hex"] * intermediates]
        typer.echo(
            f"Wrote {len(made.a):,} dot products of {made.a.shape[1]} codes to {path.parent}: "
            f"{', '.join(files)}, {path.name}."
        )
        fates = ("saturated", "cancelled", "vanished", "zero")
        typer.echo("Of the accumulators " + ", ".join(f"{made.coverage[name]:,} {name}" for name in fates) + ".")


def check_vectors(
    golden: Annotated[Path, typer.Argument(help="folder that 'lns-sim vectors' wrote")],
    results: Annotated[Path, typer.Argument(help="the design's accumulators, one hex word for each dot product")],
    codes: Annotated[Path | None, typer.Option(help="the codes that it made of them, in the same form")] = None,
) -> None:
    """Compare a design's accumulators with the golden ones; names the first that differs, with every intermediate."""
    with user_errors():
        vectors = read_vectors(golden)
        mismatch = check_results(vectors, results, codes)
    if mismatch:
        typer.echo(str(mismatch))
        raise typer.Exit(1)
    typer.echo(f"All {len(vectors.accumulators):,} accumulators{' and codes' if codes else ''} are equal.")
