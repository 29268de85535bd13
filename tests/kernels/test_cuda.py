"""What only a GPU can get wrong: large sizes, segments of K, streams, graphs, waits, devices; the bits are the
CPU's.
"""

import copy

import numpy as np
import pytest
import torch
from helpers import HAVE_CUDA, everywhere, moved, random_codes, same
from hypothesis import given
from hypothesis import strategies as st
from strategies import datapaths
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSFormat, recipes
from lns_sim.quantizers import FP8, LNS, Integer, ShiftQuant
from lns_sim.quantizers.integer import nearest_values
from lns_sim.random import random_state
from lns_sim.studies import models

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")]
FMT = LNSFormat()
ops = torch.ops.lns_sim

OPTIONS = [
    dict(),
    dict(lut_entries=1),
    dict(lut_entries=2),
    dict(lut_entries=4, rounding="nearest"),
    dict(acc_bits=16, overflow="wrap"),
    dict(acc_bits=16),
    dict(acc_bits=28),
    dict(acc_bits=32),
    dict(vector_size=64),
    dict(vector_size=16),
    dict(vector_size=7),
    dict(acc_lsb=0),
    dict(format=LNSFormat(8, 128)),
    dict(format=LNSFormat(5, 4)),
    dict(format=LNSFormat(10, 32)),
    dict(format=LNSFormat(12, 128), acc_bits=32),
    dict(format=LNSFormat(14, 512), lut_bits=12),
    dict(headroom_bits=0),
    dict(bin_bits=18),
    dict(bin_bits=14, bins="signed", bin_overflow="wrap", vector_size=7),
    dict(format=LNSFormat(10, 32), bin_bits=20, bins="signed"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("m, k, n", [(300, 260, 517), (33, 3000, 40), (129, 64, 1000)])
def test_tiles_segments_and_counters(options, m, k, n, rng):
    datapath = Datapath(**{"format": FMT, **options})
    a, b = (random_codes(s, datapath.format, rng) for s in ((m, k), (k, n)))
    for accumulators in (False, True):
        everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=accumulators)
    everywhere(lns_sim.matmul, a, b, datapath, counters=True)
    everywhere(lns_sim.matmul, b.mT, a.mT, datapath)


@given(
    datapath=datapaths(), m=st.integers(1, 150), n=st.integers(1, 300), k=st.integers(1, 500), seed=st.integers(0, 999)
)
def test_any_datapath_any_shape(datapath, m, n, k, seed):
    rng = np.random.default_rng(seed)
    a, b = random_codes((m, k), datapath.format, rng), random_codes((k, n), datapath.format, rng)
    everywhere(lns_sim.matmul, a, b, datapath, counters=bool(seed % 2))


@pytest.mark.parametrize("acc_bits, headroom", [(24, 5), (24, 0), (16, 0), (12, 0)])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("bias", [0, 60, 127])
@pytest.mark.parametrize("m, k, n", [(70, 20_000, 130), (16, 32_768, 144), (27, 32_768, 62)])
def test_long_dot_products_that_overflow_anywhere(acc_bits, headroom, overflow, bias, m, k, n, rng):
    """Segments are joined exactly, wherever accumulators saturate: everywhere, in drifts up and down, or never. Of the
    narrow ones a tile has several side by side.
    """
    datapath = Datapath(acc_bits=acc_bits, headroom_bits=headroom, overflow=overflow)
    a, b = random_codes((m, k), FMT, rng), random_codes((k, n), FMT, rng)
    drift = torch.arange(k) // 1000 % 3  # up, down, to and fro
    a.codes.clamp_(min=bias)
    a.codes[:, drift == 0] &= 127
    b.codes[drift < 2] &= 127
    a.codes[:, drift == 1] |= 128
    everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
    everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True, counters=True)


@pytest.mark.parametrize("block", [None, 32])
@pytest.mark.parametrize("m, k, n, wide", [(70, 32_768, 130, False), (16, 32_768, 144, False), (40, 30_000, 37, True)])
def test_long_dot_products_of_which_few_overflow(m, k, n, wide, block):
    """Outputs that may saturate are then settled one by one."""
    torch.manual_seed(0)
    fmt = LNSFormat(9, 16) if wide else FMT
    datapath = Datapath(fmt, headroom_bits=3)
    a = lns_sim.quantize(torch.randn(m, k), fmt, dim=None if block is None else 1, block=block)
    b = lns_sim.quantize(torch.randn(k, n), fmt)
    everywhere(lns_sim.matmul, a, b, datapath)
    _, counters = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True, counters=True)
    assert 0 < counters.saturations < counters.vectors / 100


