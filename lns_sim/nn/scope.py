"""simulate: every matrix product of a block of code on a recipe's datapath, whoever calls it."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

from lns_sim import recipes
from lns_sim.distributed import local
from lns_sim.nn import frozen, functions
from lns_sim.ops import memory
from lns_sim.random import STREAMS, random_state
from lns_sim.recipes import Recipe

# Random streams of products without a weight: beyond every weight's.
FIRST_PRODUCT = 1 << 24


class simulate(TorchFunctionMode):
    """``with lns_sim.simulate(recipe): ...`` runs matmul, einsum, attention, F.linear and convolutions by the recipe.

    A converted model opens one around each of its modules, so that products of activations, as in attention, run on the
    datapath too: the second operand stands where a weight stands. Products with an LNSWeight keep the weight's own
    recipe. Sums of products only: elementwise and outer products stay in float32.

    Args:
        recipe: a Recipe or a preset's name (compiled code takes a Recipe made outside); None leaves products of
            computed
            tensors in float32.
        rng: int64 [seed, step, tensor id, first element], for recipes with stochastic quantizers
            (:func:`lns_sim.random.random_state`); products count ids from it on.

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
        number = self.count
        self.count += 1
        if self.recipe is None or not self.recipe.stochastic:
            return None
        if self.rng is None:
            raise ValueError("a stochastic recipe draws random bits; give simulate(recipe, rng=...)")
        rng = self.rng.clone()
        rng[2] += FIRST_PRODUCT + len(STREAMS) * number
        return rng

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = functions.simulated(self, func, args, kwargs or {})
        return func(*args, **(kwargs or {})) if out is NotImplemented else out


class Scope(simulate):
    """The simulation around a module's forward, opened and closed by hooks however that ends.

    Args:
        recipe: of the module's own products; None: float32.
        weight: name, within the module, of an LNSWeight whose random state the products share, if there is one;
            else torch's
            generator gives one for each forward.
        index: of the module in its model: keeps its products' streams apart from others'.
    """

    def __init__(self, recipe: Recipe | None, weight: str | None, index: int):
        super().__init__(recipe)
        self.weight, self.index = weight, index
        self.memories: dict[int, memory.Memory] = {}  # of errors, by product
        self._outer: list[simulate | None] = []

    def next_rng(self) -> Tensor | None:
        if keeper := memory.keeper(self.recipe):
            memory.announce(memory.Place(self.memories, self.count), keeper)
        return super().next_rng()

    def open(self, module: torch.nn.Module, args) -> None:
        """Before the module's forward: takes the place of the scope around it."""
        self.count = 0
        if self.recipe is not None and self.recipe.stochastic and self.weight is None:
            self.rng = random_state(None, device=next((p.device for p in module.parameters()), None))
        elif self.recipe is not None and self.recipe.stochastic:
            self.rng = local(attrgetter(self.weight)(module)).rng.clone()
            self.rng[2].fill_(self.index << 12)  # by assignment it would wait for the GPU
        depth = torch._C._len_torch_function_stack()
        inside = depth > 0 and isinstance(torch._C._get_function_stack_at(depth - 1), simulate)
        if not inside and self.weight is not None:
            frozen.meet(module)
        self._outer.append(_pop_mode() if inside else None)
        _push_mode(self)

    def close(self, module: torch.nn.Module, args, output) -> None:
        """After it, or after its failure; nothing where another hook failed before :meth:`open`."""
        if not self._outer:
            return
        _pop_mode()
        if keeper := memory.keeper(self.recipe):
            memory.announce(None, keeper)  # without gradients nobody took it
        outer = self._outer.pop()
        if outer is not None:
            _push_mode(outer)

    def attach(self, module: torch.nn.Module) -> None:
        """Registers the hooks."""
        module.register_forward_pre_hook(self.open)
        module.register_forward_hook(self.close, always_call=True)
