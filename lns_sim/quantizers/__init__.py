"""Quantizers of recipes' tensors, a file each: LNS codes, and those of the systems that LNS-Madam is compared with."""

from lns_sim.quantizers.fp4 import FP4
from lns_sim.quantizers.fp8 import FP8
from lns_sim.quantizers.integer import Integer
from lns_sim.quantizers.lns import LNS
from lns_sim.quantizers.luq import LUQ, SAWB
from lns_sim.quantizers.operand import Operand
from lns_sim.quantizers.quantizer import Quantizer
from lns_sim.quantizers.shiftquant import ShiftQuant

__all__ = ["FP4", "FP8", "LNS", "LUQ", "SAWB", "Integer", "Operand", "Quantizer", "ShiftQuant"]
