"""Integers of few bits with one scale per tensor, symmetric around zero or from the smallest number to the largest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lns_sim.checks import check_bool, check_choice, check_int
from lns_sim.quantizers.quantizer import Quantizer, integer_dtype


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
        return integer_dtype(self.largest)

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
        return torch.ops.lns_sim.quantize_integers(x, None, self.largest, 1, self.zero_point, False, rng)[:2]


def nearest_values(x: Tensor, bits: int) -> Tensor:
    """What the nearest symmetric integers of so many bits stand for, in x's own dtype."""
    largest = Integer(bits).largest
    return torch.ops.lns_sim.quantize_integers(x.float(), None, largest, 1, False, True, None)[0].to(x.dtype)
