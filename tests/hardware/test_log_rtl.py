"""The PEs that add in the log domain, simulated by Verilator, against the kernels: every bit of every accumulator."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from accumulators import accumulators_of
from icarus import icarus_lint
from tools import require_module

from csrc.rtl.design import RTL, log_pe, pe
from csrc.rtl.simulation import __main__ as command
from csrc.rtl.simulation import verilate
from lns_sim import LNSFormat, LogDatapath, LogTables
from lns_sim.golden import VectorSet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("verilator")]

F = LNSFormat
SEGMENTS = LogTables.segments([(0, 32), (40, 14), (170, 0)], [(1, 180), (20, 50), (60, 12), (200, 0)])
LISTS = LogTables.lists([40, 3, 900, 0, 2], [7, 0, 5, 2**20 - 1, 11, 1])  # neither falling nor within the range
# With the collector's entries.
CONFIGURATIONS = {
    LogDatapath(vector_size=4, order="tree"): 16,
    LogDatapath(acc_bits=12, vector_size=32, order="tree"): 16,
    LogDatapath(acc_bits=12, vector_size=9): 16,
    LogDatapath(acc_bits=12, tables="shift", vector_size=7, order="tree", underflow="saturate", headroom_bits=0): 2,
    LogDatapath(acc_bits=12, tables="shift", underflow="saturate", headroom_bits=0): 3,
    LogDatapath(acc_bits=12, tables="coarse:3", vector_size=5): 9,
    LogDatapath(acc_bits=12, tables=SEGMENTS, vector_size=6, order="tree"): 5,
    LogDatapath(F(6, 4), acc_bits=10, acc_gamma=8, tables=LISTS, vector_size=2): 16,
    LogDatapath(F(4, 2), acc_bits=4, acc_gamma=2, offset=6, vector_size=3, order="tree"): 16,
    LogDatapath(F(3, 1), acc_bits=5, acc_gamma=8, tables="shift", offset=40, vector_size=2): 7,
    LogDatapath(F(12, 128), acc_bits=20, tables="shift", vector_size=3, order="tree"): 16,
}
VECTORS = 150_000  # of each configuration, and of all together over two million


def pack(d):
    """A vector that hands two numbers to the adder as they are: a code's product by the smallest is its exponent."""
    bits, G = d.acc_bits, d.octave
    return replace(d, format=F(bits, G), offset=2 ** (bits - 2) + 1, vector_size=2, order="tree")


ADDERS = [pack(d) for d in (
    LogDatapath(),
    LogDatapath(tables="shift", underflow="saturate"),
    LogDatapath(acc_bits=12),
    LogDatapath(F(4, 2), acc_bits=9, acc_gamma=8),
)]  # fmt: skip
CASES = [*CONFIGURATIONS, *ADDERS]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A simulator of every case, built two at a time."""
    folders = [tmp_path_factory.mktemp("log") for _ in CASES]

    def build(d, folder):
        return verilate.build(log_pe(d, entries=CONFIGURATIONS.get(d, 16)), folder)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(build, CASES, folders)))


def codes(d, count, k, seed):
    """Rows of codes: of any size, of the largest, zeros, and the negative of what came before."""
    rng, f = np.random.default_rng(seed), d.format
    e = rng.integers(0, f.e_max + 1, (2, count, k))
    e[:, 1::4] = f.e_max - e[:, 1::4] % min(4 * f.gamma, f.e_max + 1)
    e = np.where(rng.random(e.shape) < 0.1, 0, e)
    e[:, 2::4, 1::2] = e[:, 2::4, : k - 1 : 2][..., : e[:, 2::4, 1::2].shape[-1]]
    a, b = e | rng.integers(0, 2, e.shape) << f.bits - 1
    a[2::4, 1::2], b[2::4, 1::2] = a[2::4, : k - 1 : 2] ^ 1 << f.bits - 1, b[2::4, : k - 1 : 2]
    return a, b


def mismatch(program, d, a, b, pause=0, entries=16):
    """What the hardware does otherwise, or an empty text."""
    expected = accumulators_of(a, b, d)
    found, _, clocks = verilate.simulate(program, d, a, b, pause=pause, entries=entries)
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        return f"{len(wrong)} accumulators, the first of {wrong[0]}: {found[wrong[0]]} for {expected[wrong[0]]}"
    vectors, late = len(a) * -(-a.shape[1] // d.vector_size), d.vector_size + 16
    waits = d.order == "sequential" and (d.vector_size > entries or len(a) % entries)
    return "" if pause or waits or clocks <= vectors + late else f"{clocks} clocks for {vectors} vectors"


def name(d):
    return f"{d.format.bits} bits gamma {d.format.gamma}, {d.label}, {d.vector_size} lanes"


def designs(d):
    """With the shell's handshake and without."""
    return log_pe(d), log_pe(d, handshake=False, entries=5, skewed=d.order == "sequential")


