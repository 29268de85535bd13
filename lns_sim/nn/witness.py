"""What nobody handles must not multiply: the first call of each of torch's functions in a simulation is watched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lns_sim.nn import functions
from lns_sim.ops.float_products import float_product, ours_is_running

_harmless: set[Callable] = set()
# What a backward pass leaves in float32 is listed by summary.
_BACKWARD = {torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad}


class _Witness(TorchDispatchMode):
    """Sees every operator of torch that a function ends in; inside this package's own it sees nothing."""

    supports_higher_order_operators = True

    def __init__(self):
        super().__init__()
        self.found: str | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not self.found and not ours_is_running():
            self.found = float_product(func, args)
        return func(*args, **(kwargs or {}))


def watched(func: Callable, args, kwargs):
    """The result of a function that no handler takes.

    Raises:
        NotImplementedError: it multiplies in float32.
    """
    if func in _harmless or func in _BACKWARD:
        return func(*args, **kwargs)
    with _Witness() as witness:
        out = func(*args, **kwargs)
    if witness.found:
        raise functions.without_simulated_form(f"{getattr(func, '__name__', func)} (torch's operator {witness.found})")
    if not _arguments_decide(func, args):
        _harmless.add(func)
    return out


def _arguments_decide(func: Callable, args) -> bool:
    """May another call multiply where this one did not?"""
    if functions.is_handled(func) or isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return True
    name = getattr(func, "__name__", "")
    if "norm" in name or name.startswith(("linalg_", "fft_")):
        return True
    return any(isinstance(x, torch.Tensor) and x.numel() <= 1 for x in args)
