"""Converted models: weights that live as codes, simulated products, and the conversion of whole models."""

from lns_sim.nn import attention, checkpointing, recurrent, refused  # noqa: F401  (which register functions)
from lns_sim.nn.convert import convert, to_float
from lns_sim.nn.scope import simulate
from lns_sim.nn.weight import LNSWeight

checkpointing.install()

__all__ = ["LNSWeight", "convert", "simulate", "to_float"]
