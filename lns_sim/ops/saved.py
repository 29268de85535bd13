"""What every differentiable product keeps for its backward pass: the codes of both operands, which that multiplies."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lns_sim import distributed
from lns_sim.ops import memory, observer, sides
from lns_sim.ops.sides import Side
from lns_sim.quantizers import Operand
from lns_sim.recipes import Recipe

Again = Callable[[Side], Operand] | None


def save_operands(ctx, inputs, output, *others: Tensor, again: tuple[Again, Again] = (None, None)):
    """For backward: both operands' codes and scales, the random state, other tensors, the recipe.

    Where nothing is quantized the operands themselves, on which gradients depend in turn. With block scales the forward
    pass' codes are of no use: ``again`` makes those that the other operand's gradient needs, where it is asked for;
    without it, as of weights, the operand itself is kept.
    """
    r = Recipe.decode(inputs[-1])
    ctx.recipe, ctx.site, ctx.place = inputs[-1], observer.site(), memory.take(r)
    ctx.differentiable = not r.quantizes and not distributed.batches_are_one()
    kept, scales = list(inputs[:2]), (output[2], output[4])
    ctx.again: list[Operand | None] = [None, None]
    of_blocks: list[Tensor] = []
    if not ctx.differentiable and r.block is None:
        kept = [output[1], output[3]]
    elif not ctx.differentiable:
        whole = sides.saved(kept[0], scales[0], kept[1], scales[1], inputs[2], r)
        for i, (side, make) in enumerate(zip(whole, again)):
            if make is None or not ctx.needs_input_grad[1 - i] or r.quantizer(side.kind) is None:
                continue
            made = make(side)
            kept[i] = made.codes.reshape(side.shape)
            of_blocks += made.scale, made.shifts
            ctx.again[i] = made._replace(codes=None, scale=None, shifts=None)
    ctx.save_for_backward(kept[0], scales[0], kept[1], scales[1], inputs[2], *others, *of_blocks)
    ctx.mark_non_differentiable(output[1], *output[3:])  # a scale, of one number, stays: see backward_pass


def saved_sides(ctx, saved: tuple[Tensor, ...]) -> tuple[Side, Side, Tensor | None, Recipe]:
    """What :func:`save_operands` saved."""
    observer.go_on(ctx.site)
    a, a_scale, b, b_scale, rng = saved[:5]
    r = Recipe.decode(ctx.recipe)
    found = list(sides.saved(a, a_scale, b, b_scale, rng, r))
    of_blocks = list(saved[5:])
    for i in (1, 0):  # the last ones were saved last
        if (made := ctx.again[i]) is not None:
            *of_blocks, scale, shifts = of_blocks
            made = made._replace(codes=found[i].source, scale=scale, shifts=shifts)
            found[i] = found[i]._replace(source=None, operand=made)
    return found[0], found[1], rng, r
