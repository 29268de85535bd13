"""Operands of a layer's products: codes with scale and format, by a recipe's quantizers, and one pass' GEMM on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lns_sim import distributed, observing
from lns_sim.comparators import fp8
from lns_sim.comparators.luq import LUQ
from lns_sim.comparators.quantizer import ValueQuantizer
from lns_sim.format import LNSFormat
from lns_sim.ops.hindsight import Place
from lns_sim.policies import ROUNDINGS, UNDERFLOWS
from lns_sim.recipes import PASSES, Quantizer, Recipe
from lns_sim.tensor import LNSTensor

_ops = torch.ops.lns_sim
# Random streams of a tensor's quantizers: added to its id.
STREAMS = {"activation": 0, "error": 1, "gradient": 2, "update": 3}

# Convolutions of fewer samples are so slow that two of more samples, of halves of the numbers, take less time.
SHORT = 4


class Operand(NamedTuple):
    """Codes of any shape, their 0-d scale, and their format; without an LNS format numbers of any dtype, float32 ones at scale 1."""

    codes: Tensor
    scale: Tensor
    format: LNSFormat | None

    @property
    def value(self) -> Tensor:
        """In float32."""
        if self.format is None and self.codes.dtype == torch.float32:
            return self.codes
        if self.format is None:
            numbers = self.codes.to(torch.float32) if self.is_integer else fp8.widen(self.codes)
            return numbers.mul_(self.scale)
        return _ops.dequantize(self.codes, self.scale, self.format.bits, self.format.gamma)

    @property
    def is_integer(self) -> bool:
        """Another system's integers?"""
        return self.format is None and not self.codes.dtype.is_floating_point

    def with_codes(self, codes: Tensor) -> Operand:
        """The same codes in another order."""
        return Operand(codes, self.scale, self.format)

    @property
    def mT(self) -> Operand:
        """The last two dimensions exchanged."""
        return self.with_codes(self.codes.mT)


def stream_of(rng: Tensor, stream: str) -> Tensor:
    """The random state of one of a tensor's streams, made where the tensor is."""
    rng = rng.clone()
    rng[2] += STREAMS[stream]
    return rng


def quantize(
    x: Tensor, q: Quantizer | ValueQuantizer | None, rng: Tensor | None, stream: str, dim: int = -1, top: Tensor | None = None
) -> Operand:
    """x, its channels along ``dim``, by one of a recipe's quantizers, if any; ``rng`` is read where that is stochastic.

    ``top`` is an estimate of the largest magnitude, for a quantizer that takes one.
    """
    if q is None:
        return observing.report_codes(stream, x, Operand(x.clone(), x.new_ones(()), None))  # operators return no input
    if isinstance(q, ValueQuantizer):
        estimate = {} if top is None else {"top": top}
        codes, scale = q.quantize(x, stream_of(rng, stream) if q.stochastic else None, dim, **estimate)
        return observing.report_codes(stream, x, Operand(codes, scale, None))
    operand = Operand(*_quantize(x, q, stream_of(rng, stream) if q.stochastic else None), q.format)
    return observing.report_codes(stream, x, operand)


def quantize_batch(
    x: Tensor, q: Quantizer | ValueQuantizer | None, rng: Tensor | None, stream: str, dim: int = -1, top: Tensor | None = None
) -> Operand:
    """As :func:`quantize`, of a batch: of all ranks' in a :func:`lns_sim.distributed.global_batch`."""
    if q is None or not distributed.batches_are_one():
        return quantize(x, q, rng, stream, dim, top)
    if isinstance(q, ValueQuantizer):
        raise ValueError(f"a global batch has codes and scales of LNS formats only, not of {type(q).__name__}")
    if q.stochastic:
        rng = stream_of(rng, stream)
        rng[3].fill_(distributed.offset_of(x))
    with_largest = torch.cat([x.reshape(-1), distributed.largest(x)])  # which the scale follows
    codes, scale = _quantize(with_largest, q, rng if q.stochastic else None)
    return observing.report_codes(stream, x, Operand(codes[:-1].reshape(x.shape), scale, q.format))


def _quantize(x: Tensor, q: Quantizer, rng: Tensor | None) -> tuple[Tensor, Tensor]:
    f = q.format
    return _ops.quantize(x, f.bits, f.gamma, None, ROUNDINGS.index(q.rounding), UNDERFLOWS.index(q.underflow), rng, q.thresholds or ())


