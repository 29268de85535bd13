"""The RTL, simulated by Verilator, against the C++ kernels: every bit of every accumulator and of the codes made of
them.
"""

import contextlib
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from accumulators import accumulators_of
from command import lns_sim as lns_sim_command
from icarus import icarus_lint
from tools import require_module

import lns_sim
from csrc.rtl.design import MICROARCHITECTURES, RTL, check_operands, datapath, pe
from csrc.rtl.formal.claims import claims
from csrc.rtl.simulation import verilate
from csrc.rtl.synthesis import operands
from csrc.rtl.synthesis.table import rows
from lns_sim import AccumulatorConverter, Datapath, LNSFormat, LogDatapath, reference
from lns_sim.golden import make_vectors
from lns_sim.recipes import PASSES

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
VECTORS = 300_000  # of each configuration, half of them for each microarchitecture


def anywhere(count, seed=0):
    """Datapaths from the whole range of what the RTL takes, every other one with an accumulator of 4 to 8 bits."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        bits = rng.randint(2, 16)
        gamma = 1 << rng.randint(0, min(bits - 1, 7))
        options = dict(
            vector_size=rng.choice([1, 2, 3, 6, 9, 16, 33]),
            lut_entries=1 << rng.randint(0, gamma.bit_length() - 1),
            lut_bits=rng.randint(2, 24),
            acc_bits=rng.randint(4, 32 if len(found) % 2 else 8),
            rounding=rng.choice(["truncate", "nearest"]),
            overflow=rng.choice(["saturate", "wrap"]),
        )
        f = LNSFormat(bits, gamma)
        lsb = 2 * f.e_max // gamma - rng.randint(1, options["acc_bits"] + 3)  # the largest products are seen
        with contextlib.suppress(ValueError):  # constants that do not fit, or sums of more than 62 bits
            found.append(Datapath(f, **options, acc_lsb=lsb))
    return found


def large_codes(d, count, k, seed):
    """Codes of the highest octaves, whose products are seen by any accumulator, and some zeros."""
    rng, f = np.random.default_rng(seed), d.format
    e = np.maximum(f.e_max - rng.integers(0, 5 * f.gamma, (2, count, k)), 0)
    return e * (rng.random(e.shape) < 0.9) | rng.integers(0, 2, e.shape) << (f.bits - 1)


# The microarchitectures are built in turn for datapaths from anywhere, and both for those above.
CASES = [(d, m) for d in CONFIGURATIONS for m in MICROARCHITECTURES]
CASES += [(d, MICROARCHITECTURES[i % 2]) for i, d in enumerate(anywhere(16), start=1)]
# And with them collectors from 2 entries on.
ENTRIES_OF = {
    case: 16 if case[0] in CONFIGURATIONS else random.Random(i).randint(2, 256) for i, case in enumerate(CASES)
}


def of_case(case):
    """Its design."""
    design = datapath(*case)
    return replace(design, parameters=tuple({**dict(design.parameters), "ENTRIES": ENTRIES_OF[case]}.items()))


DESIGNS = [make(*case) for case in CASES[:: len(CASES) // 6] for make in (pe, datapath)]
RIVALS = [row.design for row in rows() if row.about["kind"] in ("int", "float")]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A simulator of every case, built two at a time."""
    folders = [tmp_path_factory.mktemp("rtl") for _ in CASES]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(lambda case, folder: verilate.build(of_case(case), folder), CASES, folders)))


