"""What parameter groups may hold: options that act on something, and notes that others leave there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from lns_sim.checks import check_choice

# What is no option: keys of torch, and of ours, that tell about a group, what schedulers write into it, and its name.
NOTES = frozenset("params param_names name own initial_lr max_lr min_lr swa_lr base_momentum max_momentum".split())


def check_known(given: Iterable[str], options: Iterable[str]) -> None:
    """Raises ValueError for a group's key that is neither an option nor a note."""
    for key in given:
        if key not in NOTES:
            check_choice("an option of a parameter group", key, options)


def check_effect(given: Mapping, options: Iterable[str], defaults: Mapping, why: str) -> None:
    """Raises ValueError where a group gives an option that acts on none of its parameters; asking for no weight decay,
    or for what holds anyway, is fine.

    Args:
        given: what the group gives.
        options: those that act on nothing.
        defaults: the optimizer's.
        why: they do not act.
    """
    for key in options:
        if key in given and given[key] != (0 if key == "weight_decay" else defaults[key]):
            raise ValueError(f"{key} = {given[key]!r} of a parameter group has no effect: {why}")


def fill_in(groups: Iterable[dict], defaults: Mapping) -> None:
    """Gives groups, of a state that was saved before there was such an option, the defaults that they lack."""
    for group in groups:
        for key, value in defaults.items():
            group.setdefault(key, value)


def number(value):
    """A learning rate as a number, where it is given as a tensor."""
    return value.item() if isinstance(value, torch.Tensor) else value