def error_operands(dy: Tensor, recipe: Recipe, rng: Tensor | None, dim: int, place: Place | None) -> tuple[Operand, Operand]:
    """Q_E, channels along ``dim``: what the input gradient multiplies, and what the weight gradient does.

    They differ where LUQ averages samples. ``place`` keeps what it estimates its largest magnitude from.
    """
    q = recipe.error
    if not isinstance(q, LUQ):
        error = quantize_batch(dy, q, rng, "error", dim)
        return error, error
    top = None if place is None else place.estimate(dy, q.momentum)
    error = quantize_batch(dy, q, rng, "error", dim, top)
    if q.samples == 1:
        return error, error
    total = error.value.clone()
    for i in range(1, q.samples):
        fresh = rng.clone()
        fresh[3] += i * dy.numel()  # random bits of elements beyond the tensor's
        total += quantize(dy, q, fresh, "error", dim, top).value
    return error, error.with_codes(total / q.samples)


def weight_operand(weight: Tensor, recipe: Recipe) -> Operand:
    """Q_W: forward codes of a float32 weight, or of the update codes of an LNSWeight."""
    if not isinstance(weight, LNSTensor):
        return quantize_batch(weight, Quantizer(recipe.weight) if recipe.coded_weights else recipe.weight, None, "weight")
    u, f = recipe.update, recipe.weight
    operand = Operand(*_ops.forward_codes(weight.codes, weight.scale, u.bits, u.gamma, f.bits, f.gamma), f)
    return observing.report_codes("weight", weight, operand)


def round_gradient(dw: Tensor, recipe: Recipe, rng: Tensor | None) -> Tensor:
    """Q_G: the weight gradient as the optimizer sees it."""
    if distributed.batches_are_one():
        dw = distributed.mean_over_ranks(dw)
    return dw if recipe.gradient is None else quantize(dw, recipe.gradient, rng, "gradient").value


def matmul(pass_name: str, recipe: Recipe, a: Operand, b: Operand) -> Tensor:
    """One pass' product (..., M, K) x (..., K, N), same batch: on its datapath, or in float32 of the codes' values."""

    def in_float32():
        if a.is_integer and b.is_integer:
            return integer_product(pass_name, recipe, a, b, a.codes.shape[-1], torch.matmul, (-1, -2))
        return a.value @ b.value

    def on_datapath(path, count):
        scales = a.scale.expand(*a.codes.shape[:-1], 1), b.scale.expand(*b.codes.shape[:-2], 1, b.codes.shape[-1])
        return _ops.matmul(a.codes, scales[0], b.codes, scales[1], a.format.bits, b.format.bits, path, False, count)

    return multiply(pass_name, recipe, (a, b), lambda out: out.numel() * a.codes.shape[-1], on_datapath, in_float32)


def integer_product(pass_name: str, recipe: Recipe, a: Operand, b: Operand, depth: int, op, along: tuple[int, int] | None) -> Tensor:
    """``op`` on the integers of both, exactly, times the float32 product of the scales, and rounded once.

    Float32 holds sums up to 2^24. Longer ones are cut into parts that do, ``along`` a dimension of each operand, and added in float64.
    Where parts would be few numbers, a is split, too, into a multiple of a power of two and a rest. What does not fit even so, has no
    such dimension, or lies where float32's products are not plain, runs in float64.
    """
    first, second = (getattr(recipe, operand).largest for operand in PASSES[pass_name])
    unit = 1 << (max(first, second).bit_length() + 1) // 2

    def half(largest: int) -> int:
        return max(min(largest, unit // 2), (largest + unit // 2) // unit)

    # The largest products; a may be either operand, as a transposed convolution exchanges roles.
    whole, halves = first * second, max(half(first) * second, first * half(second))
    scale, x = a.scale * b.scale, a.codes

    def size(product: int) -> int:
        """Of a part, for so large products."""
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


def _float32_is_plain(device: torch.device, convolves: bool) -> bool:
    """Are float32's sums of integers exact there? Not by cuDNN, which may transform what it convolves, nor where the user allows
    TF32; a CPU's bfloat16 holds these integers, 8 bits and shifts, and adds in float32."""
    return device.type == "cpu" or (not convolves and torch.backends.cuda.matmul.fp32_precision in ("none", "ieee"))


def multiply(pass_name: str, recipe: Recipe, operands: tuple[Operand, Operand], macs, on_datapath, in_float32) -> Tensor:
    """One pass' product where the recipe says, reported to observers.

    Args:
        pass_name, recipe, operands: which product, and of what.
        macs: from the result to the number of products.
        on_datapath: from an encoded datapath, and whether to count, to result and counters.
        in_float32: the result of the operands' values.
    """
    datapath, counters = getattr(recipe, pass_name), None
    if datapath is None:
        out = in_float32()
    else:
        count = observing.counting()
        out, counted = on_datapath(datapath.encode(), count)
        counters = counted if count else None
    observing.report(pass_name, recipe, operands, macs(out), out, counters, in_float32)
    return out


def fake_operand(x: Tensor, recipe: Recipe, operand: str) -> tuple[Tensor, Tensor]:
    """What codes and scale of an "activation" or "weight" look like, for fake kernels."""
    return x.new_empty(x.shape, dtype=recipe.code_dtype(operand)), x.new_empty(())
