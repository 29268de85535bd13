"""TorchScript's functions, whose operators nobody sees: those that sum products are refused in a simulation."""

from __future__ import annotations

import functools

import torch

from lns_sim.nn import functions
from lns_sim.nn.scope import innermost
from lns_sim.ops.float_products import may_multiply


def _product(function: torch.jit.ScriptFunction) -> str | None:
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
    call = torch.jit.ScriptFunction.__call__

    @functools.wraps(call)
    def looked_into(self, *args, **kwargs):
        simulation = innermost()
        if simulation is not None and simulation.recipe is not None and (name := _product(self)):
            raise functions.without_simulated_form(f"{name} in {self.name}, which TorchScript compiled,")
        return call(self, *args, **kwargs)

    torch.jit.ScriptFunction.__call__ = looked_into
