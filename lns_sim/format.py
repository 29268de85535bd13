"""The logarithmic number format: a sign and an exponent in steps of 2^(1/gamma)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lns_sim.checks import check_int


@dataclass(frozen=True, repr=False)
class LNSFormat:
    """A code of ``bits`` bits: a sign over a (bits-1)-bit exponent e.

    e = 0 is zero; otherwise the value is ``(-1)^s * 2^(e/gamma) * 2^k`` with the scale exponent k of its tensor
    (spec section 1; LNS-Madam, section III).

    Args:
        bits: width of a code, sign included, 2 to 16. Up to 8 bits are stored as uint8, above as int16.
        gamma: base factor, a power of two from 1 to 2^(bits-1): codes per octave.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is out of range.
    """

    bits: int = 8
    gamma: int = 8

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 2, 16)
        check_int("gamma", self.gamma, 1, None)
        if self.gamma & (self.gamma - 1) or self.gamma > 1 << (self.bits - 1):
            raise ValueError(
                f"gamma must be a power of two from 1 to 2^(bits-1) = {1 << (self.bits - 1)}, got {self.gamma}"
            )

    @property
    def e_max(self) -> int:
        """The largest exponent, 2^(bits-1) - 1."""
        return (1 << (self.bits - 1)) - 1

    @property
    def dynamic_range(self) -> float:
        """Octaves from the scale to the largest magnitude, e_max / gamma."""
        return self.e_max / self.gamma

    @property
    def step(self) -> float:
        """Ratio of neighbouring magnitudes minus one, 2^(1/gamma) - 1."""
        return 2.0 ** (1 / self.gamma) - 1

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that holds codes: uint8 up to 8 bits, int16 above."""
        return torch.uint8 if self.bits <= 8 else torch.int16

    def values(self) -> torch.Tensor:
        """The float32 value of every code 0 .. 2^bits - 1 at scale 1 (k = 0), shape (2^bits,)."""
        codes = torch.arange(1 << self.bits).to(self.dtype)
        return torch.ops.lns_sim.dequantize(codes, torch.ones((), dtype=torch.float32), self.bits, self.gamma)

    def holds(self, other: LNSFormat) -> bool:
        """Does a datapath of this format take operands of the other (spec section 8)?

        Its gamma must not be coarser, and the other's largest exponent, in its steps, must not exceed ``e_max``.
        """
        return self.gamma >= other.gamma and other.e_max * (self.gamma // other.gamma) <= self.e_max

    def check_holds(self, name: str, other: LNSFormat) -> None:
        """Raises ValueError unless a datapath of this format takes an operand of the other."""
        if not self.holds(other):
            raise ValueError(
                f"{name} has format {other!r}, which does not fit the datapath's {self!r}: an operand's gamma is at "
                f"most the datapath's, and its e_max, times the gammas' ratio, at most e_max = {self.e_max}; "
                f"{self._taking_both(other)}"
            )

    def _taking_both(self, other: LNSFormat) -> str:
        try:
            both = LNSFormat.holding(self, other)
        except ValueError as error:
            return str(error)
        return f"a datapath of bits={both.bits}, gamma={both.gamma} takes both"

    @staticmethod
    def holding(*formats: LNSFormat) -> LNSFormat:
        """The smallest format that :meth:`holds` them all.

        Raises:
            ValueError: it would have more than 16 bits.
        """
        gamma = max(f.gamma for f in formats)
        bits = max((f.e_max * (gamma // f.gamma)).bit_length() + 1 for f in formats)
        if bits > 16:
            both = " and ".join(map(repr, formats))
            raise ValueError(f"no format of up to 16 bits holds {both}: it would need {bits} bits at gamma {gamma}")
        return LNSFormat(max(bits, gamma.bit_length()), gamma)

    def __repr__(self) -> str:
        return (
            f"LNSFormat(bits={self.bits}, gamma={self.gamma}: base 2^(1/{self.gamma}), step {100 * self.step:.3g} %, "
            f"{self.dynamic_range:.4g} octaves)"
        )
