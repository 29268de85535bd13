"""Simulations: every matrix product of a block of code, or of a module's methods, by a recipe, whoever calls it."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from operator import attrgetter

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OperatorBase
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

from lns_sim import recipes
from lns_sim._compile import never_alone
from lns_sim.contract import TENSOR_ID
from lns_sim.distributed import local
from lns_sim.nn import functions
from lns_sim.nn.witness import product_by_name, watched
from lns_sim.ops import memory
from lns_sim.random import STREAMS, random_state
from lns_sim.recipes import Recipe

# Torch compiles their functions by itself where nothing else is compiled, and knows no mode that was there before.
_CONTROL_FLOW = tuple(
    getattr(torch.ops.higher_order, name) for name in ("cond", "while_loop", "map_impl", "scan", "associative_scan")
)
# Random streams of products without a weight: beyond every weight's.
FIRST_PRODUCT = 1 << 24


class simulate(TorchFunctionMode):
    """``with lns_sim.simulate(recipe): ...`` runs matmul, einsum, attention, F.linear and convolutions by the recipe.

    The methods of a converted model's modules run in one, so that products of activations, as in attention, run on the
    datapath too: the second operand stands where a weight stands. Products with an LNSWeight keep the weight's own
    recipe. Sums of products only: elementwise and outer products stay in float32, outer products' gradients do not.

    Args:
        recipe: a Recipe or a preset's name (compiled code takes a Recipe made outside); None leaves products of
            computed tensors in float32.
        rng: int64 [seed, step, tensor id, first element], for recipes with stochastic quantizers
            (:func:`lns_sim.random.random_state`); products count ids from it on.

    Raises:
        TypeError: recipe is of another type.
        ValueError: an unknown preset, or a stochastic recipe without rng.
    """

    def __init__(self, recipe: Recipe | str | None, rng: Tensor | None = None):
        super().__init__()
        self.recipe = recipes.get(recipe) if isinstance(recipe, str) else recipe
        if self.recipe is not None and not isinstance(self.recipe, Recipe):
            raise TypeError(f"recipe must be a Recipe, the name of one or None, got {recipe!r}")
        self.rng = rng
        self.count = 0
        self._outer: list[simulate | None] = []
        self.suspended = False  # another one is open in front of it
        self.handed_on = False  # to a function whose products the one before does not count

    def __enter__(self) -> simulate:
        """Takes the place of a simulation around it, which would see what this one leaves to torch."""
        self._outer.append(enter(self))
        return self

    def __exit__(self, *_) -> None:
        leave(self, self._outer.pop())

    def next_rng(self) -> Tensor | None:
        """The random state of the next product, int64 of 4; None where nothing is drawn.

        Raises:
            ValueError: the recipe is stochastic, and there is no state to begin with.
        """
        number = self.count
        self.count += 1
        if self.handed_on and self.recipe is not None and (self.recipe.stochastic or memory.keeper(self.recipe)):
            raise functions.without_simulated_form(
                f"a product of {self.recipe.name} in a function that compiled code checkpoints,"
            )
        if self.recipe is None or not self.recipe.stochastic:
            return None
        if self.rng is None:
            raise ValueError("a stochastic recipe draws random bits; give simulate(recipe, rng=...)")
        rng = self.rng.clone()
        rng[TENSOR_ID] += FIRST_PRODUCT + len(STREAMS) * number
        return rng

    def again(self) -> simulate:
        """A simulation that goes on from where this one stands, by itself."""
        other = simulate(self.recipe, self.rng)
        other.count = self.count
        return other

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.suspended:
            return func(*args, **kwargs)
        if func is Tensor.unflatten:  # Python code that no compiler can read in here
            func = torch.unflatten
        out = functions.simulated(self, func, args, kwargs)
        if out is not NotImplemented:
            return out
        if self.recipe is None:
            return func(*args, **kwargs)
        if isinstance(func, HigherOrderOperator):  # torch runs what is handed to it without this mode
            if func in _CONTROL_FLOW:
                raise functions.without_simulated_form(f"torch's control flow, {func},")
            args = tuple(self._within(x) for x in args)
        if torch.compiler.is_compiling():
            if not functions.is_handled(func) and (name := product_by_name(func)):
                raise functions.without_simulated_form(name)
            return func(*args, **kwargs)
        return watched(func, args, kwargs)

    def _within(self, function):
        """A function that runs in a simulation like this one; anything else as it is."""
        if not callable(function) or isinstance(function, (Tensor, torch.nn.Module, OperatorBase)):
            return function
        if isinstance(function, functools.partial):  # as some want it
            return functools.partial(self._within(function.func), *function.args, **function.keywords)

        def run(*args, **kwargs):
            simulation = self.again()
            simulation.handed_on = True
            with simulation:
                return function(*args, **kwargs)

        return run


class Scope:
    """The simulation that a converted module's own code runs in, however that code is reached.

    Args:
        recipe: of the module's own products; None: float32.
        weight: name, within the module, of an LNSWeight whose random state the products share, if there is one; else
            torch's generator gives one for each run.
        index: of the module in its model: keeps its products' streams apart from others'.
    """

    def __init__(self, recipe: Recipe | None, weight: str | None, index: int):
        self.recipe, self.weight, self.index = recipe, weight, index
        self.memories: dict[Hashable, memory.Memory] = {}  # by product, of its forward pass also by operand

    def random_state(self, module: torch.nn.Module) -> Tensor:
        """That one run of the module draws from."""
        weight = None if self.weight is None else local(attrgetter(self.weight)(module))
        if not functions.is_weight(weight):  # or a call of torch.func has put another tensor in its place
            return random_state(None, device=next((p.device for p in module.parameters()), None))
        rng = weight.rng.clone()
        rng[TENSOR_ID].fill_(self.index << 12)  # by assignment it would wait for the GPU
        return rng


class ModuleSimulation(simulate):
    """What a module's products run in from its outermost method on: each thread, and each run within another, has its
    own.
    """

    def __init__(self, scope: Scope, module: torch.nn.Module, rng: Tensor | None = None, count: int = 0):
        super().__init__(scope.recipe, rng)
        self.scope, self.module, self.count = scope, module, count

    def next_rng(self) -> Tensor | None:
        if keeper := memory.keeper(self.recipe):
            memory.announce(memory.Place(self.scope.memories, self.count, memory.mode()), keeper)
        if self.rng is None and self.recipe is not None and self.recipe.stochastic:
            self.rng = self.scope.random_state(self.module)
        return super().next_rng()

    def again(self) -> ModuleSimulation:
        return ModuleSimulation(self.scope, self.module, self.rng, self.count)


def innermost() -> simulate | None:
    """The simulation that functions of torch meet first; None where another mode, or none, is in front."""
    depth = torch._C._len_torch_function_stack()
    mode = torch._C._get_function_stack_at(depth - 1) if depth else None
    return mode if isinstance(mode, simulate) else None


def enter(simulation: simulate) -> simulate | None:
    """Puts a simulation in the place of the innermost one, which is returned for :func:`leave`."""
    outer = innermost()
    if outer is not None:
        _pop_mode()
    else:
        outer = _suspend_behind()
    _push_mode(simulation)
    return outer


def _suspend_behind() -> simulate | None:
    """Where other modes are in front of a simulation, it stays where it is, and sees nothing."""
    for i in reversed(range(torch._C._len_torch_function_stack())):
        mode = torch._C._get_function_stack_at(i)
        if isinstance(mode, simulate):
            if mode.suspended:
                return None
            mode.suspended = True
            return mode
    return None


def leave(simulation: simulate, outer: simulate | None) -> None:
    """Puts things back as they were before :func:`enter`."""
    _pop_mode()
    if keeper := memory.keeper(simulation.recipe):
        memory.announce(None, keeper)  # without gradients nobody took it
    if outer is not None and outer.suspended:
        outer.suspended = False
    elif outer is not None:
        _push_mode(outer)


# Where a compiler gives up a frame and runs it as it is, this would be compiled as a frame of its own, whose guards do
# not tell one property's getter from another.
never_alone(simulate.__torch_function__)
