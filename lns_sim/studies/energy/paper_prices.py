"""The technology "paper": prices calibrated on the energies that LNS-Madam (IEEE TC 2022) prints."""

from __future__ import annotations

import math

from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.format import LNSFormat
from lns_sim.studies.energy.components import Prices, Process, constants, number
from lns_sim.studies.energy.technology import NoSuchDesign, Technology

# The processing element that the paper's numbers are of, in this project's terms (docs/energy.md).
PAPER_PE = Datapath(LNSFormat(8, 8), vector_size=32, lut_entries=8, lut_bits=8, acc_bits=24, acc_lsb=14)

FORMATS = {"FP8": 1, "FP16": 2, "FP32": 4, "INT8": 1}
"""Number formats beside LNS, and the bytes of an operand."""


class Paper(Technology):
    """The paper's processing element, and those of other formats on the like hardware."""

    def __init__(self) -> None:
        self.name, self.areas = "paper", False
        self.process = Process("the paper's, below 16 nm", number("paper_node"), number("paper_voltage"))

    def _buffers(self, bits: float) -> float:
        """Reads for a product in full use: A's word serves ``held`` cycles, B's all dot products."""
        memory = self.memory()
        return bits / 8 * (memory.a / number("held") + memory.b / number("lanes"))

    def others(self, tensors: str) -> dict[str, Prices]:
        return {name: self._other(name) for name in FORMATS}

    def _other(self, name: str) -> Prices:
        """All but the buffers is one component, the multiply-add."""
        bits, calibrated = 8 * FORMATS[name], "calibrated: one total, on the paper's BERTs"
        if name == "INT8":
            total = number("int8_to_fp8") * (number("total_fp8") - self._buffers(bits))
            calibrated = "extrapolated: FP8's multiply-add by the switching activity of our vectors; the paper has none"
        else:
            total = number(f"total_{name.lower()}") - self._buffers(bits)
        return Prices(bits, int(number("vector_size")), {"multiply-add": total}, rests_on=calibrated)

    def lns(self, datapath: AnyDatapath, tensors: str, bits: int | None = None) -> Prices:
        d, bits = _linear(datapath), datapath.format.bits if bits is None else bits
        rest = number("total_lns") - self._buffers(PAPER_PE.format.bits) - conversion(PAPER_PE)
        accumulation = number("accumulation") * rest * PAPER_PE.vector_size * d.acc_bits / PAPER_PE.acc_bits
        width, paper_width = (lane_bits(p) + 1 + math.log2(p.lut_entries) for p in (d, PAPER_PE))  # with sign and bin
        registers = (1 - number("accumulation")) * rest * width / paper_width
        slot = {"conversion": conversion(d), "registers and control": registers}
        notes = _extrapolated(d, bits)
        rests_on = "; ".join(
            [
                "calibrated: one total, on the paper's BERTs; conversion as its readers recall it",
                *(f"extrapolated: {note}" for note in notes),
            ]
        )
        return Prices(bits, d.vector_size, slot, accumulation, rests_on=rests_on)

    def clock(self, datapath: AnyDatapath) -> float:
        _linear(datapath)
        return number("paper_clock")

    def area(self, datapath: AnyDatapath) -> float:
        raise ValueError("the paper gives no areas")


def _linear(datapath: AnyDatapath) -> Datapath:
    """Raises NoSuchDesign if it adds logarithms."""
    if not isinstance(datapath, Datapath):
        raise NoSuchDesign(
            "the technology paper knows no processing element that adds logarithms (LogDatapath): take the technology "
            "measured"
        )
    return datapath


def _extrapolated(d: Datapath, bits: int) -> list[str]:
    """Why a datapath's prices are not the paper's numbers."""
    notes = []
    if lane_bits(d) != lane_bits(PAPER_PE) or d.acc_bits != PAPER_PE.acc_bits:
        notes.append("conversion and registers by the lane's width, accumulation by the accumulator's bits")
    if d.format.gamma != PAPER_PE.format.gamma:
        notes.append(f"conversion is the paper's for gamma 8, taken for gamma {d.format.gamma} by LUT entries")
    if str(d.lut_entries) not in constants()["conversion"].value:
        notes.append(f"conversion with {d.lut_entries} LUT entries on the line through those with 4 and 8")
    if d.lut_bits != PAPER_PE.lut_bits and d.lut_entries > 1:
        notes.append("what LUT entries add by the bits of their constants")
    if bits != PAPER_PE.format.bits:
        notes.append(f"buffers of {bits}-bit operands by their bits")
    if d.vector_size != PAPER_PE.vector_size:
        notes.append(f"vectors of {d.vector_size} lanes: one accumulation for so many products")
    if d.departures:
        notes.append(f"priced as the paper's processing element, not for its {' and '.join(d.departures)}")
    return notes


def lane_bits(d: Datapath) -> int:
    """Bits of a lane's shifted one above the accumulator's unit (t_bits in csrc/rtl/pe/lns_pkg.sv)."""
    return max(2 * d.format.e_max // d.format.gamma - d.lsb + 1, 1)


def conversion(d: Datapath) -> float:
    """fJ a product: the paper's for its LUT entries, where the lanes are as wide as its own and constants have 8 bits.

    Otherwise in proportion to the width, what entries add in proportion to their bits, and between and beyond the
    paper's entries on the line (over the logarithm of the entries) through the nearest two.
    """
    points = sorted((int(n), fj) for n, fj in constants()["conversion"].value.items())
    at = next((i for i, (n, _) in enumerate(points[1:], 1) if d.lut_entries <= n), len(points) - 1)
    (n0, e0), (n1, e1) = points[at - 1], points[at]
    added = e0 + (e1 - e0) * math.log2(d.lut_entries / n0) / math.log2(n1 / n0) - points[0][1]
    return (points[0][1] + added * d.lut_bits / PAPER_PE.lut_bits) * lane_bits(d) / lane_bits(PAPER_PE)
