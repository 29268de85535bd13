"""Convolutions with block scales: blocks lie along channels, or in the weight gradient along images.

Every tap of a dot product begins with a block: where channels (of a group) or images are no whole number of blocks,
zero codes fill the last one up. The order of K is (tap, channel), of the weight gradient (output position, image), so
that an element has one code, whichever taps see it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.contract import COUNTERS
from lns_sim.ops.gemm import described
from lns_sim.ops.sides import Side
from lns_sim.quantizers import Operand


class Channels(Operand):
    """Codes (..., groups, n / groups, ...) of a dimension n, with blocks within groups, along ``dim``: n / groups."""

    @property
    def value(self) -> Tensor:
        """What the codes stand for, with the dimension whole."""
        return Operand(*self).value.flatten(self.dim - 1, self.dim)

    @property
    def missing(self) -> int:
        """Zero codes that fill a group's last block up."""
        return -self.codes.shape[self.dim] % self.block

    def filled(self) -> Operand:
        """With them, and with the dimension whole."""
        fill = [0, 0] * (-1 - self.dim) + [0, self.missing]
        codes, shifts = (t.flatten(self.dim - 1, self.dim) for t in (F.pad(self.codes, fill), self.shifts))
        return Operand(codes, self.scale, self.quantizer, shifts, self.dim, self.block)


def channels(side: Side, dim: int, groups: int) -> Channels:
    """A side's codes with blocks along ``dim``, within each of the groups that it consists of."""
    operand = side.along(dim + 1, lambda t: t.unflatten(dim, (groups, -1)))
    return Channels(*operand)._replace(dim=dim + 1 - operand.codes.dim())


def without_filling(found: tuple[Tensor, Tensor], side: Operand, taps: int, count: bool) -> tuple[Tensor, Tensor]:
    """A result and its counters, without the lanes that only fill blocks up, which are no products."""
    out, counters = found
    if count and isinstance(side, Channels):
        counters[COUNTERS.index("zero_lanes")] -= side.missing * taps * out.numel()
    return out, counters


def weight_gradient(
    dy: Operand, x: Operand, kernel: list[int], plane: tuple, encoded: list[int], count: bool
) -> tuple[Tensor, Tensor]:
    """dw, and counters: for every tap a matrix product over (position, image), of dy with what it sees of x.

    Both sides (images, channels, height, width), images in whole blocks. What taps see is laid out in memory, codes of
    one byte each: with images fastest their patches would be read a few elements at a time.
    """
    stride, padding, dilation, groups = plane
    reach = [s * (n - 1) + 1 for s, n in zip(stride, dy.codes.shape[2:])]

    def rows(t: Tensor) -> Tensor:
        """(images, channels, ...) to (groups, channels of one, positions * images)."""
        return t.unflatten(1, (groups, -1)).permute(1, 2, 3, 4, 0).flatten(2)

    def seen(t: Tensor) -> Tensor:
        """By all taps, one behind the other."""
        t = F.pad(t, [padding[1], padding[1], padding[0], padding[0]])
        starts = [(i * dilation[0], j * dilation[1]) for i in range(kernel[0]) for j in range(kernel[1])]
        ends = [(i + reach[0], j + reach[1]) for i, j in starts]
        return torch.stack(
            [rows(t[:, :, i : m : stride[0], j : n : stride[1]]) for (i, j), (m, n) in zip(starts, ends)]
        )

    taps = kernel[0] * kernel[1]
    a, b = dy.mapped(lambda t: rows(t).expand(taps, -1, -1, -1)), x.mapped(lambda t: seen(t).mT)
    scales = a.scale.expand(*a.codes.shape[:-1], 1), b.scale.expand(*b.codes.shape[:-2], 1, b.codes.shape[-1])
    bits, rest = described(a, b)
    dw, counters = torch.ops.lns_sim.matmul(a.codes, scales[0], b.codes, scales[1], *bits, encoded, False, count, *rest)
    return dw.permute(1, 2, 3, 0).flatten(0, 1).unflatten(2, tuple(kernel)).contiguous(), counters
