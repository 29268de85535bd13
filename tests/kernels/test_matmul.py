"""The datapath as matmul, against the reference: exhaustively for pairs, at random for everything else."""

import random

import numpy as np
import pytest
import torch
from agreement import agree, every_isa_agrees
from helpers import ISAS, everywhere, random_codes, to_reference
from hypothesis import given
from hypothesis import strategies as st
from strategies import datapaths, formats

import lns_sim
from lns_sim import Datapath, LNSFormat, LNSTensor, _extension, reference

core = _extension.load()
ONE = torch.ones(())
FMT = LNSFormat()

CHECK_VALUES = [
    (dict(), -27911),
    (dict(lut_entries=1), -29640),
    (dict(lut_entries=2), -28546),
    (dict(lut_entries=4, rounding="nearest"), -28957),
    (dict(acc_bits=16, overflow="wrap"), -110),
    (dict(acc_lsb=8), -1786033),
]


@pytest.mark.parametrize("options, expected", CHECK_VALUES)
def test_check_values_of_the_specification(isa, options, expected):
    generator = random.Random(0)
    a, b = ([generator.randrange(256) for _ in range(70)] for _ in range(2))
    datapath = Datapath(FMT, **options)
    assert reference.dot(a, b, datapath) == expected
    a, b = (torch.tensor(v, dtype=torch.uint8) for v in (a, b))
    row, column = LNSTensor(a[None], ONE, FMT), LNSTensor(b[:, None], ONE, FMT)
    assert everywhere(lns_sim.matmul, row, column, datapath, return_accumulator=True).item() == expected
    many = everywhere(lns_sim.matmul, row.expand(300, 70), column.expand(70, 40), datapath, return_accumulator=True)
    assert (many == expected).all()


@pytest.mark.parametrize("lut_entries", [1, 2, 4, 8])
@pytest.mark.parametrize("rounding", ["truncate", "nearest"])
def test_all_pairs_of_codes(lut_entries, rounding):
    datapath = Datapath(FMT, lut_entries=lut_entries, rounding=rounding)
    codes = torch.arange(256).to(torch.uint8)
    a, b = LNSTensor(codes[:, None], ONE, FMT), LNSTensor(codes[None, :], ONE, FMT)
    expected = np.array([[reference.dot([i], [j], datapath) for j in range(256)] for i in range(256)])
    for isa in ISAS:
        core.set_isa(isa)
        got = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
        np.testing.assert_array_equal(got.numpy(), expected)
        rows = [
            lns_sim.matmul(a[i : i + 1], b, datapath, return_accumulator=True) for i in range(256)
        ]  # the look-up path
        np.testing.assert_array_equal(torch.cat(rows).numpy(), expected)


# Without the register look-up (avx512_vnni: of any size; neon_dotprod: of few rows), few rows are looked up in memory.
PATHS = [
    (Datapath(), (1024, 1024), "permute8", "rows"),
    (Datapath(), (1, 16), "permute8", "lookup32"),
    (Datapath(lut_entries=2), (1024, 1024), "permute8", "rows"),
    (Datapath(LNSFormat(8, 16)), (1024, 1024), "permute8", "rows"),
    (Datapath(acc_bits=32), (1024, 1024), "permute8", "row_planes"),
    (Datapath(acc_bits=32), (1, 16), "permute8", "lookup64"),
    (Datapath(vector_size=64), (1024, 1024), "permute8", "row_planes"),
    (Datapath(LNSFormat(12, 128)), (1024, 1024), "permute16", "lookup32"),
    (Datapath(LNSFormat(12, 128), acc_bits=32), (1024, 1024), "permute16", "lookup64"),
    (Datapath(LNSFormat(12, 128), lut_entries=1), (1024, 1024), "lookup32", "lookup32"),
    (Datapath(LNSFormat(10, 32), lut_bits=9), (1024, 1024), "lookup64", "lookup64"),
]


def test_every_path_is_taken_and_say_so(isa):
    for datapath, size, permuted, otherwise in PATHS:
        few = permuted == "permute8" and max(size) <= 256
        permutes = isa == "avx512_vnni" or (isa == "neon_dotprod" and few)
        assert datapath.path(*size) == (permuted if permutes else otherwise), (datapath, size)


