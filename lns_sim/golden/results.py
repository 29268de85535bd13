"""A design's results held against the golden ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lns_sim.golden.trace import DotTrace, trace_dot
from lns_sim.golden.vectors import VectorSet
from lns_sim.golden.words import read_words


@dataclass(frozen=True)
class Mismatch:
    """The first dot product whose result is not the golden one.

    Attributes:
        index: of the dot product.
        name: what it is for, or empty.
        what: "accumulator", or "code" with its scale.
        got, expected: the two results.
        trace: of the dot product.
    """

    index: int
    name: str
    what: str
    got: int
    expected: int
    trace: DotTrace

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        what = "" if self.what == "accumulator" else f"{self.what} "
        return f"dot product {self.index}{name}: {what}got {self.got}, expected {self.expected}\n{self.trace}"


def check_results(vectors: VectorSet, path, codes=None) -> Mismatch | None:
    """Compares a hex file of accumulators with the golden ones, and one of codes, if any; None if all are equal.

    Raises:
        ValueError: a file is no list of such results, or of another length.
    """
    layout = vectors.layout
    checks: list[tuple] = [(path, vectors.datapath.acc_bits, True, vectors.accumulators.tolist(), "results")]
    if codes is not None:
        if vectors.converter is None:
            raise ValueError("accumulators of a LogDatapath are not converted: these vectors have no codes")
        f = vectors.converter.format
        words = [layout.word(int(code), f) for code in vectors.codes] if layout else vectors.codes.tolist()
        checks.append((codes, layout.bits if layout else f.bits, False, words, "codes"))
    for file, bits, signed, golden, kind in checks:
        if Path(file).is_dir():
            raise IsADirectoryError(
                f"{file} is a folder: give the file of the design's {kind}, one hex word a dot product"
            )
        found = read_words(file, bits, signed)
        if len(found) != len(golden):
            raise ValueError(f"{file} holds {len(found)} {kind} for {len(golden)} dot products")
        for i, (got, expected) in enumerate(zip(found, golden)):
            if got != expected:
                trace = trace_dot(*next(islice(vectors.operands, i, None)), vectors.datapath)
                what = "accumulator" if kind == "results" else f"code at scale {vectors.scales[i]}"
                return Mismatch(i, vectors.names[i] if vectors.names else "", what, got, expected, trace)
    return None
