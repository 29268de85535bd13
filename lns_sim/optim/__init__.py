"""Optimizers: LNS-Madam on weights that exist only as codes, and those of the systems that it is compared with."""

from lns_sim.optim.closure import Batch, ClosureOptimizer, Diverged
from lns_sim.optim.lns_madam import LNSMadam
from lns_sim.optim.split import FLOAT_OPTIMIZERS, SplitOptimizer

__all__ = ["FLOAT_OPTIMIZERS", "Batch", "ClosureOptimizer", "Diverged", "LNSMadam", "SplitOptimizer"]
