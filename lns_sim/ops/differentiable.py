"""Differentiable operators: what torch's compilers and transforms know by name, and the same without its dispatcher.

The dispatcher's way through Python costs more than a small layer's arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._library.custom_ops import CustomOpDef
from torch._ops import OpOverloadPacket

from lns_sim.tensor import LNSTensor

_FORMS: dict[OpOverloadPacket, tuple[Callable, type[torch.autograd.Function]]] = {}


def differentiate(op: CustomOpDef, forward: Callable, backward: Callable, setup_context: Callable) -> None:
    """Registers an operator's derivative, and for :func:`run` what both do."""
    op.register_autograd(backward, setup_context=setup_context)

    def run_forward(ctx, *args):
        with torch._C._AutoDispatchBelowADInplaceOrView():
            out = forward(*args)
        setup_context(ctx, args, out)
        ctx.set_materialize_grads(False)  # zeros, as many as there are codes
        return out

    methods = {"forward": staticmethod(run_forward), "backward": staticmethod(backward)}
    _FORMS[op._opoverload.overloadpacket] = forward, type(op._name, (torch.autograd.Function,), methods)


def run(op: OpOverloadPacket, *args):
    """``op(*args)``, straight where only autograd looks on. Tensors are the first three arguments."""
    tensors = [x for x in args[:3] if x is not None]
    if is_watched() or not all(map(_is_plain, tensors)):
        return op(*args)
    forward, function = _FORMS[op]
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return function.apply(*args)
    with torch._C._AutoDispatchBelowADInplaceOrView():
        return forward(*args)


def is_watched() -> bool:
    """Does a mode, a transform or a tracer look on, for which an operator is what it sees?"""
    c = torch._C
    return bool(c._len_torch_dispatch_stack() or c._functorch.peek_interpreter_stack() or c._get_tracing_state())


def _is_plain(x: Tensor) -> bool:
    """Is it one of torch's own tensors, or codes, with numbers in it?"""
    return (type(x) in (Tensor, nn.Parameter) or isinstance(x, LNSTensor)) and not x.is_meta
