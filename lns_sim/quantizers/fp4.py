"""FP4: E2M1 with a scale for a tensor, or for a block of it along K: of 32 elements this is MXFP4.

After the OCP Microscaling Formats (MX) Specification 1.0, sections 5.3 and 6.3: recalled; others describe it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.checks import check_choice
from lns_sim.policies import ROUNDINGS
from lns_sim.quantizers.quantizer import Quantizer, largest_magnitude
from lns_sim.random import draw

_TOP = 12  # of 0, 1, 2, 3, 4, 6, 8, 12: the numbers of E2M1, in halves
_LEAST, _MOST = -126, 124  # exponents of a half: E8M0 begins at -128; at 125 a code of 8 would be beyond float32


@dataclass(frozen=True)
class FP4(Quantizer):
    """A sign, two bits of exponent and one of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4, 6, at power-of-two scales.

    Codes are in halves.

    Args:
        rounding: "nearest" (ties to even) at the specification's scale, ``2^floor(log2 max|x|) / 4``, where numbers
            above 6 saturate. "stochastic" (linear in value) at the smallest power of two where none does, without bias;
            ours, the specification has no such rounding.
    """

    rounding: str = "nearest"
    bits: ClassVar[int] = 4
    dtype: ClassVar[torch.dtype] = torch.int8

    def __post_init__(self):
        check_choice("rounding", self.rounding, ROUNDINGS)

    @property
    def stochastic(self) -> bool:
        return self.rounding == "stochastic"

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        top = largest_magnitude(x)
        k = self._exponent(top)
        return self._codes(x, k, rng), torch.where(top.isfinite(), _power(k), torch.nan)

    def quantize_blocks(self, x: Tensor, rng: Tensor | None, dim: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
        n, top = x.shape[dim], largest_magnitude(x)
        count = -(-n // block)
        filled = F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, count * block - n])
        tops = filled.unflatten(dim, (count, block)).abs().amax(dim + 1)
        k = self._exponent(top)
        own = torch.where(tops == 0, k, self._exponent(tops))
        codes = self._codes(x, own.repeat_interleave(block, dim).narrow(dim, 0, n), rng)
        return codes, torch.where(top.isfinite(), _power(k), torch.nan), (k - own).to(torch.uint8)

    def _exponent(self, top: Tensor) -> Tensor:
        """Of a half, by the largest magnitude; int32."""
        mantissa, k = torch.frexp(top)  # top = mantissa * 2^k, mantissa from 1/2
        k = k - 4
        if self.stochastic:
            k = k + (mantissa > _TOP / 16).to(k.dtype)
        return torch.where(top == 0, 0, k).clamp(_LEAST, _MOST)

    def _codes(self, x: Tensor, k: Tensor, rng: Tensor | None) -> Tensor:
        """The codes of x in halves of 2^k."""
        halves = x * _power(-k)
        step = torch.where(halves.abs() < 4, 1.0, torch.where(halves.abs() < 8, 2.0, 4.0))
        steps = halves / step
        steps = steps.round_() if rng is None else steps.add_(draw(x, rng)).floor_()
        return steps.mul_(step).clamp_(-_TOP, _TOP).to(torch.int8)


def _power(k: Tensor) -> Tensor:
    """2^k in float32, of normal numbers."""
    return (k + 127 << 23).view(torch.float32)
