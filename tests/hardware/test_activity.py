"""The gate-level netlist computes what the kernels do, and its switching is counted right."""

import numpy as np
import pytest
import torch

from csrc.rtl.design import int8_vector, pe
from csrc.rtl.synthesis import activity
from csrc.rtl.synthesis.netlist import Netlist
from lns_sim import Datapath, LNSFormat

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("yosys")]

D = Datapath(LNSFormat(8, 4), vector_size=4, lut_entries=2, acc_bits=16)
CLOCKS, STREAMS = 30, 64
LATENCY = {"rom": 3, "bins": 4}


@pytest.fixture(scope="module")
def netlist():
    return Netlist(pe(D))


def ports(a, b):
    """Every clock a dot product of its own; codes of shape (clocks, streams, lanes)."""
    found = {name: np.unpackbits(x, axis=-1, bitorder="little").astype(bool) for name, x in (("in_a", a), ("in_b", b))}
    one = np.ones((*a.shape[:2], 1), bool)
    entry = (np.arange(len(a))[:, None, None] % 16 >> np.arange(4) & 1).astype(bool)
    return found | {
        "in_valid": one,
        "in_first": one,
        "in_last": one,
        "out_ready": one,
        "in_entry": np.broadcast_to(entry, (*a.shape[:2], 4)),
    }


@pytest.mark.parametrize("microarchitecture", LATENCY)
@pytest.mark.parametrize("handshake", [True, False])
def test_the_netlist_computes_what_the_kernels_do(microarchitecture, handshake):
    netlist = Netlist(pe(D, microarchitecture, handshake))
    a, b = np.random.default_rng(0).integers(0, 256, (2, CLOCKS, STREAMS, 4), dtype=np.uint8)
    _, seen = netlist.run(ports(a, b), "out_acc")
    bits = (seen.astype(np.int64) << np.arange(16)).sum(-1)
    found = np.where(bits >> 15, bits - (1 << 16), bits)
    left, right = (torch.from_numpy(x.reshape(-1, 4)) for x in (a, b))
    ones = torch.ones(len(left), 1, 1)
    expected = torch.ops.lns_sim.matmul(left[:, None], ones, right[:, :, None], ones, 8, 8, D.encode(), True, False)[0]
    late = LATENCY[microarchitecture]
    assert (found[late:] == expected.reshape(CLOCKS, STREAMS).numpy()[:-late]).all()


def test_switching_is_counted(netlist):
    rng = np.random.default_rng(1)
    a, b = (np.repeat(rng.integers(0, 256, (1, STREAMS, 4), dtype=np.uint8), CLOCKS, 0) for _ in range(2))
    still, _ = netlist.run(ports(a, b), skip=20)
    entry = netlist.by_block(still)
    assert (
        entry["product"] == entry["term"] == entry["tree"] == 0 and entry["registers"] > 0
    )  # only the entry's number goes on
    # A sign that changes every clock switches its own net each time, once for each stream.
    b[1::2, :, 0] ^= 128
    moving, _ = netlist.run(ports(a, b), skip=20)
    assert moving[netlist.net("in_b", 7)] == (CLOCKS - 21) * STREAMS and moving[netlist.net("in_b", 0)] == 0
    assert netlist.by_block(moving)["product"] > 0
    assert sum(netlist.by_block(moving * netlist.loads).values()) == (moving * netlist.loads).sum()
    assert netlist.flip_flops > 16 * 16 and netlist.loads[netlist.net("in_a", 0)] >= 1


def test_operands_of_a_trained_layer():
    trained = activity.trained_operands("convolution", steps=2)
    codes = activity.operand_bytes("lns", trained)
    assert list(codes) == list(activity.SOURCES)
    for kind in ("int8", "e4m3"):
        for source, pair in activity.operand_bytes(kind, trained).items():
            assert [x.shape for x in pair] == [x.shape for x in codes[source]] and all(
                x.dtype == np.uint8 and x.any() for x in pair
            )
            assert kind == "int8" or not any((x & 127 == 127).any() for x in pair)  # no NaN
    inputs = activity.stimulus(*codes["weight_gradient"])
    assert inputs["in_a"].shape == (16 * activity.VECTORS, activity.STREAMS, 256)
    assert (inputs["in_a"][:16] == inputs["in_a"][0]).all() and (inputs["in_b"][0] != inputs["in_b"][1]).any()
    assert inputs["in_first"][:16].all() and not inputs["in_first"][16:].any() and inputs["in_last"][-16:].all()


def test_a_small_design_by_block():
    small = activity.measure(int8_vector(), "int8", {})
    blocks = small["random"]
    assert (
        blocks["multipliers"] > blocks["adder trees"] > 0
        and blocks["collector"] > 0
        and blocks["clock"] == pytest.approx(2 * 950 / 32, rel=0.1)
    )
