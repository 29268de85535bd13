"""simulate: every matrix product of a block of code on a recipe's datapath, whoever calls it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lns_sim import recipes
from lns_sim.nn import products
from lns_sim.ops.operands import STREAMS
from lns_sim.recipes import Recipe

# Random streams of products without a weight: beyond every weight's.
FIRST_PRODUCT = 1 << 24


class simulate(TorchFunctionMode):
    """``with lns_sim.simulate(recipe): ...`` runs matmul, einsum, attention, F.linear and convolutions by the recipe.

    A converted model opens one around each of its modules, so that products of activations, as in attention, run on the
    datapath too: the second operand stands where a weight stands. Products with an LNSWeight keep the weight's own
    recipe. Sums of products only: elementwise and outer products stay in float32.

    Args:
        recipe: a Recipe or a preset's name; None leaves products of computed tensors in float32.
        rng: int64 [seed, step, tensor id], for recipes with stochastic quantizers; products count ids from it on.

    Raises:
        ValueError: an unknown preset, or a stochastic recipe without rng.
    """

    def __init__(self, recipe: Recipe | str | None, rng: Tensor | None = None):
        super().__init__()
        self.recipe = recipes.get(recipe) if isinstance(recipe, str) else recipe
        self.rng = rng
        self.count = 0

    def next_rng(self) -> Tensor | None:
        """The random state of the next product; None where nothing is drawn."""
        if self.recipe is None or not self.recipe.stochastic:
            return None
        if self.rng is None:
            raise ValueError("a stochastic recipe draws random bits; give simulate(recipe, rng=...)")
        rng = self.rng.clone()
        rng[2] += FIRST_PRODUCT + len(STREAMS) * self.count
        self.count += 1
        return rng

    def left_in_float(self, what: str) -> None:
        """Called for what a simulation meets and does not simulate; lns_sim.summary listens."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = products.simulate(self, func, args, kwargs or {})
        return func(*args, **(kwargs or {})) if out is NotImplemented else out


class Scope:
    """Hooks that open a simulation around a module's forward, and close it however that ends.

    Args:
        recipe: of the module's own products; None: float32.
        weight: name, within the module, of an LNSWeight whose random state the products share, if there is one.
        index: of the module in its model: keeps its products' streams apart from others'.
    """

    def __init__(self, recipe: Recipe | None, weight: str | None, index: int):
        self.recipe, self.weight, self.index = recipe, weight, index

    def open(self, module: torch.nn.Module, args) -> None:
        rng = None
        if self.recipe is not None and self.recipe.stochastic and self.weight is not None:
            rng = module.get_parameter(self.weight).rng.clone()
            rng[2] = self.index << 12
        simulate(self.recipe, rng).__enter__()

    def close(self, module: torch.nn.Module, args, output) -> None:
        torch.overrides._pop_mode()

    def attach(self, module: torch.nn.Module) -> None:
        module.register_forward_pre_hook(self.open)
        module.register_forward_hook(self.close, always_call=True)
