"""How a pass runs on the paper's processing element: cycles, and what is read from its buffers.

In a cycle each of 32 dot products takes a vector of its own from operand A and all of them the same one from B. A's
vectors stay for up to 16 cycles while B's change, each for another accumulator of the collectors (output- and
local-A-stationary). A holds the weights, in the weight gradient the activations. A vector runs over the channels of one
kernel position; what does not fill a vector, or the 32 dot products, is left idle but clocked. Kernel positions that
see only zeros inserted between a strided convolution's outputs are skipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lns_sim.studies.energy.components import number
from lns_sim.watching.passes import Pass


@dataclass(frozen=True)
class Work:
    """What a pass asks of the processing element.

    Attributes:
        products: of numbers that count.
        cycles: with every dot product's lanes clocked.
        slots: products that so many cycles have room for.
        accumulations: one for each dot product and cycle.
        a_reads, b_reads: numbers read from buffers A and B.
    """

    products: int
    cycles: float
    slots: float
    accumulations: float
    a_reads: float
    b_reads: float

    @property
    def utilization(self) -> float:
        """Share of the slots that are products."""
        return self.products / self.slots


def map_pass(p: Pass, vector_size: int) -> Work:
    """The work of one pass with vectors of so many lanes."""
    s, lanes, held = p.shape, int(number("lanes")), int(number("held"))
    words = (
        math.ceil(s.columns / lanes) * s.taps * math.ceil(s.depth / vector_size) * s.repeats
    )  # of A, each 32 vectors
    words = words * p.useful / p.macs
    cycles = words * s.rows
    slots = cycles * lanes * vector_size
    return Work(
        p.useful,
        cycles,
        slots,
        cycles * lanes,
        words * math.ceil(s.rows / held) * lanes * vector_size,
        cycles * vector_size,
    )
