"""ShiftQuant (arXiv 2411.10948): gradient channels in groups by powers of two, shifted back inside an integer GEMM.

Of the paper this follows abstract, reviews and its quantizer, which has a zero point (a reader remarks that its formula
of the values leaves it out); the zero point of each channel, an integer, is ours. Channels of small range get more of
the integer grid:
``k_c = clip(floor(log2(R / r_c)), 0, groups - 1)``, ``q = clip(SR(G 2^k_c / s0))``, ``s0 = R / (2^(bits-1) - 1)``. In
the product along the channels a term is shifted left by ``groups - 1 - k_c``, so that all share the scale ``s0 /
2^(groups - 1)``: no memory is rearranged, and the result is the dequantized product's exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lns_sim.checks import check_bool, check_int
from lns_sim.quantizers.quantizer import Quantizer, integer_dtype


@dataclass(frozen=True)
class ShiftQuant(Quantizer):
    """Codes as the accumulator sees them: ``q << (groups - 1 - k_c)``, at one scale.

    With zero points a channel's range is ``max(x, 0) - min(x, 0)``, ``s0 = R / (2^bits - 1)``, and q stands for what is
    stored less the channel's zero point.

    Args:
        bits: of q; 4 or 6 in the paper.
        groups: at most so many; 1 is quantization per tensor.
        zero_point: each channel's codes are from its smallest to its largest number, not symmetric around zero.
    """

    bits: int = 4
    groups: int = 4
    zero_point: bool = False
    stochastic: ClassVar[bool] = True

    def __post_init__(self):
        check_int("bits", self.bits, 2, 8)
        check_int("groups", self.groups, 1, 8)
        check_bool("zero_point", self.zero_point)

    @property
    def dtype(self) -> torch.dtype:
        return integer_dtype(self.largest)

    @property
    def top(self) -> int:
        """The largest magnitude of q."""
        return (1 << self.bits) - 1 if self.zero_point else (1 << (self.bits - 1)) - 1

    @property
    def largest(self) -> int:
        return self.top << (self.groups - 1)

    def _quantized(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.lns_sim.quantize_integers(x, dim % x.dim(), self.top, self.groups, self.zero_point, False, rng)

    def octaves(self, x: Tensor, dim: int) -> Tensor:
        """k_c of every channel along ``dim``, int32."""
        return self.groups - 1 - self._quantized(x, None, dim)[2]

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        assert rng is not None
        return self._quantized(x, rng, dim)[:2]


def optimal_grouping(ranges: Sequence[float], groups: int, bits: int) -> list[float]:
    """The scale of every channel for the best grouping into so many scales, by dynamic programming: the bound for
    power-of-two groups.

    Channels sorted by range fall into contiguous groups, each with the scale of its largest; what is minimized is the
    sum of the channels' largest variances of stochastic rounding, ``scale^2 / 4`` each.

    Args:
        ranges: largest magnitude of each channel.
        groups: how many scales there may be.
        bits: of a code.
    """
    top = (1 << (bits - 1)) - 1
    order = sorted(range(len(ranges)), key=lambda c: ranges[c])
    n, best = len(order), {(0, 0): (0.0, -1)}  # (channels, groups) -> (cost, where the last group begins)
    for g in range(1, groups + 1):
        for end in range(1, n + 1):
            cost = (ranges[order[end - 1]] / top) ** 2 / 4
            choices = [
                (best[begin, g - 1][0] + (end - begin) * cost, begin) for begin in range(end) if (begin, g - 1) in best
            ]
            if choices:
                best[end, g] = min(choices)
    end, g = n, min((g for g in range(1, groups + 1) if (n, g) in best), key=lambda g: best[n, g][0])
    scales = [0.0] * n
    while end:
        begin = best[end, g][1]
        for i in range(begin, end):
            scales[order[i]] = ranges[order[end - 1]] / top
        end, g = begin, g - 1
    return scales
