"""What a converted layer's state_dict shows, and what becomes of one that is assigned to it."""

from __future__ import annotations

import torch
from torch import nn

from lns_sim.distributed import local
from lns_sim.nn.weight import LNSWeight
from lns_sim.tensor import encode


def _weights(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module._parameters.items() if isinstance(local(p), LNSWeight)}


def _show_values(module, state_dict, prefix, local_metadata) -> None:
    """Tools that read memory (safetensors) find float32 values in a state_dict's weights."""
    for name, weight in _weights(module).items():
        shown = state_dict.get(prefix + name)
        if isinstance(shown, LNSWeight) and shown is not weight:
            shown.readable = True


def _assign_codes(module, state_dict, prefix, local_metadata, *_) -> None:
    """With assign=True the state_dict's tensors become the parameters: its values in codes, with the layer's recipe."""
    if not local_metadata.get("assign_to_params_buffers"):
        return
    for name, weight in _weights(module).items():
        if isinstance(state_dict.get(prefix + name), torch.Tensor):
            state_dict[prefix + name] = _as_weight(prefix + name, state_dict[prefix + name], weight)


def _as_weight(name: str, given: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
    own, shard = local(weight), local(given)
    if not isinstance(shard, LNSWeight):
        if own is not weight:
            raise TypeError(f"{name} is sharded: load float32 values before fully_shard, or without assign=True")
        shard = encode(given, own)
    if shard.format != own.format:
        raise ValueError(f"{name} has {own.format!r}, but the state_dict holds {shard.format!r}")
    rng = shard.rng if own.rng is None or shard.rng is not None else own.rng.to(shard.device)
    assigned = LNSWeight(shard.codes, shard.scale, own.recipe, rng if own.recipe.stochastic else None)
    if local(given) is given:
        return assigned
    given._local_tensor = assigned
    return given


def attach(module: nn.Module) -> None:
    """Registers the hooks of a module that has LNSWeights of its own, once."""
    if _show_values not in module._state_dict_hooks.values():
        module.register_state_dict_post_hook(_show_values)
        module.register_load_state_dict_pre_hook(_assign_codes)


def detach(module: nn.Module) -> None:
    """Removes them."""
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for key in [k for k, hook in hooks.items() if getattr(hook, "hook", hook) in (_show_values, _assign_codes)]:
            del hooks[key]
