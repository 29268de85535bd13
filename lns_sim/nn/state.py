"""What a converted layer's state_dict shows, and what becomes of one that it loads."""

from __future__ import annotations

import torch
from torch import nn

from lns_sim.distributed import largest_over_shards, local, with_local
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


def _load_codes(module, state_dict, prefix, local_metadata, *_) -> None:
    """With assign=True the state_dict's tensors become the parameters: its values in codes, with the layer's recipe.

    Without, only shards' values need codes beforehand, as all ranks have one scale.
    """
    for name, weight in _weights(module).items():
        given = state_dict.get(prefix + name)
        if not isinstance(given, torch.Tensor):
            continue
        if local(given) is not given and not isinstance(local(given), LNSWeight):
            given = _codes_of_shards(given, local(weight))
        if local_metadata.get("assign_to_params_buffers"):
            given = _as_weight(prefix + name, given, weight)
        state_dict[prefix + name] = given


def _codes_of_shards(given: torch.Tensor, like: LNSWeight) -> torch.Tensor:
    """A DTensor of float32 values as one of codes, with the scale of the whole."""
    values, top = local(given), largest_over_shards(given)
    whole = encode(torch.cat([values.reshape(-1).float(), top]), torch.empty_like(like, device="meta"))
    codes = whole.codes[:-1].clone().view(values.shape)
    shard = LNSWeight(codes, whole.scale, like.recipe, like.rng)
    return with_local(given, shard)


def _as_weight(name: str, given: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
    own, shard = local(weight), local(given)
    if own is not weight and shard is given:
        raise TypeError(f"{name} is sharded, but the state_dict's tensor is not; load it by set_model_state_dict")
    if not isinstance(shard, LNSWeight):
        shard = encode(shard, own)
    if shard.format != own.format:
        raise ValueError(f"{name} has {own.format!r}, but the state_dict holds {shard.format!r}")
    rng = own.rng.to(shard.device) if own.rng is not None and shard.rng is None else shard.rng
    assigned = LNSWeight(shard.codes, shard.scale, own.recipe, rng if own.recipe.stochastic else None)
    if local(given) is given:
        return assigned
    assigned.shard = True
    return with_local(given, assigned)


def attach(module: nn.Module) -> None:
    """Registers the hooks of a module that has LNSWeights of its own, once."""
    if _show_values not in module._state_dict_hooks.values():
        module.register_state_dict_post_hook(_show_values)
        module.register_load_state_dict_pre_hook(_load_codes)


def detach(module: nn.Module) -> None:
    """Removes them."""
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for key in [k for k, hook in hooks.items() if getattr(hook, "hook", hook) in (_show_values, _load_codes)]:
            del hooks[key]
