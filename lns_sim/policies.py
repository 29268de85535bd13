"""The LNS quantizer's policies by name, in the operators' order, and the check of a converter's thresholds."""

from __future__ import annotations

from lns_sim import _extension
from lns_sim.checks import integers
from lns_sim.format import LNSFormat

MOST_SHIFT = 15  # octaves of a block's scale under its tensor's, where nobody says
ROUNDINGS = ("nearest", "stochastic")
UNDERFLOWS = ("clamp", "flush", "stochastic")


def check_thresholds(thresholds, format: LNSFormat, rounding: str) -> tuple[int, ...] | None:
    """Thresholds of a converter (see :func:`lns_sim.quantize`) as a tuple; None stays.

    Raises:
        TypeError, ValueError: they are no integers, not gamma of them, out of range or too near each other, or
            rounding is stochastic.
    """
    found = integers("thresholds", thresholds)
    if found is not None:
        if rounding != "nearest":
            raise ValueError(f"thresholds are for rounding to nearest, got rounding {rounding!r}")
        _extension.load().QuantizerTables(format.gamma, list(found))  # which checks them
    return found
