"""Causal attention whose products are all of values in float32: what becomes codes and values again does so once, in
place of what it was made of, and each block of queries once for both products that it is in.

The numbers are those of :mod:`lns_sim.ops.attention`; sums over queries are added up block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lns_sim.ops import causal_softmax
from lns_sim.ops.float_products import ours
from lns_sim.quantizers import Operand

if TYPE_CHECKING:
    from lns_sim.ops.attention import _Attention


def _matrices(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[-2:])


class _Values:
    """Of query (n, L, E) and key (n, S, E) for all n heads of all groups; and the blocks."""

    def __init__(self, a: _Attention):
        self.query, self.key = _matrices(a.query.value), _of_heads(a, a.key)
        self.blocks = a.blocks()

    def products(self, rows: slice, seen: slice) -> Tensor:
        return torch.bmm(self.query[:, rows], self.key[:, seen].mT)


def _of_heads(a: _Attention, x: Operand) -> Tensor:
    """Values (n, S, E) of keys or values."""
    return _matrices(a.of_heads(x, "forward").codes)


def forward(a: _Attention) -> tuple[Tensor, Tensor]:
    """The result (*batch, group, L, Ev), and the scale of the probabilities' codes."""
    v, q, scale = _Values(a), a.recipe.activation, a.scale_of_probabilities()
    y = v.query.new_empty(*v.query.shape[:2], a.value.codes.shape[-1])
    value = _of_heads(a, a.value)
    with ours():
        for rows, seen in v.blocks:
            probabilities = v.products(rows, seen)
            causal_softmax.become_probabilities(probabilities, a.factor, rows.start, a.lengths[1], q, scale)
            torch.bmm(probabilities, value[:, seen], out=y[:, rows])
            del probabilities  # before the next block's
        y.add_(scale, alpha=0)  # NaN, of every block, where a probability is
    return y.view(*a.query.codes.shape[:-1], y.shape[-1]), scale


def gradients(error: Tensor, a: _Attention, p_scale: Tensor) -> list[Tensor]:
    """Of query, key and value.

    Args:
        error: values (*batch, group, L, Ev) of the gradient of the result.
        a: the attention.
        p_scale: of its probabilities' codes.
    """
    v, value, e, r = _Values(a), _of_heads(a, a.value), _matrices(error), a.recipe
    codes = e.new_empty(*e.shape[:2], a.lengths[1], dtype=r.error.dtype)
    dq, dk, dv, scales = torch.empty_like(v.query), *map(torch.zeros_like, (v.key, value)), e.new_empty(e.shape[:2])
    with ours():
        for rows, seen in v.blocks:
            products, dp = v.products(rows, seen), torch.bmm(e[:, rows], value[:, seen].mT)
            p, of_errors = (r.activation, p_scale, products), (r.error, scales[:, rows], codes[:, rows])
            causal_softmax.errors(products, dp, a.factor, rows.start, p, of_errors)
            dv[:, seen].baddbmm_(products.mT, e[:, rows])
            del products, dp, p
        scale = causal_softmax.largest(scales)
        for rows, seen in v.blocks:
            ds = causal_softmax.values(codes[:, rows, seen], scales[:, rows], scale, r.error)
            torch.bmm(ds, v.key[:, seen], out=dq[:, rows])
            dk[:, seen].baddbmm_(ds.mT, v.query[:, rows])
    heads = a.query.codes.shape[:-2]
    dq, *of_keys = (x.view(*heads, *x.shape[-2:]) for x in (dq, dk, dv))
    return [dq, *(x.sum(-3) if x.shape[-3] > 1 else x.squeeze(-3) for x in of_keys)]
