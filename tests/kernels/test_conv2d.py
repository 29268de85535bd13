"""The three passes of conv2d against the reference: strides, padding, dilation, groups, odd sizes, all paths."""

import numpy as np
import pytest
import torch
from helpers import everywhere, random_codes, same_bits, to_reference
from hypothesis import given
from hypothesis import strategies as st
from strategies import datapaths

import lns_sim
from lns_sim import Datapath, LNSFormat, reference

FMT = LNSFormat()
ops = torch.ops.lns_sim


def geometry(stride, padding, dilation, groups):
    return [list(stride), list(padding), list(dilation), groups]


def agree_all_passes(x, w, stride, padding, dilation, groups, datapath, rng):
    """Forward, input gradient and weight gradient of both implementations."""
    y = everywhere(lns_sim.conv2d, x, w, stride, padding, dilation, groups, datapath)
    assert same_bits(y, reference.conv2d(to_reference(x), to_reference(w), stride, padding, dilation, groups, datapath))
    dy = random_codes(tuple(y.shape), x.format, rng, k=-20)
    where = geometry(stride, padding, dilation, groups)
    tail = (*where, datapath.encode(), False, False)
    bits = (x.format.bits, x.format.bits)
    dx, _ = everywhere(ops.conv2d_input_gradient, dy.codes, dy.scale, w.codes, w.scale, *bits, list(x.shape), *tail)
    expected = reference.conv2d_input_gradient(
        to_reference(dy), to_reference(w), tuple(x.shape), stride, padding, dilation, groups, datapath
    )
    assert same_bits(dx, expected)
    dw, _ = everywhere(
        ops.conv2d_weight_gradient, dy.codes, dy.scale, x.codes, x.scale, *bits, list(w.shape[2:]), *tail
    )
    expected = reference.conv2d_weight_gradient(
        to_reference(dy), to_reference(x), tuple(w.shape[2:]), stride, padding, dilation, groups, datapath
    )
    assert same_bits(dw, expected)


@given(
    datapath=datapaths(),
    n=st.integers(1, 3),
    groups=st.integers(1, 3),
    c=st.integers(1, 3),
    o=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    extra=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 99),
)
def test_any_convolution(datapath, n, groups, c, o, kernel, stride, padding, dilation, extra, seed):
    rng = np.random.default_rng(seed)
    size = [max(d * (k - 1) + 1 - 2 * p, 1) + e for d, k, p, e in zip(dilation, kernel, padding, extra)]
    x = random_codes((n, groups * c, *size), datapath.format, rng, k=2)
    w = random_codes((groups * o, c, *kernel), datapath.format, rng, k=-4)
    agree_all_passes(x, w, stride, padding, dilation, groups, datapath, rng)


def test_results_that_are_no_neighbours(rng):
    """Of a weight gradient with two channels and two taps the first and the fourth column are three places apart, and
    the two between them the other way round.
    """
    x, w = random_codes((2, 2, 3, 5), FMT, rng), random_codes((3, 2, 1, 2), FMT, rng)
    agree_all_passes(x, w, (1, 1), (0, 0), (1, 1), 1, Datapath(), rng)


