"""Calls of the operators, refused where torch would differentiate them in ways that they do not know."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import BackwardCFunction

from lns_sim.ops.differentiable import run


def call(op, *args):
    """``op(*args)``.

    Raises:
        NotImplementedError: inside a transform of torch.func other than vmap, or in forward-mode differentiation.
        RuntimeError: inside the backward pass of a torch.autograd.Function.
    """
    if torch.compiler.is_compiling():
        with torch._C.DisableTorchFunctionSubclass():
            return op(*args)
    _check_transforms(args)
    if not torch.is_grad_enabled() and _in_backward():
        raise RuntimeError(
            "a simulated product inside a backward pass would be quantized and counted as one of a forward pass; "
            "leave its gradient to autograd, or multiply by weight.dequantize()"
        )
    with torch._C.DisableTorchFunctionSubclass():
        return run(op, *args)


def _check_transforms(args) -> None:
    functorch = torch._C._functorch
    if functorch.peek_interpreter_stack() is not None and any(
        layer.key() != functorch.TransformType.Vmap for layer in functorch.get_interpreter_stack()
    ):
        raise NotImplementedError(
            "simulated products know torch.vmap, but no other transform of torch.func; use torch.autograd.grad, or a "
            "float32 copy of the model (lns_sim.nn.to_float(model))"
        )
    if forward_ad._current_level >= 0 and any(
        isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None for x in args
    ):
        raise NotImplementedError(
            "simulated products have no forward-mode derivatives; use reverse mode (backward, torch.autograd.grad), or "
            "a float32 copy of the model (lns_sim.nn.to_float(model))"
        )


def _in_backward() -> bool:
    """Does a backward pass run in this thread, and is it not recomputing a forward pass by a checkpoint?"""
    if torch._C._current_autograd_node() is None:
        return False
    frame = sys._getframe()
    while frame is not None and frame.f_code is not BackwardCFunction.apply.__code__:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return False
        frame = frame.f_back
    return True