def test_the_path_that_ran_is_the_one_named(isa, rng):
    """Matmul and every pass of a convolution, by the engine's own count."""
    ops = torch.ops.lns_sim

    def ran(work):
        before = core.path_runs()
        work()
        return {path for path, n in core.path_runs().items() if n > before[path]}

    for datapath, (m, n), *_ in PATHS:
        f = datapath.format
        m, n = min(m, 600), min(n, 200)
        a, b = random_codes((m, 3), f, rng), random_codes((3, n), f, rng)
        assert ran(lambda: lns_sim.matmul(a, b, datapath)) == {datapath.path(m, n)}
    x, w, dy = (random_codes(shape, FMT, rng) for shape in ((4, 8, 20, 20), (32, 8, 3, 3), (4, 32, 20, 20)))
    tail = ([1, 1], [1, 1], [1, 1], 1, Datapath().encode(), False, False)
    path = Datapath().path
    assert ran(lambda: lns_sim.conv2d(x, w, padding=1)) == {path(1600, 32)}
    of_dy = (dy.codes, dy.scale)
    assert ran(lambda: ops.conv2d_input_gradient(*of_dy, w.codes, w.scale, 8, 8, [4, 8, 20, 20], *tail)) == {
        path(1600, 8)
    }
    assert ran(lambda: ops.conv2d_weight_gradient(*of_dy, x.codes, x.scale, 8, 8, [3, 3], *tail)) == {path(32, 72)}


@given(datapath=datapaths(), m=st.integers(1, 5), n=st.integers(1, 20), k=st.integers(1, 70), seed=st.integers(0, 999))
def test_any_datapath_any_shape(datapath, m, n, k, seed):
    rng = np.random.default_rng(seed)
    agree(random_codes((m, k), datapath.format, rng, k=3), random_codes((k, n), datapath.format, rng, k=-9), datapath)


@given(data=st.data(), n=st.integers(1, 3), seed=st.integers(0, 999))
def test_the_row_path_with_any_datapath(data, n, seed):
    fmt = data.draw(formats(8))
    datapath = data.draw(datapaths(fmt))
    k = data.draw(st.sampled_from([1, 7, 31, 32, 33, 65]))
    every_isa_agrees(48, k, n, datapath, seed)


@given(data=st.data(), m=st.integers(1, 9), n=st.integers(1, 20), seed=st.integers(0, 999))
def test_the_register_look_up_with_any_datapath_of_its_form(data, m, n, seed):
    """One constant of at most 8 bits a remainder, any gamma, octaves, accumulator and vector."""
    fmt = data.draw(formats(12))
    datapath = data.draw(datapaths(fmt, whole_lut=True))
    k = data.draw(st.sampled_from([1, 3, 4, 5, 31, 33, 100]))
    every_isa_agrees(m, k, n, datapath, seed)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(lut_entries=1),
        dict(lut_entries=2),
        dict(acc_bits=32),
        dict(acc_bits=16, overflow="wrap"),
        dict(format=LNSFormat(8, 16)),
        dict(format=LNSFormat(8, 128)),
        dict(format=LNSFormat(8, 1)),
        dict(lut_bits=12),
        dict(format=LNSFormat(6, 8)),
        dict(acc_lsb=0, acc_bits=32),
        dict(acc_lsb=30),
        dict(acc_lsb=31),
        dict(acc_lsb=32),
        dict(lut_entries=4, acc_lsb=5),
        dict(format=LNSFormat(8, 64), acc_lsb=-9),
    ],
    ids=str,
)
def test_all_pairs_of_codes_on_every_instruction_set(options):
    """Every product of two codes, beside a neighbour that shares its vector, against the reference's table."""
    datapath = Datapath(**{"format": FMT, **options})
    f = datapath.format
    codes = torch.arange(1 << f.bits).to(torch.uint8)
    single = {}  # the datapath sees only the magnitudes' sum and the sign
    a, b = LNSTensor(codes[:, None], ONE, f), LNSTensor(codes[None, :], ONE, f)

    def one(i, j):
        e, g = i & f.e_max, j & f.e_max
        key = (e + g if e and g else 0, (i ^ j) >> (f.bits - 1))
        if key not in single:
            single[key] = reference.dot([i], [j], datapath)
        return single[key]

    expected = np.array([[one(i, j) for j in range(len(codes))] for i in range(len(codes))])
    for isa in ISAS:
        core.set_isa(isa)
        np.testing.assert_array_equal(
            everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True).numpy(), expected
        )


