"""The product of a Linear layer, as a differentiable operator."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.ops import observer, sides
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import on_one_device
from lns_sim.ops.gemm import matmul
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import fake_operand, round_gradient
from lns_sim.ops.saved import save_operands, saved_sides
from lns_sim.ops.sides import Side
from lns_sim.quantizers.operand import Operand, lies_transposed
from lns_sim.recipes import Recipe


def _rows(x: Tensor) -> Tensor:
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


@outside_autocast
def linear_forward(
    x: Tensor, weight: Tensor, rng: Tensor | None, recipe: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y = x weight^T by the recipe, x (..., in) and weight (out, in) float32; also the operands' codes and scales."""
    observer.enter()
    r = Recipe.decode(recipe)
    left, w = sides.activation(x, r, rng), sides.weight(weight, r)
    y = matmul("forward", r, left.along(1, _rows), w.along(1).mT)
    y = torch.ops.aten._unsafe_view(y, (*x.shape[:-1], weight.shape[0]))  # no view, which nobody might write to
    return y, *left.kept, *w.kept


linear = torch.library.custom_op("lns_sim::linear", linear_forward, mutates_args=())


@linear.register_fake
@on_one_device
def _(x, weight, rng, recipe):
    r = Recipe.decode(recipe)
    return (
        x.new_empty(*x.shape[:-1], weight.shape[0]),
        *fake_operand(x, r, "activation"),
        *fake_operand(weight, r, "weight"),
    )


@backward_pass
def _linear_backward(ctx, saved, dy, *_):
    x, w, rng, r = saved_sides(ctx, saved)
    error, for_weight = sides.errors(_rows(dy), r, rng, 1, ctx.place)
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = matmul("input_gradient", r, error.along(1), w.along(0)).reshape(x.shape)
    if ctx.needs_input_grad[1]:
        dw = _weight_gradient(for_weight.along(0), x.along(0, _rows), r, rng, w)
    return dx, dw, None, None


def _weight_gradient(error: Operand, x: Operand, r: Recipe, rng: Tensor | None, w: Side) -> Tensor:
    """As the weight's codes lie, where only the order of float32 sums depends on it, or a gradient of such a layout is
    copied.
    """
    draws = r.gradient is not None and r.gradient.stochastic
    turned = r.in_float32 and w.operand is not None and lies_transposed(w.operand.codes)
    if not turned or draws or observer.watching():
        return round_gradient(matmul("weight_gradient", r, error.mT, x), r, rng)
    return round_gradient(matmul("weight_gradient", r, x.mT, error), r, rng).mT


def _save(ctx, inputs, output):
    save_operands(ctx, inputs, output, again=(lambda x: x.along(0, _rows), None))


differentiate(linear, linear_forward, _linear_backward, _save)
