"""Log-domain accumulation: kernels of every instruction set and device beside the reference, bit for bit."""

import numpy as np
import pytest
import torch
from agreement import agree, every_isa_agrees
from helpers import HAVE_CUDA, core, everywhere, random_codes, same_bits, to_reference, unsigned
from hypothesis import given
from hypothesis import strategies as st
from strategies import log_datapaths

import lns_sim
from lns_sim import LNSFormat, LNSTensor, LogDatapath, LogTables, reference, reference_log

FMT = LNSFormat()
ops = torch.ops.lns_sim
SHORT = LogTables.lists([9, 8, 6, 5, 3, 2, 1, 1], [0, 30, 20, 12, 7, 4, 2, 1])  # stand in registers
VARIANTS = [
    LogDatapath(),
    LogDatapath(acc_bits=12, underflow="saturate", headroom_bits=2),
    LogDatapath(tables=SHORT),
    LogDatapath(tables=SHORT, order="tree", vector_size=8),
    LogDatapath(tables="shift", order="tree", vector_size=5),
]
LEFT_OFTEN = LogDatapath(acc_bits=12, acc_gamma=64, headroom_bits=0)  # a range that just holds every product


def codes(values, fmt=FMT):
    return LNSTensor(torch.tensor(values, dtype=fmt.dtype), torch.ones(()), fmt)


@given(
    datapath=log_datapaths(), m=st.integers(1, 5), k=st.integers(1, 90), n=st.integers(1, 20), seed=st.integers(0, 999)
)
def test_every_isa_gives_the_reference(datapath, m, k, n, seed, isa):
    every_isa_agrees(m, k, n, datapath, seed)


@given(datapath=log_datapaths(FMT), k=st.integers(1, 80), seed=st.integers(0, 999))
def test_counters_are_the_references(datapath, k, seed):
    rng = np.random.default_rng(seed)
    a, b = random_codes((3, k), FMT, rng), random_codes((k, 2), FMT, rng)
    _, counted = everywhere(lns_sim.matmul, a, b, datapath, counters=True)
    (left, _), (right, _) = to_reference(a), to_reference(b)
    dots = [(row.tolist(), column.tolist()) for row in left for column in right.T]
    vectors = [v for dot in dots for v in reference_log.trace(*dot, datapath)]
    zeros = sum(x & 127 == 0 or y & 127 == 0 for dot in dots for x, y in zip(*dot))
    assert counted == lns_sim.Counters(
        macs=6 * k,
        vectors=len(vectors),
        saturations=sum(v.saturated for v in vectors),
        zero_lanes=zeros,
        vanished=sum(v.flushed for v in vectors),
        cancelled=sum(v.cancelled for v in vectors),
        narrowed=2 * 6 * k,
    )


@given(datapath=log_datapaths(FMT))
def test_tables_are_the_references(datapath):
    assert list(datapath.corrections) == [*map(list, reference_log.tables(datapath))]


@pytest.mark.parametrize("datapath", VARIANTS, ids=lambda d: d.label)
def test_every_pair_of_codes(datapath, isa):
    """And all sums of two products of which one is the first of its kind."""
    every = torch.arange(256, dtype=torch.uint8)
    a, b = (LNSTensor(t, torch.ones(()), FMT) for t in (every[:, None], every[None]))
    got = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
    fates = reference_log.Fates()
    products = [
        [reference_log.as_integer(reference_log.multiply(x, y, datapath, fates), datapath) for y in range(256)]
        for x in range(256)
    ]
    assert got.tolist() == products


