"""The products of groups of rows with a matrix each, as of a mixture's experts, as one differentiable operator.

Where groups end is data, so what loops over them is an operator that compilers do not look into: on a weight's codes,
on computed tensors, and of gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.contract import TENSOR_ID
from lns_sim.ops import observer, sides
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import on_one_device
from lns_sim.ops.gemm import matmul
from lns_sim.ops.memory import Place
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import fake_operand, round_gradient, weight_operand
from lns_sim.ops.saved import save_operands, saved_sides
from lns_sim.ops.sides import Side
from lns_sim.quantizers import Operand
from lns_sim.random import STREAMS
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor


def _groups(ends: Tensor) -> list[slice]:
    found = ends.tolist()
    return [slice(begin, end) for begin, end in zip([0, *found], found)]


def _state(rng: Tensor | None, coded: bool, group: int) -> Tensor | None:
    """A group's random state: the weight's own; of computed tensors as of so many products one after the other."""
    if rng is None or coded:
        return rng
    rng = rng.clone()
    rng[TENSOR_ID] += len(STREAMS) * group
    return rng


def _joined(parts: list[Tensor], rows: int) -> Tensor:
    """Parts one behind the other, and zeros to so many rows."""
    left = rows - sum(map(len, parts))
    return torch.cat([*parts, parts[0].new_zeros(left, *parts[0].shape[1:])])


def _in_blocks(b: Tensor, dim: int, r: Recipe) -> list[Operand]:
    """The matrices with block scales along ``dim``: of an LNSWeight with the scale of all, else each with its own."""
    if not isinstance(b, LNSTensor):
        return [sides.weight(matrix, r).along(dim) for matrix in b]
    whole = sides.weight(b, r).along(dim)
    return [whole._replace(codes=codes, shifts=shifts) for codes, shifts in zip(whole.codes, whole.shifts)]


def _multiplied(
    a: Tensor, matrices: list[Operand], rng: Tensor | None, ends: Tensor, coded: bool, r: Recipe
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and a's codes and scales, of which none are kept with block scales."""
    observer.enter()
    found = []
    for i, (rows, w) in enumerate(zip(_groups(ends), matrices)):
        observer.enter_part(i)
        x = sides.activation(a[rows], r, _state(rng, coded, i))
        found.append((matmul("forward", r, x.along(1), w), *x.kept))
    y, codes, scales = zip(*found)
    return _joined(y, len(a)), codes[0] if r.block else _joined(codes, len(a)), torch.stack(scales)


@torch.library.custom_op("lns_sim::grouped_codes", mutates_args=())
def _by_codes(
    a: Tensor, codes: Tensor, scale: Tensor, rng: Tensor | None, ends: Tensor, recipe: str
) -> tuple[Tensor, Tensor, Tensor]:
    r = Recipe.decode(recipe)
    matrices = [Operand(matrix, scale, r.quantizer("weight")) for matrix in codes]
    return _multiplied(a, matrices, rng, ends, True, r)


@_by_codes.register_fake
def _(a, codes, scale, rng, ends, recipe):
    like, _ = fake_operand(a, Recipe.decode(recipe), "activation")
    return a.new_empty(len(a), codes.shape[-1]), like, a.new_empty(len(codes))


@outside_autocast
def grouped_forward(
    a: Tensor, b: Tensor, rng: Tensor | None, ends: Tensor, coded: bool, recipe: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """a (T, K) by groups of rows with b (G, K, N): group i's rows end before ``ends[i]``, rows behind all give zeros.

    Also the operands' codes, and their scales (G,). Each group is quantized by itself; ``coded`` says that b is an
    LNSWeight, whose gradients are rounded by Q_G.
    """
    r = Recipe.decode(recipe)
    for q in (r.activation, r.quantizer("weight")):
        if q is not None and q.keeps is not None:
            raise ValueError(f"{type(q).__name__}'s {q.keeps} has no form for grouped products")
    if r.block is not None:
        return (
            *_multiplied(a, _in_blocks(b, -2, r), rng, ends, coded, r),
            a.new_empty(0, dtype=torch.uint8),
            a.new_ones(len(b)),
        )
    if isinstance(b, LNSTensor):
        w = weight_operand(b, r)
        return *_by_codes(a, w.codes, w.scale, rng, ends, recipe), w.codes, w.scale.repeat(len(b))
    matrices = [weight_operand(matrix, r) for matrix in b]
    codes, scales = (torch.stack([m[i] for m in matrices]) for i in (0, 1))
    return *_multiplied(a, matrices, rng, ends, coded, r), codes, scales


grouped_product = torch.library.custom_op("lns_sim::grouped_product", grouped_forward, mutates_args=())


@grouped_product.register_fake
@on_one_device
def _(a, b, rng, ends, coded, recipe):
    r = Recipe.decode(recipe)
    x, w = fake_operand(a, r, "activation")[0], fake_operand(b, r, "weight")[0]
    return a.new_empty(len(a), b.shape[-1]), x, a.new_empty(len(b)), w, a.new_empty(len(b))


def _gradients(
    dy: Tensor, a: Side, b: Side, rng: Tensor | None, ends: Tensor, coded: bool, r: Recipe, place: Place | None
) -> tuple[Tensor, Tensor]:
    found = []
    matrices = None if r.block is None else _in_blocks(b.source, -1, r)
    for i, rows in enumerate(_groups(ends)):
        observer.enter_part(i)
        at = None if place is None else place._replace(key=(place.key, i))
        state = _state(rng, coded, i)
        error, for_b = sides.errors(dy[rows], r, state, 1, at)
        x = a.part(rows, i)._replace(rng=state)
        w = b.part(i, i).operand if matrices is None else matrices[i]
        db = matmul("weight_gradient", r, for_b.along(0).mT, x.along(0))
        da = matmul("input_gradient", r, error.along(1), w.mT)
        found.append((da, round_gradient(db, r, state) if coded else db))
    da, db = zip(*found)
    return _joined(da, len(dy)), torch.stack(db).mT


@torch.library.custom_op("lns_sim::grouped_gradients", mutates_args=())
def _gradients_whole(
    dy: Tensor,
    a: Tensor,
    a_scale: Tensor,
    b: Tensor,
    b_scale: Tensor,
    rng: Tensor | None,
    ends: Tensor,
    coded: bool,
    recipe: str,
) -> tuple[Tensor, Tensor]:
    r = Recipe.decode(recipe)
    return _gradients(dy, *sides.saved(a, a_scale, b, b_scale, rng, r), rng, ends, coded, r, None)


@_gradients_whole.register_fake
def _(dy, a, a_scale, b, b_scale, rng, ends, coded, recipe):
    return dy.new_empty(a.shape), dy.new_empty(b.mT.shape).mT


def _save(ctx, inputs, output):
    save_operands(ctx, inputs, output, inputs[3])
    ctx.coded = inputs[4]


@backward_pass
def _backward(ctx, saved, dy, *_):
    a, b, rng, r = saved_sides(ctx, saved)
    ends = saved[5]
    if type(dy) is Tensor:
        da, db = _gradients(dy, a, b, rng, ends, ctx.coded, r, ctx.place)
    elif r.block is not None:
        raise RuntimeError("grouped products with block scales have no compiled gradients: run without torch.compile")
    else:  # a compiler is tracing
        da, db = _gradients_whole(dy, *a.kept, *b.kept, rng, ends, ctx.coded, ctx.recipe)
    return da, db, *[None] * 4


differentiate(grouped_product, grouped_forward, _backward, _save)
