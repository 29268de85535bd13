"""The gate-level netlist computes what the kernels do, and its switching is counted right, with delays and without."""

import re
import subprocess

import numpy as np
import pytest
import torch

from csrc.rtl.design import E3M0, E4M3, E5M10, INT4, INT8, fixed_vector, pe
from csrc.rtl.synthesis import activity, gates, glitches, operands
from csrc.rtl.synthesis.blocks import BLOCKS
from lns_sim import Datapath, LNSFormat

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("yosys")]

D = Datapath(LNSFormat(8, 4), vector_size=4, lut_entries=2, acc_bits=16)
CLOCKS, STREAMS = 30, 64
LATENCY = {"rom": 3, "bins": 4}


@pytest.fixture(scope="module")
def netlist():
    return gates.netlist(pe(D))


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
    netlist = gates.netlist(pe(D, microarchitecture, handshake))
    a, b = np.random.default_rng(0).integers(0, 256, (2, CLOCKS, STREAMS, 4), dtype=np.uint8)
    seen = netlist.run(ports(a, b), "out_acc").seen
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
    still = netlist.run(ports(a, b), skip=20)
    entry = netlist.by_block(still.switched[:, 0])
    assert (
        entry["product"] == entry["term"] == entry["tree"] == 0 and entry["registers"] > 0
    )  # only the entry's number goes on
    # A sign that changes every clock switches its own net each time, once for each stream.
    b[1::2, :, 0] ^= 128
    moving = netlist.run(ports(a, b), skip=20).switched[:, 0]
    assert moving[netlist.net("in_b", 7)] == (CLOCKS - 21) * STREAMS and moving[netlist.net("in_b", 0)] == 0
    assert netlist.by_block(moving)["product"] > 0
    assert sum(netlist.by_block(moving * netlist.loads).values()) == (moving * netlist.loads).sum()
    assert netlist.flip_flops > 16 * 16 and netlist.loads[netlist.net("in_a", 0)] >= 1


def test_words_that_are_written(netlist):
    """Of the collector's 16 words one is written a clock, of others none, all bits of a word alike."""
    a, b = np.random.default_rng(2).integers(0, 256, (2, CLOCKS, STREAMS, 4), dtype=np.uint8)
    found = netlist.run(ports(a, b), skip=20)
    written = found.written[:, 0]
    bits = {n: netlist.by_block(written == n).get("collector", 0) for n in np.unique(written) if n}
    assert sum(bits.values()) == 9 * 16 and all(n % 16 == 0 for n in bits.values())  # 9 clocks, 9 of the words
    assert max(n for n in bits if bits[n]) <= STREAMS
    assert (found.written[:, 0] >= found.switched[:, 0] * (found.written[:, 0] > 0)).all()


