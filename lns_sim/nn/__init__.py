"""Converted models: weights that live as codes, simulated products, and the conversion of whole models."""

from lns_sim.nn import attention, checkpointing, convolutions, grouped, recurrent, refused, torchscript  # noqa: F401  (which register)
from lns_sim.nn.convert import convert, to_float
from lns_sim.nn.scope import simulate
from lns_sim.nn.weight import LNSWeight
from lns_sim.nn.zeros import ZeroWeightsWarning

checkpointing.install()
torchscript.install()

__all__ = ["LNSWeight", "ZeroWeightsWarning", "convert", "simulate", "to_float"]
