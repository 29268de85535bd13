"""The designs of csrc/rtl: their source files and parameters, for simulation and synthesis."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from lns_sim import AccumulatorConverter, Datapath, LogDatapath
from lns_sim.golden import VectorSet
from lns_sim.rtl import tables

RTL = Path(__file__).parent
ENTRIES = 16  # accumulators of a collector

_COMMON = tuple(
    f"common/{name}.sv"
    for name in ("require", "carry_save", "adder_tree", "register_file", "collector", "queue", "shell")
)
_PE = (
    "pe/lns_pkg.sv",
    *_COMMON,
    "pe/lns_product.sv",
    "pe/lns_term.sv",
    "pe/lns_rom.sv",
    "pe/lns_bins.sv",
    "pe/lns_check.sv",
    "pe/lns_pe.sv",
)
_POST_PROCESSING = ("pe/lns_convert.sv", "pe/lns_datapath.sv")
_LOG = tuple(f"log/log_{name}.sv" for name in ("add", "product", "collector", "tree", "chain", "pe"))


@dataclass(frozen=True)
class Design:
    """One design: its name in tables, its top module, sources (below a folder as csrc/rtl) and parameters, and the
    datapath whose corrections it adds logarithms with, a source that is made when it is asked for.
    """

    name: str
    top: str
    sources: tuple[str, ...]
    parameters: tuple[tuple[str, int], ...]
    corrections: LogDatapath | None = None

    def paths(self, root: Path = RTL) -> list[str]:
        """The source files, in the order in which tools read them."""
        made = [] if self.corrections is None else [_written(tables.module(self.corrections))]
        return [*(str(root / source) for source in self.sources), *made]


MICROARCHITECTURES = ("rom", "bins")


def pe(d: Datapath, microarchitecture: str = "rom", handshake: bool = True, name: str = "LNS") -> Design:
    """The PE of a datapath; without handshake it cannot be made to wait.

    Raises:
        ValueError: the RTL cannot do what the datapath asks for.
    """
    return Design(name, "lns_pe", _PE, (*_parameters(d, microarchitecture), ("HANDSHAKE", int(handshake))))


def datapath(d: Datapath, microarchitecture: str = "rom", converter: AccumulatorConverter | None = None) -> Design:
    """The PE of a datapath with its post-processing, the default converter's or a given one's; raises as :func:`pe`."""
    paper = _parameters(d, microarchitecture)
    own = AccumulatorConverter(d.format)
    converter = converter or own
    if replace(converter, underflow=own.underflow) != own:
        raise ValueError(
            "the RTL's converter has underflow alone as a choice: its other arguments must be the defaults"
        )
    scale_bits = (abs(d.lsb) + 3 * 127).bit_length() + 1  # acc_lsb + k_a + k_b - k_out, signed
    parameters = (*paper, ("SCALE_BITS", scale_bits), ("FLUSH", int(converter.underflow == "flush")))
    return Design("LNS", "lns_datapath", (*_PE, *_POST_PROCESSING), parameters)


def check_operands(vectors: VectorSet) -> None:
    """Raises ValueError where golden vectors have operands that no design here takes."""
    if vectors.block is not None:
        raise ValueError(
            "the RTL has no block scales: its vectors' sums are aligned by ACC_LSB alone, without a shift each"
        )
    if vectors.formats is not None:
        raise ValueError("the RTL's operands have the datapath's format: it takes none with formats of their own")


def _parameters(d: Datapath, microarchitecture: str) -> tuple[tuple[str, int], ...]:
    if not isinstance(d, Datapath):
        raise ValueError(
            "this PE adds in the linear domain; csrc.rtl.design.log_pe makes the one that adds logarithms (docs/rtl.md)"
        )
    if d.departures:
        raise ValueError(f"the RTL is the paper's PE and has no {', '.join(d.departures)}")
    if d.format.gamma > 128:
        raise ValueError(f"the RTL's gamma goes up to 128, got {d.format.gamma}")
    found = {
        "BITS": d.format.bits,
        "GAMMA": d.format.gamma,
        "LANES": d.vector_size,
        "LUT_ENTRIES": d.lut_entries,
        "LUT_BITS": d.lut_bits,
        "ACC_BITS": d.acc_bits,
        "ACC_LSB": d.lsb,
        "NEAREST": int(d.rounding == "nearest"),
        "WRAP": int(d.overflow == "wrap"),
        "ENTRIES": ENTRIES,
        "ROM": 1 - MICROARCHITECTURES.index(microarchitecture),
    }
    return tuple(found.items())


def log_pe(
    d: LogDatapath, handshake: bool = True, name: str = "log", entries: int = ENTRIES, skewed: bool = False
) -> Design:
    """The PE of a log-domain datapath.

    Args:
        d: the datapath.
        handshake: as of :func:`pe`.
        name: in tables.
        entries: accumulators of the collector.
        skewed: of the sequential order, lane i's operands come i clocks later than those of lane 0.
    """
    parameters = {
        "BITS": d.format.bits,
        "GAMMA": d.format.gamma,
        "LANES": d.vector_size,
        "ACC_BITS": d.acc_bits,
        "ACC_GAMMA": d.octave,
        "OFFSET": d.product_offset,
        "TREE": int(d.order == "tree"),
        "SATURATE": int(d.underflow == "saturate"),
        "SKEWED": int(skewed),
        "ENTRIES": entries,
        "HANDSHAKE": int(handshake),
    }
    return Design(name, "log_pe", (*_COMMON, *_LOG), tuple(parameters.items()), d)


_MADE = tempfile.TemporaryDirectory()


def _written(text: str) -> str:
    path = Path(_MADE.name) / hashlib.sha256(text.encode()).hexdigest()[:16] / "log_correction.sv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


@dataclass(frozen=True)
class Number:
    """A format of the rivals' operands: two's complement integers of ``mantissa`` bits if ``exponent`` is 0, else
    floating-point numbers with a sign, subnormal numbers, and neither infinities nor NaN.
    """

    exponent: int
    mantissa: int

    @property
    def bits(self) -> int:
        return self.mantissa + (self.exponent > 0) * (1 + self.exponent)

    @property
    def significand(self) -> int:
        """Bits of the magnitude that is multiplied."""
        return self.mantissa + (self.exponent > 0)

    @property
    def largest_shift(self) -> int:
        """The largest exponent, the smallest being 0."""
        return (1 << self.exponent) - 2 if self.exponent else 0


INT4, INT8, E3M0, E4M3, E5M10 = Number(0, 4), Number(0, 8), Number(3, 0), Number(4, 3), Number(5, 10)
# Bits of a product from the accumulator's unit up, as of the default PE; products of fewer bits are summed as they are.
ABOVE_UNIT = 18


def fixed_vector(
    name: str, a: Number, b: Number, fraction: int = 0, handshake: bool = True, lanes: int = 32, acc_bits: int = 24
) -> Design:
    """Products summed in fixed point, with the PE's lanes, shell and accumulators.

    Args:
        name: in tables.
        a, b: the operands' formats.
        fraction: bits below the accumulator's unit that are kept till the vector's sum.
        handshake: as of :func:`pe`.
        lanes: products a vector.
        acc_bits: of an accumulator.
    """
    below = max(a.significand + b.significand + a.largest_shift + b.largest_shift - ABOVE_UNIT, 0)
    unit = below if a.exponent or b.exponent else 0
    parameters = {"LANES": lanes, "ACC_BITS": acc_bits, "UNIT": unit, "FRACTION": fraction}
    sources = ("operand", "product", "integer_product", "fixed_term", "fixed_vector")
    return _rival(name, sources, a, b, handshake, parameters)


def float_vector(name: str, a: Number, b: Number, significand: int, handshake: bool = True, lanes: int = 32) -> Design:
    """Products added in floating point, with significands of so many bits; otherwise as :func:`fixed_vector`."""
    sources = ("operand", "product", "float_term", "float_add", "float_collector", "float_vector")
    return _rival(name, sources, a, b, handshake, {"LANES": lanes, "P": significand})


def _rival(name: str, sources: tuple[str, ...], a: Number, b: Number, handshake: bool, parameters: dict) -> Design:
    formats = {"A_EXP": a.exponent, "A_MAN": a.mantissa, "B_EXP": b.exponent, "B_MAN": b.mantissa}
    given = formats | parameters | {"ENTRIES": ENTRIES, "HANDSHAKE": int(handshake)}
    return Design(name, sources[-1], (*_COMMON, *(f"rivals/{s}.sv" for s in sources)), tuple(given.items()))
