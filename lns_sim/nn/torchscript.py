"""What TorchScript compiled, whose operators nobody sees: what sums products is refused in a simulation."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from lns_sim.nn import functions
from lns_sim.nn.scope import ModuleSimulation, innermost
from lns_sim.ops.float_products import may_multiply

_Method = torch._C.ScriptMethod  # of a compiled module


def _product(function: torch.jit.ScriptFunction | _Method) -> str | None:
    """What a compiled function multiplies by, if it does."""
    known = functions.names()
    names = (node.kind().rpartition("::")[2] for node in _nodes(function.inlined_graph))
    return next((name for name in names if may_multiply(name) or name in known), None)


def _nodes(block):
    """A graph's, and those of the blocks within."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def install() -> None:
    """Makes calls look first, once."""
    for kind in (torch.jit.ScriptFunction, _Method):
        kind.__call__ = _looking(kind.__call__)


def _looking(call: Callable) -> Callable:
    @functools.wraps(call)
    def looked_into(self, *args, **kwargs):
        simulation = innermost()
        # In a converted model there are compiled modules only where `skip` names them.
        left_out = isinstance(self, _Method) and isinstance(simulation, ModuleSimulation)
        if simulation is not None and simulation.recipe is not None and not left_out and (name := _product(self)):
            raise functions.without_simulated_form(f"{name} in {self.name}, which TorchScript compiled,")
        return call(self, *args, **kwargs)

    return looked_into
