"""Attention as one differentiable operator, a block of queries at a time.

No float32 matrix over both lengths exists, of however many heads, and nothing of that size is kept for the backward
pass, which computes scores and probabilities again. Beyond a causal diagonal probabilities are zeros, which change no
sum: whole blocks there are left out of every product. All codes, and results on datapaths, are those of the whole
matrices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lns_sim._compile import constant_result
from lns_sim.ops import attention_values, causal_softmax, observer
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import on_one_device
from lns_sim.ops.gemm import matmul
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import error_operands, fake_operand, quantize_batch, quantized_values, weight_operand
from lns_sim.policies import UNDERFLOWS
from lns_sim.quantizers import LNS, Operand
from lns_sim.recipes import Recipe

# Of all heads together: queries in a block, and keys whose gradients are computed at once. Enough to fill a GPU.
QUERIES, KEYS = 1 << 15, 1 << 15
STEP = 128  # a head's share is a multiple of it: a tile of the GPU's product kernel


@constant_result
def computes_in_blocks(recipe: str) -> bool:
    """Do all of a recipe's quantizers of operands give the same codes a block at a time (:class:`_Codes`)? Block scales
    do not: each pass has its own.
    """
    r = Recipe.decode(recipe)
    found = map(r.quantizer, ("activation", "weight", "error"))
    return r.block is None and all(isinstance(q, LNS) and not q.stochastic for q in found)


def _at_scale(q: LNS, codes: Tensor, own: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.lns_sim.rescale(
        codes, own, scale, q.format.bits, q.format.gamma, UNDERFLOWS.index(q.underflow), None
    )


@functools.cache
def _scale_of_one(q: LNS) -> float:
    return float(q.quantize(torch.ones((), device="cpu"), None, -1)[1])


class _Codes:
    """A tensor that becomes codes block by block, each at a scale of its own until the largest is known.

    Scales are powers of two, and codes the nearest logarithms: at a larger scale they are the same codes, moved by
    whole octaves, and those that leave the format below are clamped or flushed as the quantizer would have.
    """

    def __init__(self, q: LNS):
        self.q = q
        self.blocks: list[tuple[Tensor, Tensor]] = []

    def add(self, x: Tensor) -> None:
        """The next block, in float32."""
        self.blocks.append(self.q.quantize(x, None, -1))

    def scale(self) -> Tensor:
        """The largest of all blocks', those of zeros left out; NaN where one is."""
        if len(self.blocks) == 1:
            return self.blocks[0][1]
        scales = [torch.where((codes.any() != 0) | scale.isnan(), scale, 0.0) for codes, scale in self.blocks]
        largest = torch.stack(scales).amax()
        return torch.where(largest == 0, 1.0, largest)

    def at(self, scale: Tensor) -> Iterator[Tensor]:
        """Each block's codes at that scale, in order; they are given away."""
        while self.blocks:
            yield _at_scale(self.q, *self.blocks.pop(0), scale)


