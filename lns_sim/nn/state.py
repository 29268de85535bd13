"""What a converted layer's state_dict shows, and what becomes of one that it loads."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Hashable

import torch
from torch import nn

from lns_sim.distributed import largest_over_shards, local, with_local
from lns_sim.nn.methods import scope_of
from lns_sim.nn.weight import LNSWeight
from lns_sim.ops.memory import Memory
from lns_sim.tensor import encode

EXTRA = "_extra_state"  # torch's name for what is neither parameter nor buffer


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


def _show_kept(module, state_dict, prefix, local_metadata) -> None:
    """What quantizers keep between steps, as bytes in a tensor: every kind of checkpoint takes tensors."""
    buffer = io.BytesIO()
    torch.save(scope_of(module).memories, buffer)
    state_dict[prefix + EXTRA] = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _load_kept(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors) -> None:
    """Takes up what :func:`_show_kept` gave; a state_dict without it changes nothing, and is told."""
    given = state_dict.pop(prefix + EXTRA, None)
    scope = scope_of(module)
    if given is None:
        warnings.warn(
            f"the state_dict holds nothing of what {scope.recipe.name}'s quantizers keep between steps: the model goes "
            "on with its own, or begins anew",
            stacklevel=_level_of_caller(),
        )
        return
    try:
        scope.memories = read_kept(prefix + EXTRA, given)
    except ValueError as error:
        errors.append(str(error))


def read_kept(name: str, given: torch.Tensor) -> dict[Hashable, Memory]:
    """What quantizers kept, of the tensor that :func:`_show_kept` made of it.

    Raises:
        ValueError: it is another tensor, or object; the message names it.
    """
    try:
        memories = torch.load(io.BytesIO(given.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
        tensors = [t for memory in memories.values() for t in memory.values()]
    except Exception:  # whatever it makes of itself; torch's advice would not help
        tensors = [None]
    if not all(isinstance(t, torch.Tensor) for t in tensors):
        raise ValueError(f"{name} is not what lns_sim's quantizers keep between steps")
    return memories


def _level_of_caller() -> int:
    """The ``stacklevel``, for who calls this, of the first code that is neither torch's nor this package's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] in ("torch", "lns_sim"):
        level, frame = level + 1, frame.f_back
    return level


def _register(module: nn.Module, show: Callable, load: Callable) -> None:
    if show not in module._state_dict_hooks.values():
        module.register_state_dict_post_hook(show)
        module.register_load_state_dict_pre_hook(load)


def attach(module: nn.Module) -> None:
    """Registers the hooks of a module that has LNSWeights of its own, once."""
    _register(module, _show_values, _load_codes)


def check_extra(name: str, module: nn.Module) -> None:
    """Raises TypeError for a module with an extra state of its own, in the place of its quantizers'."""
    if type(module).get_extra_state is not nn.Module.get_extra_state:
        raise TypeError(
            f"{name or 'the model'} ({type(module).__name__}) has a get_extra_state of its own, in whose place its "
            "quantizers would keep theirs; leave it in float32 by skip"
        )


def attach_kept(module: nn.Module) -> None:
    """Registers the hooks of a module whose scope's quantizers keep something between steps, once."""
    _register(module, _show_kept, _load_kept)


def detach(module: nn.Module) -> None:
    """Removes them."""
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for key in [k for k, hook in hooks.items() if getattr(hook, "hook", hook) in _HOOKS]:
            del hooks[key]


_HOOKS = (_show_values, _load_codes, _show_kept, _load_kept)
