"""The product of two computed tensors, as in attention, as a differentiable operator."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.ops import observer, sides
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import on_one_device
from lns_sim.ops.gemm import matmul
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import fake_operand
from lns_sim.ops.saved import save_operands, saved_sides
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
    left, right = sides.activation(a, r, rng), sides.weight(b, r)
    return matmul("forward", r, left.along(-1), right.along(-2)), *left.kept, *right.kept


@on_one_device
def _fake(a, b, rng, recipe):
    r = Recipe.decode(recipe)
    return a.new_empty(*a.shape[:-1], b.shape[-1]), *fake_operand(a, r, "activation"), *fake_operand(b, r, "weight")


@backward_pass
def _product_backward(ctx, saved, dy, *_):
    a, b, rng, r = saved_sides(ctx, saved)
    error, for_b = sides.errors(dy, r, rng, -1, ctx.place)
    da = db = None
    if ctx.needs_input_grad[0]:
        da = matmul("input_gradient", r, error.along(-1), b.along(-1).mT)
    if ctx.needs_input_grad[1]:
        db = matmul("weight_gradient", r, for_b.along(-2).mT, a.along(-2)).mT
    return da, db, None, None


@outside_autocast
def _outer_product_forward(
    a: Tensor, b: Tensor, rng: Tensor | None, recipe: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """a (..., M, 1) x b (..., 1, N), which sums nothing and stays float32; its gradients are those of a product."""
    observer.enter()
    r = Recipe.decode(recipe)
    left, right = sides.activation(a, r, rng), sides.weight(b, r)
    return (a * b).contiguous(), *left.kept, *right.kept


def _save(ctx, inputs, output):
    save_operands(ctx, inputs, output, again=(lambda a: a.along(-2), lambda b: b.along(-1)))


for _name, _forward in (("product", _product_forward), ("outer_product", _outer_product_forward)):
    _op = torch.library.custom_op(f"lns_sim::{_name}", _forward, mutates_args=())
    _op.register_fake(_fake)
    differentiate(_op, _forward, _product_backward, _save)
