"""What the hardware of a training iteration costs: a model's products mapped to processing elements, their energy, and
their cycles with the traffic of memories.
"""

from lns_sim.studies.energy.cycles import Cycles, cycles
from lns_sim.studies.energy.energy import Energy, energy
from lns_sim.studies.energy.mapping import Array
from lns_sim.studies.energy.paper_prices import FORMATS

__all__ = ["FORMATS", "Array", "Cycles", "Energy", "cycles", "energy"]
