"""lns_sim: bit-exact simulation of logarithmic-number-system training hardware, inside PyTorch."""

from lns_sim import ops  # isort: skip  (loads the extension and registers the operators)
from lns_sim import distributed, nn, optim, quantizers, recipes, reference, registry, weights
from lns_sim import systems as systems  # which registers them
from lns_sim import views as views  # and these operators of torch's on codes
from lns_sim.accumulators import AccumulatorConverter
from lns_sim.block_tensor import BlockTensor
from lns_sim.datapath import Datapath
from lns_sim.datapaths import Counters
from lns_sim.format import LNSFormat
from lns_sim.functional import conv2d, matmul, quantize
from lns_sim.golden import trace_dot
from lns_sim.log_datapath import LogDatapath
from lns_sim.log_tables import LogTables
from lns_sim.nn import LNSWeight, convert, simulate
from lns_sim.studies import training
from lns_sim.studies.compare import compare
from lns_sim.studies.energy import cycles, energy
from lns_sim.tensor import LNSTensor
from lns_sim.version import __version__
from lns_sim.watching.counting import count
from lns_sim.watching.summary import summary

if distributed.dist.is_available():
    from lns_sim import collectives as collectives

__all__ = [
    "AccumulatorConverter",
    "BlockTensor",
    "Counters",
    "Datapath",
    "LNSFormat",
    "LNSTensor",
    "LNSWeight",
    "LogDatapath",
    "LogTables",
    "__version__",
    "compare",
    "conv2d",
    "convert",
    "count",
    "cycles",
    "distributed",
    "energy",
    "matmul",
    "nn",
    "ops",
    "optim",
    "quantize",
    "quantizers",
    "recipes",
    "reference",
    "registry",
    "simulate",
    "summary",
    "trace_dot",
    "training",
    "weights",
]
