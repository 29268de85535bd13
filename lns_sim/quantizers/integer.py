"""Integers of a few bits with one scale per tensor, symmetric around zero: INT8 training as users know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lns_sim.checks import check_choice, check_int
from lns_sim.quantizers.quantizer import Quantizer, largest_magnitude, scale_to
from lns_sim.random import draw


@dataclass(frozen=True)
class Integer(Quantizer):
    """``round(x / s)``, ``s = max|x| / (2^(bits-1) - 1)``.

    Args:
        bits: of a code, 2 to 8.
        rounding: "nearest" (half to even) or "stochastic" (unbiased).
    """

    bits: int = 8
    rounding: str = "nearest"
    dtype: ClassVar[torch.dtype] = torch.int8

    def __post_init__(self):
        check_int("bits", self.bits, 2, 8)
        check_choice("rounding", self.rounding, ("nearest", "stochastic"))

    @property
    def largest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def hardware(self) -> str | None:
        return "INT8" if self.bits == 8 else None

    @property
    def stochastic(self) -> bool:
        return self.rounding == "stochastic"

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        codes, scale = self.rounded(x, rng)
        return codes.to(torch.int8), scale

    def rounded(self, x: Tensor, rng: Tensor | None) -> tuple[Tensor, Tensor]:
        """Integers in float32 and the scale, otherwise as :meth:`quantize`."""
        scale = scale_to(largest_magnitude(x), self.largest)
        return on_scale(x, scale, self.largest, rng), scale


def on_scale(x: Tensor, scale: Tensor, largest: int, rng: Tensor | None) -> Tensor:
    """``x / scale`` as integers up to ``largest``, in float32: the nearest, or with a random state either neighbour
    without bias.
    """
    codes = x / scale
    codes = codes.round_() if rng is None else codes.add_(draw(x, rng)).floor_()
    return codes.clamp_(-largest, largest)
