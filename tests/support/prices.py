"""A price file whose numbers can be reckoned with by hand."""

from pathlib import Path

PROCESS = """
[process]
name = "a process"
node_nm = 90
voltage = 1.8
wires = false
source = "round numbers"
"""

LNS = """
[designs."{name}"]
kind = "lns"
format = "LNS8"
gamma = 8
lut_entries = 8
acc_bits = {acc_bits}
lanes = 32
area_um2 = {area}
period_ns = 4.0

[designs."{name}".fj]
forward = {forward}
input_gradient = 200.0
weight_gradient = 150.0
idle = 10.0
blocks = {{ lanes = {blocks}, clock = 50.0 }}
"""

FP8 = """
[designs.FP8]
kind = "float"
format = "E4M3"
handshake = true
acc_bits = 24
lanes = 32

[designs.FP8.fj]
forward = 300.0
input_gradient = 300.0
weight_gradient = 300.0
idle = 20.0
"""


def lns(name: str = "rom 24", acc_bits: int = 24, forward: float = 100.0, area: float = 4000.0) -> str:
    """An LNS design as a price file has it."""
    blocks = (forward + 350) / 3 - 50
    return LNS.format(name=name, acc_bits=acc_bits, forward=forward, area=area, blocks=blocks)


def write(path: Path, *parts: str) -> str:
    """A price file of these parts; without any, of two accumulators' widths and FP8."""
    path.write_text("\n".join(parts or (PROCESS, lns(), lns("rom 16", 16, 70.0, 2000.0), FP8)))
    return str(path)
