"""Products of other systems' integer codes: exact, on a GPU's int8 tensor cores or by float32's and float64's own exact
integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.ops import int8
from lns_sim.quantizers import Operand

# Convolutions of fewer samples are so slow that two of more samples, of halves of the numbers, take less time.
SHORT = 4


def integer_product(
    a: Operand, b: Operand, depth: int, op, along: tuple[int, int] | None, form: int8.Form | None
) -> Tensor:
    """``op`` on the integers of both, exactly, times the float32 product of the scales, and rounded once.

    Where there are int8 tensor cores, and ``form`` says how they take the product, they compute it.
    Float32 holds sums up to 2^24. Longer ones are cut into parts that do, ``along`` a dimension of each operand, and
    added in float64.
    Where parts would be few numbers, a is split, too, into a multiple of a power of two and a rest. What does not fit
    even so, has no such dimension, or lies where float32's products are not plain, runs in float64.
    """
    first, second = a.largest, b.largest
    unit = 1 << (max(first, second).bit_length() + 1) // 2

    def half(largest: int) -> int:
        return max(min(largest, unit // 2), (largest + unit // 2) // unit)

    # The largest products; a may be either operand, as a transposed convolution exchanges roles.
    whole, halves = first * second, max(half(first) * second, first * half(second))
    scale, x = a.scale * b.scale, a.codes

    if form is not None and int8.multiplies(x) and x.numel() and b.codes.numel():
        sums = int8.product(form, x, b.codes, (first, second), depth)
        if sums is not None:
            exact_in_float32 = depth * whole <= 1 << 24
            return _scaled(sums, scale if exact_in_float32 else scale.to(torch.float64))

    def size(product: int) -> int:
        """How long a part of the sum may be where products are at most so large."""
        return 0 if along is None else (1 << 24) // product * x.shape[along[0]] // depth

    def in_parts(x: Tensor, y: Tensor, size: int) -> Tensor:
        pieces = x.split(size, along[0]), y.split(size, along[1])
        return sum(op(*piece).to(torch.float64) for piece in zip(*pieces))

    if not _float32_is_plain(x.device, convolves=op is not torch.matmul):
        exact = op(x.to(torch.float64), b.codes.to(torch.float64)).round()
    elif depth * whole <= 1 << 24:
        return op(x.to(torch.float32), b.codes.to(torch.float32)).mul_(scale)
    elif size(whole) >= SHORT:
        exact = in_parts(x.to(torch.float32), b.codes.to(torch.float32), size(whole))
    elif size(halves) > 0:
        x, y = x.to(torch.float32), b.codes.to(torch.float32)
        high = (x / unit).round_()
        exact = unit * in_parts(high, y, size(halves)) + in_parts(x - unit * high, y, size(halves))
    else:
        exact = op(x.to(torch.float64), b.codes.to(torch.float64))
    return (exact * scale).to(torch.float32)


def _scaled(sums: Tensor, scale: Tensor) -> Tensor:
    return torch.mul(sums, scale, out=torch.empty(sums.shape, device=sums.device))


def _float32_is_plain(device: torch.device, convolves: bool) -> bool:
    """Are float32's sums of integers exact there? Not by cuDNN, which may transform what it convolves, nor where the
    user allows TF32; a CPU's bfloat16 holds these integers, 8 bits and shifts, and adds in float32.
    """
    return device.type == "cpu" or (not convolves and torch.backends.cuda.matmul.fp32_precision in ("none", "ieee"))
