"""The processing element's datapath."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from typing import Any

from lns_sim import _extension, contract
from lns_sim._compile import constant_result
from lns_sim.checks import check_bool, check_choice, check_int, integers
from lns_sim.format import LNSFormat

ALIGNMENTS = ("truncate", "nearest")
OVERFLOWS = ("saturate", "wrap")
PRODUCT_UNDERFLOWS = ("flush", "saturate")
BINS = ("joint", "signed")


def _foreign(default: Any) -> Any:
    """A field that describes processing elements that differ from the paper's; its default has no effect."""
    return field(default=default, metadata={"foreign": True})


@dataclass(frozen=True, repr=False)
class Datapath:
    """How dot products are computed (spec section 3; LNS-Madam, section IV).

    A product of two codes is an integer add of exponents; its quotient by gamma shifts a one, its remainder chooses
    one of ``lut_entries`` bins; each bin's sum over a vector is multiplied by one constant; the total is aligned and
    added to an accumulator once per vector. The last eight arguments describe processing elements that differ from the
    paper's.

    Args:
        format: format of the operands. Operands of other formats fit, too, where it
            :meth:`lns_sim.LNSFormat.holds` theirs: their exponents are multiplied by the gammas' ratio.
        vector_size: lanes per accumulation, 1 to 4096.
        lut_entries: bins and constants, a power of two from 1 (Mitchell's approximation) to gamma (exact); None:
            gamma, or as many as there are ``lut_constants``.
        lut_bits: bits of a constant, 2 to 24.
        acc_bits: bits of the accumulator, 4 to 32.
        acc_lsb: log2 of the accumulator's unit relative to the operands' scales; None leaves ``headroom_bits`` above
            the largest product.
        headroom_bits: see ``acc_lsb``; at least 0.
        rounding: "truncate" or "nearest", when a vector's sum is aligned to the accumulator's unit.
        overflow: "saturate" or "wrap".
        lut_constants: the bins' constants, ``lut_entries`` integers from 1 to 2^lut_bits - 1, up to 64 of them;
            None: the spec's.
        product_offset: what a lane's adder takes off the sum of two exponents, -2 * e_max to 2 * e_max: twice the
            bias of such codes. It moves quotients and remainders; float32 results are multiplied by
            2^(product_offset / gamma), so that they are still those of the operands' values.
        product_range: lowest and highest exponent that a lane's adder can give, of -product_offset to 2 * e_max -
            product_offset; a larger product becomes the highest. None: all of them.
        product_underflow: what becomes of a product below the lowest: "flush" (to zero) or "saturate" (to the lowest).
        bin_bits: bits of a bin's sum over a vector, 2 to 62; None: as many as it needs.
        bin_overflow: "saturate" or "wrap", of the whole sum.
        bins: "joint", or "signed": positive and negative products have bins of their own, magnitudes of ``bin_bits``.
        keep_fraction: the vector's sum of products and constants is added as it is, with its lut_bits - 1 bits below
            the unit of lanes and bins; ``acc_lsb`` is then that of these bits.

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
    lut_constants: tuple[int, ...] | None = _foreign(None)
    product_offset: int = _foreign(0)
    product_range: tuple[int, int] | None = _foreign(None)
    product_underflow: str = _foreign("flush")
    bin_bits: int | None = _foreign(None)
    bin_overflow: str = _foreign("saturate")
    bins: str = _foreign("joint")
    keep_fraction: bool = _foreign(False)

    def __post_init__(self) -> None:
        if not isinstance(self.format, LNSFormat):
            raise TypeError(f"format must be an LNSFormat, got {self.format!r}")
        for name in ("lut_constants", "product_range"):
            object.__setattr__(self, name, integers(name, getattr(self, name)))
        if self.lut_entries is None:
            object.__setattr__(
                self, "lut_entries", len(self.lut_constants) if self.lut_constants else self.format.gamma
            )
        check_int("vector_size", self.vector_size, 1, 4096)
        check_int("lut_entries", self.lut_entries, 1, self.format.gamma)
        check_int("lut_bits", self.lut_bits, 2, 24)
        check_int("acc_bits", self.acc_bits, 4, 32)
        check_int("headroom_bits", self.headroom_bits, 0, 64)
        if self.acc_lsb is not None:
            check_int("acc_lsb", self.acc_lsb, -(1 << 17), 1 << 17)
        check_choice("rounding", self.rounding, ALIGNMENTS)
        check_choice("overflow", self.overflow, OVERFLOWS)
        largest = 2 * self.format.e_max
        check_int("product_offset", self.product_offset, -largest, largest)
        if self.product_range is not None:
            low, high = (*self.product_range, None, None)[:2]
            first, last = -self.product_offset, largest - self.product_offset
            if len(self.product_range) != 2 or not first <= low <= high <= last:
                raise ValueError(
                    f"product_range must be two exponents from {first} to {last}, the lower first, got "
                    f"{self.product_range}"
                )
        check_choice("product_underflow", self.product_underflow, PRODUCT_UNDERFLOWS)
        if self.bin_bits is not None:
            check_int("bin_bits", self.bin_bits, 2, 62)
        check_choice("bin_overflow", self.bin_overflow, OVERFLOWS)
        check_choice("bins", self.bins, BINS)
        if self.bin_overflow != Datapath.bin_overflow and self.bin_bits is None:
            raise ValueError(
                f"bin_overflow = {self.bin_overflow!r} has no effect on bins of any size: it needs bin_bits"
            )
        if self.product_underflow != Datapath.product_underflow and self.product_range is None:
            raise ValueError(
                f"product_underflow = {self.product_underflow!r} has no effect where every product is in range: it "
                "needs a product_range"
            )
        check_bool("keep_fraction", self.keep_fraction)
        _core(self.encode())

    @property
    def lsb(self) -> int:
        """``acc_lsb``, or the value that None stands for."""
        if self.acc_lsb is not None:
            return self.acc_lsb
        f = self.format
        return _extension.load().default_acc_lsb(
            f.bits, f.gamma, self.acc_bits, self.headroom_bits, self.product_offset
        )

    @property
    def lane_lsb(self) -> int:
        """log2 of the unit of lanes and bins: ``lsb``, or with ``keep_fraction`` lut_bits - 1 octaves above."""
        return self.lsb + (self.lut_bits - 1 if self.keep_fraction else 0)

    @property
    def constants(self) -> list[int]:
        """The ``lut_entries`` constants: those given, or C_j = round(2^(j/n) * 2^(lut_bits-1))."""
        return _core(self.encode()).constants

    @constant_result
    def encode(self) -> list[int]:
        """The integers by which the operators know a datapath: the contract's fields, then the LUT constants given."""
        return list(self._encoded)

    @cached_property
    def _encoded(self) -> tuple[int, ...]:
        constants = self.lut_constants or ()
        low, high = self.product_range or (-self.product_offset, 2 * self.format.e_max - self.product_offset)
        values = dict(
            bits=self.format.bits,
            gamma=self.format.gamma,
            vector_size=self.vector_size,
            lut_entries=self.lut_entries,
            lut_bits=self.lut_bits,
            acc_bits=self.acc_bits,
            acc_lsb=self.lsb,
            rounding=ALIGNMENTS.index(self.rounding),
            overflow=OVERFLOWS.index(self.overflow),
            product_offset=self.product_offset,
            product_low=low,
            product_high=high,
            product_underflow=PRODUCT_UNDERFLOWS.index(self.product_underflow),
            bin_bits=self.bin_bits or 0,
            bin_overflow=OVERFLOWS.index(self.bin_overflow),
            bins=BINS.index(self.bins),
            keep_fraction=int(self.keep_fraction),
            lut_constants=len(constants),
        )
        return (*contract.in_order(contract.DATAPATH, values), *constants)

    @property
    def departures(self) -> dict[str, object]:
        """What differs from the paper's processing element: the foreign arguments that are not their defaults."""
        foreign = (f for f in fields(self) if "foreign" in f.metadata)
        return {f.name: getattr(self, f.name) for f in foreign if getattr(self, f.name) != f.default}

    @property
    def label(self) -> str:
        """How tables and captions call it."""
        parts = [f"{self.vector_size} lanes", f"LUT {self.lut_entries}", f"{self.acc_bits}-bit {self.overflow}"]
        parts += [f"unit 2^{self.acc_lsb}"] if self.acc_lsb is not None else []
        parts += [f"{name} {value}" for name, value in self.departures.items()]
        return ", ".join(parts)

    def narrowed(self, macs: int, vectors: int) -> int:
        """How many numbers are put into ``acc_bits`` or ``bin_bits``, in so many products and vectors."""
        bins = 0 if self.bin_bits is None else len(self.constants) * (1 + (self.bins == "signed"))
        return vectors * (1 + bins)

    def path(self, m: int, n: int, blocks: bool = False) -> str:
        """Which CPU kernels an M x N product takes: "permute8", "permute16", "rows", "row_planes", "lookup32",
        "lookup64", "bins"; ``blocks``: of operands with block scales.

        Raises:
            TypeError, ValueError: m or n is no integer of at least 1.
        """
        check_int("m", m, 1, None)
        check_int("n", n, 1, None)
        return _core(self.encode()).path(m, n, blocks)

    def __repr__(self) -> str:
        shown = [f"format={self.format.bits}-bit gamma {self.format.gamma}"]
        own = (f.name for f in fields(self) if "foreign" not in f.metadata and f.name not in ("format", "acc_lsb"))
        shown += [f"{name}={getattr(self, name)}" for name in own]
        shown += [f"acc_lsb={self.lsb}", *(f"{name}={value}" for name, value in self.departures.items())]
        return f"Datapath({', '.join(shown)})"


def _core(encoded: list[int]) -> Any:
    return _core_of(tuple(encoded))


@cache
def _core_of(encoded: tuple[int, ...]) -> Any:
    return _extension.load().Datapath(list(encoded))
