"""Block scales along K against their reference: the quantizer, products on every path, convolutions, tensors."""

import copy
import io

import numpy as np
import pytest
import torch
from helpers import HAVE_CUDA, ISAS, core, everywhere, same_bits, unsigned
from hypothesis import given
from hypothesis import strategies as st
from strategies import datapaths, formats

import lns_sim
from lns_sim import BlockTensor, Datapath, LNSFormat, reference, reference_blocks, trace_dot

FMT = LNSFormat()
ops = torch.ops.lns_sim


def values(shape, rng, dim=-1):
    """Numbers whose blocks are far apart, with zeros, and a block of nothing but zeros."""
    x = rng.standard_normal(shape).astype(np.float32) * np.exp2(rng.integers(-20, 3, shape)).astype(np.float32)
    x[rng.random(shape) < 0.1] = 0
    x = np.moveaxis(x, dim, -1)
    x *= np.exp2(-3 * (np.arange(x.shape[-1]) // 16)).astype(np.float32)
    x[..., 0, 32:64] = 0
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, dim)))


def to_reference(q: BlockTensor):
    k = None if q.scale.isnan() else int(q.k)
    return unsigned(q.codes, q.format), k, q.shifts.numpy().astype(np.int64)


def agree_quantized(x, fmt, dim, block, **kwargs):
    q = everywhere(lns_sim.quantize, x, fmt, dim, block=block, **kwargs)
    expected = reference_blocks.quantize(x.numpy(), fmt, dim, block, **kwargs)
    for got, wanted in zip(to_reference(q), expected):
        np.testing.assert_array_equal(got, wanted)
    v = everywhere(BlockTensor.dequantize, q)
    assert same_bits(v, reference_blocks.dequantize(*expected, q.block_dim, q.block, q.format))
    return q


POLICIES = [("nearest", "clamp"), ("stochastic", "flush"), ("nearest", "stochastic"), ("stochastic", "stochastic")]


@pytest.mark.gpu
@pytest.mark.parametrize("fmt", [FMT, LNSFormat(4, 1), LNSFormat(4, 8), LNSFormat(12, 64)], ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_the_quantizer(fmt, dim, rng, isa):
    x = values({0: (70, 5, 9), 1: (5, 70, 9), -1: (3, 5, 70)}[dim], rng, dim)
    rounding, underflow = POLICIES[fmt.bits % 4]
    q = agree_quantized(x, fmt, dim, 32 if fmt.bits != 12 else 8, rounding=rounding, underflow=underflow, seed=7)
    assert q.shifts.max() == 15 or fmt.gamma == 64


@pytest.mark.gpu
@pytest.mark.parametrize("fmt", [FMT, LNSFormat(12, 64)], ids=str)
@pytest.mark.parametrize("shape, dim", [((3, 200), 1), ((3, 208), 1), ((200, 7), 0)])
def test_blocks_longer_than_a_thread_holds(fmt, shape, dim, rng):
    """In several parts, of whole words and not."""
    x = values(shape, rng, dim)
    agree_quantized(x, fmt, dim, 80)
    agree_quantized(x, fmt, dim, 72, rounding="stochastic", underflow="stochastic", seed=3)


@given(data=st.data(), seed=st.integers(0, 999))
def test_any_format_any_block(data, seed):
    fmt, shape = data.draw(formats(16)), data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    rounding, underflow = data.draw(st.sampled_from(POLICIES))
    dim, block = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(1, 40))
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    x = torch.from_numpy(x * np.float32(2.0 ** data.draw(st.integers(-140, 126))))
    most = data.draw(st.sampled_from([15, 0, 3, 127]))
    q = lns_sim.quantize(x, fmt, dim, rounding, underflow, seed, block=block, most=most)
    expected = reference_blocks.quantize(
        x.numpy(), fmt, dim, block, s_max=most, rounding=rounding, underflow=underflow, seed=seed
    )
    for got, wanted in zip(to_reference(q), expected):
        np.testing.assert_array_equal(got, wanted)


