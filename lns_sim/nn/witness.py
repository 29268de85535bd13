"""What nobody handles must not multiply: the first call of each of torch's functions in a simulation is watched."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from lns_sim._compile import constant_result
from lns_sim.nn import functions
from lns_sim.ops.float_products import (
    float_product,
    is_foreign,
    is_ours,
    may_multiply,
    name_of,
    namespace_of,
    ours_is_running,
)
from lns_sim.tensor import LNSTensor

_harmless: set[Callable] = set()
_NORMS_OF_LAYERS = {F.batch_norm, F.group_norm, F.instance_norm, F.layer_norm, F.rms_norm}
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
        kwargs = kwargs or {}
        with self:  # without gradients torch's compositions come here whole
            out = func.decompose(*args, **kwargs) if _is_dispatched(func) else NotImplemented
        if out is not NotImplemented:
            return out
        body = _body(func, (args, kwargs))
        if body is None:
            if not self.found and is_foreign(func):
                self.found = f"{namespace_of(func)}::{name_of(func)}, of which nothing else is known"
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(LNSTensor, lambda x: x.dequantize(), (args, kwargs))
        with self:
            return body(*args, **kwargs)


def _is_dispatched(func) -> bool:
    """Does torch's dispatcher know it? Not the operators by which jagged tensors are asked for their sizes."""
    return isinstance(func, OpOverload) and torch._C._dispatch_has_kernel(func.name())


def _body(func, operands) -> Callable | None:
    """What an operator made by torch.library.custom_op computes with, where modes do not follow; None of others."""
    definition = None if is_ours(func) else OPDEFS.get(getattr(func, "_name", ""))
    if definition is None:
        return None
    device = next((x.device.type for x in tree_leaves(operands) if isinstance(x, Tensor)), None)
    return definition._backend_fns.get(device) or definition._backend_fns.get(None)


@constant_result
def product_by_name(func: Callable) -> str | None:
    """What an operator that no handler takes may multiply by, whatever its operands: a compiler does not show them."""
    if is_foreign(func):
        return f"{namespace_of(func)}::{name_of(func)}"
    name = name_of(func)
    if namespace_of(func) in ("", "lns_sim"):
        return None
    return name if may_multiply(name) or name in functions.names() else None


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
    if functions.is_handled(func) or isinstance(func, (OpOverload, OpOverloadPacket)):
        return True
    if func in _NORMS_OF_LAYERS:
        return False
    name = getattr(func, "__name__", "")
    if "norm" in name or name.startswith(("linalg_", "fft_")):
        return True
    return any(isinstance(x, torch.Tensor) and x.numel() <= 1 for x in args)
