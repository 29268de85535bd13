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
    """dw, and counters: a convolution over images as channels, of x by dy, whose stride is the layer's dilation.

    Both sides (images, channels, height, width), images in whole blocks.
    """
    stride, padding, dilation, groups = plane
    # What dy's positions see of x, exactly: padded, or cut where a stride leaves a rest.
    around = []
    for d in (1, 0):
        seen = stride[d] * (dy.codes.shape[2 + d] - 1) + dilation[d] * (kernel[d] - 1) + 1
        around += [padding[d], seen - padding[d] - x.codes.shape[2 + d]]
    parts, total = [], None
    for xs, es in zip(_groups(x.mapped(lambda t: F.pad(t, around)), groups), _groups(dy, groups)):
        bits, rest = described(xs, es)
        out, counters = torch.ops.lns_sim.conv2d(
            xs.codes, xs.scale, es.codes, es.scale, *bits, dilation, [0, 0], stride, 1, encoded, False, count, *rest
        )
        parts.append(out.transpose(0, 1))
        total = counters if total is None else total + counters
    return torch.cat(parts), total


def _groups(t: Operand, groups: int) -> list[Operand]:
    """(images, channels, ...) to (channels of a group, images, ...), for each group."""
    return [t.mapped(lambda x, i=i: x.transpose(0, 1).chunk(groups)[i].contiguous()) for i in range(groups)]