def converted(accumulators, d, octaves=0):
    """The codes of all accumulators at the scale that the quantizer gives them, or octaves beside it, and that for the
    hardware.
    """
    f, some = d.format, accumulators != 0
    e = np.zeros(len(accumulators), np.int64)
    e[some] = reference.log_code(accumulators[some].astype(np.float32), f.gamma)
    scale = (f.e_max - e[some].max(initial=0)) // f.gamma + np.broadcast_to(octaves, e.shape)
    e[some] = np.clip(e + f.gamma * scale, 1, f.e_max)[some]
    codes = np.where(accumulators < 0, e | 1 << (f.bits - 1), e)
    if not np.any(octaves) and some.any() and abs(d.lsb) < 90:
        q = lns_sim.quantize(torch.from_numpy(accumulators).to(torch.float32) * 2.0**d.lsb, f)
        assert (codes == q.codes.to(torch.int64).numpy() & ((1 << f.bits) - 1)).all() and scale[0] == d.lsb - int(q.k)
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
    rows = [row for row in rows if row] or [[(1, 1)]]
    a = np.zeros((2 * len(rows), top + 1), np.int64)
    b = np.zeros_like(a)
    for i, row in enumerate(rows):
        a[i, : len(row)], b[i, : len(row)] = zip(*row)
    a[len(rows) :], b[len(rows) :] = np.where(a[: len(rows)], a[: len(rows)] | 1 << (f.bits - 1), 0), b[: len(rows)]
    return a, b, accumulators_of(a, b, d)


def mismatch(program, d, a, b, accumulators, pause=0, octaves=0, entries=16):
    """What the hardware does otherwise, or an empty text."""
    codes, scale = converted(accumulators, d, octaves)
    found, found_codes, clocks = verilate.simulate(program, d, a, b, scale, pause, entries=entries)
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


def name(case):
    return f"{case[1]}-{case[0]}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_lint_is_clean(case, icarus):
    """Of Verilator and of Icarus."""
    for design in (of_case(case), pe(*case, handshake=False)):
        assert verilate.lint(design) == icarus_lint(icarus, design) == ""


@pytest.mark.parametrize("claim", claims()[::6], ids=lambda claim: claim.name)
def test_icarus_accepts_claims(claim, icarus):
    assert icarus_lint(icarus, claim.design) == ""


@pytest.mark.parametrize(
    "design", [*DESIGNS, *RIVALS, *(claim.design for claim in claims()[::6])], ids=lambda d: f"{d.top} {d.name}"
)
def test_slang_accepts_every_file(design):
    """Without an error or a warning."""
    driver = require_module("pyslang.driver").Driver()
    driver.addStandardArgs()
    given = [f"-G{name}={value}" for name, value in design.parameters]
    assert driver.parseCommandLine(" ".join(["slang", "-Werror", "--top", design.top, *given, *design.paths()]))
    assert driver.processOptions() and driver.parseAllSources() and driver.runFullCompilation(True)


def test_the_written_folder_is_what_a_tool_reads(tmp_path, verilator):
    folder = tmp_path / "hardware"
    run = lns_sim_command("rtl", folder, "--acc-bits", "20", "--rounding", "nearest")
    assert run.returncode == 0, run.stderr
    sources = {path.relative_to(RTL) for path in RTL.glob("*/*.sv") if path.parent.name != "formal"}
    assert {path.relative_to(folder) for path in folder.glob("*/*.sv")} == sources
    about = (folder / "README.md").read_text()
    assert all(f"| `{name}` |" in about for name in {source.parent.name for source in sources})
    assert ".ACC_BITS(20)" in about and "lns-sim vectors golden --acc-bits 20 --rounding nearest" in about
    (command,) = (line.split() for line in about.splitlines() if line.strip().startswith("verilator"))
    lint = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert lint.returncode == 0 and lint.stderr == "", lint.stderr
    refused = {
        (): "is not empty",
        ("--force", "--gamma", "128", "--bin-bits", "9"): "has no bin_bits",
        ("--force", "--log-acc-bits", "12", "--microarchitecture", "rom"): "not of --log-...",
    }
    for options, said in refused.items():
        run = lns_sim_command("rtl", folder, *options)
        assert run.returncode == 1 and said in run.stderr and len(run.stderr.splitlines()) == 1, run.stderr


def test_the_written_folder_of_a_pe_that_adds_logarithms(tmp_path, verilator):
    run = lns_sim_command("rtl", tmp_path, "--log-acc-bits", "12", "--log-order", "tree", "--log-vector-size", "8")
    assert run.returncode == 0, run.stderr
    about = (tmp_path / "README.md").read_text()
    assert (
        "lns-sim vectors golden --log-acc-bits 12 " in about
        and "`log/log_pe.sv`" in about
        and "python simulation" not in about
    )
    (command,) = (line.split() for line in about.splitlines() if line.strip().startswith("verilator"))
    lint = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert lint.returncode == 0 and lint.stderr == "", lint.stderr


