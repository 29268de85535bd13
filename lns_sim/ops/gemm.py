"""One pass' product where its recipe says: on a datapath, exactly in integers, or in float32 of the codes' values."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.ops import observer
from lns_sim.ops.float_products import ours
from lns_sim.ops.integer_gemm import integer_product
from lns_sim.quantizers import Operand
from lns_sim.recipes import Recipe

_ops = torch.ops.lns_sim


def matmul(pass_name: str, recipe: Recipe, a: Operand, b: Operand) -> Tensor:
    """One pass' product (..., M, K) x (..., K, N), same batch: on its datapath, or in float32 of the codes' values."""

    def in_float32():
        if a.largest and b.largest:
            return integer_product(a, b, a.codes.shape[-1], torch.matmul, (-1, -2))
        return a.value @ b.value

    def on_datapath(encoded, count):
        scales = a.scale.expand(*a.codes.shape[:-1], 1), b.scale.expand(*b.codes.shape[:-2], 1, b.codes.shape[-1])
        bits, rest = described(a, b)
        return _ops.matmul(a.codes, scales[0], b.codes, scales[1], *bits, encoded, False, count, *rest)

    return multiply(pass_name, recipe, (a, b), lambda out: out.numel() * a.codes.shape[-1], on_datapath, in_float32)


def described(a: Operand, b: Operand) -> tuple[tuple, tuple]:
    """What operators take of both operands: bits; and behind all else gammas, shifts and the length of blocks."""
    bits, gammas = zip(*((x.format.bits, x.format.gamma) for x in (a, b)))
    return bits, (*gammas, a.shifts, b.shifts, max(a.block, b.block)) if a.block or b.block else gammas


def multiply(
    pass_name: str, recipe: Recipe, operands: tuple[Operand, Operand], macs, on_datapath, in_float32
) -> Tensor:
    """One pass' product where the recipe says, reported to observers.

    Args:
        pass_name, recipe, operands: which product, and of what.
        macs: from the result to the number of products.
        on_datapath: from an encoded datapath, and whether to count, to result and counters.
        in_float32: the result of the operands' values.
    """
    datapath, counters = getattr(recipe, pass_name), None
    if datapath is None or not all(operand.codes.numel() for operand in operands):  # sums of nothing are zeros
        with ours():
            out = in_float32()
    else:
        count = observer.counting()
        out, counted = on_datapath(datapath.encode(), count)
        counters = counted if count else None
    return observer.report(pass_name, recipe, operands, macs(out), out, counters, in_float32)
