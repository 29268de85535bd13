"""Turns any model's weights into codes and its products into simulated ones, in place."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

from lns_sim import recipes
from lns_sim.checks import check_choice, check_module
from lns_sim.distributed import local
from lns_sim.nn import frozen, grouped, methods, state
from lns_sim.nn.l1norm import L1Norm, replace_norms
from lns_sim.nn.scope import Scope
from lns_sim.nn.weight import LNSWeight
from lns_sim.nn.zeros import ZEROS, mostly_zero, warn
from lns_sim.ops import memory
from lns_sim.recipes import PASSES, ModelRecipe, Recipe

# Which parameters of which modules multiply.
LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys((nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d), ("weight",)),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), ("weight",)),
    nn.Embedding: ("weight",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
}
# Modules of torch that only arrange others, or multiply nothing: they need no simulation of their own.
_PASSIVE = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
# Layers of torch that multiply more than their weights, or have no simulated form.
_MULTIPLYING = (nn.MultiheadAttention, nn.EmbeddingBag, nn.Bilinear, nn.PairwiseDistance, *_RECURRENT)


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of one module, by name, that its products take as weights."""
    names = [n for kind, names in LAYERS.items() if isinstance(module, kind) for n in names]
    if isinstance(module, _RECURRENT):
        names = [name for name in module._parameters if name.startswith("weight")]
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # transformers' Linear with a transposed weight
        names = ["weight"]
    found = {name: getattr(module, name, None) for name in names}
    return {name: p for name, p in found.items() if p is not None}


def parameters_of_products(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of one module that are weights, or that weights are computed from (see :func:`convert`)."""
    own = {name: p for name, p in module._parameters.items() if p is not None and p.dim() > 1}
    if _is_torchs(module):
        computed = isinstance(module, ParametrizationList)
        known = weights_of(module)
        pruned = {f"{name}_orig" for name in known} | {f"{name}_{part}" for name in known for part in "gv"}
        return [p for name, p in own.items() if computed or name in known or name in pruned]
    return [p for p in own.values() if p.dtype == torch.float32 and (p.is_meta or bool(p.any()))]


def _is_torchs(module: nn.Module) -> bool:
    """Is its class, or the one that it had before it was converted, torch's?"""
    return type(module).__module__.partition(".")[0] == "torch"


def _patterns(name: str, value) -> list[str]:
    if value is None:
        return []
    patterns = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"{name} must be a name pattern or a list of them, got {value!r}")
    return patterns


def _recipe_of_each(model: nn.Module, plan: ModelRecipe, skip: list[str], only: list[str]) -> dict[str, Recipe | None]:
    """The recipe of every module, by name; a pattern holds for what is inside, until one matches deeper or later."""
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


def convert(
    model: nn.Module, recipe: Recipe | ModelRecipe | str | None, skip=None, only=None, zeros: str = "keep"
) -> nn.Module:
    """Replaces the weights of all layers by :class:`LNSWeight` codes and simulates all products, in place.

    Weights are those of Linear, Conv1d/2d/3d, ConvTranspose1d/2d/3d, Embedding, MultiheadAttention, recurrent layers
    and cells, and transformers' Conv1D, what a parametrization or pruning computes them from, and every float32
    parameter of two or more dimensions that a module of another library than torch holds itself, unless it is all zero.
    Products of computed tensors (matmul, einsum, attention) run on the datapath in every method of the model's modules
    (see :class:`lns_sim.simulate`), for which their classes become ones of the same name beneath them. Biases and other
    parameters stay as they are; initial weights are kept, quantized to the recipe's update format. A weight shared by
    several modules stays shared.

    Args:
        model: any module; its weights are float32.
        recipe: a :class:`lns_sim.recipes.Recipe`, a :class:`lns_sim.recipes.ModelRecipe`, a preset's name or
            the path of a TOML file (docs/recipes.md); "fp32" or None changes nothing.
        skip: name pattern or patterns (as in ``fnmatch``) of modules to leave in float32 with all that is inside, e.g.
            "head" or "blocks.*.fc".
        only: name pattern or patterns of the modules to convert with all that is inside; None: all.
        zeros: of weights that take gradients and are at least half zeros, which no multiplicative update moves: "keep"
            with a warning that names them (:class:`lns_sim.nn.ZeroWeightsWarning`), or "smallest": zeros begin at the
            smallest code with random signs.

    Returns:
        The model itself.

    Raises:
        TypeError: model, recipe or patterns of the wrong type, a weight that is not float32, a part that TorchScript
            compiled, or one with a ``get_extra_state`` of its own, where quantizers keep something between steps.
        ValueError: an unknown recipe name or zeros, a pattern that matches no module, a weight with NaN or Inf, or
            with spectral_norm, a weight or module that stands in places of different recipes, or a part that another
            recipe has converted before.
    """
    check_module(model)
    check_choice("zeros", zeros, ZEROS)
    if isinstance(recipe, str):
        recipe = recipes.get(recipe)
    if recipe is None or isinstance(recipe, Recipe):
        recipe = ModelRecipe(recipe)
    if not isinstance(recipe, ModelRecipe):
        raise TypeError(f"recipe must be a Recipe or the name of one, got {recipe!r}")
    chosen = _recipe_of_each(model, recipe, _patterns("skip", skip), _patterns("only", only))
    modules = dict(model.named_modules(remove_duplicate=False))
    _check_anew(modules, chosen, whole=only is None)
    _check(modules, chosen)
    replace_norms(model, [name for name, r in chosen.items() if r is not None and r.l1_norms])
    modules = dict(model.named_modules(remove_duplicate=False))
    warn(_convert_weights(model, modules, chosen, zeros), stacklevel=2)
    _attach_scopes(modules, chosen)
    grouped.know_others()
    frozen.follow(model)
    return model


