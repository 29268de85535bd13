"""Turns any model's weights into codes and its products into simulated ones, in place."""

from __future__ import annotations

import copy
import fnmatch

import torch
from torch import nn

from lns_sim import recipes
from lns_sim.distributed import local
from lns_sim.nn import state
from lns_sim.nn.l1norm import replace_norms
from lns_sim.nn.scope import Scope
from lns_sim.nn.weight import LNSWeight
from lns_sim.ops.memory import Memory
from lns_sim.recipes import ModelRecipe, Recipe

# Which parameters of which modules multiply.
LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys((nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d), ("weight",)),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), ("weight",)),
    nn.Embedding: ("weight",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
}
# Modules of torch that only arrange others, or multiply nothing: they need no simulation of their own.
_PASSIVE = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity)


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of one module, by name, that its products take as weights."""
    names = [n for kind, names in LAYERS.items() if isinstance(module, kind) for n in names]
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # transformers' Linear with a transposed weight
        names = ["weight"]
    found = {name: getattr(module, name, None) for name in names}
    return {name: p for name, p in found.items() if p is not None}


def _patterns(name: str, value) -> list[str]:
    if value is None:
        return []
    patterns = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"{name} must be a name pattern or a list of them, got {value!r}")
    return patterns


def _recipe_of_each(model: nn.Module, plan: ModelRecipe, skip: list[str], only: list[str]) -> dict[str, Recipe | None]:
    """By module name; a pattern holds for the modules inside, too, until another one matches deeper or later."""
    modules = dict(model.named_modules(remove_duplicate=False))
    layers = [name for name, m in modules.items() if weights_of(m)]
    rules = [(p, None) for p in skip] + [(p, r) for p, r in plan.overrides] + [(p, plan.default) for p in only]
    for pattern, _ in rules:
        if not fnmatch.filter(modules, pattern):
            raise ValueError(f"the pattern {pattern!r} matches no layer; layers are: {', '.join(layers) or 'none'}")
    chosen = {}
    for name in modules:  # parents first
        recipe = chosen[name.rpartition(".")[0]] if name else (None if only else plan.default)
        for pattern in only:
            recipe = plan.default if fnmatch.fnmatchcase(name, pattern) else recipe
        if recipe is not None or not only:
            for pattern, other in plan.overrides:
                recipe = other if fnmatch.fnmatchcase(name, pattern) else recipe
        chosen[name] = None if any(fnmatch.fnmatchcase(name, p) for p in skip) else recipe
    return chosen


def convert(model: nn.Module, recipe: Recipe | ModelRecipe | str | None, skip=None, only=None) -> nn.Module:
    """Replaces the weights of all layers by :class:`LNSWeight` codes and simulates all products, in place.

    Layers are Linear, Conv1d/2d/3d, ConvTranspose1d/2d/3d, Embedding and MultiheadAttention, and transformers' Conv1D.
    Products of computed tensors (matmul, einsum, attention) run on the datapath while a converted model's forward runs
    (see :class:`lns_sim.simulate`). Modules, their forward methods, biases and other parameters stay as they are;
    initial
    weights are kept, quantized to the recipe's update format. A weight shared by several modules stays shared.

    Args:
        model: any module; its weights are float32.
        recipe: a :class:`lns_sim.recipes.Recipe`, a :class:`lns_sim.recipes.ModelRecipe`, a preset's name or the
            path of
            a TOML file (docs/recipes.md); "fp32" or None changes nothing.
        skip: name pattern or patterns (as in ``fnmatch``) of modules to leave in float32 with all that is inside, e.g.
            "head" or "blocks.*.fc".
        only: name pattern or patterns of the modules to convert with all that is inside; None: all.

    Returns:
        The model itself.

    Raises:
        TypeError: recipe or patterns of the wrong type, or a weight that is not float32.
        ValueError: an unknown recipe name, a pattern that matches no module, a weight with NaN or Inf, a recurrent
            layer,
            a weight shared by modules of different recipes.
    """
    if isinstance(recipe, str):
        recipe = recipes.get(recipe)
    if recipe is None:
        return model
    if isinstance(recipe, Recipe):
        recipe = ModelRecipe(recipe)
    if not isinstance(recipe, ModelRecipe):
        raise TypeError(f"recipe must be a Recipe or the name of one, got {recipe!r}")
    if recipe.l1_norms:
        replace_norms(model)
    chosen = _recipe_of_each(model, recipe, _patterns("skip", skip), _patterns("only", only))
    modules = dict(model.named_modules(remove_duplicate=False))
    _check(modules, chosen)
    _convert_weights(model, modules, chosen)
    _attach_scopes(modules, chosen)
    return model


def _check(modules: dict[str, nn.Module], chosen: dict[str, Recipe | None]) -> None:
    users: dict[int, tuple[str, Recipe | None]] = {}
    for name, module in modules.items():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and chosen[name] is not None:
            raise ValueError(
                f"{name} is recurrent and runs in one fused kernel of torch; skip it to leave it in float32"
            )
        for p, weight in weights_of(module).items():
            if isinstance(weight, LNSWeight):
                continue
            if isinstance(weight, nn.parameter.UninitializedParameter):
                raise ValueError(f"the {p} of {name} has no shape yet; run the model once before it is converted")
            if local(weight) is not weight and chosen[name] is not None:
                raise ValueError(f"the {p} of {name} is sharded already; convert the model before it is distributed")
            if weight.dtype != torch.float32:
                raise TypeError(f"the {p} of {name} must be float32, got {weight.dtype}")
            if chosen[name] is not None and not weight.is_meta and not weight.isfinite().all():
                raise ValueError(f"the {p} of {name} holds NaN or Inf and has no codes")
            other, recipe = users.setdefault(id(weight), (name, chosen[name]))
            if recipe != chosen[name]:
                raise ValueError(f"{name} and {other} share a weight, so one recipe must hold for both, or none")


def _convert_weights(model: nn.Module, modules, chosen) -> None:
    first_id = sum(isinstance(p, LNSWeight) for p in model.parameters())  # earlier conversions drew the ids before
    found = {}  # a shared weight once
    for name, module in modules.items():
        for weight in weights_of(module).values():
            if chosen[name] is not None and chosen[name].coded_weights and not isinstance(weight, LNSWeight):
                found[id(weight)] = (weight, chosen[name])
    for i, (old, recipe) in enumerate(found.values(), start=first_id):
        new = nn.Parameter(LNSWeight.from_float(old, recipe, tensor_id=i), requires_grad=old.requires_grad)
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is old:
                    module._parameters[name] = new
                    state.attach(module)


def _is_scope(hook) -> bool:
    return isinstance(getattr(hook, "__self__", None), Scope)


def _attach_scopes(modules, chosen) -> None:
    """A scope where the recipe changes, and around every module whose own forward may multiply: it may be run alone, as
    when activations are recomputed."""
    seen = set()
    for index, (name, module) in enumerate(modules.items()):
        if id(module) in seen:
            continue
        seen.add(id(module))
        if any(_is_scope(hook) for hook in module._forward_pre_hooks.values()):  # converted before
            continue
        parent = chosen[name.rpartition(".")[0]] if name else None
        own = type(module).__module__.partition(".")[0] != "torch" or isinstance(module, nn.MultiheadAttention)
        if chosen[name] == parent and (chosen[name] is None or not own or isinstance(module, _PASSIVE)):
            continue
        weights = [n for n, p in module.named_parameters() if isinstance(p, LNSWeight)]
        Scope(chosen[name], weights[0] if weights else None, index).attach(module)


def multiply_in_float32(model: nn.Module) -> None:
    """Ends the simulation of a converted model whose weights are float32, in place: products and operands are float32
    from here on.

    Raises:
        ValueError: a weight exists only as codes.
    """
    if any(isinstance(p, LNSWeight) for p in model.parameters()):
        raise ValueError("weights that exist only as codes have no products in float32; to_float gives a copy that has")
    for scope in _scopes(model):
        scope.recipe = None


def memories(model: nn.Module) -> list[dict[int, Memory]]:
    """What quantizers keep from earlier steps, by module and product, for a checkpoint."""
    return [{key: dict(kept) for key, kept in scope.memories.items()} for scope in _scopes(model)]


def load_memories(model: nn.Module, found: list[dict[int, Memory]]) -> None:
    """Takes up what :func:`memories` gave for the same model and recipe."""
    for scope, kept in zip(_scopes(model), found, strict=True):
        scope.memories = {key: dict(memory) for key, memory in kept.items()}


def _scopes(model: nn.Module) -> list[Scope]:
    return [
        hook.__self__ for module in model.modules() for hook in module._forward_pre_hooks.values() if _is_scope(hook)
    ]


def to_float(model: nn.Module) -> nn.Module:
    """A float32 copy of a converted model: plain parameters of the codes' values, no simulation.

    For running averages (``averaged = torch.optim.swa_utils.AveragedModel(to_float(model))``, after each step
    ``averaged.update_parameters(to_float(model))``: codes could not hold them), export, or evaluation in float32;
    ``convert`` makes codes of it again.
    """
    model = copy.deepcopy(model)
    values: dict[int, nn.Parameter] = {}  # a shared weight once
    for module in model.modules():
        for name, p in module._parameters.items():
            if isinstance(p, LNSWeight):
                if id(p) not in values:
                    values[id(p)] = nn.Parameter(p.detach().dequantize(), requires_grad=p.requires_grad)
                module._parameters[name] = values[id(p)]
        state.detach(module)
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [k for k, hook in hooks.items() if _is_scope(hook)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
    return model
