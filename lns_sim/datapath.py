"""The processing element's datapath, and what it reports about a run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import torch

from lns_sim import _extension
from lns_sim._compile import constant_result
from lns_sim.checks import check_choice, check_int
from lns_sim.format import LNSFormat

ALIGNMENTS = ("truncate", "nearest")
OVERFLOWS = ("saturate", "wrap")


@dataclass(frozen=True, repr=False)
class Datapath:
    """How dot products are computed (spec section 3; LNS-Madam, section IV).

    A product of two codes is an integer add of exponents; its quotient by gamma shifts a one, its remainder chooses
    one of ``lut_entries`` bins; each bin's sum over a vector is multiplied by one constant; the total is aligned and
    added to an accumulator once per vector.

    Args:
        format: format of the operands. Operands of fewer bits and the same gamma fit, too.
        vector_size: lanes per accumulation, 1 to 4096.
        lut_entries: bins and constants, a power of two from 1 (Mitchell's approximation) to gamma (exact); None: gamma.
        lut_bits: bits of a constant, 2 to 24.
        acc_bits: bits of the accumulator, 4 to 32.
        acc_lsb: log2 of the accumulator's unit relative to the operands' scales; None leaves ``headroom_bits`` above
            the largest product.
        headroom_bits: see ``acc_lsb``; at least 0.
        rounding: "truncate" or "nearest", when a vector's sum is aligned to the accumulator's unit.
        overflow: "saturate" or "wrap".

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range; the message says what is allowed.
    """

    format: LNSFormat = LNSFormat()
    vector_size: int = 32
    lut_entries: int | None = None
    lut_bits: int = 8
    acc_bits: int = 24
    acc_lsb: int | None = None
    headroom_bits: int = 5
    rounding: str = "truncate"
    overflow: str = "saturate"

    def __post_init__(self):
        if not isinstance(self.format, LNSFormat):
            raise TypeError(f"format must be an LNSFormat, got {self.format!r}")
        if self.lut_entries is None:
            object.__setattr__(self, "lut_entries", self.format.gamma)
        check_int("vector_size", self.vector_size, 1, 4096)
        check_int("lut_entries", self.lut_entries, 1, self.format.gamma)
        check_int("lut_bits", self.lut_bits, 2, 24)
        check_int("acc_bits", self.acc_bits, 4, 32)
        check_int("headroom_bits", self.headroom_bits, 0, 64)
        if self.acc_lsb is not None:
            check_int("acc_lsb", self.acc_lsb, -(1 << 17), 1 << 17)
        check_choice("rounding", self.rounding, ALIGNMENTS)
        check_choice("overflow", self.overflow, OVERFLOWS)
        _core(self.encode())

    @property
    def lsb(self) -> int:
        """``acc_lsb``, or the value that None stands for."""
        if self.acc_lsb is not None:
            return self.acc_lsb
        f = self.format
        return _extension.load().default_acc_lsb(f.bits, f.gamma, self.acc_bits, self.headroom_bits)

    @property
    def constants(self) -> list[int]:
        """The ``lut_entries`` constants C_j = round(2^(j/n) * 2^(lut_bits-1))."""
        return _core(self.encode()).constants

    @constant_result
    def encode(self) -> list[int]:
        """The integers by which the operators know a datapath (see csrc/ops/library.cpp)."""
        f = self.format
        return [f.bits, f.gamma, self.vector_size, self.lut_entries, self.lut_bits, self.acc_bits, self.lsb,
                ALIGNMENTS.index(self.rounding), OVERFLOWS.index(self.overflow)]  # fmt: skip

    def path(self, m: int, n: int) -> str:
        """Which CPU kernels an M x N product takes: "permute8", "permute16", "rows", "row_planes", "lookup32", "lookup64"."""
        return _core(self.encode()).path(m, n)

    def __repr__(self) -> str:
        shown = [f"format={self.format.bits}-bit gamma {self.format.gamma}"]
        shown += [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if f.name not in ("format", "acc_lsb")]
        return f"Datapath({', '.join(shown)}, acc_lsb={self.lsb})"


def _core(encoded: list[int]):
    return _core_of(tuple(encoded))


@lru_cache(maxsize=None)
def _core_of(encoded: tuple[int, ...]):
    return _extension.load().Datapath(*encoded)


@dataclass(frozen=True)
class Counters:
    """What happened in a datapath.

    Attributes:
        macs: products, M * N * K.
        vectors: accumulations, one per vector of lanes.
        saturations: accumulations whose result left ``acc_bits`` (and was saturated or wrapped).
        zero_lanes: products with a zero operand (padding of the last vector not counted).
        vanished: products of non-zero operands that lie under the accumulator's LSB.
    """

    macs: int = 0
    vectors: int = 0
    saturations: int = 0
    zero_lanes: int = 0
    vanished: int = 0

    @classmethod
    def from_tensor(cls, macs: int, counters: torch.Tensor) -> Counters:
        """Reads the int64 tensor that the operators return."""
        saturations, vectors, zero_lanes, vanished = counters.tolist()
        return cls(macs, vectors, saturations, zero_lanes, vanished)

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
