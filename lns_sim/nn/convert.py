"""Turns any model's Linear and Conv layers into LNS layers, in place."""

from __future__ import annotations

import fnmatch

import torch

from lns_sim import recipes
from lns_sim.nn.weight import LNSWeight
from lns_sim.recipes import Recipe

CONVERTED = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)


def _patterns(name: str, value) -> list[str]:
    if value is None:
        return []
    patterns = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"{name} must be a name pattern or a list of them, got {value!r}")
    return patterns


def convert(model: torch.nn.Module, recipe: Recipe | str | None, skip=None, only=None) -> torch.nn.Module:
    """Replaces the weights of all Linear, Conv1d and Conv2d layers by :class:`LNSWeight` codes, in place.

    Modules, their forward methods, hooks, biases and other parameters stay as they are; initial weights are kept,
    quantized to the recipe's update format. A weight shared by several modules stays shared.

    Args:
        model: any module; its weights are float32.
        recipe: a :class:`lns_sim.recipes.Recipe`, or a preset's name; "fp32" or None changes nothing.
        skip: name pattern or patterns (as in ``fnmatch``) of modules to leave in float32, e.g. "head" or "blocks.*.fc".
        only: name pattern or patterns of the modules to convert; None: all.

    Returns:
        The model itself.

    Raises:
        TypeError: recipe or patterns of the wrong type, or a weight that is not float32.
        ValueError: an unknown recipe name, a pattern that matches no layer, a weight with NaN or Inf.
    """
    if isinstance(recipe, str):
        recipe = recipes.get(recipe)
    if recipe is None:
        return model
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe or the name of one, got {recipe!r}")
    skip, only = _patterns("skip", skip), _patterns("only", only)
    layers = {name: m for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, CONVERTED)}
    for pattern in skip + only:
        if not fnmatch.filter(layers, pattern):
            raise ValueError(f"the pattern {pattern!r} matches no layer; layers are: {', '.join(layers) or 'none'}")

    def chosen(name):
        return (not only or any(fnmatch.fnmatchcase(name, p) for p in only)) and not any(
            fnmatch.fnmatchcase(name, p) for p in skip
        )

    layers = {name: m for name, m in layers.items() if chosen(name)}
    layers = {name: m for name, m in layers.items() if not isinstance(m.weight, LNSWeight)}
    for name, module in layers.items():
        if module.weight.dtype != torch.float32:
            raise TypeError(f"the weight of {name} must be float32, got {module.weight.dtype}")
        if not module.weight.isfinite().all():
            raise ValueError(f"the weight of {name} holds NaN or Inf and has no codes")

    first_id = sum(isinstance(p, LNSWeight) for p in model.parameters())  # earlier conversions drew the ids before
    distinct = {id(m.weight): m.weight for m in layers.values()}  # a shared weight once
    for i, old in enumerate(distinct.values(), start=first_id):
        new = torch.nn.Parameter(LNSWeight.from_float(old, recipe, tensor_id=i), requires_grad=old.requires_grad)
        _replace_everywhere(model, old, new)
    return model


def _replace_everywhere(model: torch.nn.Module, old: torch.nn.Parameter, new: torch.nn.Parameter) -> None:
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is old:
                module._parameters[name] = new
