"""What a datapath costs, counted from its structure: one-bit cells for each product."""

from __future__ import annotations

import math

from lns_sim.datapath import Datapath
from lns_sim.summary import Summary


def cells_per_mac(datapath: Datapath) -> float:
    """One-bit adders and multiplexers of a PE with this datapath, divided by its lanes.

    Counted: the exponent adders and shifters of the lanes, an adder tree for each bin (a bit wider on each level), the
    constant multipliers (a row of adders for each bit of a constant), the sum of the bins, the accumulator and its
    saturation. Registers, wires and control are not. It ranks datapaths; it is neither an area nor an energy.
    """
    d, f = datapath, datapath.format
    lanes, bins = d.vector_size, d.lut_entries
    largest = 2 * f.e_max // f.gamma - d.lsb  # the last position that a one can be shifted to
    width = max(largest + 1, 1)
    lane = (f.bits - 1) + width * math.ceil(math.log2(max(largest + 1, 2)))
    tree, left, bits = 0, lanes, width + 1  # with a sign
    while left > 1:
        tree += (left // 2) * bits
        left, bits = -(-left // 2), bits + 1
    constants = bins * bits * d.lut_bits + (bins - 1) * (bits + d.lut_bits)
    accumulator = d.acc_bits * (2 if d.overflow == "saturate" else 1)
    return lane + (bins * tree + constants + accumulator) / lanes


def model_cost(summary: Summary) -> float:
    """Cells per product of a converted model's training step: the mean over all its products.

    Raises:
        ValueError: a product runs in float32 (fake-quant), or there is none.
    """
    total = cells = 0.0
    for p in summary.passes:
        if p.kind == "embedding":
            continue
        if p.datapath is None:
            raise ValueError(f"the {p.name} of {p.layer} is multiplied in float32; a cost needs a datapath in every pass")
        total += p.macs
        cells += p.macs * cells_per_mac(p.datapath)
    if not total:
        raise ValueError("the model has no product on a datapath")
    return cells / total
