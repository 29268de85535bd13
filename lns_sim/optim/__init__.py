"""Optimizers that update weights which exist only as codes."""

from lns_sim.optim.madam import LNSMadam

__all__ = ["LNSMadam"]
