"""Energy of each component of the processing element, from the numbers in components.toml."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import tomlkit

from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat

# The processing element that the paper's numbers are of, in this project's terms (docs/energy.md).
PAPER_PE = Datapath(LNSFormat(8, 8), vector_size=32, lut_entries=8, lut_bits=8, acc_bits=24, acc_lsb=14)

# Number formats beside LNS, and the bytes of an operand.
FORMATS = {"FP8": 1, "FP16": 2, "FP32": 4, "INT8": 1}


@dataclass(frozen=True)
class Constant:
    """A number of components.toml: its unit, how it was come by, and where."""

    value: float | dict
    unit: str
    status: str
    source: str


@lru_cache
def constants() -> dict[str, Constant]:
    """All of components.toml, by name."""
    table = tomlkit.parse(Path(__file__).with_name("components.toml").read_text()).unwrap()
    return {name: Constant(**fields) for name, fields in table.items()}


def number(name: str) -> float:
    """One of the constants."""
    return constants()[name].value


@dataclass(frozen=True)
class Prices:
    """What things cost in one format, in femtojoule.

    Attributes:
        slot: by component, each lane of each dot product in each cycle, used or not.
        accumulation: each accumulation of a vector.
        a, b: each number read from buffer A and B.
        extrapolated: why these are not the paper's numbers, one sentence each.
    """

    slot: dict[str, float]
    accumulation: float
    a: float
    b: float
    extrapolated: tuple[str, ...] = ()


def _byte_of_sram(size: float) -> float:
    """fJ a byte, from a memory of so many bytes."""
    return number("sram") / 8 * math.sqrt(size / 8192) * number("process")


def _reads(bits: float) -> tuple[float, float]:
    """Energies of reading a number from buffer A, banked by dot products, and from buffer B."""
    return bits / 8 * _byte_of_sram(number("buffer_a") / number("lanes")), bits / 8 * _byte_of_sram(number("buffer_b"))


def _buffers(bits: float) -> float:
    """Reads for a product in full use: A's word serves ``held`` cycles, B's all dot products."""
    a, b = _reads(bits)
    return a / number("held") + b / number("lanes")


def float_prices(name: str) -> Prices:
    """Prices of "FP8", "FP16", "FP32" or "INT8": all but the buffers is one component, the multiply-add."""
    bits = 8 * FORMATS[name]
    if name == "INT8":
        rest, notes = (
            number("int8_to_fp8") * (number("total_fp8") - _buffers(bits)),
            ("the paper has no INT8: its multiply-add is FP8's by the switching activity of our vectors",),
        )
    else:
        rest, notes = number(f"total_{name.lower()}") - _buffers(bits), ()
    return Prices({"multiply-add": rest}, 0.0, *_reads(bits), notes)


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


def lns_prices(d: Datapath, bits: int | None = None) -> Prices:
    """Prices of a datapath, with operands of so many bits (its format's, if None)."""
    bits = d.format.bits if bits is None else bits
    rest = number("total_lns") - _buffers(PAPER_PE.format.bits) - conversion(PAPER_PE)
    accumulation = number("accumulation") * rest * PAPER_PE.vector_size * d.acc_bits / PAPER_PE.acc_bits
    width, paper_width = (lane_bits(p) + 1 + math.log2(p.lut_entries) for p in (d, PAPER_PE))  # with sign and bin
    registers = (1 - number("accumulation")) * rest * width / paper_width
    notes = []
    if lane_bits(d) != lane_bits(PAPER_PE) or d.acc_bits != PAPER_PE.acc_bits:
        notes.append("conversion and registers go by the lane's width, accumulation by the accumulator's bits")
    if d.format.gamma != PAPER_PE.format.gamma:
        notes.append(
            f"the paper's energies of conversion are for gamma 8, taken for gamma {d.format.gamma} by LUT entries"
        )
    if str(d.lut_entries) not in constants()["conversion"].value:
        notes.append(f"conversion with {d.lut_entries} LUT entries is on the line through those with 4 and 8")
    if d.lut_bits != PAPER_PE.lut_bits and d.lut_entries > 1:
        notes.append("what LUT entries add goes by the bits of their constants")
    if bits != PAPER_PE.format.bits:
        notes.append(f"buffers of {bits}-bit operands go by their bits")
    if d.vector_size != PAPER_PE.vector_size:
        notes.append(f"vectors of {d.vector_size} lanes: one accumulation for so many products")
    if d.departures:
        notes.append(f"priced as the paper's processing element, not for its {' and '.join(d.departures)}")
    return Prices(
        {"conversion": conversion(d), "registers and control": registers}, accumulation, *_reads(bits), tuple(notes)
    )
