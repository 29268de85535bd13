"""What every differentiable product keeps for its backward pass: the codes of both operands, which that multiplies."""

from __future__ import annotations

from torch import Tensor

from lns_sim import distributed
from lns_sim.ops import memory, observer, sides
from lns_sim.ops.sides import Side
from lns_sim.recipes import Recipe


def save_operands(ctx, inputs, output, *others: Tensor):
    """For backward: both operands' codes and scales, the random state, other tensors, the recipe.

    Where nothing is quantized the operands themselves, on which gradients depend in turn; with block scales, too, as
    each pass makes its own codes.
    """
    r = Recipe.decode(inputs[-1])
    ctx.recipe, ctx.site, ctx.place = inputs[-1], observer.site(), memory.take(r)
    ctx.differentiable = not r.quantizes and not distributed.batches_are_one()
    a, a_scale, b, b_scale = (inputs[0], output[2], inputs[1], output[4])
    if not ctx.differentiable and r.block is None:
        a, a_scale, b, b_scale = output[1:]
    ctx.save_for_backward(a, a_scale, b, b_scale, inputs[2], *others)
    ctx.mark_non_differentiable(output[1], *output[3:])  # a scale, of one number, stays: see backward_pass


def saved_sides(ctx, saved: tuple[Tensor, ...]) -> tuple[Side, Side, Tensor | None, Recipe]:
    """What :func:`save_operands` saved."""
    observer.go_on(ctx.site)
    a, a_scale, b, b_scale, rng = saved[:5]
    r = Recipe.decode(ctx.recipe)
    return *sides.saved(a, a_scale, b, b_scale, rng, r), rng, r
