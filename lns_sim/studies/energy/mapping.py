"""How a pass runs on an array of the paper's processing elements: cycles, and what is read from their buffers.

In a cycle each of a processing element's 32 dot products takes a vector of its own from operand A and all of them the
same one from B. A holds the weights, in the weight gradient the activations. A vector runs over the channels of one
kernel position; what does not fill a vector, or the 32 dot products, is left idle but clocked. Kernel positions that
see only zeros inserted between a strided convolution's outputs are skipped.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from lns_sim.checks import check_choice, check_int
from lns_sim.studies.energy.components import number
from lns_sim.watching.passes import Pass

# For how many cycles a vector of A stays in its register, at most. Sums of more rows than the collector has
# accumulators leave the processing element and come back.
DATAFLOWS = {
    "local-a-stationary": lambda: number("held"),  # the paper's: each of them for another accumulator of the collector
    "output-stationary": lambda: 1,  # one accumulator, until its dot product is complete
    "weight-stationary": lambda: math.inf,  # for all rows of B
}


@dataclass(frozen=True)
class Array:
    """Processing elements that share a pass.

    Attributes:
        pes: how many, each of 32 dot products at once.
        dataflow: what stays: "local-a-stationary" (the paper's), "output-stationary" or "weight-stationary".

    Raises:
        TypeError, ValueError: one is not as said.
    """

    pes: int = 1
    dataflow: str = "local-a-stationary"

    def __post_init__(self):
        check_int("pes", self.pes, 1, None)
        check_choice("dataflow", self.dataflow, DATAFLOWS)


@dataclass(frozen=True)
class Work:
    """What a pass asks of the array.

    Attributes:
        products: of numbers that count.
        cycles: until the last processing element is ready.
        slots: products that the cycles of all busy processing elements have room for; one that waits for the others
            is not clocked.
        room: products that the cycles of the whole array have room for.
        accumulations: one for each dot product and cycle.
        a_reads, b_reads: numbers read from buffers A and B.
        partial_sums: accumulators that leave and come back before their dot products are complete.
        a_fills, b_fills: numbers that come into buffers A and B from the memory that all share.
    """

    products: int = 0
    cycles: float = 0.0
    slots: float = 0.0
    room: float = 0.0
    accumulations: float = 0.0
    a_reads: float = 0.0
    b_reads: float = 0.0
    partial_sums: float = 0.0
    a_fills: float = 0.0
    b_fills: float = 0.0

    @property
    def utilization(self) -> float:
        """Share of the array's room that is products; 0 where there are none."""
        return self.products / self.room if self.room else 0.0


def map_pass(p: Pass, vector_size: int, array: Array = Array(), bits: int = 8) -> Work:
    """The work of one pass with vectors of so many lanes, and operands of so many bits.

    Pairs of a group of 32 columns and a row are shared evenly: each processing element takes a run of them.
    """
    if not p.macs:  # an expert of a mixture that no row was for
        return Work()
    s, lanes = p.shape, int(number("lanes"))
    groups = math.ceil(s.columns / lanes) * s.repeats
    vectors = s.taps * math.ceil(s.depth / vector_size) * p.useful / p.macs  # of a dot product
    held = min(DATAFLOWS[array.dataflow](), s.rows)
    runs = _runs(groups, s.rows, array.pes)
    words = sum(math.ceil(run / held) * n for run, n in runs.items()) * vectors  # of A, each 32 vectors
    busy = groups * s.rows * vectors
    cycles = math.ceil(groups * s.rows / array.pes) * vectors
    beyond = sum(max(run - number("held"), 0) * n for run, n in runs.items()) if held > number("held") else 0
    a_fills, b_fills = _fills(runs, words, vectors, held, vector_size * bits / 8, array.pes)
    return Work(
        products=p.useful,
        cycles=cycles,
        slots=busy * lanes * vector_size,
        room=cycles * array.pes * lanes * vector_size,
        accumulations=busy * lanes,
        a_reads=words * lanes * vector_size,
        b_reads=busy * vector_size,
        partial_sums=beyond * max(vectors - 1, 0) * lanes,
        a_fills=a_fills * lanes * vector_size,
        b_fills=b_fills * vector_size,
    )


def _runs(groups: int, rows: int, pes: int) -> dict[int, int]:
    """How many runs of how many rows keep their group of columns: cut where a group or a processing element ends."""
    total = groups * rows
    share = math.ceil(total / pes)
    cuts = np.arange(share, total, share)
    cut = np.unique(cuts // rows)  # the groups within which a processing element may end; all others are whole
    ends = np.unique(np.concatenate([cuts, cut * rows, (cut + 1) * rows]))
    starts = ends[:-1]
    lengths, counts = np.unique(np.diff(ends)[np.isin(starts // rows, cut)], return_counts=True)
    found = Counter(dict(zip(lengths.tolist(), counts.tolist())))
    found[rows] += groups - len(cut)
    return {run: n for run, n in sorted(found.items()) if n}


def _fills(
    runs: dict[int, int], words: float, vectors: float, held: int, vector: float, pes: int
) -> tuple[float, float]:
    """Words of A and vectors of B that come from the shared memory, in the cheaper of two orders.

    Columns first: all rows pass by a group of columns, whose A is filled once where a bank keeps a whole dot product.
    Rows first, where buffer B keeps the whole dot products of the rows at work: all groups pass by them. (``words``
    and ``vectors`` as in :func:`map_pass`; ``vector`` in bytes.)
    """
    bank, lanes = number("buffer_a") / number("lanes"), number("lanes")
    count, pairs = sum(runs.values()), sum(run * n for run, n in runs.items())
    orders = [(count * vectors if vectors * vector <= bank else words, pairs * vectors)]
    if held <= number("held") and held * vectors * vector <= number("buffer_b"):
        kept = math.ceil(count / pes) * vectors * vector <= bank
        orders.append((count * vectors if kept else words, min(pes, count) * pairs / count * vectors))
    return min(orders, key=lambda fills: fills[0] * lanes + fills[1])
