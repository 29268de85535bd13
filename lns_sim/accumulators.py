"""How a processing element makes a code of an accumulator."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lns_sim import _extension
from lns_sim.checks import check_choice, check_int, integers
from lns_sim.datapath import ALIGNMENTS
from lns_sim.format import LNSFormat

UNDERFLOWS = ("clamp", "flush")


@dataclass(frozen=True)
class AccumulatorConverter:
    """The post-processing of hardware: integers to codes, with a scale that is given (spec section 3).

    The exponent of ``acc * 2^scale`` is ``gamma * (scale + q) + j + offset``: q is the position of the leading one, j
    how many thresholds lie below the ``mantissa_bits`` from it on.

    Args:
        format: of the codes.
        underflow: an exponent below the range becomes its lowest ("clamp") or zero ("flush"); one above, its highest.
        exponents: lowest and highest exponent of a code, of 1 to e_max; None: all of them.
        offset: added to exponents, the bias of such codes; -65536 to 65536.
        mantissa_bits: bits of the integer that are looked at, its leading one included, 2 to 24.
        rounding: "nearest" (half to even, as float32 does) or "truncate", of what lies below them.
        thresholds: gamma ascending integers t_j of ``mantissa_bits`` bits, leading one included: a mantissa rounds up
            past step j if it is larger than t_j. None: the spec's, floor(2^((2j + 1) / (2 gamma)) * 2^(mantissa_bits
            - 1)).

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.
    """

    format: LNSFormat = LNSFormat()
    underflow: str = "clamp"
    exponents: tuple[int, int] | None = None
    offset: int = 0
    mantissa_bits: int = 24
    rounding: str = "nearest"
    thresholds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.format, LNSFormat):
            raise TypeError(f"format must be an LNSFormat, got {self.format!r}")
        for name in ("exponents", "thresholds"):
            object.__setattr__(self, name, integers(name, getattr(self, name)))
        check_choice("underflow", self.underflow, UNDERFLOWS)
        if self.exponents is not None:
            low, high = (*self.exponents, 0, 0)[:2]
            if len(self.exponents) != 2 or not 1 <= low <= high <= self.format.e_max:
                raise ValueError(
                    f"exponents must be two from 1 to {self.format.e_max}, the lower first, got {self.exponents}"
                )
        check_int("offset", self.offset, -65536, 65536)
        check_int("mantissa_bits", self.mantissa_bits, 2, 24)
        check_choice("rounding", self.rounding, ALIGNMENTS)
        t, g, one = self.thresholds, self.format.gamma, 1 << (self.mantissa_bits - 1)
        if t is not None and (len(t) != g or list(t) != sorted(t) or t[0] < one or t[-1] >= 2 * one):
            raise ValueError(f"thresholds must be gamma = {g} ascending integers from {one} to {2 * one - 1}, got {t}")

    def convert(self, acc: torch.Tensor, scale: int | torch.Tensor) -> torch.Tensor:
        """The codes of ``acc * 2^scale``.

        Args:
            acc: integer accumulators of up to 32 bits, any shape.
            scale: octaves, ``acc_lsb + k_a + k_b - k_out``: an integer, or an integer tensor that broadcasts with acc.

        Returns:
            Codes, of the format's dtype and acc's shape.

        Raises:
            TypeError: acc does not hold integers.
        """
        if acc.is_floating_point() or acc.is_complex() or acc.dtype == torch.bool:
            raise TypeError(f"acc must hold integers, got {acc.dtype}")
        f, bits = self.format, self.mantissa_bits
        t = self.thresholds or [t >> (24 - bits) for t in _extension.load().QuantizerTables(f.gamma).thresholds]
        low, high = self.exponents or (1, f.e_max)
        fraction, position = torch.frexp(acc.to(torch.float64).abs())  # exact
        mantissa = fraction * 2.0**bits
        mantissa = mantissa.round() if self.rounding == "nearest" else mantissa.floor()
        steps = torch.searchsorted(torch.tensor(t, device=acc.device), mantissa.to(torch.int64))  # counts t_j below
        e = f.gamma * (position.to(torch.int64) - 1 + scale) + steps + self.offset
        below = torch.full_like(e, low if self.underflow == "clamp" else 0)
        e = torch.where(e < low, below, e.clamp(max=high))
        code = torch.where((acc < 0) & (e > 0), e | f.e_max + 1, e)
        return torch.where(acc == 0, 0, code).to(f.dtype)
