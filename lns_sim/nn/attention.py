"""Attention with both products on the datapath: scaled_dot_product_attention and torch.nn.MultiheadAttention's
function.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.distributed import batches_are_one, local
from lns_sim.nn import functions
from lns_sim.nn.calling import call
from lns_sim.nn.functions import is_weight
from lns_sim.ops import observer
from lns_sim.ops.attention import computes_in_blocks
from lns_sim.ops.differentiable import is_watched
from lns_sim.recipes import Recipe


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def _probabilities(scores: Tensor) -> Tensor:
    """softmax, zero in rows where everything is masked, as torch's own; so are their gradients, which a softmax of
    such a row would make NaN.
    """
    nothing = (scores == -math.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(nothing, 0.0), -1).masked_fill(nothing, 0.0)


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool, enable_gqa: bool) -> None:
    """Raises ValueError where the arguments of an attention do not fit together, NotImplementedError where they are
    nested tensors.
    """
    if any(x.is_nested for x in (query, key, value)):
        raise functions.without_simulated_form("an attention of nested tensors")
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)}"
    if min(x.dim() for x in (query, key, value)) < 2:
        raise ValueError(f"attention takes (..., length, width), got {shapes}")
    if query.shape[-1] != key.shape[-1] or query.shape[-1] == 0:
        raise ValueError(f"query and key must have the same last dimension, not empty, got {shapes}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"key and value must have the same length, got {shapes}")
    if enable_gqa:
        if min(x.dim() for x in (query, key, value)) < 3:
            raise ValueError(f"enable_gqa needs (..., heads, length, width), got {shapes}")
        if any(x.shape[-3] == 0 or query.shape[-3] % x.shape[-3] for x in (key, value)):
            raise ValueError(f"enable_gqa needs numbers of heads that divide the query's, got {shapes}")
    batches = [x.shape[: -3 if enable_gqa else -2] for x in (query, key, value)]
    try:
        torch.broadcast_shapes(*batches)
    except RuntimeError:
        hint = "" if enable_gqa else "; enable_gqa lets query heads share key heads"
        raise ValueError(f"batches and heads do not broadcast, got {shapes}{hint}") from None
    if mask is None:
        return
    if is_causal:
        raise ValueError("is_causal takes no attn_mask beside it")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"attn_mask must be boolean or floating-point, got {mask.dtype}")
    if mask.is_floating_point() and mask.dtype != query.dtype:
        raise ValueError(f"attn_mask must be boolean or {query.dtype} as the query, got {mask.dtype}")


def _fits_in_blocks(recipe: Recipe, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Is it one operator (:mod:`lns_sim.ops.attention`)? Else it is two products with whole matrices between them: with
    stochastic quantizers or those of other systems, in a global batch, for whoever looks on, of few numbers, and where
    the mask is learned.
    """
    tensors = (query, key, value)
    return (
        computes_in_blocks(recipe.encode())
        and not (mask is not None and mask.requires_grad)
        and not any(is_weight(x) or local(x) is not x or x.is_nested for x in tensors)
        and min(x.dim() for x in tensors) > 2
        and query.shape[:-3] == key.shape[:-3]
        and key.shape[:-2] == value.shape[:-2]
        and all(x.numel() for x in tensors)
        and query.shape[-3] % key.shape[-3] == 0
        and query.shape[-1] > 1
        and key.shape[-2] > 1
        and not batches_are_one()
        and not observer.watching()
        and (torch.compiler.is_compiling() or not is_watched())
    )