@pytest.mark.parametrize("datapath", VARIANTS, ids=lambda d: d.label)
def test_every_distance_of_either_sign(datapath, isa):
    """A product of every exponent after the largest, and after the smallest, of equal and of different signs."""
    top = FMT.e_max
    exponents = [(max(1, p - top), p - max(1, p - top)) for p in range(2, 2 * top + 1)]
    for first in (top, 40, 1):
        for sign in (0, 128):
            a = codes([[first, x | sign] for x, _ in exponents])
            b = codes([[first, y] for _, y in exponents]).mT
            pairs = lns_sim.matmul(a, b, datapath, return_accumulator=True).diagonal()
            expected = [reference.dot([first, x | sign], [first, y], datapath) for x, y in exponents]
            assert pairs.tolist() == expected


@pytest.mark.parametrize("datapath", VARIANTS, ids=lambda d: d.label)
def test_shapes_scales_and_threads(datapath, rng):
    a = random_codes((3, 37, 130), FMT, rng, k=-3)
    b = random_codes((130, 70), FMT, rng)
    expected = everywhere(lns_sim.matmul, a, b, datapath)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 3)
        assert torch.equal(lns_sim.matmul(a, b, datapath), expected)
    finally:
        torch.set_num_threads(threads)
    rows = lns_sim.quantize(torch.randn(9, 20), FMT, dim=0)
    columns = lns_sim.quantize(torch.randn(20, 40), FMT, dim=1)
    agree(rows, columns, datapath)


@pytest.mark.parametrize("k", [-126, 127])
def test_results_beyond_float32(k):
    a, b = codes([[127, 127], [1, 1]]), codes([[127, 1], [127, 1]])
    for t in (a, b):
        t.scale.fill_(2.0**k)
    agree(a, b, LogDatapath())
    assert lns_sim.matmul(codes([[5]]), LNSTensor(b.codes[:1], torch.tensor(float("nan")), FMT)).isnan().all()


