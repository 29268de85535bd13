"""Convolutions with block scales: blocks lie along channels, or in the weight gradient along images.

Every tap of a dot product begins with a block: where channels (of a group) or images are no whole number of blocks,
zero codes fill the last one up. The order of K is (tap, channel), of the weight gradient (output position, image), so
that an element has one code, whichever taps see it. Zero codes change no sum: where there is but one block, most of
them are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.contract import COUNTERS, DATAPATH
from lns_sim.ops.gemm import described
from lns_sim.ops.sides import Side
from lns_sim.quantizers import Operand


class Channels(Operand):
    """Codes (..., groups, n / groups, ...) of a dimension n, with blocks within groups, along ``dim``: n / groups."""

    @property
    def value(self) -> Tensor:
        """What the codes stand for, with the dimension whole."""
        return Operand(*self).value.flatten(self.dim - 1, self.dim)

    def filled(self, block: int) -> Operand:
        """With zero codes that fill a group's last block up, and with the dimension whole."""
        fill = [0, 0] * (-1 - self.dim) + [0, -self.codes.shape[self.dim] % block]
        filled = F.pad(self.codes, fill) if fill[-1] else self.codes
        codes, shifts = (t.flatten(self.dim - 1, self.dim) for t in (filled, self.shifts))
        return Operand(codes, self.scale, self.quantizer, shifts, self.dim, block)


def channels(side: Side, dim: int, groups: int) -> Channels:
    """A side's codes with blocks along ``dim``, within each of the groups that it consists of."""
    # One group is a dimension more, which takes a host a tenth of the time.
    operand = side.along(dim + 1, lambda t: t.unsqueeze(dim) if groups == 1 else t.unflatten(dim, (groups, -1)))
    return Channels(*operand)._replace(dim=dim + 1 - operand.codes.dim())


_VECTOR_SIZE = DATAPATH.index("vector_size")
_FEWEST = 4  # lanes of a vector, in multiples of which every device is fast


class Filling(NamedTuple):
    """What fills a tap's blocks up: lanes that are multiplied, and whole vectors that are left out."""

    lanes: int = 0
    vectors: int = 0


def whole_blocks(a: Operand, b: Operand, encoded: list[int]) -> tuple[Operand, Operand, list[int], Filling]:
    """Both sides as operators take them, the datapath on which they give the same sums, and what fills them up.

    A group within one block is filled up to whole vectors only, and one within a vector makes vectors as short.
    """
    if not isinstance(a, Channels):
        return a, b, encoded, Filling()
    n, block, vector = a.codes.shape[a.dim], a.block, encoded[_VECTOR_SIZE]
    vectors = -(-n // block) * block // vector
    if vector < n < block:
        block = -(-n // vector) * vector
    elif n < block:
        block = vector = min(-(-n // _FEWEST) * _FEWEST, vector)
    shorter = [*encoded[:_VECTOR_SIZE], vector, *encoded[_VECTOR_SIZE + 1 :]]
    lanes = -(-n // block) * block
    return a.filled(block), b.filled(block), shorter, Filling(lanes - n, vectors - lanes // vector)


def as_hardware_counts(found: tuple[Tensor, Tensor], filling: Filling, taps: int, count: bool) -> tuple[Tensor, Tensor]:
    """A result and its counters: without each output's lanes that only fill blocks up, which are no products, and with
    the vectors that hardware runs for them.
    """
    out, counters = found
    if count and any(filling):
        counters[COUNTERS.index("zero_lanes")] -= filling.lanes * taps * out.numel()
        counters[COUNTERS.index("vectors")] += filling.vectors * taps * out.numel()
    return out, counters


def weight_gradient(
    dy: Operand, x: Operand, kernel: list[int], plane: tuple, encoded: list[int], count: bool
) -> tuple[Tensor, Tensor]:
    """dw, and counters, of both sides (images, channels, height, width), images in whole blocks."""
    stride, padding, dilation, groups = plane
    a, b = dy.mapped(images_fastest), x.mapped(lambda t: images_fastest(t, padding))
    bits, rest = described(a, b)
    geometry = kernel, stride, [0, 0], dilation, groups
    return torch.ops.lns_sim.conv2d_weight_gradient(
        a.codes, a.scale, b.codes, b.scale, *bits, *geometry, encoded, False, count, *rest
    )


def images_fastest(t: Tensor, padding: Sequence[int] = (0, 0)) -> Tensor:
    """The same tensor in memory as (height, channels, width, images), with zeros around height and width: images are
    fastest in K, and one stride leads from channel to channel and on to the next tap's.
    """
    return torch.ops.lns_sim.images_fastest(t, *padding).permute(3, 1, 0, 2)


def _images_fastest(t: Tensor, above: int, beside: int) -> Tensor:
    n, c, h, w = t.shape
    around = (t.new_zeros if above or beside else t.new_empty)(h + 2 * above, c, w + 2 * beside, n)
    around[above : above + h, :, beside : beside + w] = t.permute(2, 1, 3, 0)
    return around


torch.library.impl("lns_sim::images_fastest", "CPU", _images_fastest)