def test_the_cocotb_test(tmp_path, icarus):
    """It passes, and fails where a golden code is changed."""
    require_module("cocotb")
    d = Datapath(LNSFormat(6, 4), vector_size=4, acc_bits=12)
    make_vectors(d, "random", 40, 10).write(tmp_path)
    command = [sys.executable, RTL / "simulation/cocotb_vectors.py", tmp_path]
    run = subprocess.run(command, cwd=RTL.parents[1], capture_output=True, text=True)
    assert run.returncode == 0 and "40 dot products are the golden ones" in run.stdout, run.stdout + run.stderr
    codes = (tmp_path / "code.hex").read_text().split()
    (tmp_path / "code.hex").write_text("\n".join([*codes[:-1], f"{int(codes[-1], 16) ^ 1:x}"]))
    run = subprocess.run(command, cwd=RTL.parents[1], capture_output=True, text=True)
    assert run.returncode == 1 and "dot product 39" in run.stdout, run.stdout + run.stderr
    for vectors, refusal in [
        (make_vectors(d, count=3, block=4), "the RTL has no block scales"),
        (make_vectors(LogDatapath(LNSFormat(6, 4)), count=3), "adds in the linear domain"),
    ]:
        vectors.write(tmp_path)
        run = subprocess.run(command, cwd=RTL.parents[1], capture_output=True, text=True)
        assert run.returncode == 1 and refusal in run.stderr and "Traceback" not in run.stderr, run.stderr


def test_vectors_that_the_rtl_refuses():
    d = Datapath(vector_size=4)
    check_operands(make_vectors(d, count=3))
    for changes, refusal in [({"block": 8}, "no block scales"), ({"formats": (d.format, LNSFormat(5, 2))}, "formats")]:
        with pytest.raises(ValueError, match=refusal):
            check_operands(make_vectors(d, count=3, **changes))


@pytest.mark.parametrize(
    "parameter, value",
    [
        ("BITS", 1),
        ("BITS", 17),
        ("GAMMA", 3),
        ("GAMMA", 256),
        ("LANES", 0),
        ("LANES", 4097),
        ("LUT_ENTRIES", 3),
        ("LUT_ENTRIES", 16),
        ("LUT_BITS", 1),
        ("LUT_BITS", 25),
        ("ACC_BITS", 3),
        ("ACC_BITS", 33),
        ("ACC_LSB", -40),
        ("ACC_LSB", 2**17 + 1),
        ("NEAREST", 2),
        ("WRAP", 2),
        ("ENTRIES", 1),
        ("ENTRIES", 4097),
        ("HANDSHAKE", 2),
        ("ROM", 2),
        ("FLUSH", 2),
        ("SCALE_BITS", 1),
        ("SCALE_BITS", 25),
    ],
)
def test_parameters_out_of_range_are_refused(parameter, value):
    design = next(d for d in (datapath(Datapath()), pe(Datapath())) if parameter in dict(d.parameters))
    wrong = replace(design, parameters=tuple({**dict(design.parameters), parameter: value}.items()))
    assert "a parameter is out of range" in verilate.lint(wrong)


