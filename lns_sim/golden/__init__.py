"""The golden model for hardware: traces of single dot products, and vectors to test an RTL design with."""

from lns_sim.golden.results import Mismatch, check_results
from lns_sim.golden.trace import DotTrace, trace_dot
from lns_sim.golden.vectors import VectorSet, make_vectors, read_vectors
from lns_sim.golden.words import WordLayout

__all__ = [
    "DotTrace",
    "Mismatch",
    "VectorSet",
    "WordLayout",
    "check_results",
    "make_vectors",
    "read_vectors",
    "trace_dot",
]
