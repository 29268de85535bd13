"""Products as differentiable operators: a Linear layer's, and those of two computed tensors, as in attention.

Besides the product they return the codes of both operands: the backward pass multiplies those very codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim import observing
from lns_sim.ops import hindsight
from lns_sim.ops.operands import Operand, error_operands, fake_operand, matmul, quantize_batch, round_gradient, weight_operand
from lns_sim.recipes import Recipe

Saved = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("lns_sim::linear", mutates_args=())
def linear(x: Tensor, weight: Tensor, rng: Tensor | None, recipe: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y = x weight^T by the recipe, x (..., in) and weight (out, in) float32; also the operands' codes and scales."""
    return linear_forward(x, weight, rng, recipe)


def linear_forward(x: Tensor, weight: Tensor, rng: Tensor | None, recipe: str) -> Saved:
    """The operator, on an LNSWeight too."""
    observing.enter()
    r = Recipe.decode(recipe)
    xq, w = quantize_batch(x, r.activation, rng, "activation"), weight_operand(weight, r)
    rows = xq.with_codes(xq.codes.reshape(-1, x.shape[-1]))
    y = matmul("forward", r, rows, w.mT)
    return y.reshape(*x.shape[:-1], weight.shape[0]), xq.codes, xq.scale, w.codes, w.scale


@linear.register_fake
def _(x, weight, rng, recipe):
    r = Recipe.decode(recipe)
    return x.new_empty(*x.shape[:-1], weight.shape[0]), *fake_operand(x, r, "activation"), *fake_operand(weight, r, "weight")


def save_operands(ctx, inputs, output):
    """For backward: both operands' codes and scales, the random state, the recipe."""
    ctx.recipe, ctx.site, ctx.place = inputs[-1], observing.site(), hindsight.take(Recipe.decode(inputs[-1]))
    ctx.save_for_backward(*output[1:], inputs[2])
    ctx.mark_non_differentiable(*output[1:])


def saved_operands(ctx) -> tuple[Operand, Operand, Tensor | None, Recipe]:
    """What :func:`save_operands` saved."""
    observing.go_on(ctx.site)
    a, a_scale, b, b_scale, rng = ctx.saved_tensors
    r = Recipe.decode(ctx.recipe)
    return Operand(a, a_scale, r.activation_format), Operand(b, b_scale, r.weight_format), rng, r


def _linear_backward(ctx, dy, *_):
    x, w, rng, r = saved_operands(ctx)
    error, for_weight = error_operands(dy.reshape(-1, w.codes.shape[0]), r, rng, 1, ctx.place)
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = matmul("input_gradient", r, error, w).reshape(x.codes.shape)
    if ctx.needs_input_grad[1]:
        rows = x.with_codes(x.codes.reshape(-1, x.codes.shape[-1]))
        dw = round_gradient(matmul("weight_gradient", r, for_weight.mT, rows), r, rng)
    return dx, dw, None, None


linear.register_autograd(_linear_backward, setup_context=save_operands)


@torch.library.custom_op("lns_sim::product", mutates_args=())
def product(a: Tensor, b: Tensor, rng: Tensor | None, recipe: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """a (..., M, K) x b (..., K, N), same batch, both computed; b stands where a weight stands in the recipe.

    A gradient of b is no weight gradient: it is an error on its way to an earlier layer, and not rounded by Q_G.
    """
    observing.enter()
    r = Recipe.decode(recipe)
    aq, bq = quantize_batch(a, r.activation, rng, "activation"), weight_operand(b, r)
    return matmul("forward", r, aq, bq), aq.codes, aq.scale, bq.codes, bq.scale


@product.register_fake
def _(a, b, rng, recipe):
    r = Recipe.decode(recipe)
    return a.new_empty(*a.shape[:-1], b.shape[-1]), *fake_operand(a, r, "activation"), *fake_operand(b, r, "weight")


def _product_backward(ctx, dy, *_):
    a, b, rng, r = saved_operands(ctx)
    error, for_b = error_operands(dy, r, rng, -1, ctx.place)
    da = matmul("input_gradient", r, error, b.mT) if ctx.needs_input_grad[0] else None
    db = matmul("weight_gradient", r, for_b.mT, a).mT if ctx.needs_input_grad[1] else None
    return da, db, None, None


product.register_autograd(_product_backward, setup_context=save_operands)
