"""ShiftQuant (arXiv 2411.10948): gradient channels in groups by powers of two, shifted back inside an integer GEMM.

The method's text was not to be had; this follows its abstract and reviews. Channels of small range get more of the
integer grid:
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

from lns_sim.checks import check_int
from lns_sim.quantizers.quantizer import Quantizer, scale_to
from lns_sim.random import draw


@dataclass(frozen=True)
class ShiftQuant(Quantizer):
    """Codes as the accumulator sees them: ``q << (groups - 1 - k_c)``, at one scale.

    Args:
        bits: of q; 4 or 6 in the paper.
        groups: at most so many; 1 is quantization per tensor.
    """

    bits: int = 4
    groups: int = 4
    dtype: ClassVar[torch.dtype] = torch.int16
    stochastic: ClassVar[bool] = True

    def __post_init__(self):
        check_int("bits", self.bits, 2, 8)
        check_int("groups", self.groups, 1, 8)

    @property
    def largest(self) -> int:
        return ((1 << (self.bits - 1)) - 1) << (self.groups - 1)

    @staticmethod
    def ranges(x: Tensor, dim: int) -> Tensor:
        """The largest magnitude of every channel, shaped to broadcast with x."""
        return x.abs().amax([d for d in range(x.dim()) if d != dim % x.dim()], keepdim=True)

    def shifts(self, ranges: Tensor) -> Tensor:
        """k_c of every channel."""
        octaves = torch.frexp(ranges.amax() / ranges)[1] - 1  # floor(log2)
        return torch.where(ranges > 0, octaves, self.groups - 1).clamp_(0, self.groups - 1)

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        assert rng is not None
        if x.numel() == 0:
            return x.to(torch.int16), x.new_ones(())
        top = (1 << (self.bits - 1)) - 1
        ranges = self.ranges(x, dim)
        s0 = scale_to(ranges.amax(), top)
        power = (self.shifts(ranges) + 127 << 23).view(torch.float32)  # 2^k_c
        q = torch.addcmul(draw(x, rng), x / s0, power).floor_().clamp_(-top, top)
        return q.mul_(2.0 ** (self.groups - 1) / power).to(torch.int16), s0 * 2.0 ** (1 - self.groups)


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
