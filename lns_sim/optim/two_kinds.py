"""Reads states that were saved when a group's own and float parameters were groups apart."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

_OF_EACH_GROUP = ("base_lrs", "_last_lr", "lr_lambdas", "min_lrs")  # in the states of torch's schedulers


def joined(saved: dict, groups: list[dict], takes: Callable[[Tensor], bool]) -> dict:
    """A SplitOptimizer's state whose groups are of one kind each, which ``own`` tells, joined to the given groups; a
    newer state as it is.

    Raises:
        ValueError: they do not fit each other.
    """
    if any("nominal_lr" in group for group in saved["param_groups"]):
        return saved
    apart = {kind: iter([g for g in saved["param_groups"] if g.get("own") == kind]) for kind in (True, False)}
    state, found = dict(saved["state"]), []
    for group in groups:
        kinds = [takes(p) for p in group["params"]]
        parts: dict[bool, dict] = {kind: next(apart[kind], {"params": []}) for kind in (True, False) if kind in kinds}
        if any(len(part["params"]) != kinds.count(kind) for kind, part in parts.items()):
            raise ValueError("the loaded state has other parameter groups than the optimizer")
        ids = {kind: iter(part["params"]) for kind, part in parts.items()}
        found.append({**group, **(_options(parts) if parts else {}), "params": [next(ids[kind]) for kind in kinds]})
        # Updates were counted by the group.
        for i in parts[True]["params"] if True in parts else ():
            if i in state:
                state[i] = {**state[i], "t": parts[True]["step"]}
    if any(next(rest, None) is not None for rest in apart.values()):
        raise ValueError("the loaded state has other parameter groups than the optimizer")
    return {**saved, "state": state, "param_groups": found}


def _options(parts: dict[bool, dict]) -> dict:
    """A group's options from those of its kinds, float parameters' first."""
    options = {k: v for kind in sorted(parts) for k, v in parts[kind].items() if k not in ("own", "params")}
    if False in parts:
        options["float_lr"] = parts[False].get("initial_lr", parts[False]["lr"])
    return {**options, "nominal_lr": options.get("initial_lr", options["lr"])}


def joined_schedule(saved: dict, groups: int) -> dict:
    """A scheduler's state that was saved beside such a state, for so many groups: own ones stood first."""
    return {key: value[:groups] if key in _OF_EACH_GROUP else value for key, value in saved.items()}
