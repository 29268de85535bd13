"""The same batch in float32, fake-quant and bit-exact, layer by layer and pass by pass."""

from lns_sim.studies.compare.measure import Comparison, compare

__all__ = ["Comparison", "compare"]