def test_no_code_clips_and_one_more_octave_would(rng):
    x = values((3, 200), rng)
    q = lns_sim.quantize(x, dim=1, block=32)
    top = q.k + 127 / 8 + 0.5 / 8
    for i in range(7):
        largest = x[:, 32 * i : 32 * i + 32].abs().amax(1).log2()
        shift = q.shifts[:, i].float()
        assert ((largest <= top - shift) | (largest == -torch.inf)).all()
        assert ((largest > top - shift - 1) | (shift == 15) | (largest == -torch.inf)).all()
        assert (shift[largest == -torch.inf] == 0).all()


def test_extremes():
    """Numbers at both ends of float32, and none at all."""
    tiny, huge = torch.full((64,), 1e-45), torch.full((64,), 3.4e38)
    for x in (tiny, huge, torch.cat([huge, tiny]), torch.zeros(64), torch.cat([huge, huge / 2**20, huge / 3])):
        for underflow in ("clamp", "flush"):
            agree_quantized(x, FMT, 0, 32, underflow=underflow)
    bad = lns_sim.quantize(torch.cat([torch.ones(40), torch.tensor([torch.inf])]), dim=0, block=32)
    assert bad.scale.isnan() and not bad.codes.any() and bad.dequantize().isnan().all()
    assert everywhere(lns_sim.quantize, torch.zeros(0, 5), dim=1, block=4).shifts.shape == (0, 2)


@given(data=st.data(), m=st.integers(1, 20), n=st.integers(1, 5), k=st.integers(1, 100), seed=st.integers(0, 999))
def test_any_datapath(data, m, n, k, seed):
    fmt = data.draw(formats(10))
    d = data.draw(datapaths(fmt, foreign=data.draw(st.booleans())))
    block = d.vector_size * data.draw(st.integers(1, 3))
    rng = np.random.default_rng(seed)
    core.set_isa(data.draw(st.sampled_from(ISAS)))
    a, b = values((m, k), rng), values((k, n), rng, 0)
    a = lns_sim.quantize(a, fmt, 1, block=block)
    b = lns_sim.quantize(b, fmt, 0, block=block) if data.draw(st.booleans()) else lns_sim.quantize(b, fmt)
    right = to_reference(b) if isinstance(b, BlockTensor) else (unsigned(b.codes, fmt), int(b.k), None)
    codes, scale, shifts = to_reference(a)
    rows = slice(0, 3)
    first = codes[rows], scale, shifts[rows]
    for accumulators in (True, False):
        got = everywhere(lns_sim.matmul, a, b, d, return_accumulator=accumulators)[rows]
        expected = reference_blocks.matmul(first, right, d, block, accumulators)
        assert np.array_equal(got, expected) if accumulators else same_bits(got, expected)
    assert torch.equal(lns_sim.matmul(b.mT, a.mT, d), lns_sim.matmul(a, b, d).mT)


PATHS = [
    (Datapath(), "permute8", "row_planes"),
    (Datapath(rounding="nearest", acc_bits=16), "permute8", "row_planes"),
    (Datapath(acc_bits=14, overflow="wrap"), "permute8", "row_planes"),
    (Datapath(lut_entries=2), "permute8", "row_planes"),
    (Datapath(acc_bits=32, rounding="nearest"), "permute8", "row_planes"),
    (Datapath(vector_size=64, acc_bits=30), "permute8", "row_planes"),
    (Datapath(LNSFormat(12, 128)), "permute16", "lookup32"),
    (Datapath(LNSFormat(12, 128), acc_bits=32), "permute16", "lookup64"),
    (Datapath(LNSFormat(10, 32), lut_bits=9, overflow="wrap", acc_bits=26), "lookup64", "lookup64"),
    (Datapath(vector_size=16, bins="signed", bin_bits=14), "bins", "bins"),
]


