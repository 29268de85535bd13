"""What the bodies of operators run under: autocast stays out, and quantized gradients refuse further derivatives."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


class _Once(torch.autograd.Function):
    """A gradient that depends on other tensors, and says that it has no derivative when one is asked for."""

    @staticmethod
    def forward(ctx, gradient: Tensor, *others: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx, _):
        raise RuntimeError(
            "quantized products have no second derivatives; differentiate twice with a recipe that quantizes nothing "
            "(lns_sim.recipes.float32(recipe)), or a float32 copy of the model (lns_sim.nn.to_float(model))"
        )


def outside_autocast(body):
    """A forward pass' body, in which products of values are float32 whatever autocast says."""

    @functools.wraps(body)
    def run(*args, **kwargs):
        if not torch._C._is_any_autocast_enabled():
            return body(*args, **kwargs)
        with torch._C._DisableAutocast():
            return body(*args, **kwargs)

    return run


def backward_pass(formula):
    """The backward formula of an operator, of what it saved, which a checkpoint lets one read once, and gradients.

    ``ctx.differentiable`` says whether its gradients may be differentiated again, and the second tensor that it saved
    may stand for the operator's inputs where they may not.
    """

    @functools.wraps(formula)
    def run(ctx, *grads):
        if grads[0] is None:  # nobody used the result
            return (None,) * len(ctx.needs_input_grad)
        saved = ctx.saved_tensors
        with torch._C._DisableAutocast():
            if ctx.differentiable or not torch.is_grad_enabled():  # enabled: create_graph=True
                return formula(ctx, saved, *grads)
            with torch.no_grad():
                found = formula(ctx, saved, *grads)
            inputs = saved[1]
            return tuple(g if g is None else _Once.apply(g, inputs, *grads[:1]) for g in found)

    return run
