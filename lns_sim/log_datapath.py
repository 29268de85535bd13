"""The datapath of a processing element that adds logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from lns_sim import _extension, contract
from lns_sim._compile import constant_result
from lns_sim.checks import check_choice, check_int
from lns_sim.datapath import PRODUCT_UNDERFLOWS
from lns_sim.format import LNSFormat
from lns_sim.log_tables import KINDS, LogTables

ORDERS = ("sequential", "tree")
MOST_BITS = 20
FINEST = 1 << 13  # steps per octave


@dataclass(frozen=True, repr=False)
class LogDatapath:
    """How dot products are computed by a processing element that never leaves the logarithm (spec section 7).

    The accumulator is zero, or a sign and an integer E that means ``+-2^((E + offset) / G)`` in units of the operands'
    scales. A product is a sum of exponents; a sum is the larger of two numbers, corrected by a table of their distance
    (Swartzlander and Alexopoulos 1975; Sanyal, Beerel and Chugg, arXiv 1910.09876).

    Args:
        format: format of the operands. Operands of other formats fit, too, where it
            :meth:`lns_sim.LNSFormat.holds` theirs.
        acc_bits: bits of the accumulator, 4 to 20: a sign over ``acc_bits - 1`` bits of E.
        acc_gamma: its steps per octave ``G``, a power of two from the format's gamma to 8192; None: 2^(acc_bits - 7),
            which spans 64 octaves.
        offset: what is taken off a product's exponent, in the accumulator's steps; None leaves ``headroom_bits``
            octaves between the largest product and the largest E.
        headroom_bits: see ``offset``; at least 0.
        tables: corrections: a :class:`LogTables`, "exact", "shift", "coarse:DROP", or a pair of lists.
        vector_size: lanes per vector, 1 to 4096.
        order: "sequential": lane by lane into the accumulator. "tree": a vector's lanes in pairs, the sums in pairs,
            and so on; then into the accumulator.
        underflow: what becomes of a product or a sum below the least E: "flush" (to zero) or "saturate" (to it).
        overflow: "saturate": what lies above the largest E becomes it.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range; the message says what is allowed.
    """

    format: LNSFormat = LNSFormat()
    acc_bits: int = 16
    acc_gamma: int | None = None
    offset: int | None = None
    headroom_bits: int = 8
    tables: LogTables = LogTables()
    vector_size: int = 1
    order: str = "sequential"
    underflow: str = "flush"
    overflow: str = "saturate"

    def __post_init__(self) -> None:
        if not isinstance(self.format, LNSFormat):
            raise TypeError(f"format must be an LNSFormat, got {self.format!r}")
        object.__setattr__(self, "tables", LogTables.of(self.tables))
        check_int("acc_bits", self.acc_bits, 4, MOST_BITS)
        check_int("vector_size", self.vector_size, 1, 4096)
        check_int("headroom_bits", self.headroom_bits, 0, 64)
        check_choice("order", self.order, ORDERS)
        check_choice("underflow", self.underflow, PRODUCT_UNDERFLOWS)
        check_choice("overflow", self.overflow, ("saturate",))
        g = self.format.gamma
        if self.acc_gamma is None:
            if self.acc_bits < 7 or not g <= self.octave <= FINEST:
                raise ValueError(
                    f"acc_bits = {self.acc_bits} leave 2^{self.acc_bits - 7} steps per octave where they span 64 "
                    f"octaves, but the operands have gamma {g}: give acc_gamma, from {g} to {FINEST}"
                )
        else:
            check_int("acc_gamma", self.acc_gamma, 1, None)
            if self.acc_gamma & (self.acc_gamma - 1) or not g <= self.acc_gamma <= FINEST:
                raise ValueError(
                    f"acc_gamma must be a power of two from the operands' gamma {g} to {FINEST}, got {self.acc_gamma}"
                )
        if self.offset is not None:
            check_int("offset", self.offset, -(1 << 30), 1 << 30)
        low, high = (e * (self.octave // g) - self.product_offset for e in (2, 2 * self.format.e_max))
        if low > self.e_limits[1] or high < self.e_limits[0]:
            raise ValueError(
                f"the accumulator cannot hold one product: these have E from {low} to {high}, it holds "
                f"{self.e_limits[0]} to {self.e_limits[1]}; change offset, headroom_bits, acc_bits or acc_gamma"
            )
        _core(self.encode())

    @property
    def octave(self) -> int:
        """``acc_gamma``, or the value that None stands for."""
        return 1 << max(self.acc_bits - 7, 0) if self.acc_gamma is None else self.acc_gamma

    @property
    def e_limits(self) -> tuple[int, int]:
        """The least and the largest E."""
        half = 1 << (self.acc_bits - 2)
        return 1 - half, half - 1

    @property
    def product_offset(self) -> int:
        """``offset``, or the value that None stands for."""
        if self.offset is not None:
            return self.offset
        largest = 2 * self.format.e_max * (self.octave // self.format.gamma)
        return largest + self.headroom_bits * self.octave - self.e_limits[1]

    @property
    def corrections(self) -> tuple[list[int], list[int]]:
        """(plus, minus): the entries of its tables, by distance."""
        core = _core(self.encode())
        return core.plus, core.minus

    @constant_result
    def encode(self) -> list[int]:
        """The integers by which the operators know it: the contract's fields, then the numbers of given tables."""
        return list(self._encoded)

    @cached_property
    def _encoded(self) -> tuple[int, ...]:
        t = self.tables
        plus, minus = (_flat(part) for part in (t.plus, t.minus))
        values = dict(
            marker=contract.LOG_MARKER,
            bits=self.format.bits,
            gamma=self.format.gamma,
            vector_size=self.vector_size,
            acc_bits=self.acc_bits,
            acc_gamma=self.octave,
            offset=self.product_offset,
            order=ORDERS.index(self.order),
            underflow=PRODUCT_UNDERFLOWS.index(self.underflow),
            tables=KINDS.index(t.kind),
            drop=t.drop or 0,
            plus=len(plus),
            minus=len(minus),
        )
        return (*contract.in_order(contract.LOG_DATAPATH, values), *plus, *minus)

    @property
    def label(self) -> str:
        """How tables and captions call it."""
        lanes = f"tree of {self.vector_size}" if self.order == "tree" else self.order
        parts = [f"log-domain {self.acc_bits}-bit", f"{self.tables.label} tables", lanes]
        parts += [f"{self.acc_gamma} steps per octave"] if self.acc_gamma is not None else []
        parts += [f"offset {self.offset}"] if self.offset is not None else []
        parts += [f"headroom {self.headroom_bits}"] if self.headroom_bits != LogDatapath.headroom_bits else []
        parts += [f"underflow {self.underflow}"] if self.underflow != LogDatapath.underflow else []
        return ", ".join(parts)

    def narrowed(self, macs: int, vectors: int) -> int:
        """How many numbers are put into ``acc_bits``, in so many products and vectors."""
        return 2 * macs

    def path(self, m: int, n: int) -> str:
        """Which CPU kernels an M x N product takes: "log_registers", "log_lookup".

        Raises:
            TypeError, ValueError: m or n is no integer of at least 1.
        """
        check_int("m", m, 1, None)
        check_int("n", n, 1, None)
        return _core(self.encode()).path(m, n)

    def __repr__(self) -> str:
        shown = [f"format={self.format.bits}-bit gamma {self.format.gamma}", f"acc_bits={self.acc_bits}"]
        shown += [f"acc_gamma={self.octave}", f"offset={self.product_offset}", f"tables={self.tables!r}"]
        own = ("vector_size", "order", "underflow", "overflow")
        return f"LogDatapath({', '.join([*shown, *(f'{name}={getattr(self, name)}' for name in own)])})"


def _flat(part: Any) -> list[int]:
    return [n for item in part or () for n in (item if isinstance(item, tuple) else (item,))]


def _core(encoded: list[int]) -> Any:
    return _core_of(tuple(encoded))


@cache
def _core_of(encoded: tuple[int, ...]) -> Any:
    return _extension.load().LogDatapath(list(encoded))