@pytest.mark.parametrize("d, permuted, otherwise", PATHS, ids=lambda v: v.label if isinstance(v, Datapath) else v)
def test_every_path_equals_the_reference_and_says_its_name(isa, d, permuted, otherwise, rng):
    f, block = d.format, max(64, d.vector_size)
    x, y = values((600, 200), rng), values((200, 40), rng, 0)
    a, b = lns_sim.quantize(x, f, 1, block=block), lns_sim.quantize(y, f, 0, block=block)
    path = permuted if isa == "avx512_vnni" else otherwise
    assert d.path(600, 40, blocks=True) == path
    before = core.path_runs()
    got, counters = everywhere(lns_sim.matmul, a, b, d, return_accumulator=True, counters=True)
    assert core.path_runs()[path] == before[path] + 1
    rows, columns = [0, 77, 599], [3, 39]
    (A, k_a, s_a), (B, k_b, s_b) = to_reference(a), to_reference(b)
    part = (A[rows], k_a, s_a[rows]), (B[:, columns], k_b, s_b[:, columns])
    expected = reference_blocks.matmul(*part, d, block, return_accumulator=True)
    np.testing.assert_array_equal(got[rows][:, columns], expected)
    assert len(set(got.flatten().tolist())) > 50
    # Counters of lanes know no scales; vectors and saturations are those of the walk.
    plain = [lns_sim.LNSTensor(t.codes, t.scale, f) for t in (a, b)]
    _, counted = lns_sim.matmul(*plain, d, counters=True)
    assert (counters.zero_lanes, counters.vanished, counters.vectors) == (
        counted.zero_lanes,
        counted.vanished,
        counted.vectors,
    )
    # Threads, and the look-up of few rows.
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        assert torch.equal(lns_sim.matmul(a, b, d, return_accumulator=True), got)
    torch.set_num_threads(threads)
    assert torch.equal(everywhere(lns_sim.matmul, a[:2], b, d, return_accumulator=True), got[:2])


def test_saturations_are_counted(rng):
    d = Datapath(acc_bits=12, acc_lsb=18)
    a, b = (lns_sim.quantize(values(s, rng, dim).abs(), dim=dim, block=32) for s, dim in (((4, 300), 1), ((300, 3), 0)))
    _, counters = everywhere(lns_sim.matmul, a, b, d, counters=True)
    (A, _, s_a), (B, _, s_b) = to_reference(a), to_reference(b)
    overflowed = 0
    for i, j in np.ndindex(4, 3):
        shifts = (s_a[i] + s_b[:, j]).tolist()
        overflowed += sum(v.overflowed for v in reference.trace(A[i].tolist(), B[:, j].tolist(), d, shifts))
    assert counters.saturations == overflowed > 0


