"""Operators that rearrange codes, choose among them or join them: their results are codes again."""

from __future__ import annotations

import torch

from lns_sim.tensor import LNSTensor, decode, implements, known

aten = torch.ops.aten


# Operators that rearrange dimensions act on a full-rank scale as on the codes.
@implements(aten.t.default, aten.transpose.int, aten.permute.default, aten.unsqueeze.default)
def _rearrange(func, args, kwargs):
    x = args[0]
    scale = x.scale if x.scale.dim() == 0 else func(x.scale, *args[1:], **kwargs)
    return x.with_inner(func(x.codes, *args[1:], **kwargs), scale)


@implements(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
def _squeeze(func, args, kwargs):
    x = args[0]
    codes, scale = func(x.codes, *args[1:], **kwargs), x.scale
    if scale.dim():  # it has size 1 where the codes have
        dims = range(x.dim()) if len(args) == 1 else [args[1]] if isinstance(args[1], int) else args[1]
        scale = scale.squeeze([d for d in dims if x.shape[d] == 1])
    return x.with_inner(codes, scale)


@implements(aten.view.default, aten._unsafe_view.default)
def _view(func, args, kwargs):
    x = args[0]
    codes = func(x.codes, *args[1:])
    if codes.shape == x.shape or x.scale.dim() == 0:
        return x.with_inner(codes, x.scale)
    if x.scale.numel() > 1:
        raise TypeError("a tensor with a scale per slice keeps its shape; dequantize() it, or quantize after reshaping")
    return x.with_inner(codes, x.scale.reshape(()))


@implements(aten.expand.default)
def _expand(func, args, kwargs):
    x, sizes = args[0], list(args[1])
    scale = x.scale
    if scale.dim():
        scale = scale.reshape([1] * (len(sizes) - scale.dim()) + list(scale.shape))
    return x.with_inner(func(x.codes, sizes, **kwargs), scale)


# Indexing one dimension also indexes the scale if it varies along it.
@implements(aten.slice.Tensor, aten.select.int)
def _index(func, args, kwargs):
    x = args[0]
    dim = args[1] if len(args) > 1 else 0
    codes = func(x.codes, *args[1:], **kwargs)
    scale = x.scale
    if scale.dim():
        if scale.shape[dim] > 1:
            scale = func(scale, *args[1:], **kwargs)
        elif func is aten.select.int:
            scale = scale.squeeze(dim)
        if scale.numel() == 1:
            scale = scale.reshape(())
    return x.with_inner(codes, scale)


@implements(aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
def _split(func, args, kwargs):
    x, at = args[0], 1 if func is aten.unbind.int else 2
    dim = args[at] if len(args) > at else kwargs.get("dim", 0)
    codes = func(x.codes, *args[1:], **kwargs)
    if x.scale.dim() and x.scale.shape[dim] > 1:
        scales = func(x.scale, *args[1:], **kwargs)
    else:
        scales = [x.scale.squeeze(dim) if x.scale.dim() and at == 1 else x.scale] * len(codes)
    return [x.with_inner(c, s) for c, s in zip(codes, scales)]


def _one_scale(x: LNSTensor, func) -> None:
    if x.scale.dim():
        raise TypeError(f"{func} needs one scale, and this tensor has one per slice; dequantize() it")


@implements(aten.as_strided.default, aten.diagonal.default, aten.unfold.default)
def _other_views(func, args, kwargs):
    x = args[0]
    _one_scale(x, func)
    return x.with_inner(func(x.codes, *args[1:], **kwargs), x.scale)


# What is no view has a scale of its own, which it keeps when the tensor is written to.
@implements(
    aten.index.Tensor,
    aten.index_select.default,
    aten.repeat.default,
    aten.flip.default,
    aten.roll.default,
    aten.constant_pad_nd.default,
)
def _choice(func, args, kwargs):
    x = args[0]
    _one_scale(x, func)
    if func is aten.constant_pad_nd.default and len(args) > 2 and args[2]:
        raise ValueError(f"codes can be padded with zeros only, got {args[2]}")
    return x.with_inner(func(x.codes, *args[1:], **kwargs), x.scale.clone())


@implements(aten.cat.default, aten.stack.default)
def join(func, args, kwargs):
    """Codes of one format and scale stay codes; others' values are joined."""
    tensors = args[0]
    if _alike(tensors):
        x = tensors[0]
        return x.with_inner(func([t.codes for t in tensors], *args[1:], **kwargs), x.scale.clone())
    return func([decode(t) if isinstance(t, LNSTensor) else t for t in tensors], *args[1:], **kwargs)


def _alike(tensors: list[torch.Tensor]) -> bool:
    x = tensors[0]
    if not isinstance(x, LNSTensor) or any(type(t) is not type(x) or t.scale.dim() for t in tensors):
        return False
    same = lambda t: t.scale is x.scale or (known(t) and known(x) and torch.equal(t.scale, x.scale))  # noqa: E731
    return all(t.__tensor_flatten__() == x.__tensor_flatten__() and t.device == x.device and same(t) for t in tensors)