def test_long_dot_products_in_the_widest_accumulator_of_32_bit_kernels(rng):
    """Sums of segments that come near its range do not fit 32 bits."""
    m, k, n = 16, 32_768, 144
    a, b = random_codes((m, k), FMT, rng), random_codes((k, n), FMT, rng)
    drift = np.repeat(rng.random(k // 512), 512)
    negative = torch.from_numpy(rng.random(k) < drift).to(a.codes.dtype)
    a.codes.bitwise_and_(127).clamp_(min=110).bitwise_or_(negative * 128)
    b.codes.bitwise_and_(127).clamp_(min=126).sub_(torch.arange(n) % 32)
    everywhere(lns_sim.matmul, a, b, Datapath(acc_bits=31, keep_fraction=True), return_accumulator=True)


LAYERS = [
    (8, 64, 64, 32, 1, 3),
    (8, 64, 128, 32, 2, 3),
    (4, 128, 256, 16, 2, 1),
    (16, 512, 512, 4, 1, 3),
    (4, 3, 64, 32, 1, 3),
    (2, 3, 64, 64, 2, 7),
    # Narrow ones, in lines of whole words, of half of them, and of none.
    (16, 16, 16, 32, 1, 3),
    (16, 16, 32, 32, 2, 3),
    (16, 32, 32, 16, 1, 3),
    (16, 5, 16, 14, 1, 3),
    (16, 16, 15, 28, 1, 5),
    (8, 16, 16, 33, 1, 3),
]


@pytest.mark.parametrize("n, c, o, size, stride, kernel", LAYERS)
def test_layers_of_residual_networks(n, c, o, size, stride, kernel, rng):
    x, w = random_codes((n, c, size, size), FMT, rng), random_codes((o, c, kernel, kernel), FMT, rng)
    y = everywhere(lns_sim.conv2d, x, w, stride, kernel // 2)
    dy = random_codes(tuple(y.shape), FMT, rng)
    tail = ([stride] * 2, [kernel // 2] * 2, [1, 1], 1, Datapath().encode(), False)
    of_dy = (dy.codes, dy.scale)
    everywhere(ops.conv2d_input_gradient, *of_dy, w.codes, w.scale, 8, 8, list(x.shape), *tail, False)
    everywhere(ops.conv2d_weight_gradient, *of_dy, x.codes, x.scale, 8, 8, [kernel, kernel], *tail, False)
    everywhere(ops.conv2d_weight_gradient, *of_dy, x.codes, x.scale, 8, 8, [kernel, kernel], *tail, True)
    tail = (*tail[:4], Datapath(acc_bits=16, headroom_bits=0).encode(), False)
    everywhere(ops.conv2d_weight_gradient, *of_dy, x.codes, x.scale, 8, 8, [kernel, kernel], *tail, True)


def test_tensors_of_many_millions():
    x = torch.randn(3000, 4099) * torch.logspace(-20, 20, 4099)
    for dim in (None, 0, 1):
        for fmt, rounding in ((FMT, "nearest"), (FMT, "stochastic"), (LNSFormat(16, 2048), "nearest")):
            q = everywhere(lns_sim.quantize, x, fmt, dim, rounding, seed=3)
            everywhere(lns_sim.LNSTensor.dequantize, q)
            everywhere(lns_sim.LNSTensor.rescale, q, 3 if dim is None else q.k.clamp(-100, 100) + 1)
    q = lns_sim.quantize(x, LNSFormat(16, 2048))
    forward = (FMT, LNSFormat(5, 8))
    for f in forward:
        everywhere(ops.forward_codes, q.codes, q.scale, 16, 2048, f.bits, f.gamma)

    def step(codes, *args):
        codes, moment = codes.clone(), x.abs().to(codes.device)
        ops.madam_step(codes, moment, *args)
        return codes, moment

    hyper = torch.tensor([0.9, 0.1, 0.5, 10.0, 300.0])
    for stochastic in (False, True):
        everywhere(
            step, q.codes, x, q.scale, torch.tensor(3.0), hyper, 16, 2048, stochastic, torch.tensor([1, 2, 3, 0])
        )


@pytest.mark.parametrize("shape", [(64, 33, 50, 51), (64, 32, 48, 48), (300, 130, 4, 4), (300_000, 17)])
def test_other_systems_codes_of_many_millions(shape):
    x = torch.randn(shape) * torch.logspace(-3, 3, shape[1]).view(1, -1, *[1] * (len(shape) - 2))
    rng = random_state(3, 1, 2)
    for q in (Integer(), Integer(8, "stochastic", True), ShiftQuant(6, 4, True), ShiftQuant(4), FP8(), FP8("e5m2")):
        codes, scale = everywhere(q.quantize, x, rng if q.stochastic else None, 1)
        everywhere(q.value, codes, scale)
    everywhere(nearest_values, x, 8)
    everywhere(ops.largest_magnitude, x)


def test_offsets_and_strides(rng):
    """Views whose addresses allow no wide load."""
    flat = torch.randn(1003)
    for start in range(4):
        view = flat.cuda()[start:]
        assert same(lns_sim.quantize(flat[start:]), lns_sim.quantize(view))
        assert same(Integer().quantize(flat[start:], None, -1), Integer().quantize(view, None, -1))
        assert same(FP8().quantize(flat[start:], None, -1), FP8().quantize(view, None, -1))
    a, b = random_codes((41, 67), FMT, rng), random_codes((67, 131), FMT, rng)
    expected = lns_sim.matmul(a[1:, 3:], b[3:, 5::3])
    assert same(expected, lns_sim.matmul(a.to("cuda")[1:, 3:], b.to("cuda")[3:, 5::3]))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.view(3, 5, 3, 4, 16)[:, :, 1].transpose(1, 2),  # heads of a projection of query, key and value
        lambda x: x.view(3, 5, 3, 4, 16)[:, 1:, 1].permute(2, 0, 1, 3),
        lambda x: x[:, 8:72],
        lambda x: x[:, 8:72].t(),
        lambda x: x[:, 8:75],
        lambda x: x[::2, 4:68],  # begins between packs
        lambda x: x[:, None, :64].expand(15, 3, 64),
        lambda x: x.view(3, 5, 3, 2, 2, 16)[:, ::2, ::2, :, 1],  # of more strides than kernels follow
    ],
)
def test_numbers_are_quantized_where_they_lie(view):
    x = torch.randn(15, 192)
    for q in (LNS(), LNS(rounding="stochastic")):
        rng = torch.tensor([5, 1, 2, 0]) if q.stochastic else None
        for run in (q.quantize, q.quantized_values):
            expected, found = run(view(x), rng, -1), run(view(x.cuda()), rng if rng is None else rng.cuda(), -1)
            assert all(same(a, b) for a, b in zip(expected, found))


def test_runs_repeat_and_streams_agree(rng):
    a, b = random_codes((513, 700), FMT, rng), random_codes((700, 301), FMT, rng)
    expected = lns_sim.matmul(a, b).cuda()
    a, b = moved((a, b), "cuda")
    torch.cuda.synchronize()
    results, streams = [], [torch.cuda.Stream() for _ in range(4)]
    for i in range(40):
        with torch.cuda.stream(streams[i % 4]):
            results.append(lns_sim.matmul(a, b))
    torch.cuda.synchronize()
    assert all(torch.equal(r, expected) for r in results)


def small_model(recipe="lns-madam"):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 32, 3),
        nn.Flatten(),
        nn.Linear(32 * 9, 10),
    )
    return lns_sim.convert(net, recipe).cuda()


def test_a_training_step_waits_for_nothing_but_the_first_time():
    model = small_model(recipes.lns_madam(stochastic_gradients=True))
    optimizer = lns_sim.optim.LNSMadam(model.parameters(), rounding="stochastic")
    x = torch.randn(8, 3, 10, 10, device="cuda")

    def step():
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_graph_replays_the_same_bits():
    model = small_model()
    x = torch.randn(8, 3, 10, 10, device="cuda")

    def gradients():
        for p in model.parameters():
            p.grad = None
        y = model(x)
        y.square().mean().backward()
        return [y.detach(), *(p.grad for p in model.parameters())]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        gradients()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients()
    x.copy_(torch.randn_like(x))
    graph.replay()
    replayed = [t.clone() for t in captured]
    expected = gradients()
    assert all(torch.equal(a, b) for a, b in zip(replayed, expected))
    # All of the network's own float32 operations stand in both, so the datapath's results do, too.


def test_a_new_format_in_a_capture_is_an_error():
    x = torch.randn(64, device="cuda")
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match="run it once before"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        lns_sim.quantize(x, LNSFormat(15, 16384))
    torch.cuda.synchronize()


def test_operands_on_different_devices_are_an_error(rng):
    a, b = random_codes((4, 5), FMT, rng), random_codes((5, 6), FMT, rng)
    with pytest.raises(ValueError, match="a is on cuda:0, but b is on cpu"):
        lns_sim.matmul(a.to("cuda"), b)
    with pytest.raises(ValueError, match="scale must be on the device"):
        ops.dequantize(a.codes.cuda(), a.scale, 8, 8)


def test_zeros_around_images_beyond_all_sizes_are_an_error():
    """Twice so many wrap around to fewer than none."""
    codes = torch.ones(5, 3, 4, 4, dtype=torch.uint8, device="cuda")
    for zeros in ((2**63 - 1, 0), (0, 2**63 - 1), (-1, 0)):
        with pytest.raises((ValueError, RuntimeError), match="is out of range|fewer than none"):
            ops.images_fastest(codes, *zeros)


@pytest.mark.gpus
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_the_second_gpu_gives_the_same_bits(rng):
    a, b = random_codes((300, 400), FMT, rng), random_codes((400, 200), FMT, rng)
    expected = lns_sim.matmul(a, b, counters=True)
    assert torch.cuda.current_device() == 0
    for device in ("cuda:1", "cuda:0"):
        got = lns_sim.matmul(a.to(device), b.to(device), counters=True)
        assert got[0].device == torch.device(device) and same(expected, got)
    x = torch.randn(1000)
    assert same(lns_sim.quantize(x), lns_sim.quantize(x.to("cuda:1")))


def test_a_residual_network_trains_to_the_bits_of_the_cpu():
    """Weights' codes after steps whose float operations are exact on both: no batch norm, losses of small integers."""
    torch.manual_seed(0)
    model = lns_sim.convert(models.build("mlp", (16,), 4), "lns-madam")
    for p in model.parameters():
        if not isinstance(p, lns_sim.LNSWeight):
            p.requires_grad_(False)
    x, runs = torch.randint(-4, 5, (32, 16)).float(), []
    for device in ("cpu", "cuda"):
        net = copy.deepcopy(model).to(device)
        optimizer = lns_sim.optim.LNSMadam([p for p in net.parameters() if p.requires_grad], lr=1 / 16)
        for _ in range(3):
            optimizer.zero_grad()
            y = net(x.to(device))
            y.backward(y.detach().sign())
            optimizer.step()
        runs.append([p.codes.cpu() for p in net.parameters() if isinstance(p, lns_sim.LNSWeight)])
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.parametrize("bits, gamma", [(8, 8), (5, 4), (12, 64)])
def test_codes_are_decoded_where_they_lie(bits, gamma):
    """Parts, transposed and repeated tensors, in rows of any length and alignment."""
    f = LNSFormat(bits, gamma)
    codes = random_codes((3, 2, 40, 260), f, np.random.default_rng(0)).codes
    scale = torch.tensor(0.25)
    for part in (
        lambda x: x,
        lambda x: x[:, :, 3:],
        lambda x: x[..., 8:136],
        lambda x: x[:, 1:, 5:9, 3:18],
        lambda x: x[0, 0, :, 4:5],
        lambda x: x[:, :1].expand(3, 4, 40, 260)[..., 4:],
        lambda x: x.mT[..., 1:],
        lambda x: x[:, :, 40:],
        lambda x: x.flatten()[: 4096 * 7 + 5],
    ):
        expected = ops.dequantize(part(codes), scale, bits, gamma)
        assert same(ops.dequantize(part(codes.cuda()), scale.cuda(), bits, gamma).cpu(), expected)
    nan = ops.dequantize(codes.cuda(), torch.tensor(torch.nan, device="cuda"), bits, gamma)
    assert nan.isnan().all()
