"""What torch.distributed does with codes: FSDP2 gathers shards, DDP broadcasts weights, both as they are."""

from __future__ import annotations

import itertools
from functools import partial

import torch
import torch.distributed._functional_collectives  # which registers what a gather calls

from lns_sim.tensor import LNSTensor, decode, implements
from lns_sim.views import join

aten, c10d, functional = torch.ops.aten, torch.ops.c10d, torch.ops._c10d_functional


def _moved(codes: torch.Tensor) -> torch.Tensor:
    """The same memory in a type that every backend moves."""
    return codes if codes.dtype == torch.uint8 else codes.view(torch.bfloat16)


@implements(functional.all_gather_into_tensor.default)
def _gather(func, args, kwargs):
    """Of a sharded parameter's codes; the scale is every rank's."""
    x = args[0]
    gathered = functional.wait_tensor(func(_moved(x.codes), *args[1:], **kwargs))
    return x.with_inner(gathered.view(x.codes.dtype), x.scale)


implements(functional.wait_tensor.default)(lambda func, args, kwargs: args[0])
if hasattr(functional, "_wrap_tensor_autograd"):  # newer versions of torch have it
    implements(functional._wrap_tensor_autograd.default)(lambda func, args, kwargs: args[0])


def _inner(x: torch.Tensor) -> list[torch.Tensor]:
    """What moves of a tensor."""
    if not isinstance(x, LNSTensor):
        return [x]
    return [_moved(x.codes), *(getattr(x, name) for name in x.__tensor_flatten__()[0] if name != "codes")]


def _one_after_another(calls):
    """Runs collectives, all but the last to their ends; returns the last one's work."""
    work = None
    for call in calls:
        if work is not None:
            work.wait()
        work = call()[1]
    return work


@implements(c10d.broadcast_.default)
def _broadcast(func, args, kwargs):
    """Weights as they are; readable tensors, of state_dicts, as values, which is what other ranks expect."""
    tensors, *rest = args
    if tensors[0].readable:
        values = [decode(x) for x in tensors]
        work = func(values, *rest, **kwargs)[1]
        work.wait()
        for x, value in zip(tensors, values):
            x.copy_(value)
        return tensors, work
    return tensors, _one_after_another(partial(func, [inner], *rest, **kwargs) for x in tensors for inner in _inner(x))


@implements(c10d.scatter_.default)
def _scatter(func, args, kwargs):
    """To rank r the r-th of the root's tensors; the dispatcher sees only the tensor that is written."""
    (to,), sources, *rest = args
    parts = zip(*map(_inner, sources[0])) if sources and sources[0] else itertools.repeat(None)
    return [to], _one_after_another(
        partial(func, [inner], sources if part is None else [list(part)], *rest, **kwargs)
        for inner, part in zip(_inner(to), parts)
    )


class Bucket(torch.Tensor):
    """Parameters laid end to end, as DDP flattens them for its first broadcast, but each as it is: codes stay codes.

    Args:
        pieces: of one dimension each.
    """

    @staticmethod
    def __new__(cls, pieces):
        size = sum(p.numel() for p in pieces)
        return torch.Tensor._make_wrapper_subclass(cls, (size,), dtype=torch.float32, device=pieces[0].device)

    def __init__(self, pieces: list[torch.Tensor]):
        self.pieces = pieces

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is c10d.broadcast_.default:
            pieces = [piece for bucket in args[0] for piece in bucket.pieces]
            return args[0], _broadcast(func, (pieces, *args[1:]), kwargs or {})[1]
        if func is aten.slice.Tensor:
            bucket, _, start, end = args
            for piece in bucket.pieces:
                if start == 0 and piece.numel() == end:
                    return aten.alias(piece)
                start, end = start - piece.numel(), end - piece.numel()
        raise NotImplementedError(f"{func} is not defined on parameters that are being broadcast")


@implements(aten.cat.default)
def _cat(func, args, kwargs):
    """C++ comes here from DDP's flattening; a user's torch.cat of weights has passed LNSWeight.__torch_function__."""
    pieces = args[0]
    flattening = torch._C._is_torch_function_enabled() and all(t.dim() == 1 for t in pieces)
    if flattening and torch.distributed.is_initialized() and not any(getattr(t, "readable", False) for t in pieces):
        return Bucket(pieces)
    return join(func, args, kwargs)
