"""A product's tensors on their way to being operands: codes made once, or with block scales once for each K.

A tensor that two passes sum along different dimensions has other blocks in each (spec section 8), and is quantized for
each from what it was. Of what a layer computes with, a backward pass keeps the codes that it will multiply; of weights
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lns_sim import distributed
from lns_sim.ops import observer
from lns_sim.ops.memory import Place
from lns_sim.ops.quantize import error_operands, quantize_batch, quantized_values, weight_operand
from lns_sim.policies import MOST_SHIFT
from lns_sim.quantizers.operand import Operand, Reused
from lns_sim.random import stream_of
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor

Reshape = Callable[[Tensor], Tensor]


class Side(NamedTuple):
    """One tensor of a product.

    Attributes:
        source: the tensor, float32 or a weight; None where it has codes already.
        kind: "activation", "weight" or "error".
        recipe: whose codes it gets.
        rng: the random state, where its quantizer draws.
        operand: its codes, in the tensor's shape; with block scales None, or those of one K.
    """

    source: Tensor | None
    kind: str
    recipe: Recipe
    rng: Tensor | None
    operand: Operand | None

    @property
    def shape(self) -> torch.Size:
        """The tensor's."""
        return self.source.shape if self.operand is None else self.operand.codes.shape

    @property
    def kept(self) -> tuple[Tensor, Tensor]:
        """Codes and scale, which the backward pass multiplies; with block scales nothing, and 1."""
        if self.operand is not None:
            return self.operand.codes, self.operand.scale
        return self.source.new_empty(0, dtype=torch.uint8), torch.ones((), device=self.source.device)

    def part(self, index, number: int) -> Side:
        """Some of its first dimension, where the scales are one of each number."""
        if self.operand is None:
            return self._replace(source=self.source[index])
        codes, scale, quantizer, *_ = self.operand
        return self._replace(operand=Operand(codes[index], scale[number], quantizer))

    def mapped(self, function: Reshape) -> Side:
        """Of another tensor, which has its elements in their order, and zeros."""
        if self.operand is None:
            return self._replace(source=function(self.source))
        return self._replace(operand=self.operand.with_codes(function(self.operand.codes)))

    def along(self, dim: int, reshape: Reshape = lambda t: t) -> Operand:
        """As the operand of a product that sums it along ``dim``, reshaped first, elements in their order; codes with
        block scales are those of this very K.
        """
        if self.operand is not None:
            codes = reshape(self.operand.codes)
            return self.operand.with_codes(codes) if self.operand.shifts is None else self.operand._replace(codes=codes)
        q, block = self.recipe.quantizer(self.kind), self.recipe.block
        if isinstance(self.source, LNSTensor):
            codes, formats = reshape(self.source.codes), (self.recipe.update, q.format)
            numbers = [n for f in formats for n in (f.bits, f.gamma)]
            made = torch.ops.lns_sim.forward_blocks(
                codes, self.source.scale, *numbers, dim % codes.dim(), block, MOST_SHIFT
            )
        elif q is None:
            x = reshape(self.source)
            return observer.report_codes(self.kind, x, Operand(x, x.new_ones(()), None))
        else:
            codes = reshape(self.source)
            rng = stream_of(self.rng, self.kind, codes) if q.stochastic else None
            made = q.quantize_blocks(codes, rng, dim % codes.dim(), block)
        operand = Operand(*made[:2], q, made[2], dim % codes.dim() - codes.dim(), block)
        return observer.report_codes(self.kind, reshape(self.source), operand) if observer.watching() else operand


def _blocks(x: Tensor, kind: str, r: Recipe, rng: Tensor | None) -> Side:
    if distributed.batches_are_one():
        raise ValueError("a global batch has codes and scales of one scale a tensor: block scales are each rank's own")
    return Side(x, kind, r, rng, None)


def activation(x: Tensor, r: Recipe, rng: Tensor | None) -> Side:
    """Q_A."""
    if r.block is not None:
        return _blocks(x, "activation", r, rng)
    return Side(None, "activation", r, rng, quantize_batch(x, r.activation, rng, "activation"))


def weight(w: Tensor, r: Recipe) -> Side:
    """Q_W, of a float32 weight or of an LNSWeight."""
    if r.block is not None:
        return _blocks(w, "weight", r, None)
    return Side(None, "weight", r, None, weight_operand(w, r))


def errors(dy: Tensor, r: Recipe, rng: Tensor | None, dim: int, place: Place | None) -> tuple[Side, Side]:
    """Q_E, channels along ``dim``: what the input gradient multiplies, and what the weight gradient does."""
    if r.block is not None:
        side = _blocks(dy, "error", r, rng)
        return side, side
    of_lns = r.error is not None and r.error.format is not None
    if r.in_float32 and of_lns and not observer.watching() and not distributed.batches_are_one():
        side = Side(None, "error", r, rng, quantized_values(dy, r.error, rng, "error", dim))
        return side, side
    first, second = error_operands(dy, r, rng, dim, place)
    if first is second:
        first = second = Reused(*first)
    return Side(None, "error", r, rng, first), Side(None, "error", r, rng, second)


def saved(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, rng: Tensor | None, r: Recipe) -> tuple[Side, Side]:
    """Both sides of a forward pass, of what its backward pass kept."""
    if r.block is not None:
        return Side(a, "activation", r, rng, None), Side(b, "weight", r, None, None)
    return (
        Side(None, "activation", r, rng, Operand(a, a_scale, r.quantizer("activation"))),
        Side(None, "weight", r, None, Operand(b, b_scale, r.quantizer("weight"))),
    )