@pytest.mark.parametrize("d", CONFIGURATIONS, ids=name)
def test_lint_is_clean(d, icarus):
    """Of Verilator and of Icarus."""
    for design in designs(d):
        assert verilate.lint(design) == icarus_lint(icarus, design) == ""


@pytest.mark.parametrize("design", [design for d in list(CONFIGURATIONS)[1::3] for design in designs(d)])
def test_slang_accepts_every_file(design):
    """Without an error or a warning."""
    driver = require_module("pyslang.driver").Driver()
    driver.addStandardArgs()
    given = [f"-G{parameter}={value}" for parameter, value in design.parameters]
    assert driver.parseCommandLine(" ".join(["slang", "-Werror", "--top", design.top, *given, *design.paths()]))
    assert driver.processOptions() and driver.parseAllSources() and driver.runFullCompilation(True)


@pytest.mark.parametrize("d", CONFIGURATIONS, ids=name)
def test_dot_products(programs, d):
    """Of codes of all sizes, saturated, flushed and cancelled ones among them, with pauses and without."""
    program, entries, k = programs[d], CONFIGURATIONS[d], 3 * d.vector_size - 1 or 2
    a, b = codes(d, VECTORS // 3 // entries * entries, k, seed=2)
    assert mismatch(program, d, a, b, entries=entries) == ""
    a, b = codes(d, 1001, 2 * d.vector_size + 1, seed=3)
    for pause in (60, 200):
        assert mismatch(program, d, a, b, pause, entries) == ""
    a, b = codes(d, 3, 2048, seed=4)  # an entry waits for itself
    assert mismatch(program, d, a, b, entries=entries) == ""


def pairs_of_every_distance(d):
    """Numbers as far from each other as can be, in every sum of signs, from both ends of the range and the middle."""
    most = 2 ** (d.acc_bits - 1) - 1
    u = np.arange(1, most + 1)
    pairs = [(u, np.full(most, at)) for at in (1, 2, most // 2, most - 1, most)] + [(u, u)]
    x, y = (np.concatenate(side) for side in zip(*pairs))
    sign = 1 << d.acc_bits - 1
    x, y = np.concatenate([x, x, y]), np.concatenate([y, y | sign, x | sign])
    return np.concatenate([x, x ^ sign]), np.concatenate([y, y ^ sign])


@pytest.mark.parametrize("d", ADDERS, ids=name)
def test_every_distance(programs, d):
    """And every pair of numbers, zeros too, of a small one."""
    if d.acc_bits < 10:
        x, y = (side.ravel() for side in np.meshgrid(*2 * [np.arange(1 << d.acc_bits)]))
    else:
        x, y = pairs_of_every_distance(d)
    a, most = np.stack([x, y], 1), 2 ** (d.acc_bits - 1) - 1
    assert set(np.abs((x & most) - (y & most)).tolist()) >= set(range(most))
    alone = accumulators_of(a[:, :1], np.ones((len(a), 1), int), d)
    assert (alone == np.where(x > most, -(x & most), x)).all()  # the adder is given what was meant
    assert mismatch(programs[d], d, a, np.ones_like(a)) == ""


def test_golden_vectors(tmp_path, monkeypatch, capsys):
    """The command that sends them through takes those of a log-domain datapath; a wrong one is found."""
    d = LogDatapath(F(6, 4), acc_bits=9, acc_gamma=4, vector_size=2, tables="shift")
    a, b = codes(d, 30, 5, seed=8)
    none = np.zeros(0, np.int64)
    v = VectorSet(d, a, b, accumulators_of(a, b, d), None, none, none, "random", 0, {})
    monkeypatch.setattr(command, "read_vectors", lambda folder: v)
    monkeypatch.setattr(sys, "argv", ["simulation", str(tmp_path), "--pause", "50"])
    with pytest.raises(SystemExit, match="False"):
        command.main()
    assert "30 dot products" in (said := capsys.readouterr().out) and ", 0 of them" in said
    v.accumulators[7] ^= 1
    with pytest.raises(SystemExit, match="True"):
        command.main()
    assert ", 1 of them" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["simulation", str(tmp_path), "--microarchitecture", "bins"])
    with pytest.raises(ValueError, match="has no --microarchitecture"):
        command.main()
    with pytest.raises(ValueError, match="adds in the linear domain.*log_pe"):
        pe(d)


@pytest.mark.parametrize(
    "parameter, value",
    [
        ("BITS", 17),
        ("GAMMA", 3),
        ("LANES", 0),
        ("ACC_BITS", 3),
        ("ACC_BITS", 21),
        ("ACC_GAMMA", 4),
        ("ACC_GAMMA", 16384),
        ("OFFSET", 2**30 + 1),
        ("TREE", 2),
        ("SATURATE", 2),
        ("SKEWED", 1),
        ("ENTRIES", 1),
        ("HANDSHAKE", 2),
    ],
)
def test_parameters_out_of_range_are_refused(parameter, value):
    design = log_pe(LogDatapath(acc_bits=12, tables="shift", order="tree"))
    wrong = replace(design, parameters=tuple({**dict(design.parameters), parameter: value}.items()))
    assert "a parameter is out of range" in verilate.lint(wrong)


# Faults, each of which some vector must show: (file, what is there, what a mistake would make of it).
FAULTS = {
    "a distance that is negative": ("log_add.sv", "distance = swap ? over_x :", "distance = 1'b0 ? over_x :"),
    "the sign of the other": ("log_add.sv", "corrected = {larger[BITS-1],", "corrected = {x[BITS-1],"),
    "a zero with a distance": ("log_add.sv", "sum = alone ?", "sum = alone && !subtract ?"),
    "plus and minus exchanged": ("log_correction.sv", "subtract ? minus : plus", "subtract ? plus : minus"),
    "an entry that is wrong by one": ("log_correction.sv", "'d3: minus = 6'd", "'d3: minus = 6'd1"),
    "behind the table's end": ("log_correction.sv", "listed ?", "1'b1 ?"),
    "no borrow": ("log_add.sv", "(U_BITS + 1)'(subtract)", "(U_BITS + 1)'(1'b0)"),
    "no flush": ("log_add.sv", "subtract && (u[U_BITS] || u == '0)", "subtract && u == '0"),
    "the least number flushed": ("log_add.sv", "(u[U_BITS] || u == '0)", "(u[U_BITS] || u <= 1)"),
    "saturation below instead of zero": ("log_add.sv", "SATURATE != 0 ?", "SATURATE == 0 ?"),
    "a product that is not clamped": ("log_product.sv", "u > MOST ? MOST : u", "u"),
    "another offset": ("log_product.sv", "(ACC_BITS - 2) - OFFSET", "(ACC_BITS - 2) - OFFSET - 1"),
    "an entry that is not cleared": ("log_collector.sv", "{ACC_BITS{!first}}", "{ACC_BITS{1'b1}}"),
    "a lane that comes too early": ("log_chain.sv", "waiting[i*ACC_BITS-1-:", "waiting[(i<2?1:i-1)*ACC_BITS-1-:"),
    "an entry that does not wait": ("log_pe.sv", "busy = same != '0", "busy = same[LANES-3:0] != '0"),
    "the last lane left out": ("log_tree.sv", "- LEAVES < LANES", "- LEAVES < LANES - 1"),
    "a result more than the queue holds": ("log_pe.sv", "STAGES + 2)))", "STAGES + 2) / 4))"),
}  # fmt: skip
# Products lie below its range and above.
SMALL = LogDatapath(F(7, 4), acc_bits=7, acc_gamma=4, vector_size=3, offset=94)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """What the vectors say of each fault, and of none."""

    def judge(fault):
        folder = tmp_path_factory.mktemp("fault")
        shutil.copytree(RTL, folder, dirs_exist_ok=True)
        d = replace(SMALL, order="tree" if fault and FAULTS[fault][0] == "log_tree.sv" else "sequential")
        design = log_pe(d)
        made = shutil.copy(design.paths()[-1], folder)
        design = replace(design, sources=(*design.sources, made), corrections=None)
        if fault:
            file, old, new = FAULTS[fault]
            (changed,) = folder.rglob(file)
            assert old in changed.read_text(), f"{old} is not in {file}"
            changed.write_text(changed.read_text().replace(old, new))
        program = verilate.build(design, folder / "build", folder)
        try:
            sets = [(*codes(d, 10_000, 8, seed=5), 0), (*codes(d, 2000, 8, seed=6), 60), (*codes(d, 2, 64, seed=7), 0)]
            return "; ".join(filter(None, (mismatch(program, d, *s) for s in sets)))
        except AssertionError as error:  # results that do not come out
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip([None, *FAULTS], pool.map(judge, [None, *FAULTS])))


def test_the_vectors_accept_the_design_itself(faulty):
    assert faulty[None] == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_caught(faulty, fault):
    assert faulty[fault] != ""
