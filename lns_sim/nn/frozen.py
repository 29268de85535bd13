"""The random streams of frozen weights: the step in them is the optimizer's (spec section 6), of which they may be no
part.

An optimizer of codes moves the streams of its own weights on. Frozen ones are often left out of it, or there is none,
as where only biases are trained: so every optimizer's step does it for the frozen weights of the models that it trains.
"""

from __future__ import annotations

from weakref import WeakSet

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from lns_sim._compile import never
from lns_sim.contract import STEP
from lns_sim.distributed import local
from lns_sim.nn.weight import LNSWeight

_models: WeakSet[nn.Module] = WeakSet()
_after_steps = None  # the hook, where there is a model


def follow(model: nn.Module) -> None:
    """From here on the streams of the model's frozen weights move on with every step of an optimizer that has any of
    its parameters, and those of its copies from their first forward on. Nothing where no weight has a stream.
    """
    if _streams(model):
        if _meet not in model._forward_pre_hooks.values():
            model.register_forward_pre_hook(_meet)
        _meet(model, ())


def unfollow(module: nn.Module) -> None:
    """Leaves a copy alone that is to be no converted model."""
    for key in [key for key, hook in module._forward_pre_hooks.items() if hook is _meet]:
        del module._forward_pre_hooks[key]


def _meet(model: nn.Module, args) -> None:
    """Before a forward: it may be the first of a copy."""
    global _after_steps
    if not torch.compiler.is_compiling() and model not in _models:
        _models.add(model)
        _after_steps = _after_steps or register_optimizer_step_post_hook(_advance)


def _streams(model: nn.Module) -> dict[int, LNSWeight]:
    """The weights that have one, by parameter."""
    found = {id(p): local(p) for p in model.parameters()}
    return {key: w for key, w in found.items() if isinstance(w, LNSWeight) and w.rng is not None}


@never
def _advance(optimizer: Optimizer, args, kwargs) -> None:
    """After an optimizer's step."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    frozen = {}  # once, where models are parts of each other
    for model in _models:
        if any(id(p) in held for p in model.parameters()):
            frozen.update({k: w for k, w in _streams(model).items() if k not in held and not w.requires_grad})
    with torch.no_grad():
        for weight in frozen.values():
            weight.rng[STEP] += 1
