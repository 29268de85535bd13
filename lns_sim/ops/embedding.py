"""Looking rows up straight from a weight's forward codes."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim import distributed
from lns_sim.ops import observer
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import on_one_device
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import round_gradient, weight_operand
from lns_sim.recipes import Recipe


@outside_autocast
def embedding_forward(
    weight: Tensor, indices: Tensor, rng: Tensor | None, padding_idx: int, scale_grad_by_freq: bool, recipe: str
) -> Tensor:
    """Values (..., dim) of the rows of weight (rows, dim) at indices (...), in the recipe's weight format.

    The weight gradient is a sum of rows, in float32, then rounded by Q_G.
    """
    observer.enter()
    w = weight_operand(weight, Recipe.decode(recipe))
    codes = w.codes if w.codes.dtype.itemsize > 1 else w.codes.view(torch.uint8)  # which every lookup knows
    return w.with_codes(torch.embedding(codes, indices).view(w.codes.dtype)).value


embedding = torch.library.custom_op("lns_sim::embedding", embedding_forward, mutates_args=())


@embedding.register_fake
@on_one_device
def _(weight, indices, rng, padding_idx, scale_grad_by_freq, recipe):
    return weight.new_empty(*indices.shape, weight.shape[1], dtype=torch.float32)


def _save(ctx, inputs, output):
    weight, indices, rng, ctx.padding_idx, ctx.scale_grad_by_freq, ctx.recipe = inputs
    ctx.rows, ctx.site = weight.shape[0], observer.site()
    ctx.differentiable = Recipe.decode(ctx.recipe).gradient is None and not distributed.batches_are_one()
    ctx.save_for_backward(indices, rng)


@backward_pass
def _backward(ctx, saved, dy):
    observer.go_on(ctx.site)
    indices, rng = saved
    dw = torch.ops.aten.embedding_dense_backward(dy, indices, ctx.rows, ctx.padding_idx, ctx.scale_grad_by_freq)
    return round_gradient(dw, Recipe.decode(ctx.recipe), rng), *[None] * 5


differentiate(embedding, embedding_forward, _backward, _save)