@pytest.mark.parametrize(
    "departure",
    [
        dict(lut_constants=(128, 140, 152, 166, 181, 197, 215, 235)),
        dict(product_range=(3, 200)),
        dict(product_underflow="saturate", product_range=(3, 200)),
        dict(bin_bits=20),
        dict(bin_overflow="wrap", bin_bits=20),
        dict(product_offset=16),
        dict(bins="signed", bin_bits=20),
        dict(keep_fraction=True),
    ],
    ids=lambda d: next(iter(d)),
)
def test_what_the_rtl_cannot_do_is_refused(departure):
    for make in (pe, datapath):
        with pytest.raises(ValueError, match=next(iter(departure))):
            make(Datapath(**departure))
        with pytest.raises(ValueError, match="up to 128"):
            make(Datapath(LNSFormat(9, 256), lut_entries=1))
    for other in (dict(exponents=(2, 127)), dict(offset=1), dict(mantissa_bits=9), dict(rounding="truncate")):
        with pytest.raises(ValueError, match="underflow alone"):
            datapath(Datapath(), converter=AccumulatorConverter(**other))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_random_and_corner_vectors(programs, case):
    """Saturation up and down, exact cancellation, zeros, a single lane, long dot products; with and without pauses."""
    d, program, entries = case[0], programs[case], ENTRIES_OF[case]
    products = VECTORS // 6 if d in CONFIGURATIONS else VECTORS // 30
    for source, k, count in (
        ("random", 3 * d.vector_size - 1, products),
        ("corner", 2 * d.vector_size, 1),
        ("corner", 4096, 1),
    ):
        v = make_vectors(d, source, count, k, seed=2)
        assert mismatch(program, d, v.a, v.b, v.accumulators, entries=entries) == "", source
    # Scales that change from result to result: codes below the smallest and above the largest.
    a, b = large_codes(d, 4000, 2 * d.vector_size + 1, seed=3)
    accumulators, octaves = accumulators_of(a, b, d), np.random.default_rng(4).integers(-12, 4, len(a))
    assert len(set(accumulators.tolist())) >= 3
    for pause in (0, 100, 200):
        assert mismatch(program, d, a, b, accumulators, pause, octaves, entries) == ""
    assert mismatch(program, d, *midpoints(d), entries=entries) == ""


def test_golden_vectors_with_waveforms(tmp_path):
    d = Datapath(LNSFormat(4, 2), vector_size=2, acc_bits=8)
    made = make_vectors(d, "random", 20, 5, converter=AccumulatorConverter(d.format, "flush"))
    assert 3 < (made.codes == 0).sum() > (made.accumulators == 0).sum()
    made.write(tmp_path)
    command = [
        sys.executable,
        "-m",
        "csrc.rtl.simulation",
        tmp_path,
        "--waves",
        tmp_path / "waves.vcd",
        "--pause",
        "50",
    ]
    run = subprocess.run(command, cwd=RTL.parents[1], capture_output=True, text=True)
    assert run.returncode == 0 and "20 dot products" in run.stdout, run.stdout + run.stderr
    (tmp_path / "vectors.json").write_text((tmp_path / "vectors.json").read_text().replace("flush", "clamp"))
    other = subprocess.run(command, cwd=RTL.parents[1], capture_output=True, text=True)
    assert other.returncode == 1 and ", 0 of them" not in other.stdout, other.stdout + other.stderr
    waves = (tmp_path / "waves.vcd").read_text()
    assert "in_scale" in waves and "under_way" in waves and waves.count("\n#") > 100


@pytest.mark.parametrize("m", MICROARCHITECTURES)
def test_all_pairs_of_codes(programs, m):
    d = Datapath()
    a, b = (codes.reshape(-1, 1) for codes in np.meshgrid(np.arange(256), np.arange(256)))
    expected = accumulators_of(a, b, d)
    assert len(a) == 65_536 and mismatch(programs[d, m], d, a, b, expected) == ""


@pytest.mark.parametrize("source", [*PASSES, *operands.TRANSFORMER])
def test_codes_of_networks_in_training(programs, source):
    """Of all three passes of a convolution, and of a transformer's linear layers and attention."""
    d, rng = Datapath(), np.random.default_rng(0)
    for pair in operands.streams(d.format, d.format, source):
        a, b = (x[rng.integers(len(x), size=400)] for x in pair)
        expected = accumulators_of(a, b, d)
        assert a.any() and all(mismatch(programs[d, m], d, a, b, expected) == "" for m in MICROARCHITECTURES)


