"""An operand of products: codes, their scale, and the quantizer that knows what they stand for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lns_sim.format import LNSFormat


def lies_transposed(x: Tensor) -> bool:
    """Are the columns of its matrices contiguous?"""
    return x.dim() > 1 and x.stride(-2) == 1 != x.stride(-1)


class Decoder(Protocol):
    """What an operand asks of its quantizer."""

    format: LNSFormat | None
    largest: int | None

    def value(self, codes: Tensor, scale: Tensor) -> Tensor: ...

    def value_of_blocks(self, codes: Tensor, scale: Tensor, shifts: Tensor, dim: int, block: int) -> Tensor: ...


class Operand(NamedTuple):
    """Codes of any shape, their 0-d scale, and their quantizer; without one, float32 numbers at scale 1.

    With block scales also the shift of each block of ``block`` elements along ``dim``, which counts from the end.
    """

    codes: Tensor
    scale: Tensor
    quantizer: Decoder | None
    shifts: Tensor | None = None
    dim: int = -1
    block: int = 0

    @property
    def format(self) -> LNSFormat | None:
        """The format of LNS codes, as datapaths take them; None of other codes."""
        return None if self.quantizer is None else self.quantizer.format

    @property
    def largest(self) -> int | None:
        """The largest magnitude of integer codes; None: they are none."""
        return None if self.quantizer is None else self.quantizer.largest

    @property
    def value(self) -> Tensor:
        """What the codes stand for, in float32."""
        if self.quantizer is None:
            return self.codes
        if self.shifts is None:
            return self.quantizer.value(self.codes, self.scale)
        of_blocks = self.shifts, self.dim % self.codes.dim(), self.block
        return self.quantizer.value_of_blocks(self.codes, self.scale, *of_blocks)

    @property
    def scales(self) -> Tensor:
        """The scale, or with block scales every element's in a tensor of float64."""
        if self.shifts is None:
            return self.scale
        spread = self.shifts.repeat_interleave(self.block, self.dim).narrow(self.dim, 0, self.codes.shape[self.dim])
        return self.scale.to(torch.float64) * torch.exp2(-spread.to(torch.float64))

    def with_codes(self, codes: Tensor) -> Operand:
        """The same codes in another order, of one scale."""
        return Operand(codes, self.scale, self.quantizer)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Operand:
        """Codes in another order, and shifts, which lie as they do."""
        return self._replace(codes=function(self.codes), shifts=None if self.shifts is None else function(self.shifts))

    @property
    def mT(self) -> Operand:
        """The last two dimensions exchanged."""
        if self.shifts is None:
            return self.with_codes(self.codes.mT)
        turned = {-1: -2, -2: -1}.get(self.dim, self.dim)
        return self._replace(codes=self.codes.mT, shifts=self.shifts.mT, dim=turned)


class Reused(Operand):
    """An operand whose values several products take: computed once."""

    @functools.cached_property
    def value(self) -> Tensor:
        """What the codes stand for, in float32."""
        return Operand(*self).value