def _check_anew(modules: dict[str, nn.Module], chosen: dict[str, Recipe | None], whole: bool) -> None:
    """A second conversion adds parts; what it would change is refused."""
    for name, module in modules.items():
        scope = methods.scope_of(module)
        found = [w.recipe for w in weights_of(module).values() if isinstance(w, LNSWeight)] + (
            [scope.recipe] if scope else []
        )
        for recipe in found:
            if recipe is not None and recipe != chosen[name] and (whole or chosen[name] is not None):
                raise ValueError(
                    f"{f'module {name}' if name else 'the model'} is converted already, by the recipe {recipe.name}; "
                    "lns_sim.nn.to_float(model) gives a float32 copy, which can be converted anew"
                )


def _check(modules: dict[str, nn.Module], chosen: dict[str, Recipe | None]) -> None:
    users: dict[int, tuple[str, Recipe | None]] = {}
    for name, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule) and chosen[name] is not None:
            raise TypeError(
                f"{name or 'the model'} is compiled by TorchScript, whose products cannot be replaced; convert the "
                "module that it was made of"
            )
        if chosen[name] is not None and _normalizes_spectrally(module):
            raise ValueError(
                f"{name or 'the model'} has spectral_norm, whose power iteration multiplies the weight outside of the "
                "network and is not simulated; remove it, or leave the layer in float32: torch.nn.utils."
                "parametrizations.spectral_norm, and skip in lns_sim.convert"
            )
        if _needs_scope(module):
            if memory.keeper(chosen[name]):
                state.check_extra(name, module)
            other, recipe = users.setdefault(id(module), (name, chosen[name]))
            if recipe != chosen[name]:
                raise ValueError(f"{name} and {other} are one module, so one recipe must hold for both, or none")
        for p, weight in weights_of(module).items():
            if isinstance(weight, LNSWeight) or not isinstance(weight, nn.Parameter):
                continue
            if isinstance(weight, nn.parameter.UninitializedParameter):
                raise ValueError(
                    f"the {p} of {name or 'the model'} has no shape yet; run the model once before it is converted"
                )
            if local(weight) is not weight and chosen[name] is not None:
                raise ValueError(
                    f"the {p} of {name or 'the model'} is sharded already; convert the model before it is distributed"
                )
            if weight.dtype != torch.float32:
                raise TypeError(f"the {p} of {name or 'the model'} must be float32, got {weight.dtype}")
            if chosen[name] is not None and not weight.is_meta and not weight.isfinite().all():
                raise ValueError(f"the {p} of {name or 'the model'} holds NaN or Inf and has no codes")
            other, recipe = users.setdefault(id(weight), (name, chosen[name]))
            if recipe != chosen[name]:
                raise ValueError(f"{name} and {other} share a weight, so one recipe must hold for both, or none")


def _normalizes_spectrally(module: nn.Module) -> bool:
    """By torch's parametrization, or by its older hook."""
    return isinstance(module, _SpectralNorm) or any(
        isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values()
    )