# Faults, each of which some vector must show: (file, what is there, what a mistake would make of it).
FAULTS = {
    "a wrong constant": ("lns_pkg.sv", "132'd1 << (63 - f)", "132'd1 << (64 - f)"),
    "a carry dropped in the exponent adder": (
        "lns_product.sv",
        "{1'b0, a[BITS-2:0]} + {1'b0, b[BITS-2:0]}",
        "{1'b0, a[BITS-2:0] + b[BITS-2:0]}",
    ),
    "lanes two bits too narrow": ("lns_pkg.sv", "q_max(bits, gamma) - acc_lsb + 1", "q_max(bits, gamma) - acc_lsb - 1"),
    "signs by or": ("lns_product.sv", "a[BITS-1] ^ b[BITS-1]", "a[BITS-1] | b[BITS-1]"),
    "zero only where both are": (
        "lns_product.sv",
        "a[BITS-2:0] != '0 && b[BITS-2:0] != '0",
        "(a[BITS-2:0] != '0 || b[BITS-2:0] != '0)",
    ),
    "a bit below the unit kept": ("lns_product.sv", "32'(shift) >= NEEDED", "1'b1"),
    "a bit of the unit dropped": ("lns_product.sv", "32'(shift) >= NEEDED", "32'(shift) > NEEDED"),
    "no Mitchell part": ("lns_term.sv", "GAMMA + i % PER_BIN", "GAMMA + i % 1"),
    "the wrong constant's word": ("lns_term.sv", "lut_constant(i / PER_BIN", "lut_constant(i % LUT_ENTRIES"),
    "the wrong bin": ("lns_bins.sv", "/ PER_BIN == j", "% LUT_ENTRIES == j"),
    "a lane in two bins": ("lns_bins.sv", "/ PER_BIN == j", "/ PER_BIN >= j"),
    "the constant of another bin": (
        "lns_bins.sv",
        "lut_constant(j, LUT_ENTRIES",
        "lut_constant(LUT_ENTRIES - 1 - j, LUT_ENTRIES",
    ),
    "a lost carry": ("carry_save.sv", "(a & b) | (c & (a ^ b))", "(a & b) | (c & a)"),
    "a lost adder": ("adder_tree.sv", "two[S-1:0] + two[2*S-1:S]", "two[S-1:0] | two[2*S-1:S]"),
    "a sign's weight left in the sum": ("adder_tree.sv", "= -OFFSETS", "= OFFSETS"),
    "truncation towards zero": (
        "lns_pe.sv",
        "((Y_BITS + 1)'(y) +",
        "((Y_BITS + 1)'(y) + (y[Y_BITS-1] ? (Y_BITS + 1)'(2 ** F - 1) : '0) +",
    ),
    "saturation to the other end": (
        "collector.sv",
        "{next[N_BITS-1], {(ACC_BITS - 1) {~next[N_BITS-1]}}}",
        "{~next[N_BITS-1], {(ACC_BITS - 1) {next[N_BITS-1]}}}",
    ),
    "wrapping instead of saturating": ("collector.sv", "over && WRAP == 0", "over && WRAP != 0"),
    "an entry that is not cleared": ("collector.sv", "{ACC_BITS{!first}}", "{ACC_BITS{1'b1}}"),
    "a result more than the queue holds": (
        "shell.sv",
        "under_way != ($clog2(RESULTS) + 1)'(RESULTS)",
        "under_way != ($clog2(RESULTS) + 1)'(RESULTS + 1)",
    ),
    "a scale of a vector that is not taken": (
        "lns_datapath.sv",
        "in_valid && in_ready && in_last",
        "in_valid && in_last",
    ),
    "a post-processing that does not wait": ("lns_convert.sv", "if (advance)", "if (1)"),
    "midpoints between other codes": ("lns_pkg.sv", "power(2 * j + 1, 2 * gamma)", "power(2 * j, 2 * gamma)"),
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
        shutil.copytree(RTL, folder, dirs_exist_ok=True)
        m = "bins" if name and FAULTS[name][0] == "lns_bins.sv" else "rom"
        if name:
            pattern, old, new = FAULTS[name]
            changed = [file for file in folder.rglob(pattern) if old in file.read_text()]
            assert changed, f"{old} is in none of {pattern}"
            for file in changed:
                file.write_text(file.read_text().replace(old, new))
        program = verilate.build(datapath(d, m), folder / "build", folder)
        try:
            return "; ".join(filter(None, (mismatch(program, d, *s, 60, np.arange(len(s[0])) % 3) for s in sets)))
        except AssertionError as error:  # of the RTL's own, or results that do not come out
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip([None, *FAULTS], pool.map(judge, [None, *FAULTS])))


def test_the_suite_accepts_the_design_itself(faulty):
    assert faulty[None] == ""


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_caught(faulty, name):
    assert faulty[name] != ""