@pytest.mark.parametrize("outputs", [20, 32])  # no whole number of vectors, and one: unused taps are left out
@pytest.mark.parametrize(
    "stride, padding, dilation, kernel", [(1, 1, 1, 3), (2, 1, 1, 3), (2, 0, 1, 1), (1, 2, 2, 3), (3, 1, 2, 3)]
)
def test_a_layer_of_usual_size_equals_matmul_of_its_patches(isa, rng, stride, padding, dilation, kernel, outputs):
    """Against unfolded patches through matmul, which covers blocks and panels that the reference is too slow for."""
    x, w = random_codes((5, 40, 16, 16), FMT, rng), random_codes((outputs, 40, kernel, kernel), FMT, rng)
    y = everywhere(lns_sim.conv2d, x, w, stride, padding, dilation)
    unfold = dict(dilation=dilation, padding=padding, stride=stride)
    patches = torch.nn.functional.unfold(x.codes.float(), kernel, **unfold)  # (N, channel * taps, positions)
    patches = patches.reshape(5, 40, kernel * kernel, -1).transpose(1, 2).reshape(5, 40 * kernel * kernel, -1)
    a = lns_sim.LNSTensor(patches.to(torch.uint8).mT, x.scale, FMT)
    b = lns_sim.LNSTensor(w.codes.permute(2, 3, 1, 0).reshape(-1, outputs), w.scale, FMT)
    assert torch.equal(y, everywhere(lns_sim.matmul, a, b).mT.reshape(y.shape))
    # Gradients of the same layer, from the same products with the roles exchanged.
    dy = random_codes(tuple(y.shape), FMT, rng)
    where = geometry((stride,) * 2, (padding,) * 2, (dilation,) * 2, 1)
    tail = (*where, Datapath().encode(), False, False)
    dw, _ = everywhere(ops.conv2d_weight_gradient, dy.codes, dy.scale, x.codes, x.scale, 8, 8, [kernel, kernel], *tail)
    left = lns_sim.LNSTensor(dy.codes.transpose(0, 1).reshape(outputs, -1), dy.scale, FMT)
    right = lns_sim.LNSTensor(a.codes.reshape(-1, 40 * kernel * kernel), a.scale, FMT)
    expected = everywhere(lns_sim.matmul, left, right).reshape(outputs, kernel, kernel, 40).permute(0, 3, 1, 2)
    assert torch.equal(dw, expected)
    # An input gradient: each dx is a product of the codes that dy shows through the taps, gathered here by unfolding
    # dy spread out by the stride.
    dx, _ = everywhere(ops.conv2d_input_gradient, dy.codes, dy.scale, w.codes, w.scale, 8, 8, list(x.shape), *tail)
    reach = dilation * (kernel - 1)
    spread = torch.zeros(5, outputs, 16 + 2 * padding - reach, 16 + 2 * padding - reach)
    spread[:, :, : y.shape[2] * stride : stride, : y.shape[3] * stride : stride] = dy.codes.float()
    seen = torch.nn.functional.unfold(torch.nn.functional.pad(spread, (reach,) * 4), kernel, dilation=dilation)
    side = 16 + 2 * padding
    seen = seen.reshape(5, outputs, kernel * kernel, side, side)[
        ..., padding : padding + 16, padding : padding + 16
    ].flip(2)
    a = lns_sim.LNSTensor(
        seen.permute(0, 3, 4, 2, 1).reshape(-1, kernel * kernel * outputs).to(torch.uint8), dy.scale, FMT
    )
    b = lns_sim.LNSTensor(w.codes.permute(2, 3, 0, 1).reshape(-1, 40), w.scale, FMT)
    expected = everywhere(lns_sim.matmul, a, b).reshape(5, 16, 16, 40).permute(0, 3, 1, 2)
    assert torch.equal(dx, expected)


def test_scales_per_image_and_per_output_channel(rng):
    x = lns_sim.quantize(torch.randn(3, 4, 5, 5) * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1, 1), dim=0)
    w = lns_sim.quantize(torch.randn(6, 2, 3, 3) * torch.logspace(-3, 2, 6).view(6, 1, 1, 1), dim=0)
    y = everywhere(lns_sim.conv2d, x, w, padding=1, groups=2)
    assert same_bits(y, reference.conv2d(to_reference(x), to_reference(w), 1, 1, 1, 2, Datapath()))


def test_counters_of_a_convolution(rng):
    x, w = random_codes((2, 3, 6, 6), FMT, rng, zeros=0.3), random_codes((4, 3, 3, 3), FMT, rng)
    y, counters = everywhere(lns_sim.conv2d, x, w, padding=1, counters=True)
    patches = torch.nn.functional.unfold(x.codes.float(), 3, padding=1).to(torch.int64) & 127  # (2, 27, 36)
    weights = w.codes.reshape(4, 27).to(torch.int64) & 127
    pairs = (patches[:, None] > 0) & (weights[None, :, :, None] > 0)
    small = (patches[:, None] + weights[None, :, :, None]) < 8 * 14
    assert counters.macs == y.numel() * 27 and counters.vectors == y.numel()
    assert counters.zero_lanes == (~pairs).sum() and counters.vanished == (pairs & small).sum()


def test_non_contiguous_and_empty(rng):
    x, w = random_codes((2, 4, 6, 5), FMT, rng), random_codes((3, 4, 3, 3), FMT, rng)
    expected = everywhere(lns_sim.conv2d, x, w)
    channels_last = lns_sim.LNSTensor(x.codes.to(memory_format=torch.channels_last), x.scale, FMT)
    assert torch.equal(everywhere(lns_sim.conv2d, channels_last, w), expected)
    assert everywhere(lns_sim.conv2d, x[:0], w).shape == (0, 3, 4, 3)