def _convert_weights(model: nn.Module, modules, chosen, zeros: str) -> list[str]:
    """Returns the names of those that training would leave at zero."""
    first_id = sum(isinstance(p, LNSWeight) for p in model.parameters())  # earlier conversions drew the ids before
    found, still = {}, []  # a shared weight once
    for name, module in modules.items():
        for weight in parameters_of_products(module) if chosen[name] is not None and chosen[name].coded_weights else ():
            if not isinstance(weight, LNSWeight):
                found[id(weight)] = (weight, chosen[name])
    paths = {id(p): path for path, p in model.named_parameters()}
    coded = {}
    for i, (old, recipe) in enumerate(found.values(), start=first_id):
        dead = old.requires_grad and mostly_zero(old)
        if dead and zeros == "keep":
            still.append(paths[id(old)])
        weight = LNSWeight.from_float(old, recipe, tensor_id=i, zeros=zeros if dead else "keep")
        coded[id(old)] = nn.Parameter(weight, requires_grad=old.requires_grad)
    for module in model.modules():
        own = {name: coded[id(p)] for name, p in module._parameters.items() if id(p) in coded}
        if own:
            module._parameters.update(own)
            state.attach(module)
            if isinstance(module, nn.RNNBase):
                module._init_flat_weights()  # a list of its own
    return still


def _needs_scope(module: nn.Module) -> bool:
    """May it multiply? Containers only arrange others, and most layers of torch's sum no products."""
    if type(module) in _PASSIVE or isinstance(module, L1Norm):
        return False
    return not _is_torchs(module) or isinstance(module, (*LAYERS, *_MULTIPLYING)) or any(module.children())


def _attach_scopes(modules, chosen) -> None:
    """Gives a scope to every module whose own code may multiply: it may be reached by any of its methods."""
    within: dict[str, bool] = {}  # a module that has a recipe
    for index, (name, module) in enumerate(modules.items()):
        parent, here = name.rpartition(".")[0], chosen[name]
        within[name] = here is not None or (name != "" and within[parent])
        known = methods.scope_of(module)
        if within[name] and _needs_scope(module) and (known is None or (known.recipe is None and here is not None)):
            weights = [n for n, p in module.named_parameters() if isinstance(p, LNSWeight)]
            if memory.keeper(here):
                state.attach_kept(module)
            methods.attach(module, Scope(here, weights[0] if weights else None, index))


@contextlib.contextmanager
def weights_alone(model: nn.Module) -> Iterator[None]:
    """Within the block a converted model quantizes weights only: activations, gradients and what L1 norms round are
    float32.

    Raises:
        ValueError: a weight exists only as codes, whose products its own recipe runs.
    """
    if any(isinstance(p, LNSWeight) for p in model.parameters()):
        raise ValueError("weights that exist only as codes have no products in float32; to_float gives a copy that has")
    alone: dict[str, Any] = dict.fromkeys(("activation", "error", "gradient", *PASSES))
    scopes = [scope for scope in _scopes(model) if scope.recipe is not None]
    norms = [module for module in model.modules() if isinstance(module, L1Norm)]
    before = [scope.recipe for scope in scopes], [norm.bits for norm in norms]
    try:
        for scope in scopes:
            scope.recipe = dataclasses.replace(scope.recipe, **alone)
        for norm in norms:
            norm.bits = None
        yield
    finally:
        for scope, recipe in zip(scopes, before[0]):
            scope.recipe = recipe
        for norm, bits in zip(norms, before[1]):
            norm.bits = bits


def _scopes(model: nn.Module) -> list[Scope]:
    found = (methods.scope_of(module) for module in model.modules())
    return [scope for scope in found if scope is not None]


def to_float(model: nn.Module) -> nn.Module:
    """A float32 copy of a converted model: plain parameters of the codes' values, no simulation.

    For running averages (``averaged = torch.optim.swa_utils.AveragedModel(to_float(model))``, after each step
    ``averaged.update_parameters(to_float(model))``: codes could not hold them), export, or evaluation in float32;
    ``convert`` makes codes of it again.

    Raises:
        TypeError: model is no module.
    """
    check_module(model)
    model = copy.deepcopy(model)
    values: dict[int, nn.Parameter] = {}  # a shared weight once
    for module in model.modules():
        for name, p in module._parameters.items():
            if isinstance(p, LNSWeight):
                if id(p) not in values:
                    values[id(p)] = nn.Parameter(p.detach().dequantize(), requires_grad=p.requires_grad)
                module._parameters[name] = values[id(p)]
        state.detach(module)
        methods.detach(module)
        frozen.unfollow(module)
    return model
