"""Converted layers: the weight that lives as codes, and the conversion of whole models."""

from lns_sim.nn.convert import convert
from lns_sim.nn.weight import LNSWeight

__all__ = ["LNSWeight", "convert"]