@pytest.mark.usefixtures("icarus")
def test_glitches_are_those_that_icarus_sees(tmp_path):
    """Gates with inertial delays of several steps, changes of each net counted by an event-driven simulator."""
    netlist = gates.netlist(fixed_vector("INT4", INT4, INT4, handshake=False, lanes=2, acc_bits=8))
    rng = np.random.default_rng(3)
    delays = rng.integers(1, glitches.LONGEST + 1, netlist.nets)
    a, b = rng.integers(0, 2, (2, CLOCKS, STREAMS, 8)).astype(bool)
    one = np.ones((CLOCKS, STREAMS, 1), bool)
    entry = rng.integers(0, 2, (CLOCKS, STREAMS, 4)).astype(bool)
    inputs = {"in_a": a, "in_b": b, "in_entry": entry, "in_valid": one, "in_first": one, "in_last": one}
    inputs = {name: np.repeat(bits[:, :1], STREAMS, 1) for name, bits in inputs.items()}  # one stream, 64 times
    found = glitches.run(netlist, inputs, delays, skip=1)[:, 0]
    assert (found % STREAMS == 0).all()
    plain = netlist.run(inputs, skip=1).switched[:, 0]
    assert (found >= plain).all() and ((found - plain) % 2 == 0).all() and found.sum() > 1.2 * plain.sum()

    operators = {"$_AND_": "{0} & {1}", "$_OR_": "{0} | {1}", "$_XOR_": "{0} ^ {1}", "$_NOT_": "~{0}"}
    operators["$_MUX_"] = "({0} & ~{2}) | ({1} & {2})"
    lines = [f"reg n{net} = 0; integer c{net} = 0;" for net in range(netlist.nets)]
    driven = []
    for group in netlist.gates:
        for i, out in enumerate(group.outputs):
            text = operators[group.kind].format(*(f"n{net}" for net in group.inputs[:, i]))
            lines.append(f"wire #{delays[out]} w{out} = {text}; always @(w{out}) n{out} = w{out};")
            driven.append(out)
    changes = [f"always @(n{net}) if (counting) c{net} = c{net} + 1;" for net in range(netlist.nets)]
    period = 10_000
    steps = []
    for clock in range(CLOCKS):
        steps.append(f"#{period} counting = {int(clock > 1)};")
        if clock:
            d = [(out, g.inputs[0, i]) for g in netlist.registers for i, out in enumerate(g.outputs)]
            steps += [f"n{q} <= n{net};" for q, net in d]
        for name, bits in inputs.items():
            steps += [f"n{netlist.net(name, bit)} <= {int(x)};" for bit, x in enumerate(bits[clock, 0])]
    shown = [f'$display("%0d", c{net});' for net in range(netlist.nets)]
    lines += ["reg counting = 0;", *changes, "initial begin n1 = 1;", *steps, f"#{period}", *shown, "$finish; end"]
    (tmp_path / "t.v").write_text("module t;\n" + "\n".join(lines) + "\nendmodule\n")
    subprocess.run(["iverilog", "-g2005-sv", "-o", tmp_path / "t", tmp_path / "t.v"], check=True)
    run = subprocess.run(["vvp", "-n", tmp_path / "t"], check=True, capture_output=True, text=True)
    icarus = np.array([int(line) for line in re.findall(r"^\d+$", run.stdout, re.M)])
    assert (icarus == found // STREAMS).all()


@pytest.mark.usefixtures("fresh_operands")
def test_operands_of_trained_networks(monkeypatch):
    monkeypatch.setattr(operands, "STEPS", 2)
    shapes = {}
    for number in (LNSFormat(), LNSFormat(8, 16), INT8, INT4, E3M0, E4M3, E5M10):
        for source in operands.SOURCES:
            pairs = operands.streams(number, number, source)
            assert [x.shape for pair in pairs for x in pair] == shapes.setdefault(
                source, [x.shape for pair in pairs for x in pair]
            )
            for x in (x for pair in pairs for x in pair):
                assert x.min() >= 0 and x.max() < 1 << number.bits and x.any() == (source != "idle")
                assert number != E4M3 or not (x & 127 == 127).any()  # NaN
                assert number != E5M10 or not (x >> 10 & 31 == 31).any()


def test_codes():
    x = torch.tensor([0.0, 1.0, -0.5, 0.3, 0.01])
    assert operands.codes(x, INT8).tolist() == [0, 127, 256 - 64, 38, 1]
    assert operands.codes(x, INT4).tolist() == [0, 7, 16 - 4, 2, 0]
    assert operands.codes(x, E3M0).tolist() == [0, 7, 8 + 6, 5, 0]  # 64, -32, 19.2, 0.64
    assert operands.codes(x, E4M3).view(np.uint8).tolist()[:3] == [0, 0x7E, 0x80 | 0x76]
    assert operands.codes(x, E5M10).tolist()[:3] == [0, 0x7BFF, 0x8000 | 0x77FF]


def test_stimulus():
    moving, held = np.arange(64).reshape(1, 64) + np.zeros((5, 1), int), np.ones((3, 64), int)
    found = operands.stimulus([(moving, held)], (8, 4), 4, 5)
    assert found["in_a"].shape == (16 * 5, 4, 256) and found["in_b"].shape == (16 * 5, 4, 128)
    assert (found["in_b"][:16] == found["in_b"][0]).all()  # one operand stays
    first, last = found["in_first"][::16, 0, 0].tolist(), found["in_last"][::16, 0, 0].tolist()
    assert first == [True, False, True, False, True] and last == [False, True, False, True, False]  # K of two vectors
    low = found["in_a"][0, 0].reshape(32, 8) @ (1 << np.arange(8))
    assert (low == np.arange(32)).all()


def test_a_small_design_by_block(monkeypatch):
    monkeypatch.setattr(activity, "SOURCES", ("random", "idle"))
    monkeypatch.setattr(activity, "PASSES", ("random",))
    row = next(row for row in activity.rows() if row.name == "INT4")
    found = activity.measure(row)
    blocks = found["random"]
    assert blocks["products"] > blocks["collector"] > 0 and blocks["trees"] > 0 and set(blocks) == set(BLOCKS.values())
    assert blocks["clock"] > 2.5 * found["gated clock"]["clock"] > 0
    assert sum(found["glitches"].values()) > 1.2 * sum(blocks.values())
    assert found["idle"]["products"] == found["idle"]["trees"] == 0 and found["idle"]["clock"] == blocks["clock"]
