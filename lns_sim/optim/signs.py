"""Signs that turn: an addition of ours to LNS-Madam, whose multiplicative updates move no weight through zero."""

from __future__ import annotations

import math

from lns_sim.format import LNSFormat
from lns_sim.tensor import LNSTensor


def smallest_exponent(format: LNSFormat, size: float, octaves: float) -> int:
    """The exponent that is so many octaves below a magnitude in units of the scale; 1 where that is infinite: not
    known.
    """
    if math.isinf(size):
        return 1
    return min(max(round(format.gamma * (math.log2(size) - octaves)), 1), format.e_max)


def turn_signs(weight: LNSTensor, smallest: int) -> None:
    """What has fallen below an exponent takes it, with the other sign; zeros stay. In place, in integers."""
    codes, e_max = weight.codes, weight.format.e_max
    sign = e_max + 1 if e_max < 0x7FFF else -0x8000  # of int16
    exponents = codes & e_max
    fallen = (exponents > 0) & (exponents < smallest)
    codes.copy_(codes.where(~fallen, ((codes ^ sign) & sign) | smallest))
