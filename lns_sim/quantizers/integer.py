"""Integers of few bits with one scale per tensor, symmetric around zero or from the smallest number to the largest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lns_sim.checks import check_bool, check_choice, check_int
from lns_sim.quantizers.quantizer import LARGEST_VALUE, Quantizer, extremes, largest_magnitude, scale_to
from lns_sim.random import draw


@dataclass(frozen=True)
class Integer(Quantizer):
    """``round(x / s)``, ``s = max|x| / (2^(bits-1) - 1)``: INT8 training as users know it.

    With a zero point ``s = (max(x, 0) - min(x, 0)) / (2^bits - 1)``: what is stored is ``q = round(x / s) + z``, in
    ``[0, 2^bits - 1]``, where ``z = round(-min(x, 0) / s)``; codes are ``q - z``, as products have them.

    Args:
        bits: of a code, 2 to 8.
        rounding: "nearest" (half to even) or "stochastic" (unbiased).
        zero_point: codes are from the smallest to the largest number.
    """

    bits: int = 8
    rounding: str = "nearest"
    zero_point: bool = False

    def __post_init__(self):
        check_int("bits", self.bits, 2, 8)
        check_choice("rounding", self.rounding, ("nearest", "stochastic"))
        check_bool("zero_point", self.zero_point)

    @property
    def dtype(self) -> torch.dtype:
        return torch.int8 if self.largest < 128 else torch.int16

    @property
    def largest(self) -> int:
        return (1 << self.bits) - 1 if self.zero_point else (1 << (self.bits - 1)) - 1

    @property
    def hardware(self) -> str | None:
        return "INT8" if self.bits == 8 and not self.zero_point else None

    @property
    def stochastic(self) -> bool:
        return self.rounding == "stochastic"

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        codes, scale = self.rounded(x, rng)
        return codes.to(self.dtype), scale

    def rounded(self, x: Tensor, rng: Tensor | None) -> tuple[Tensor, Tensor]:
        """Integers in float32 and the scale, otherwise as :meth:`quantize`."""
        if self.zero_point:
            low, high = extremes(x)
            scale = scale_to(high / 2 - low / 2, self.largest / 2).clamp(max=LARGEST_VALUE / self.largest)
            zero = (-low / scale).round_()
            return rounded_to(x / scale, x, rng).clamp_(-zero, self.largest - zero), scale
        scale = scale_to(largest_magnitude(x), self.largest)
        return rounded_to(x / scale, x, rng).clamp_(-self.largest, self.largest), scale

    def values(self, x: Tensor) -> Tensor:
        """What the nearest codes stand for, in x's own dtype."""
        codes, scale = self.rounded(x, None)
        return codes.mul_(scale)


def rounded_to(steps: Tensor, x: Tensor, rng: Tensor | None) -> Tensor:
    """Integers of ``steps``, in place: the nearest, or with a random state either neighbour without bias, drawn for the
    elements of x.
    """
    return steps.round_() if rng is None else steps.add_(draw(x, rng)).floor_()
