"""The golden model for hardware: traces of single dot products, and vectors to test an RTL design with."""

from lns_sim.golden.trace import DotTrace, trace_dot
from lns_sim.golden.vectors import Mismatch, VectorSet, check_results, make_vectors, read_vectors

__all__ = ["DotTrace", "Mismatch", "VectorSet", "check_results", "make_vectors", "read_vectors", "trace_dot"]