@pytest.mark.parametrize("datapath", VARIANTS, ids=lambda d: d.label)
@pytest.mark.parametrize("stride, padding, dilation, groups", [(1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1)])
def test_passes_of_convolutions(datapath, stride, padding, dilation, groups, rng):
    geometry = (stride, padding, dilation, groups)
    x, w = random_codes((2, 4, 6, 5), FMT, rng), random_codes((4, 4 // groups, 3, 3), FMT, rng)
    y = everywhere(lns_sim.conv2d, x, w, *geometry, datapath)
    rx, rw = to_reference(x), to_reference(w)
    assert same_bits(y, reference.conv2d(rx, rw, *geometry, datapath))
    dy = random_codes(tuple(y.shape), FMT, rng)
    rdy = (unsigned(dy.codes, FMT), 0)
    tail = ([stride] * 2, [padding] * 2, [dilation] * 2, groups, datapath.encode(), False, False)
    dx, _ = everywhere(ops.conv2d_input_gradient, dy.codes, dy.scale, w.codes, w.scale, 8, 8, [*x.shape], *tail)
    assert same_bits(dx, reference.conv2d_input_gradient(rdy, rw, x.shape, *geometry, datapath))
    dw, _ = everywhere(ops.conv2d_weight_gradient, dy.codes, dy.scale, x.codes, x.scale, 8, 8, [3, 3], *tail)
    assert same_bits(dw, reference.conv2d_weight_gradient(rdy, rx, (3, 3), *geometry, datapath))


def test_the_path_named_is_the_path_taken(isa, rng):
    a, b = random_codes((40, 50), FMT, rng), random_codes((50, 30), FMT, rng)
    for datapath in VARIANTS:
        before = core.path_runs()
        lns_sim.matmul(a, b, datapath)
        taken = [name for name, runs in core.path_runs().items() if runs > before[name]]
        assert taken == [datapath.path(40, 30)]
    in_registers = {d.path(40, 30) for d in VARIANTS if d.tables == SHORT}
    assert in_registers == {"log_registers" if core.isa().startswith("avx512") else "log_lookup"}


@pytest.mark.parametrize("change", [{0: -2}, {4: 3}, {6: 1 << 40}, {9: 5}, {11: 1}, {11: -1}])
def test_encodings_that_are_none_are_refused(change):
    encoded = LogDatapath().encode()
    for place, value in change.items():
        encoded[place] = value
    a = codes([[1, 2]])
    with pytest.raises((RuntimeError, ValueError)):
        ops.matmul(a.codes, torch.ones(1, 1), a.codes.mT, torch.ones(1, 1), 8, 8, encoded, False, False)


@pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")
@pytest.mark.parametrize("datapath", [*VARIANTS, LogDatapath(acc_bits=20), LogDatapath(acc_gamma=64)], ids=str)
@pytest.mark.parametrize("m, k, n", [(300, 260, 517), (33, 3000, 40), (1100, 70, 2100)])
def test_tiles_of_a_gpu(datapath, m, k, n, rng):
    a, b = random_codes((m, k), FMT, rng), random_codes((k, n), FMT, rng)
    everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
    everywhere(lns_sim.matmul, b.mT, a.mT, datapath, counters=True)


@pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")
@pytest.mark.parametrize("datapath", [*VARIANTS, LEFT_OFTEN, LogDatapath(acc_bits=20)], ids=str)
@pytest.mark.parametrize("m, k, n", [(16, 9001, 144), (27, 4096, 16), (1, 8, 1), (70, 520, 600)])
def test_few_long_sums_on_a_gpu(datapath, m, k, n, rng):
    """One output a thread, whose range is looked after for eight lanes at once."""
    for zeros, mask in [(0.1, 255), (0.99, 255), (0.1, 131)]:  # and small numbers of either sign
        a, b = random_codes((m, k), FMT, rng, zeros=zeros), random_codes((k, n), FMT, rng, zeros=zeros)
        a.codes.bitwise_and_(mask), b.codes.bitwise_and_(mask)
        everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)


def test_sums_that_leave_the_range_often(rng):
    """What the test above is to meet."""
    for mask, kind in [(255, "saturations"), (131, "vanished")]:
        a, b = random_codes((4, 999), FMT, rng), random_codes((999, 4), FMT, rng)
        a.codes.bitwise_and_(mask), b.codes.bitwise_and_(mask)
        _, counters = lns_sim.matmul(a, b, LEFT_OFTEN, counters=True)
        assert getattr(counters, kind) > 50


@pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")
@pytest.mark.parametrize("datapath", [*VARIANTS, LEFT_OFTEN], ids=str)
@pytest.mark.parametrize(
    "batch, channels, out, size, stride", [(3, 16, 20, 40, 1), (3, 16, 40, 49, 2), (5, 3, 64, 64, 1)]
)
def test_narrow_layers_on_a_gpu(datapath, batch, channels, out, size, stride, rng):
    """Many positions and few channels, and weight gradients the other way round."""
    x, w = random_codes((batch, channels, size, size), FMT, rng), random_codes((out, channels, 3, 3), FMT, rng)
    y = everywhere(lns_sim.conv2d, x, w, stride, 1, 1, 1, datapath)
    dy = random_codes(tuple(y.shape), FMT, rng)
    tail = ([stride] * 2, [1, 1], [1, 1], 1, datapath.encode(), False, False)
    everywhere(ops.conv2d_input_gradient, dy.codes, dy.scale, w.codes, w.scale, 8, 8, [*x.shape], *tail)
    everywhere(ops.conv2d_weight_gradient, dy.codes, dy.scale, x.codes, x.scale, 8, 8, [3, 3], *tail)


@pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")
@given(datapath=log_datapaths(), m=st.integers(1, 400), n=st.integers(1, 500), k=st.integers(1, 300))
def test_any_datapath_and_shape_on_a_gpu(datapath, m, n, k):
    rng = np.random.default_rng(m + n + k)
    a, b = random_codes((m, k), datapath.format, rng), random_codes((k, n), datapath.format, rng)
    everywhere(lns_sim.matmul, a, b, datapath, counters=bool(k % 2))
