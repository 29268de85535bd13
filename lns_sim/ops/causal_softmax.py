"""Softmax under a causal mask and its derivative straight to codes, a block of queries at a time.

On a GPU a kernel each reads what its queries see and writes codes, nothing else; elsewhere, and for lengths whose sums
torch adds up in an order that the kernels do not have, torch's functions and quantizers. The bits are the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lns_sim.ops.fake import code_dtype
from lns_sim.policies import UNDERFLOWS
from lns_sim.quantizers import LNS

_ops = torch.ops.lns_sim
_LONGEST = 2048  # keys, of the kernels


def _described(q: LNS) -> tuple[int, int, int, tuple[int, ...]]:
    return q.format.bits, q.format.gamma, UNDERFLOWS.index(q.underflow), q.thresholds or ()


def _has_kernel(like: Tensor, length: int) -> bool:
    """Torch's kernels have a warp for a row, the derivative's up to 1024 elements; beyond, 256 threads of four elements
    at a time if rows begin at multiples of 16 bytes.
    """
    return like.is_cuda and (length <= 1024 or (1032 <= length <= _LONGEST and length % 4 == 0))


def probabilities(products: Tensor, factor: float, first: int, length: int, q: LNS, scale: Tensor) -> Tensor:
    """Codes (..., rows, seen) of the softmax of ``products * factor`` (..., rows, seen), of which query i of a matrix
    sees the first ``first + i + 1`` keys of ``length``.

    They are at ``scale``, which becomes NaN where a probability is.
    """
    run = _ops.causal_probabilities if _has_kernel(products, length) else _probabilities
    return run(products, factor, first, length, scale, *_described(q))


def become_probabilities(products: Tensor, factor: float, first: int, length: int, q: LNS, scale: Tensor) -> None:
    """The same in place of the products, as what the codes stand for."""
    run = _ops.causal_probability_values if _has_kernel(products, length) else _probability_values
    run(products, factor, first, length, scale, *_described(q))


def errors(
    products: Tensor,
    gradients: Tensor,
    factor: float,
    first: int,
    p: tuple[LNS, Tensor, Tensor],
    e: tuple[LNS, Tensor, Tensor],
) -> None:
    """Of gradients (..., rows, seen) of probabilities: writes codes (..., rows, length) of probabilities and of errors,
    the gradients of ``products``, both zero for keys that nobody has seen.

    Args:
        products, factor, first: as of :func:`probabilities`.
        p: the quantizer, the scale, and where codes go; or (..., rows, seen) of float32, which may be the products,
            where what they stand for goes.
        e: the quantizer, where a scale for each row goes (..., rows), 0 where all is zero, and where codes go.
    """
    (q_p, scale, p_codes), (q_e, scales, e_codes) = p, e
    kernel = _has_kernel(products, e_codes.shape[-1]) and q_p.dtype == q_e.dtype
    run = _ops.causal_errors if kernel else _errors
    run(products, gradients, factor, first, scale, p_codes, e_codes, scales, *_described(q_p), *_described(q_e))


def at_largest(codes: Tensor, scales: Tensor, q: LNS) -> Tensor:
    """Moves codes (..., queries, keys) from a scale for each row to the largest, in place, and returns that: 1 where
    all are zero.
    """
    scale = largest(scales)
    _ops.causal_rescale(codes, scales, scale, *_described(q)[:3])
    return scale


def largest(scales: Tensor) -> Tensor:
    """The scale of rows together, each of which has one, 0 where all is zero: 1 where all are."""
    found = scales.amax()
    return torch.where(found == 0, 1.0, found)


def values(codes: Tensor, scales: Tensor, scale: Tensor, q: LNS) -> Tensor:
    """What codes (..., queries, keys) with a scale for each row would stand for at another."""
    return _ops.causal_values(codes, scales, scale, *_described(q)[:3])


# ---- The same by torch's functions.


def _softmax(products: Tensor, factor: float, first: int, length: int) -> Tensor:
    rows, seen = products.shape[-2:]
    if not (0 <= first < 1 << 30 and seen <= length < 1 << 30):
        raise ValueError(f"there are no queries from {first} on that see {seen} of {length} keys")
    scores = products.new_full((*products.shape[:-1], length), -math.inf)
    torch.mul(products, factor, out=scores[..., :seen])
    key = torch.arange(min(first, seen), seen, device=scores.device)  # all see those before
    query = torch.arange(first, first + rows, device=scores.device)
    scores[..., min(first, seen) : seen].masked_fill_(key > query[:, None], -math.inf)
    return torch.softmax(scores, -1)


def _quantized(x: Tensor, bits: int, gamma: int, underflow: int, thresholds) -> tuple[Tensor, Tensor]:
    return _ops.quantize(x, bits, gamma, None, 0, underflow, None, thresholds)


def _probabilities(products, factor, first, length, scale, bits, gamma, underflow, thresholds):
    p = _softmax(products, factor, first, length)[..., : products.shape[-1]]
    codes, own = _quantized(p, bits, gamma, underflow, thresholds)
    scale.copy_(torch.where(own.isnan(), own, scale))
    return _ops.rescale(codes, own, scale, bits, gamma, underflow, None)


def _probability_values(products, factor, first, length, scale, bits, gamma, underflow, thresholds):
    codes = _probabilities(products, factor, first, length, scale, bits, gamma, underflow, thresholds)
    products.copy_(_ops.dequantize(codes, scale, bits, gamma))


def _errors(products, gradients, factor, first, scale, p_codes, e_codes, scales, bits, gamma, underflow, *others):
    thresholds, *of_errors = others
    p = _softmax(products, factor, first, e_codes.shape[-1])
    codes, own = _quantized(p, bits, gamma, underflow, thresholds)
    codes = _ops.rescale(codes, own, scale, bits, gamma, underflow, None)[..., : p_codes.shape[-1]]
    p_codes.copy_(_ops.dequantize(codes, scale, bits, gamma) if p_codes.dtype == torch.float32 else codes)
    padded = torch.zeros_like(p)
    padded[..., : gradients.shape[-1]] = gradients
    ds = torch.ops.aten._softmax_backward_data(padded, p, -1, torch.float32).mul_(factor)
    codes, own = _quantized(ds, *of_errors)
    e_codes.copy_(codes)
    scales.copy_(torch.where((codes.any() != 0) | own.isnan(), own, 0.0))  # one for all rows


def _moved(codes, scales, scale, bits, gamma, underflow):
    rows, of_rows = codes.reshape(-1, codes.shape[-1]), scales.reshape(-1, 1)
    moved = _ops.rescale(rows, of_rows, scale.expand(of_rows.shape), bits, gamma, underflow, None)
    return moved.view(codes.shape)


def _rescale(codes, *described):
    codes.copy_(_moved(codes, *described))


def _values(codes, scales, scale, bits, gamma, underflow):
    return _ops.dequantize(_moved(codes, scales, scale, bits, gamma, underflow), scale, bits, gamma)


for _name, _body in {
    "probabilities": _probabilities,
    "probability_values": _probability_values,
    "errors": _errors,
    "rescale": _rescale,
    "values": _values,
}.items():
    torch.library.impl(f"lns_sim::causal_{_name}", "CPU", _body)


@torch.library.register_fake("lns_sim::causal_probabilities")
def _(products, factor, first, length, scale, bits, gamma, underflow, thresholds):
    return products.new_empty(products.shape, dtype=code_dtype(bits))


@torch.library.register_fake("lns_sim::causal_values")
def _(codes, scales, scale, bits, gamma, underflow):
    return codes.new_empty(codes.shape, dtype=torch.float32)


for _name in ("causal_probability_values", "causal_errors", "causal_rescale"):
    torch.library.register_fake(f"lns_sim::{_name}", lambda *_: None)