@pytest.mark.parametrize("m, k, n", [(1100, 40, 17), (130, 64, 200), (1, 100, 300), (300, 33, 1)])
def test_blocks_and_panels_equal_single_rows(isa, rng, m, k, n):
    datapath = Datapath(FMT, headroom_bits=0)  # saturates now and then
    a, b = random_codes((m, k), FMT, rng), random_codes((k, n), FMT, rng)
    whole = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
    rows = rng.integers(0, m, 4)
    columns = rng.integers(0, n, 4)
    expected = [[reference.dot(a.codes[r].tolist(), b.codes[:, c].tolist(), datapath) for c in columns] for r in rows]
    assert whole[rows][:, columns].tolist() == expected
    for r in rows:
        assert torch.equal(everywhere(lns_sim.matmul, a[r : r + 1], b, datapath, return_accumulator=True)[0], whole[r])


@pytest.mark.parametrize("fmt", [FMT, LNSFormat(6, 4), LNSFormat(10, 32)], ids=lambda f: f"{f.bits}-{f.gamma}")
def test_isas_and_threads_agree(rng, fmt):
    a, b = random_codes((257, 300), fmt, rng), random_codes((300, 129), fmt, rng)
    results = []
    threads = torch.get_num_threads()
    for isa in ISAS:
        core.set_isa(isa)
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(everywhere(lns_sim.matmul, a, b, Datapath(fmt, headroom_bits=1)))
    torch.set_num_threads(threads)
    assert all(torch.equal(r, results[0]) for r in results)


def test_the_edge_of_the_32_bit_state(isa, rng):
    """The widest accumulator that still takes 32 bits, and the first that does not, with all lanes at their largest."""
    for vector_size in (32, 37, 38, 39, 64):
        for headroom in (4, 5):
            datapath = Datapath(FMT, vector_size=vector_size, headroom_bits=headroom)
            for sign in (0, 128):
                a = LNSTensor(torch.full((48, 100), 127, dtype=torch.uint8), ONE, FMT)
                b = LNSTensor(torch.full((100, 2), 127 | sign, dtype=torch.uint8), ONE, FMT)
                expected = reference.dot([127] * 100, [127 | sign] * 100, datapath)
                assert (everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True) == expected).all()


@pytest.mark.parametrize("rounding", ["truncate", "nearest"])
@pytest.mark.parametrize("fmt", [LNSFormat(8, 1), LNSFormat(4, 2)], ids=str)
def test_a_state_that_fills_32_bits_exactly(isa, fmt, rounding):
    """The accumulator at either end of its range, and a vector of the largest products on top."""
    datapath = Datapath(fmt, rounding=rounding)
    largest, sign = fmt.e_max, fmt.e_max + 1
    for signs in ((sign, 0), (0, sign)):
        codes = [largest | signs[0]] * 1300 + [largest | signs[1]] * 64 + [largest | signs[0]] * 96
        a = LNSTensor(torch.tensor(codes, dtype=torch.uint8).expand(48, -1), ONE, fmt)
        b = LNSTensor(torch.full((len(codes), 2), largest, dtype=torch.uint8), ONE, fmt)
        expected = reference.dot(codes, [largest] * len(codes), datapath)
        assert (everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True) == expected).all()


def test_k_of_a_million(rng):
    a, b = random_codes((1, 1_000_000), FMT, rng), random_codes((1_000_000, 1), FMT, rng)
    expected = reference.dot(a.codes[0].tolist(), b.codes[:, 0].tolist(), Datapath())
    assert everywhere(lns_sim.matmul, a, b, return_accumulator=True).item() == expected
    wide = everywhere(lns_sim.matmul, a.expand(64, 1_000_000), b, return_accumulator=True)
    assert (wide == expected).all()


