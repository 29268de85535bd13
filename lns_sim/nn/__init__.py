"""Converted models: weights that live as codes, simulated products, and the conversion of whole models."""

from lns_sim.nn import attention, convolutions  # noqa: F401  (which register their products)
from lns_sim.nn.convert import convert, to_float
from lns_sim.nn.scope import simulate
from lns_sim.nn.weight import LNSWeight

__all__ = ["LNSWeight", "convert", "simulate", "to_float"]
