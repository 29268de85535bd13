"""A layer's tensors as operands of its products, by the recipe's quantizers, in the random streams that are theirs."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim import distributed
from lns_sim.contract import FIRST_ELEMENT
from lns_sim.ops import memory, observer
from lns_sim.ops.memory import Place
from lns_sim.quantizers import Operand, Quantizer
from lns_sim.quantizers.operand import lies_transposed
from lns_sim.random import stream_of
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor


def quantize(x: Tensor, q: Quantizer | None, rng: Tensor | None, stream: str, dim: int = -1) -> Operand:
    """x, its channels along ``dim``, by one of a recipe's quantizers, if any; ``rng`` is read where that is
    stochastic.
    """
    if q is None:
        operand = Operand(x.clone(), x.new_ones(()), None)  # operators return no input
    elif q.keeps is not None:
        place = memory.announced(q)
        random = stream_of(rng, stream, x) if q.stochastic else None
        operand = q.remembered(x, random, dim, place.of(stream), place.mode)
    else:
        operand = q.operand(x, stream_of(rng, stream, x) if q.stochastic else None, dim)
    operand = operand.with_codes(operand.codes.contiguous())  # as compilers are told, whatever torch's own functions do
    return observer.report_codes(stream, x, operand)


def quantized_values(x: Tensor, q: Quantizer | None, rng: Tensor | None, stream: str, dim: int = -1) -> Operand:
    """The values of :func:`quantize`'s codes, as an operand without a quantizer; nobody sees the codes."""
    if q is None or q.keeps is not None or observer.watching():
        operand = quantize(x, q, rng, stream, dim)
        return Operand(operand.value, operand.scale, None)
    return Operand(*q.quantized_values(x, stream_of(rng, stream, x) if q.stochastic else None, dim), None)


def quantize_batch(x: Tensor, q: Quantizer | None, rng: Tensor | None, stream: str, dim: int = -1) -> Operand:
    """As :func:`quantize`, of a batch: of all ranks' in a :func:`lns_sim.distributed.global_batch`."""
    if q is None or not distributed.batches_are_one():
        return quantize(x, q, rng, stream, dim)
    if q.format is None:
        raise ValueError(f"a global batch has codes and scales of LNS formats only, not of {type(q).__name__}")
    if q.stochastic:
        rng = stream_of(rng, stream, x)
        rng[FIRST_ELEMENT].fill_(distributed.offset_of(x))
    with_largest = torch.cat([x.reshape(-1), distributed.largest(x)])  # which the scale follows
    codes, scale = q.quantize(with_largest, rng if q.stochastic else None, -1)
    return observer.report_codes(stream, x, Operand(codes[:-1].reshape(x.shape), scale, q))


def error_operands(
    dy: Tensor, recipe: Recipe, rng: Tensor | None, dim: int, place: Place | None
) -> tuple[Operand, Operand]:
    """Q_E, channels along ``dim``: what the input gradient multiplies, and what the weight gradient does.

    ``place`` keeps what the quantizer keeps between steps.
    """
    q = recipe.error
    if q is None or q.format is not None or distributed.batches_are_one():
        error = quantize_batch(dy, q, rng, "error", dim)
        return error, error
    known = {} if place is None else place.memory
    operands = q.error_operands(dy, stream_of(rng, "error", dy) if q.stochastic else None, dim, known)
    return observer.report_codes("error", dy, operands[0]), operands[1]


def weight_operand(weight: Tensor, recipe: Recipe) -> Operand:
    """Q_W: forward codes of a float32 weight, or of the update codes of an LNSWeight."""
    q = recipe.quantizer("weight")
    if not isinstance(weight, LNSTensor):
        return quantize_batch(weight, q, None, "weight")
    u, f = recipe.update, recipe.weight
    turned = recipe.in_float32 and lies_transposed(weight.codes)  # then they stay so, as products of values take them
    codes = weight.codes.mT if turned else weight.codes
    operand = Operand(*torch.ops.lns_sim.forward_codes(codes, weight.scale, u.bits, u.gamma, f.bits, f.gamma), q)
    return observer.report_codes("weight", weight, operand.mT if turned else operand)


def round_gradient(dw: Tensor, recipe: Recipe, rng: Tensor | None) -> Tensor:
    """Q_G: the weight gradient as the optimizer sees it."""
    if distributed.batches_are_one():
        dw = distributed.mean_over_ranks(dw)
    return dw if recipe.gradient is None else quantized_values(dw, recipe.gradient, rng, "gradient").value


def fake_operand(x: Tensor, recipe: Recipe, kind: str) -> tuple[Tensor, Tensor]:
    """What codes and scale of an "activation" or "weight" look like, for fake kernels."""
    q = recipe.quantizer(kind)
    if recipe.block is not None:  # each pass makes its own
        return x.new_empty(0, dtype=torch.uint8), x.new_empty(())
    return x.new_empty(x.shape, dtype=torch.float32 if q is None else q.dtype), x.new_empty(())
