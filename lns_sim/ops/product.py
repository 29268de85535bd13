"""The product of two computed tensors, as in attention, as a differentiable operator."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.ops import observer
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import on_one_device
from lns_sim.ops.gemm import matmul
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import error_operands, fake_operand, quantize_batch, weight_operand
from lns_sim.ops.saved import save_operands, saved_operands
from lns_sim.recipes import Recipe


@outside_autocast
def _product_forward(
    a: Tensor, b: Tensor, rng: Tensor | None, recipe: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """a (..., M, K) x b (..., K, N), same batch, both computed; b stands where a weight stands in the recipe.

    A gradient of b is no weight gradient: it is an error on its way to an earlier layer, and not rounded by Q_G.
    """
    observer.enter()
    r = Recipe.decode(recipe)
    aq, bq = quantize_batch(a, r.activation, rng, "activation"), weight_operand(b, r)
    return matmul("forward", r, aq, bq), aq.codes, aq.scale, bq.codes, bq.scale


@on_one_device
def _fake(a, b, rng, recipe):
    r = Recipe.decode(recipe)
    return a.new_empty(*a.shape[:-1], b.shape[-1]), *fake_operand(a, r, "activation"), *fake_operand(b, r, "weight")


@backward_pass
def _product_backward(ctx, saved, dy, *_):
    a, b, rng, r = saved_operands(ctx, saved)
    error, for_b = error_operands(dy, r, rng, -1, ctx.place)
    da = matmul("input_gradient", r, error, b.mT) if ctx.needs_input_grad[0] else None
    db = matmul("weight_gradient", r, for_b.mT, a).mT if ctx.needs_input_grad[1] else None
    return da, db, None, None


@outside_autocast
def _outer_product_forward(
    a: Tensor, b: Tensor, rng: Tensor | None, recipe: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """a (..., M, 1) x b (..., 1, N), which sums nothing and stays float32; its gradients are those of a product."""
    observer.enter()
    r = Recipe.decode(recipe)
    aq, bq = quantize_batch(a, r.activation, rng, "activation"), weight_operand(b, r)
    return (a * b).contiguous(), aq.codes, aq.scale, bq.codes, bq.scale


for _name, _forward in (("product", _product_forward), ("outer_product", _outer_product_forward)):
    _op = torch.library.custom_op(f"lns_sim::{_name}", _forward, mutates_args=())
    _op.register_fake(_fake)
    differentiate(_op, _forward, _product_backward, save_operands)