def test_scales_per_slice(rng):
    a = lns_sim.quantize(torch.randn(3, 5, 40) * torch.logspace(-3, 3, 5)[:, None], dim=1)
    b = lns_sim.quantize(torch.randn(40, 6) * torch.logspace(-2, 2, 6), dim=1)
    c = lns_sim.quantize(torch.randn(3, 40, 6) * torch.logspace(-2, 2, 3)[:, None, None], dim=0)
    agree(a, b, Datapath())
    agree(a, c, Datapath())


def test_broadcast_batches_and_strides(rng):
    a, b = random_codes((2, 1, 4, 9), FMT, rng), random_codes((3, 9, 5), FMT, rng)
    assert agree(a, b, Datapath()).shape == (2, 3, 4, 5)
    agree(a.transpose(0, 1), b[:1], Datapath())
    agree(b.mT[:, 1:, ::2], random_codes((5, 3), FMT, rng), Datapath())
    agree(random_codes((9, 4), FMT, rng).T, b[0], Datapath())


def test_empty_sizes(rng):
    assert everywhere(lns_sim.matmul, random_codes((0, 4), FMT, rng), random_codes((4, 3), FMT, rng)).shape == (0, 3)
    assert everywhere(lns_sim.matmul, random_codes((0, 2, 4), FMT, rng), random_codes((4, 3), FMT, rng)).shape == (
        0,
        2,
        3,
    )


def test_operands_of_fewer_bits(rng):
    datapath = Datapath(LNSFormat(10, 8))
    a, b = random_codes((40, 50), LNSFormat(6, 8), rng), random_codes((50, 7), LNSFormat(10, 8), rng)
    got = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
    wide = (a.codes.to(torch.int16) & 31) | ((a.codes.to(torch.int16) & 32) << 4)
    assert torch.equal(
        got, everywhere(lns_sim.matmul, LNSTensor(wide, ONE, LNSFormat(10, 8)), b, datapath, return_accumulator=True)
    )


def test_nan_scales_give_nan(rng):
    a = lns_sim.quantize(torch.tensor([[1.0, float("nan")], [1.0, 2.0]]), dim=0)
    y = everywhere(lns_sim.matmul, a, lns_sim.quantize(torch.ones(2, 3)))
    assert y[0].isnan().all() and not y[1].isnan().any()


@given(datapath=datapaths(), m=st.integers(1, 6), n=st.integers(1, 6), k=st.integers(1, 60), seed=st.integers(0, 99))
def test_counters(datapath, m, n, k, seed):
    rng = np.random.default_rng(seed)
    a, b = random_codes((m, k), datapath.format, rng), random_codes((k, n), datapath.format, rng)
    out, counters = everywhere(lns_sim.matmul, a, b, datapath, counters=True)
    assert torch.equal(out, everywhere(lns_sim.matmul, a, b, datapath))
    f, lsb = datapath.format, reference.acc_lsb(datapath)
    e_a, e_b = reference.decode(a.codes, f)[1], reference.decode(b.codes, f)[1]
    nonzero = (e_a[:, :, None] > 0) & (e_b[None] > 0)
    vanished = nonzero & (e_a[:, :, None] + e_b[None] < f.gamma * lsb)
    assert counters.macs == m * n * k
    assert counters.vectors == m * n * -(-k // datapath.vector_size)
    assert counters.zero_lanes == (~nonzero).sum()
    assert counters.vanished == vanished.sum()
    assert counters.saturations == count_saturations(a, b, datapath)


def count_saturations(a, b, datapath):
    """Accumulations of the reference that differ from those of an accumulator wide enough for every sum."""
    import dataclasses

    (a, _), (b, _) = to_reference(a), to_reference(b)
    unbounded = dataclasses.replace(datapath, acc_lsb=reference.acc_lsb(datapath))
    object.__setattr__(unbounded, "acc_bits", 80)
    v, count = datapath.vector_size, 0
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            before = 0
            for end in range(v, a.shape[1] + v, v):
                row, column = a[i, :end].tolist(), b[:end, j].tolist()
                after = reference.dot(row, column, datapath)
                step = reference.dot(row[end - v :], column[end - v :], unbounded)
                count += after != before + step
                before = after
    return count
