"""PEs that add in the log domain, gate by gate: what area and activity are measured on has the kernels' bits."""

import numpy as np
import pytest
from accumulators import accumulators_of

from csrc.rtl.design import log_pe
from csrc.rtl.synthesis import gates, operands
from lns_sim import LogDatapath

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("yosys")]
CLOCKS, STREAMS, LANES = 40, 64, 4


def ports(a, b, entries, skewed):
    """Dot products of two vectors, as many under way as there are entries; codes of shape (clocks, streams, lanes)."""
    found = {name: np.unpackbits(x, axis=-1, bitorder="little").astype(bool) for name, x in (("in_a", a), ("in_b", b))}
    if skewed:
        found = {name: operands.skewed(bits, LANES) for name, bits in found.items()}
    clock = np.arange(CLOCKS)[:, None, None] + np.zeros((1, STREAMS, 1), int)
    one = np.ones((CLOCKS, STREAMS, 1), bool)
    first = clock // entries % 2 == 0
    at = np.arange((entries - 1).bit_length())
    found |= {"in_valid": one, "out_ready": one, "in_first": first, "in_last": ~first}
    return found | {"in_entry": (clock % entries >> at & 1).astype(bool)}


@pytest.mark.parametrize(
    "order, late, tables, handshake",
    [("tree", 4, "exact", True), ("sequential", 5, "shift", True), ("skewed", 5, "shift", False)],
)
def test_the_netlist_computes_what_the_kernels_do(order, late, tables, handshake):
    skewed, entries = order == "skewed", 8
    d = LogDatapath(acc_bits=12, tables=tables, vector_size=LANES, order="tree" if order == "tree" else "sequential")
    netlist = gates.netlist(log_pe(d, handshake, entries=entries, skewed=skewed))
    a, b = np.random.default_rng(0).integers(0, 256, (2, CLOCKS, STREAMS, LANES), dtype=np.uint8)
    inputs = {name: x for name, x in ports(a, b, entries, skewed).items() if name in netlist.ports}
    seen = netlist.run(inputs, "out_acc").seen
    bits = (seen[..., :-1].astype(np.int64) << np.arange(11)).sum(-1)
    found = np.where(seen[..., -1], -bits, bits)
    pairs = [np.concatenate([x[:-entries], x[entries:]], axis=2).astype(np.int64) for x in (a, b)]  # of two vectors
    expected = accumulators_of(*(x.reshape(-1, 2 * LANES) for x in pairs), d).reshape(CLOCKS - entries, STREAMS)
    last = [i for i in range(CLOCKS - entries) if i // entries % 2 == 0 and i + entries + late < CLOCKS]
    assert (expected != 0).mean() > 0.9 and len(last) > 10
    assert (found[[i + entries + late for i in last]] == expected[last]).all()
