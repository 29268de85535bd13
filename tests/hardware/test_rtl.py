"""The RTL, simulated by Verilator, against the C++ kernels: every bit of every accumulator and of the codes made of
them.
"""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import ROOT

import lns_sim
from benchmarks import activity
from lns_sim import Datapath, LNSFormat, LNSTensor, reference
from lns_sim.golden import make_vectors

sys.path.insert(0, str(ROOT / "tests/rtl"))
import verilate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("verilator")]

CONFIGURATIONS = [
    Datapath(),
    Datapath(lut_entries=1),
    Datapath(lut_entries=2, lut_bits=6, acc_bits=20, rounding="nearest"),
    Datapath(lut_entries=4, acc_bits=16, overflow="wrap", vector_size=8),
    Datapath(LNSFormat(6, 4), vector_size=16, acc_bits=18),
    Datapath(LNSFormat(8, 16), vector_size=16, headroom_bits=1),
    Datapath(LNSFormat(5, 1), vector_size=4, acc_bits=24),
    Datapath(LNSFormat(4, 2), vector_size=7, lut_bits=3, acc_bits=12),
    Datapath(vector_size=1, lut_bits=10),
    Datapath(vector_size=64, lut_entries=2, acc_bits=22, headroom_bits=8),
    Datapath(vector_size=5, lut_entries=4, rounding="nearest", overflow="wrap", acc_bits=14),
    Datapath(vector_size=4, acc_bits=32, acc_lsb=6),
    Datapath(LNSFormat(5, 8), vector_size=8, lut_bits=12, acc_bits=24, acc_lsb=-4),
    Datapath(LNSFormat(9, 16), vector_size=6, lut_entries=4, acc_bits=28),
]
VECTORS = 300_000  # of each configuration


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A simulator of every configuration, built two at a time."""
    folders = [tmp_path_factory.mktemp("rtl") for _ in CONFIGURATIONS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CONFIGURATIONS, pool.map(verilate.build, CONFIGURATIONS, folders)))


def converted(accumulators, d, octaves=0):
    """The codes of all accumulators at the scale that the quantizer gives them, or octaves beside it, and that for the
    hardware.
    """
    values = torch.from_numpy(accumulators).to(torch.float32) * 2.0**d.lsb
    q, f = lns_sim.quantize(values, d.format), d.format
    scale = d.lsb - int(q.k) + octaves
    e = np.where(accumulators == 0, 0, 1)
    some = accumulators != 0
    e[some] = np.clip(reference.log_code(values.numpy()[some], f.gamma) + f.gamma * (scale - d.lsb), 1, f.e_max)
    codes = np.where(some & (accumulators < 0), e | 1 << (f.bits - 1), e)
    assert octaves or (codes == q.codes.to(torch.int64).numpy() & ((1 << f.bits) - 1)).all()
    return codes, scale


def midpoints(d):
    """Dot products whose accumulators lie where one code ends and the next begins: a product of gamma * q sets
    one bit.
    """
    f = d.format
    top = min(2 * f.e_max // f.gamma - d.lsb, d.acc_bits - 2)  # the highest bit
    targets = {1, 3, (1 << top) - 1}
    for t in reference.thresholds(f.gamma).tolist():
        base = t << top >> 23
        targets |= {base - 1, base, base + 1}
        if top > 23:  # and where the rounding to 24 bits decides
            half = 1 << (top - 24)
            targets |= {base + n * half + m for n in (1, 3) for m in (-1, 0, 1)}
    rows = []
    for target in sorted(targets):
        exponents = [(bit + d.lsb) * f.gamma for bit in range(top + 1) if target >> bit & 1]
        rows.append(
            [(min(p - 1, f.e_max), p - min(p - 1, f.e_max)) for p in exponents if p >= 2]
        )  # no product is smaller
    rows = [row for row in rows if row]
    a = np.zeros((2 * len(rows), top + 1), np.int64)
    b = np.zeros_like(a)
    for i, row in enumerate(rows):
        a[i, : len(row)], b[i, : len(row)] = zip(*row)
    a[len(rows) :], b[len(rows) :] = np.where(a[: len(rows)], a[: len(rows)] | 1 << (f.bits - 1), 0), b[: len(rows)]
    return a, b, accumulators_of(a, b, d)


def mismatch(program, d, a, b, accumulators, pause=0, octaves=0):
    """What the hardware does otherwise, or an empty text."""
    codes, scale = converted(accumulators, d, octaves)
    found, found_codes, clocks = verilate.simulate(program, d, a, b, scale, pause)
    wrong = np.flatnonzero(found != accumulators)
    if len(wrong):
        return (
            f"{len(wrong)} accumulators, the first of dot product {wrong[0]}: {found[wrong[0]]} for "
            f"{accumulators[wrong[0]]}"
        )
    wrong = np.flatnonzero(found_codes != codes)
    if len(wrong):
        return (
            f"{len(wrong)} codes, the first of {accumulators[wrong[0]]}: {found_codes[wrong[0]]} for {codes[wrong[0]]}"
        )
    vectors = len(a) * -(-a.shape[1] // d.vector_size)
    return "" if pause or clocks <= vectors + 8 else f"{clocks} clocks for {vectors} vectors"


@pytest.mark.parametrize("d", CONFIGURATIONS, ids=str)
def test_lint_is_clean(d):
    assert verilate.lint(d) == ""


@pytest.mark.parametrize("d", CONFIGURATIONS, ids=str)
def test_random_and_corner_vectors(programs, d):
    """Saturation up and down, exact cancellation, zeros, a single lane, long dot products; with and without pauses."""
    for source, k, count in (
        ("random", 3 * d.vector_size - 1, VECTORS // 3),
        ("corner", 2 * d.vector_size, 1),
        ("corner", 4096, 1),
    ):
        v = make_vectors(d, source, count, k, seed=2)
        assert mismatch(programs[d], d, v.a, v.b, v.accumulators) == "", source
    v = make_vectors(d, "random", 3000, 2 * d.vector_size + 1, seed=3)
    for octaves in (-9, 2):  # codes below the smallest and above the largest
        assert mismatch(programs[d], d, v.a, v.b, v.accumulators, pause=100, octaves=octaves) == ""
    assert mismatch(programs[d], d, *midpoints(d)) == ""


def test_all_pairs_of_codes(programs):
    d = Datapath()
    a, b = (codes.reshape(-1, 1) for codes in np.meshgrid(np.arange(256), np.arange(256)))
    expected = accumulators_of(a, b, d)
    assert len(a) == 65_536 and mismatch(programs[d], d, a, b, expected) == ""


def accumulators_of(a, b, d):
    tensors = [
        LNSTensor(torch.from_numpy(np.ascontiguousarray(x)).to(d.format.dtype), torch.tensor(1.0), d.format)
        for x in (a, b)
    ]
    rows = lns_sim.matmul(
        LNSTensor(tensors[0].codes[:, None], tensors[0].scale, d.format),
        LNSTensor(tensors[1].codes[:, :, None], tensors[1].scale, d.format),
        datapath=d,
        return_accumulator=True,
    )
    return rows.reshape(-1).to(torch.int64).numpy()


@pytest.mark.parametrize("layer", ["linear", "convolution"])
def test_codes_of_a_layer_in_training(programs, layer):
    """Of all three passes, after a few steps."""
    d = Datapath()
    rng = np.random.default_rng(0)
    for name, operands in activity.trained_operands(layer, steps=6).items():
        a, b = activity.rows(name, layer, *(operand.codes.to(torch.int64) for operand in operands))
        left, right = (rng.integers(len(x), size=400) for x in (a, b))
        a, b = a[left].numpy(), b[right].numpy()
        assert a.any() and mismatch(programs[d], d, a, b, accumulators_of(a, b, d)) == "", name


# Faults, each of which some vector must show: (file, what is there, what a mistake would make of it).
FAULTS = {
    "a wrong constant": ("lns_pkg.sv", "2 * (c + step) - 1", "2 * (c + step) + 1"),
    "a carry dropped in the exponent adder": (
        "lns_lane.sv",
        "{1'b0, a[BITS-2:0]} + {1'b0, b[BITS-2:0]}",
        "{1'b0, a[BITS-2:0] + b[BITS-2:0]}",
    ),
    "a lane one bit too narrow": ("lns_*.sv", "max(Q_MAX - ACC_LSB + 1, 1)", "max(Q_MAX - ACC_LSB, 1)"),
    "signs by or": ("lns_lane.sv", "a[BITS-1] ^ b[BITS-1]", "a[BITS-1] | b[BITS-1]"),
    "zero only where both are": ("lns_lane.sv", "== '0 || b", "== '0 && b"),
    "no Mitchell part": ("lns_lane.sv", "(LOG_G + 1)'(r & BITS'(2 ** LOG_L - 1))", "(LOG_G + 1)'(r & BITS'(0))"),
    "the wrong bin": ("lns_lane.sv", "BIN_BITS'(r >> LOG_L)", "BIN_BITS'(r)"),
    "a lost adder": ("lns_adder_tree.sv", "S'(low) + S'(high)", "S'(low) | S'(high)"),
    "truncation towards zero": (
        "lns_pe.sv",
        "((Y_BITS + 1)'(y3) +",
        "((Y_BITS + 1)'(y3) + (y3[Y_BITS-1] ? (Y_BITS + 1)'(2 ** F - 1) : '0) +",
    ),
    "saturation to the other end": (
        "collector.sv",
        "{next[N_BITS-1], {(ACC_BITS - 1) {~next[N_BITS-1]}}}",
        "{~next[N_BITS-1], {(ACC_BITS - 1) {next[N_BITS-1]}}}",
    ),
    "wrapping instead of saturating": ("collector.sv", "over && WRAP == 0", "over && WRAP != 0"),
    "an entry that is not cleared": ("collector.sv", "first ? '0 : entries", "1'b0 ? '0 : entries"),
    "a stage that does not wait": ("lns_pe.sv", "if (advance) begin", "if (1) begin"),
    "midpoints between other codes": ("lns_pkg.sv", "(2 * j + 1 + 46 * gamma)", "(2 * j + 46 * gamma)"),
    "no clamp at the largest code": ("lns_convert.sv", "e > E_MAX ? E_MAX : e", "e"),
    "zero below the smallest code": ("lns_convert.sv", "below ? E_BITS'(1)", "below ? E_BITS'(0)"),
    "the sign left in the magnitude": ("lns_convert.sv", "acc[ACC_BITS-1] ? -acc : acc", "acc"),
    "rounding before conversion dropped": ("lns_convert.sv", "25'(up)", "25'(up & 1'b0)"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """What the suite says of each fault, and of none."""
    d = Datapath(vector_size=3, lut_entries=4, acc_bits=28, headroom_bits=0)
    made = [make_vectors(d, "random", 20_000, 7, seed=4), make_vectors(d, "corner", 1, 64, seed=4)]
    sets = [(made[0].a, made[0].b, made[0].accumulators), (made[1].a, made[1].b, made[1].accumulators), midpoints(d)]

    def judge(name):
        folder = tmp_path_factory.mktemp("fault")
        for file in verilate.SOURCES:
            shutil.copy(verilate.RTL / file, folder)
        if name:
            pattern, old, new = FAULTS[name]
            changed = [file for file in folder.glob(pattern) if old in file.read_text()]
            assert changed, f"{old} is in none of {pattern}"
            for file in changed:
                file.write_text(file.read_text().replace(old, new))
        program = verilate.build(d, folder / "build", folder)
        try:
            return "; ".join(filter(None, (mismatch(program, d, *s, 60, octaves) for s in sets for octaves in (0, 2))))
        except AssertionError as error:  # of the RTL's own, or results that do not come out
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip([None, *FAULTS], pool.map(judge, [None, *FAULTS])))


def test_the_suite_accepts_the_design_itself(faulty):
    assert faulty[None] == ""


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_caught(faulty, name):
    assert faulty[name] != ""
