"""The generic library: inverters, two-input gates, multiplexers and flip-flops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from csrc.rtl.design import Design
from csrc.rtl.synthesis import yosys
from csrc.rtl.synthesis.netlist import Netlist


@dataclass(frozen=True)
class Gate:
    """A :class:`Kind` with its transistors, as Yosys estimates them for static CMOS."""

    transistors: int
    function: Callable[..., np.ndarray] | None
    inputs: tuple[str, ...] = ("A", "B")
    output: str = "Y"


FLIP_FLOP = "$_DFF_P_"
GATES = {
    "$_NOT_": Gate(2, np.invert, ("A",)),
    "$_AND_": Gate(6, np.bitwise_and),
    "$_OR_": Gate(6, np.bitwise_or),
    "$_XOR_": Gate(12, np.bitwise_xor),
    "$_MUX_": Gate(12, lambda a, b, s: a ^ (s & (a ^ b)), ("A", "B", "S")),
    FLIP_FLOP: Gate(16, None, ("D",), "Q"),
}


def netlist(design: Design) -> Netlist:
    """The design in gates of the generic library; raises as :func:`yosys.run`."""
    return Netlist(yosys.gates(design), GATES)


def transistors(netlist: Netlist) -> dict[str, int]:
    """By block."""
    return netlist.by_block(netlist.per_cell(lambda gate: gate.transistors).astype(int))
