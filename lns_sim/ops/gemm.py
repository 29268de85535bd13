"""One pass' product where its recipe says: on a datapath, exactly in integers, or in float32 of the codes' values."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.ops import int8, observer
from lns_sim.ops.float_products import ours
from lns_sim.ops.integer_gemm import integer_product
from lns_sim.quantizers import Operand
from lns_sim.recipes import Recipe

_ops = torch.ops.lns_sim


def matmul(pass_name: str, recipe: Recipe, a: Operand, b: Operand, again: bool = False) -> Tensor:
    """One pass' product (..., M, K) x (..., K, N), same batch: on its datapath, or in float32 of the codes' values.

    ``again`` says that observers were told of it when it was first computed.
    """

    def in_float32():
        if a.largest and b.largest:
            form = int8.MATMUL if a.codes.dim() == b.codes.dim() == 2 else None
            return integer_product(a, b, a.codes.shape[-1], torch.matmul, (-1, -2), form)
        return a.value @ b.value

    def on_datapath(encoded, count):
        scales = a.scale.expand(*a.codes.shape[:-1], 1), b.scale.expand(*b.codes.shape[:-2], 1, b.codes.shape[-1])
        bits, rest = described(a, b)
        return _ops.matmul(a.codes, scales[0], b.codes, scales[1], *bits, encoded, False, count, *rest)

    macs = lambda out: out.numel() * a.codes.shape[-1]  # noqa: E731
    return multiply(pass_name, recipe, (a, b), macs, on_datapath, in_float32, again)


def described(a: Operand, b: Operand) -> tuple[tuple, tuple]:
    """What operators take of both operands: bits; and behind all else gammas, shifts and the length of blocks."""
    bits, gammas = zip(*((x.format.bits, x.format.gamma) for x in (a, b)))
    return bits, (*gammas, a.shifts, b.shifts, max(a.block, b.block)) if a.block or b.block else gammas


def multiply(
    pass_name: str,
    recipe: Recipe,
    operands: tuple[Operand, Operand],
    macs,
    on_datapath,
    in_float32,
    again: bool = False,
) -> Tensor:
    """One pass' product where the recipe says, reported to observers.

    Args:
        pass_name, recipe, operands: which product, and of what.
        macs: from the result to the number of products.
        on_datapath: from an encoded datapath, and whether to count, to result and counters.
        in_float32: the result of the operands' values.
        again: it was reported when it was first computed.
    """
    datapath, counters = getattr(recipe, pass_name), None
    if datapath is None or not all(operand.codes.numel() for operand in operands):  # sums of nothing are zeros
        with ours():
            out = in_float32()
    else:
        count = observer.counting() and not again
        out, counted = on_datapath(datapath.encode(), count)
        counters = counted if count else None
    if again:
        return out
    return observer.report(pass_name, recipe, operands, macs(out), out, counters, in_float32)