def _in_blocks(simulation, query: Tensor, key: Tensor, value: Tensor, mask, is_causal: bool, scale: float) -> Tensor:
    """(..., heads, L, E), (..., key heads, S, E) and (..., key heads, S, Ev), of which a group of heads shares one."""
    recipe, _ = functions.arithmetic(simulation)
    functions.arithmetic(simulation)  # two products, of which each takes its number
    groups = (key.shape[-3], query.shape[-3] // key.shape[-3])
    if mask is not None:
        mask = mask.expand(*query.shape[:-1], key.shape[-2]).unflatten(-3, groups)
    q, k, v = (functions.float32(x, name) for x, name in ((query, "query"), (key, "key"), (value, "value")))
    op = torch.ops.lns_sim.attention
    return call(op, q.unflatten(-3, groups), k, v, mask, scale, is_causal, recipe)[0].flatten(-4, -3)


@functions.handles(F.scaled_dot_product_attention)
def _attention(
    simulation, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """Masks, softmax and dropout in float32 between the two products; a block at a time where nothing hinders that."""
    if simulation is None or simulation.recipe is None:
        return NotImplemented
    _check(query, key, value, attn_mask, is_causal, enable_gqa)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if dropout_p == 0 and _fits_in_blocks(simulation.recipe, query, key, value, attn_mask):
        return _in_blocks(simulation, query, key, value, attn_mask, is_causal, scale)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if enable_gqa:  # several query heads share a key head
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    with simulation:
        scores = (query @ key.mT) * scale
        scores = _masked(scores, None if attn_mask is None else attn_mask.expand(scores.shape))
        return F.dropout(_probabilities(scores), dropout_p) @ value


def _added_mask(name: str, mask: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor | float:
    """What is added to scores; in torch.nn.MultiheadAttention a boolean mask is true where nothing may be seen.

    Raises:
        ValueError: neither boolean nor floating-point, or of another shape.
    """
    if mask is None:
        return 0.0
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"{name} must be boolean or floating-point, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(mask.shape)}")
    return like.new_zeros(shape).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask


@functions.handles(F.multi_head_attention_forward)
def _multi_head_attention(
    simulation,
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout_p,
    out_proj_weight,
    out_proj_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    static_k=None,
    static_v=None,
    average_attn_weights=True,
    is_causal=False,
):
    """(L, N, E) queries and (S, N, *) keys and values, or without N; the weights (N, L, S) where asked for."""
    if simulation is None:
        raise TypeError("a converted MultiheadAttention runs inside its module or lns_sim.simulate")
    if static_k is not None or static_v is not None:
        raise ValueError("a simulated MultiheadAttention takes no static_k or static_v")
    if is_causal and attn_mask is None:
        raise ValueError("is_causal only says that attn_mask is causal, and needs it")
    batched = F._mha_shape_check(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    (length, n, width), sources = query.shape, len(key)
    if width != embed_dim_to_check:
        raise ValueError(f"the query's last dimension must be {embed_dim_to_check}, got {width}")
    if key.shape[:2] != value.shape[:2] or key.shape[1] != n:
        raise ValueError(
            "key and value must be as long, and the query's batch theirs, got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    every_head = attn_mask is not None and attn_mask.dim() == 3  # has a mask of its own
    shape = (n * num_heads, length, sources) if every_head else (length, sources)
    mask = _added_mask("attn_mask", attn_mask, shape, query)
    padding = _added_mask("key_padding_mask", key_padding_mask, (n, sources), query)
    biases = [None] * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    with simulation:
        inputs = (query, key, value)
        if use_separate_proj_weight:
            weights = (q_proj_weight, k_proj_weight, v_proj_weight)
            q, k, v = (F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases))
        elif query is key and key is value:
            q, k, v = F.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
        else:
            parts = [slice(i * width, (i + 1) * width) for i in range(3)]
            q, k, v = (
                functions.linear_by_rows(simulation, x, in_proj_weight, rows, b)
                for x, rows, b in zip(inputs, parts, biases)
            )
        if bias_k is not None:
            k, v = torch.cat([k, bias_k.expand(1, n, -1)]), torch.cat([v, bias_v.expand(1, n, -1)])
        if add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 0, 0, 1)), F.pad(v, (0, 0, 0, 0, 0, 1))

        def heads(x: Tensor) -> Tensor:
            """(N, heads, length, width of a head)."""
            return x.reshape(len(x), n, num_heads, width // num_heads).permute(1, 2, 0, 3)

        scores = (heads(q) @ heads(k).mT) / math.sqrt(width // num_heads)
        added = (0, scores.shape[-1] - sources)
        if attn_mask is not None:
            mask = mask.reshape(n, num_heads, length, sources) if every_head else mask
            scores = scores + F.pad(mask, added)
        if key_padding_mask is not None:
            scores = scores + F.pad(padding.reshape(n, 1, 1, sources), added)
        attention = F.dropout(_probabilities(scores), dropout_p, training)
        y = (attention @ heads(v)).permute(2, 0, 1, 3).reshape(length, n, width)
        y = F.linear(y, out_proj_weight, out_proj_bias)
    if average_attn_weights:
        attention = attention.mean(1)
    y, attention = (y, attention) if batched else (y.squeeze(1), attention.squeeze(0))
    return y, attention if need_weights else None
