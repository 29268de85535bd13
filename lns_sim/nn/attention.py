"""Attention with both products on the datapath: scaled_dot_product_attention and torch.nn.MultiheadAttention's
function.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.nn import functions


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def _probabilities(scores: Tensor) -> Tensor:
    """softmax, zero in rows where everything is masked, as torch's own."""
    return torch.softmax(scores, -1).masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)


@functions.handles(F.scaled_dot_product_attention)
def _attention(
    simulation, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """Masks, softmax and dropout in float32 between the two products."""
    if simulation is None or simulation.recipe is None:
        return NotImplemented
    if is_causal:
        if attn_mask is not None:
            raise ValueError("is_causal takes no attn_mask beside it")
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if enable_gqa:  # several query heads share a key head
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    with simulation:
        scores = _masked((query @ key.mT) * scale, attn_mask)
        return F.dropout(_probabilities(scores), dropout_p) @ value


def _float_mask(mask: Tensor | None) -> Tensor | None:
    """Additive; in torch.nn.MultiheadAttention a boolean mask is true where nothing may be seen."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, -math.inf)


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
    batched = query.dim() == 3
    if not batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
    length, n, width = query.shape
    if width != embed_dim_to_check:
        raise ValueError(f"the query's last dimension must be {embed_dim_to_check}, got {width}")
    biases = [None] * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    with simulation:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
        if weights is None and query is key and key is value:
            q, k, v = F.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
        else:
            weights = weights or [in_proj_weight[i * width : (i + 1) * width] for i in range(3)]
            q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))
        if bias_k is not None:
            k, v = torch.cat([k, bias_k.expand(1, n, -1)]), torch.cat([v, bias_v.expand(1, n, -1)])
        if add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 0, 0, 1)), F.pad(v, (0, 0, 0, 0, 0, 1))
        heads = lambda x: x.reshape(len(x), n, num_heads, -1).permute(1, 2, 0, 3)  # noqa: E731  (N, heads, length, dim)
        scores = (heads(q) @ heads(k).mT) / math.sqrt(width // num_heads)
        added = scores.shape[-1] - len(key)
        mask = _float_mask(attn_mask)
        if mask is not None:
            mask = mask.reshape(n, num_heads, length, len(key)) if mask.dim() == 3 else mask
            scores = scores + F.pad(mask, (0, added))
        if key_padding_mask is not None:
            padding = _float_mask(key_padding_mask).reshape(n, 1, 1, len(key))
            scores = scores + F.pad(padding, (0, added))
        attention = F.dropout(_probabilities(scores), dropout_p, training)
        y = (attention @ heads(v)).permute(2, 0, 1, 3).reshape(length, n, width)
        y = F.linear(y, out_proj_weight, out_proj_bias)
    if average_attn_weights:
        attention = attention.mean(1)
    y, attention = (y, attention) if batched else (y.squeeze(1), attention.squeeze(0))
    return y, attention if need_weights else None
