"""What the hardware of a training iteration costs: a model's products mapped to the paper's processing element, and
their energy.
"""

from lns_sim.studies.energy.components import FORMATS
from lns_sim.studies.energy.energy import Energy, energy

__all__ = ["FORMATS", "Energy", "energy"]