class _Attention(NamedTuple):
    """One attention's operands: query (*batch, group, L, E), key (*batch, S, E), value (*batch, S, Ev) as codes."""

    recipe: Recipe
    query: Operand
    key: Operand
    value: Operand
    mask: Tensor | None
    factor: float
    is_causal: bool

    @property
    def lengths(self) -> tuple[int, int]:
        return self.query.codes.shape[-2], self.key.codes.shape[-2]

    def cut(self, length: int, together: int) -> list[slice]:
        """Of queries or keys, so many of all heads at once; of keys that a causal mask does not divide, all."""
        heads = math.prod(self.query.codes.shape[:-2])
        step = length if observer.watching() else max(together // heads // STEP, 1) * STEP
        return [slice(begin, min(begin + step, length)) for begin in range(0, length, step)]

    def keys(self, queries: slice) -> slice:
        """The first keys, which may be seen: the others' probabilities are zeros."""
        seen = self.lengths[1]
        return slice(0, min(queries.stop, seen) if self.is_causal and not observer.watching() else seen)

    def blocks(self) -> list[tuple[slice, slice]]:
        """Queries, and the keys that they see."""
        return [(rows, self.keys(rows)) for rows in self.cut(self.lengths[0], QUERIES)]

    def decoded(self, x: Operand, pass_name: str) -> Operand:
        """For all blocks at once, where the pass multiplies values in float32."""
        on_datapath = getattr(self.recipe, pass_name) is not None
        return x if on_datapath or observer.watching() else Operand(x.value, x.scale, None)

    @property
    def goes_straight_to_codes(self) -> bool:
        """Is there nothing but a causal mask between products and codes, and nobody who looks on?"""
        return self.is_causal and not observer.watching()

    @property
    def multiplies_values(self) -> bool:
        """Do all passes go that way, and end in products of values?"""
        return self.recipe.in_float32 and self.goes_straight_to_codes

    def of_heads(self, x: Operand, pass_name: str) -> Operand:
        """Keys or values as every head of a group has them."""
        x = self.decoded(x, pass_name)
        codes = x.codes.unsqueeze(-3).expand(*self.query.codes.shape[:-2], *x.codes.shape[-2:])
        return x.with_codes(codes.contiguous() if x.quantizer is None else codes)  # or torch copies them for each block

    def products(self, again: bool) -> Iterator[tuple[slice, slice, Tensor]]:
        """Queries, the keys that they see, and their products, block by block; ``again``: once more, for the backward
        pass.
        """
        query, key = self.decoded(self.query, "forward"), self.of_heads(self.key, "forward").mT
        for rows, seen in self.blocks():
            yield rows, seen, matmul("forward", self.recipe, _rows(query, rows), _columns(key, seen), again)

    def probabilities(self, again: bool) -> Iterator[tuple[slice, slice, Tensor]]:
        """Their probabilities of all keys instead."""
        scores = self.query.codes.new_empty(0)
        for rows, seen, products in self.products(again):
            if scores.shape[-2:-1] != products.shape[-2:-1]:  # what no block has seen stays as it is
                scores = products.new_full((*products.shape[:-1], self.lengths[1]), -math.inf)
            torch.mul(products, self.factor, out=scores[..., seen])
            del products
            yield rows, seen, self._softmax(scores, rows, seen)

    def probability_codes(self) -> tuple[Tensor, Iterator[tuple[slice, Tensor]]]:
        """Their scale, and the keys and codes of each block; they are given away."""
        q, blocks = self.recipe.activation, []
        if self.goes_straight_to_codes:
            scale = self.scale_of_probabilities()
            for rows, seen, products in self.products(again=False):
                block = causal_softmax.probabilities(products, self.factor, rows.start, self.lengths[1], q, scale)
                blocks.append((seen, block))
                del products
            return scale, (blocks.pop(0) for _ in range(len(blocks)))
        codes, cuts = _Codes(q), []
        for _, seen, p in self.probabilities(again=False):
            codes.add(p)
            cuts.append(seen)
        scale = codes.scale()
        return scale, ((seen, block[..., seen]) for seen, block in zip(cuts, codes.at(scale)))

    def scale_of_probabilities(self) -> Tensor:
        """Under a causal mask: the first query sees one key."""
        return self.query.scale.new_full((), _scale_of_one(self.recipe.activation))

    def _softmax(self, scores: Tensor, rows: slice, seen: slice) -> Tensor:
        """Zeros in rows where everything is masked, as torch's own; scores are masked in place."""
        if self.is_causal:  # the first key is seen by all
            first = min(rows.start, seen.stop)
            key = torch.arange(first, seen.stop, device=scores.device)
            query = torch.arange(rows.start, rows.stop, device=scores.device)
            scores[..., first : seen.stop].masked_fill_(key > query[:, None], -math.inf)
            return torch.softmax(scores, -1)
        if self.mask is None:
            return torch.softmax(scores, -1)
        mask = self.mask[..., rows, :]
        scores = scores.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else scores.add_(mask)
        nothing = scores.amax(-1, keepdim=True) == -math.inf
        return torch.softmax(scores, -1).masked_fill_(nothing, 0.0)


def _rows(x: Operand, rows: slice) -> Operand:
    return x.with_codes(x.codes[..., rows, :])


def _columns(x: Operand, columns: slice) -> Operand:
    return x.with_codes(x.codes[..., columns])


def _joined(parts: list[Tensor], dim: int = -2) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


@outside_autocast
def attention_forward(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, factor: float, is_causal: bool, recipe: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """softmax(query key^T * factor, masked) value, both products by the recipe; groups of heads share keys and values.

    query (*batch, group, L, E), key (*batch, S, E) and value (*batch, S, Ev) are float32; the mask, boolean (true: is
    seen) or added, is (*batch, group, L, S). Also the three operands' codes and scales, and the probabilities' scale.
    """
    observer.enter()
    observer.enter_part(0)
    r = Recipe.decode(recipe)
    q, k = quantize_batch(query, r.activation, None, "activation"), weight_operand(key, r)
    v = weight_operand(value, r)
    a = _Attention(r, q, k, v, mask, factor, is_causal)
    if a.multiplies_values:
        y, scale = attention_values.forward(a)
        return y, q.codes, q.scale, k.codes, k.scale, v.codes, v.scale, scale
    scale, blocks = a.probability_codes()
    observer.enter_part(1)
    values, parts = a.of_heads(v, "forward"), []
    for seen, codes in blocks:
        parts.append(matmul("forward", r, Operand(codes, scale, r.activation), _rows(values, seen)))
    return _joined(parts), q.codes, q.scale, k.codes, k.scale, v.codes, v.scale, scale


attention = torch.library.custom_op("lns_sim::attention", attention_forward, mutates_args=())


@attention.register_fake
@on_one_device
def _(query, key, value, mask, factor, is_causal, recipe):
    r = Recipe.decode(recipe)
    y = query.new_empty(*query.shape[:-1], value.shape[-1])
    kinds = ((query, "activation"), (key, "weight"), (value, "weight"))
    return y, *(t for x, kind in kinds for t in fake_operand(x, r, kind)), query.new_empty(())


def _of_keys(a: _Attention, left: Operand, right: Operand, queries_last: bool) -> Tensor:
    """A weight gradient's product over all queries, and its sum over a group's heads: of values (error^T P)^T, of keys
    error^T query. Of a causal mask's first queries a block of keys needs none, in whole vectors of the datapath.
    """
    d = a.recipe.weight_gradient
    vector, parts = 1 if d is None else d.vector_size, []
    for keys in a.cut(a.lengths[1], KEYS) if a.is_causal else [slice(0, a.lengths[1])]:
        queries = slice(min(keys.start, a.lengths[0]) // vector * vector, None)
        of_keys = (left, _columns(right, keys)) if queries_last else (_rows(left, keys), right)
        parts.append(matmul("weight_gradient", a.recipe, _columns(of_keys[0], queries), _rows(of_keys[1], queries)))
    whole = _joined(parts, -1).mT if queries_last else _joined(parts)
    return whole.sum(-3) if whole.shape[-3] > 1 else whole.squeeze(-3)


class _Errors(NamedTuple):
    """What a backward pass multiplies, of all queries and keys: codes of probabilities, and errors, which are given
    away.

    ``cuts`` are the queries of each block and the keys that they see, ``source`` the errors in float32 where somebody
    looks on. None where it is not needed.
    """

    p_codes: Tensor | None
    errors: Callable[[], Operand]
    cuts: list[tuple[slice, slice]]
    source: Tensor | None = None


def _errors(a: _Attention, error: Operand, p_scale: Tensor, needs: Sequence[bool]) -> _Errors:
    r, length = a.recipe, a.lengths[1]
    whole, values = (*a.query.codes.shape[:-1], length), a.of_heads(a.value, "input_gradient").mT
    errors_of_rows = a.decoded(error, "input_gradient")
    p_codes = p_scale.new_empty(whole, dtype=r.activation.dtype) if needs[2] else None
    errors, cuts, padded, source = _Codes(r.error), [], p_scale.new_empty(0), None
    for rows, seen, p in a.probabilities(again=True):
        if p_codes is not None:
            p_codes[..., rows, :] = _at_scale(r.activation, *r.activation.quantize(p, None, -1), p_scale)
        if needs[0] or needs[1]:
            dp = matmul("input_gradient", r, _rows(errors_of_rows, rows), _columns(values, seen))
            if seen.stop < length:  # where probabilities are zeros, their gradients reach no score
                if padded.shape[-2:-1] != dp.shape[-2:-1]:
                    padded = dp.new_zeros(*dp.shape[:-1], length)
                padded[..., seen] = dp
                dp = padded
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, torch.float32)
            errors.add(ds.mul_(a.factor))
            cuts.append((rows, seen))
            source = ds if observer.watching() else None  # the only block
            del dp, ds
        del p

    def joined() -> Operand:
        scale, codes = errors.scale(), p_scale.new_empty(whole, dtype=r.error.dtype)
        for (rows, _), block in zip(cuts, errors.at(scale)):
            codes[..., rows, :] = block
        return Operand(codes, scale, r.error)

    return _Errors(p_codes, joined, cuts, source)


def _causal_errors(a: _Attention, error: Operand, p_scale: Tensor) -> _Errors:
    """The same, straight to codes."""
    r, whole = a.recipe, (*a.query.codes.shape[:-1], a.lengths[1])
    values, errors_of_rows = a.of_heads(a.value, "input_gradient").mT, a.decoded(error, "input_gradient")
    p_codes, codes = (p_scale.new_empty(whole, dtype=q.dtype) for q in (r.activation, r.error))
    scales, cuts = p_scale.new_empty(whole[:-1]), []
    for rows, seen, products in a.products(again=True):
        dp = matmul("input_gradient", r, _rows(errors_of_rows, rows), _columns(values, seen))
        p, e = (r.activation, p_scale, p_codes[..., rows, :]), (r.error, scales[..., rows], codes[..., rows, :])
        causal_softmax.errors(products, dp, a.factor, rows.start, p, e)
        cuts.append((rows, seen))
        del products, dp
    return _Errors(p_codes, lambda: Operand(codes, causal_softmax.at_largest(codes, scales, r.error), r.error), cuts)


def _gradients(dy: Tensor, a: _Attention, p_scale: Tensor, needs: Sequence[bool]) -> list[Tensor | None]:
    """Of query, key and value, where they are needed."""
    r = a.recipe
    if a.multiplies_values and all(needs):
        return attention_values.gradients(quantized_values(dy, r.error, None, "error").value, a, p_scale)
    observer.enter_part(1)
    error, _ = error_operands(dy, r, None, -1, None)
    straight = a.goes_straight_to_codes and all(needs)
    p_codes, errors, cuts, source = _causal_errors(a, error, p_scale) if straight else _errors(a, error, p_scale, needs)
    dq = dk = dv = None
    if p_codes is not None:
        dv = _of_keys(a, error.mT, Operand(p_codes, p_scale, r.activation), queries_last=True)
        del p_codes
    if needs[0] or needs[1]:
        observer.enter_part(0)
        ds, keys = errors(), a.of_heads(a.key, "input_gradient")
        if source is not None:
            observer.report_codes("error", source, ds)
        if needs[0]:
            dq = _joined(
                [matmul("input_gradient", r, _columns(_rows(ds, rows), seen), _rows(keys, seen)) for rows, seen in cuts]
            )
        if needs[1]:
            dk = _of_keys(a, ds.mT, a.query, queries_last=False)
    return [dq, dk, dv]


@torch.library.custom_op("lns_sim::attention_gradients", mutates_args=())
def _gradients_whole(
    dy: Tensor,
    query: Tensor,
    query_scale: Tensor,
    key: Tensor,
    key_scale: Tensor,
    value: Tensor,
    value_scale: Tensor,
    p_scale: Tensor,
    mask: Tensor | None,
    factor: float,
    is_causal: bool,
    recipe: str,
) -> tuple[Tensor, Tensor, Tensor]:
    operands = (query, query_scale), (key, key_scale), (value, value_scale)
    dq, dk, dv = _gradients(dy, _attention(operands, mask, factor, is_causal, recipe), p_scale, [True] * 3)
    return dq.contiguous(), dk.contiguous(), dv.contiguous()


@_gradients_whole.register_fake
def _(dy, query, query_scale, key, key_scale, value, *rest):
    return dy.new_empty(query.shape), dy.new_empty(key.shape), dy.new_empty(value.shape)


def _attention(operands, mask: Tensor | None, factor: float, is_causal: bool, recipe: str) -> _Attention:
    r = Recipe.decode(recipe)
    q, k, v = (Operand(*o, r.quantizer(kind)) for o, kind in zip(operands, ("activation", "weight", "weight")))
    return _Attention(r, q, k, v, mask, factor, is_causal)


def _save(ctx, inputs, output):
    ctx.options, ctx.site, ctx.differentiable = inputs[4:], observer.site(), False
    ctx.save_for_backward(*output[1:], inputs[3])
    ctx.mark_non_differentiable(output[1], *output[3:])  # a scale, of one number, stays: see backward_pass


@backward_pass
def _backward(ctx, saved, dy, *_):
    observer.go_on(ctx.site)
    *operands, p_scale, mask = saved
    if type(dy) is Tensor:
        a = _attention(zip(operands[::2], operands[1::2]), mask, *ctx.options)
        found = _gradients(dy, a, p_scale, ctx.needs_input_grad[:3])
    else:  # a compiler is tracing
        found = map(observer.unobserved, _gradients_whole(dy, *operands, p_scale, mask, *ctx.options))
    return *found, *[None] * 4


differentiate(attention, attention_forward, _backward, _save)
