"""Passes of given shapes, mapped to an array."""

from lns_sim.studies.energy import Array
from lns_sim.studies.energy.mapping import map_pass
from lns_sim.watching.passes import Pass


def work(shape, name="forward", useful=None, vector_size=32, **array):
    """Of a linear layer's pass; ``useful`` products of it if not all."""
    macs = shape.macs if useful is None else useful
    return map_pass(Pass("", "linear", name, (), None, shape, macs, 0, (), None), vector_size, Array(**array))