def test_every_pair_of_codes_at_every_shift():
    """Vectors of one product each, with all sums of two shifts."""
    f = LNSFormat(5, 4)
    d = Datapath(f, vector_size=1, acc_bits=20)
    codes = torch.arange(32).to(torch.uint8)
    one = torch.ones(())
    for shift in range(0, 31, 3):
        a = BlockTensor(codes[:, None], one, f, torch.full((32, 1), shift // 2, dtype=torch.uint8), 1, 1)
        b = BlockTensor(codes[None], one, f, torch.full((1, 32), shift - shift // 2, dtype=torch.uint8), 0, 1)
        expected = [[reference_blocks.dot([i], [j], d, [shift]) for j in range(32)] for i in range(32)]
        for isa in ISAS:
            core.set_isa(isa)
            assert everywhere(lns_sim.matmul, a, b, d, return_accumulator=True).tolist() == expected


def test_batches_and_strides(rng):
    x, y = values((2, 1, 5, 64), rng), values((3, 64, 4), rng, 1)
    a, b = lns_sim.quantize(x, dim=3, block=32), lns_sim.quantize(y, dim=1, block=32)
    got = everywhere(lns_sim.matmul, a, b)
    for i, j in np.ndindex(2, 3):
        assert torch.equal(got[i, j], lns_sim.matmul(a[i, 0], b[j]))
    turned = lns_sim.quantize(y.mT.contiguous(), dim=2, block=32)
    assert torch.equal(everywhere(lns_sim.matmul, a, turned.transpose(1, 2)), got)
    assert torch.equal(everywhere(lns_sim.matmul, a[..., 1::2, :], b[:, :, 1:]), got[..., 1::2, 1:])


@pytest.mark.parametrize("stride, padding, dilation, size", [(1, 1, 1, (7, 6)), (2, 1, 1, (8, 7)), (1, 2, 2, (6, 6))])
def test_convolutions(stride, padding, dilation, size, rng):
    """By the operators, which take whole blocks of channels."""
    d = Datapath(vector_size=16)
    x, w = values((1, 32, *size), rng, 1), values((16, 32, 3, 2), rng, 1)
    xq, wq = lns_sim.quantize(x, dim=1, block=16), lns_sim.quantize(w, dim=1, block=16)
    y = everywhere(lns_sim.conv2d, xq, wq, stride, padding, dilation, datapath=d)
    geometry = stride, padding, dilation, d, 16
    assert same_bits(y, reference_blocks.conv2d(to_reference(xq), to_reference(wq), *geometry))
    dy = lns_sim.quantize(values(tuple(y.shape), rng, 1), dim=1, block=16)
    wo = lns_sim.quantize(w, dim=0, block=16)
    tail = ([stride] * 2, [padding] * 2, [dilation] * 2, 1, d.encode(), False)
    for count in (False, True):  # taps that no output used are left out of K, unless lanes are counted
        dx, _ = everywhere(
            ops.conv2d_input_gradient, dy.codes, dy.scale, wo.codes, wo.scale, 8, 8, list(x.shape), *tail, count, 0, 0,
            dy.shifts, wo.shifts, 16,
        )  # fmt: skip
        expected = reference_blocks.conv2d_input_gradient(to_reference(dy), to_reference(wo), x.shape, *geometry)
        assert same_bits(dx, expected)


def test_groups_are_convolutions_of_their_own(rng):
    x, w = values((2, 64, 5, 5), rng, 1), values((6, 32, 3, 3), rng, 1)
    xq, wq = lns_sim.quantize(x, dim=1, block=32), lns_sim.quantize(w, dim=1, block=32)
    y = everywhere(lns_sim.conv2d, xq, wq, padding=1, groups=2)
    for i in range(2):
        xs = BlockTensor(xq.codes[:, 32 * i :][:, :32], xq.scale, FMT, xq.shifts[:, i : i + 1], 1, 32)
        assert torch.equal(y[:, 3 * i : 3 * i + 3], lns_sim.conv2d(xs, wq[3 * i : 3 * i + 3], padding=1))


def test_traces(rng):
    a, b = lns_sim.quantize(values((1, 100), rng), dim=1, block=64), lns_sim.quantize(values((1, 100), rng))
    traced = trace_dot(a[0], b[0])
    assert traced.accumulator == lns_sim.matmul(a, b.mT, return_accumulator=True).item()
    assert [v.Z for v in traced.vectors] == [v.Y >> 7 + int(a.shifts[0, i // 2]) for i, v in enumerate(traced.vectors)]
    with pytest.raises(ValueError, match="no multiple of the datapath's vector_size"):
        trace_dot(a[0], b[0], Datapath(vector_size=48))


def test_a_tensor_with_blocks(device, rng):
    x = values((6, 70, 4), rng, 1).to(device)
    q = lns_sim.quantize(x, dim=1, block=32)
    v = q.dequantize()
    assert "blocks of 32 along dim 1" in repr(q) and q.shape == x.shape and q.shifts.shape == (6, 3, 4)
    for y, expected in [
        (q.clone(), v), (q.detach(), v), (q.cpu(), v.cpu()), (q.mT, v.mT), (q.permute(1, 2, 0), v.permute(1, 2, 0)),
        (q[2], v[2]), (q[1:3], v[1:3]), (q[..., 1], v[..., 1]), (q[:, :, ::2], v[:, :, ::2]), (q[None], v[None]),
        (copy.deepcopy(q), v), (q[:, :], v),
    ]:  # fmt: skip
        assert isinstance(y, BlockTensor) and torch.equal(y.dequantize(), expected)
    memory = io.BytesIO()
    torch.save(q, memory)
    memory.seek(0)
    again = torch.load(memory, weights_only=True)
    assert torch.equal(again.dequantize(), v) and again.block == 32
    assert torch.equal(torch.zeros_like(q), torch.zeros(6, 70, 4, device=device))
    for cut in (lambda: q[:, :32], lambda: q[:, 3]):
        with pytest.raises(NotImplementedError, match="would cut the blocks along dim 1"):
            cut()
    for other in (lambda: q.reshape(-1), lambda: q + 1, lambda: torch.cat([q, q]), lambda: q.flip(0)):
        with pytest.raises(NotImplementedError, match="call .dequantize"):
            other()
    with pytest.raises(NotImplementedError, match="quantize anew"):
        q.rescale(0)


def test_errors(rng):
    a, b = lns_sim.quantize(torch.randn(3, 64), dim=1, block=32), lns_sim.quantize(torch.randn(64, 3), dim=0, block=32)
    other = lns_sim.quantize(torch.randn(3, 64), dim=0, block=32)
    longer = lns_sim.quantize(torch.randn(64, 3), dim=0, block=64)
    x = torch.randn(2, 40, 5, 5)
    image = lns_sim.quantize(x, dim=1, block=32)
    for work, message in [
        (lambda: lns_sim.quantize(x, block=32), "block needs dim"),
        (lambda: lns_sim.quantize(x, dim=1, block=0), "block must be at least 1"),
        (lambda: lns_sim.quantize(x, dim=1, block=32, most=128), "most must be between 0 and 127"),
        (lambda: lns_sim.quantize(x, dim=1, most=3), "would change nothing without block"),
        (lambda: lns_sim.matmul(a, b, Datapath(vector_size=48)), "no multiple of the datapath's vector_size = 48"),
        (lambda: lns_sim.matmul(other, b), "blocks along dim 0, but K"),
        (lambda: lns_sim.matmul(a, longer), "equally long, got 32 and 64"),
        (lambda: lns_sim.conv2d(image, image), "fill both sides up with zeros"),
        (lambda: BlockTensor(a.codes, a.scale, FMT, a.shifts[:, :1], 1, 32), "shifts must be uint8 of shape"),
        (lambda: BlockTensor(a.codes, torch.ones(3, 1), FMT, a.shifts, 1, 32), "has one scale"),
    ]:
        with pytest.raises(ValueError, match=message):
            work()
    shifts = (a.shifts[:, :1], None, 32)
    scales = torch.ones(3, 1), torch.ones(1, 3)
    with pytest.raises((ValueError, RuntimeError), match="an entry for each block"):
        ops.matmul(a.codes, scales[0], b.codes, scales[1], 8, 8, Datapath().encode(), False, False, 0, 0, *shifts)
    with pytest.raises((ValueError, RuntimeError), match="need the blocks' length"):
        ops.matmul(a.codes, scales[0], b.codes, scales[1], 8, 8, Datapath().encode(), False, False, 0, 0, a.shifts)


def test_weight_gradients_of_images_and_their_errors(rng):
    """The operator, of tensors that lie in any order in memory."""
    d = Datapath(vector_size=8)
    dy, x = values((16, 4, 3, 2), rng), values((16, 6, 7, 5), rng, 0)
    (e, k_e, s_e), (c, k_c, s_c) = (to_reference(lns_sim.quantize(t, dim=0, block=8)) for t in (dy, x))
    geometry = dict(stride=2, padding=0, dilation=1)
    expected = reference_blocks.conv2d_weight_gradient(
        (e, k_e, s_e), (c, k_c, s_c), (3, 3), **geometry, datapath=d, block=8
    )

    def operands(dy, x, order=(0, 1, 2, 3), padding=0, block=8, shifts=True):
        p, q = (lns_sim.quantize(t, dim=0, block=8) for t in (dy, x))
        back = torch.tensor(order).argsort().tolist()
        p_codes, q_codes, p_shifts, q_shifts = (
            t.permute(order).contiguous().permute(back) for t in (p.codes, q.codes, p.shifts, q.shifts)
        )
        tail = [3, 3], [2, 2], [padding] * 2, [1, 1], 1, d.encode(), False, False, 0, 0
        given = p_shifts if shifts is True else shifts, q_shifts, block
        return p_codes, p.scale, q_codes, q.scale, 8, 8, *tail, *given

    for order in ((0, 1, 2, 3), (1, 2, 3, 0), (3, 0, 2, 1), (2, 1, 3, 0)):
        dw, _ = everywhere(ops.conv2d_weight_gradient, *operands(dy, x, order))
        assert same_bits(dw, expected)
    for wrong, message in [
        (operands(dy, x, block=32), "images must be a multiple of the block"),
        (operands(dy[:, :, :2, :1], x[:, :, :3, :1], padding=1), "padding must be 0"),
        (operands(dy, x, shifts=torch.zeros(2, 4, 3, 3, dtype=torch.uint8)), "an entry for each block"),
        (operands(dy, x, block=12), "no multiple of vector_size"),
        (operands(dy[:, :, :2], x), "dy's shape"),
    ]:
        with pytest.raises((ValueError, RuntimeError), match=message):
            ops.conv2d_weight_gradient(*wrong)


@pytest.mark.parametrize("kernel, stride", [(1, 2), (3, 2), (3, 1)])
def test_input_gradients_of_a_resnet(kernel, stride, rng):
    """A layer of ResNet-20 at a batch of 256; with one tap and a stride most positions see none."""
    size = 32 // stride
    dy = lns_sim.quantize(values((256, 32, size, size), rng), dim=1, block=32)
    w = lns_sim.quantize(values((32, 16, kernel, kernel), rng, 0), dim=0, block=32)
    geometry = [256, 16, 32, 32], [stride] * 2, [kernel // 2] * 2, [1, 1], 1
    tail = *geometry, Datapath().encode(), False, False, 0, 0, dy.shifts, w.shifts, 32
    dx, _ = everywhere(ops.conv2d_input_gradient, dy.codes, dy.scale, w.codes, w.scale, 8, 8, *tail)
    seen = dx[:, :, ::stride, ::stride] if kernel == 1 else dx
    assert seen.count_nonzero() > 0.9 * seen.numel() and seen.count_nonzero() == dx.count_nonzero()


@pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(rounding="nearest", acc_bits=16),
        dict(acc_bits=12, headroom_bits=0),
        dict(acc_bits=12, overflow="wrap"),
        dict(acc_bits=30),
        dict(acc_bits=32),
        dict(vector_size=64),
        dict(vector_size=7),
        dict(format=LNSFormat(12, 128)),
        dict(lut_bits=12, acc_bits=32),
    ],
    ids=str,
)
@pytest.mark.parametrize("m, k, n", [(300, 260, 517), (33, 9000, 40), (1, 30_000, 70), (16, 16_384, 144)])
def test_tiles_and_segments_of_a_gpu(options, m, k, n, rng):
    d = Datapath(**options)
    block = 64 // d.vector_size * d.vector_size
    x, y = values((m, k), rng), values((k, n), rng, 0)
    a, b = lns_sim.quantize(x, d.format, 1, block=block), lns_sim.quantize(y, d.format, 0, block=block)
    everywhere(lns_sim.matmul, a, b, d, return_accumulator=True)
    everywhere(lns_sim.matmul, a, b, d, counters=True)
    everywhere(lns_sim.matmul, b.mT, a.mT, d)
