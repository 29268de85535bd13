"""Training with block scales: every pass' codes are quantized along its own K, and multiply as the reference says."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import everywhere, same_bits
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSFormat, recipes, reference
from lns_sim import reference_blocks as blocks
from lns_sim.ops import block_convolution
from lns_sim.ops.sides import Side
from lns_sim.quantizers import LNS, SAWB

R = recipes.lns_madam_blocks()
NARROW = recipes.lns_madam_blocks(4, datapath=Datapath(LNSFormat(4, 1), vector_size=16), block=16)


def quantized(t, r, dim, rng=None, stream=0):
    seeds = {} if rng is None else dict(seed=rng[0], step=rng[1], tensor_id=rng[2] + stream)
    q = r.activation if rng is None else r.error
    policies = dict(rounding=q.rounding, underflow=q.underflow)
    return blocks.quantize(t.detach().cpu().numpy(), q.format, dim, r.block, **policies, **seeds)


def forward_codes(w, r, dim):
    codes = w.codes.cpu().numpy().astype(np.int64) & 0xFFFF
    return blocks.forward_codes(codes, int(w.k), r.update, r.weight, dim, r.block)


def turned(q):
    return q[0].T, q[1], q[2].T


def rounded(dw, r):
    f = r.gradient.format
    return reference.dequantize(*reference.quantize(dw, f), f)


def numbers(*shape, device="cpu"):
    spread = torch.exp2(torch.randint(-6, 1, shape).float())
    return (torch.randn(shape) * spread).to(device).requires_grad_()


@pytest.mark.parametrize("recipe", [R, NARROW], ids=lambda r: r.name)
def test_linear(recipe, device):
    torch.manual_seed(0)
    layer = lns_sim.convert(nn.Linear(70, 40, bias=False), recipe).to(device)
    x, w, d = numbers(5, 9, 70, device=device), layer.weight, recipe.forward
    y = layer(x)
    dy = numbers(5, 9, 40, device=device).detach()
    y.backward(dy)
    rows, errors = x.reshape(45, 70), dy.reshape(45, 40)
    a, e = (lambda dim: quantized(rows, recipe, dim)), (lambda dim: quantized(errors, recipe, dim))
    expected = blocks.matmul(a(1), turned(forward_codes(w, recipe, 1)), d, recipe.block)
    assert same_bits(y.detach().cpu().reshape(45, 40), expected)
    expected = blocks.matmul(e(1), forward_codes(w, recipe, 0), d, recipe.block)
    assert same_bits(x.grad.cpu().reshape(45, 70), expected)
    assert same_bits(w.grad.cpu(), rounded(blocks.matmul(turned(e(0)), a(0), d, recipe.block), recipe))


@pytest.mark.parametrize(
    "stride, padding, dilation, kernel, images",
    [(1, 1, 1, 3, 2), (2, 1, 1, 3, 3), (1, 0, 1, 1, 3), (2, 0, 1, 1, 3), (1, 2, 2, 2, 2), (1, 1, 1, 3, 9)],
)
def test_convolutions(stride, padding, dilation, kernel, images, device):
    """Channels and images are no whole blocks."""
    torch.manual_seed(1)
    r = NARROW if kernel == 2 else R
    layer = lns_sim.convert(nn.Conv2d(6, 5, kernel, stride, padding, dilation, bias=False), r).to(device)
    x, w = numbers(images, 6, 4, 5, device=device), layer.weight
    y = layer(x)
    dy = numbers(*y.shape, device=device).detach()
    y.backward(dy)
    geometry = stride, padding, dilation
    d, b = r.forward, r.block
    expected = blocks.conv2d(quantized(x, r, 1), forward_codes(w, r, 1), *geometry, d, b)
    assert same_bits(y.detach().cpu(), expected)
    d = r.input_gradient
    expected = blocks.conv2d_input_gradient(quantized(dy, r, 1), forward_codes(w, r, 0), x.shape, *geometry, d, b)
    assert same_bits(x.grad.cpu(), expected)
    d = r.weight_gradient
    dw = blocks.conv2d_weight_gradient(quantized(dy, r, 0), quantized(x, r, 0), (kernel, kernel), *geometry, d, b)
    assert same_bits(w.grad.cpu(), rounded(dw, r))


@pytest.mark.parametrize(
    "n, block, vector, lanes, wanted",
    [
        (3, 32, 32, 4, (4, 4)),
        (16, 32, 32, 16, (16, 16)),
        (29, 30, 30, 30, (30, 30)),
        (5, 14, 7, 7, (7, 7)),
        (6, 30, 10, 8, (8, 8)),
        (40, 128, 32, 64, (64, 32)),
        (64, 128, 32, 64, (64, 32)),
        (32, 32, 16, 32, (32, 16)),
        (40, 32, 32, 64, (32, 32)),
    ],
)
def test_few_channels_leave_out_lanes_that_fill_blocks_up(n, block, vector, lanes, wanted):
    """Where a group has but one block: the same bits in fewer lanes, and in vectors as short."""
    torch.manual_seed(4)
    d = Datapath(vector_size=vector, acc_bits=18)
    r = recipes.lns_madam_blocks(datapath=d, block=block)
    x, w = numbers(2, n, 3, 3), numbers(2, n, 2, 2)
    a, b = (block_convolution.channels(Side(t.detach(), "activation", r, None, None), 1, 1) for t in (x, w))
    left, right, encoded, filling = block_convolution.whole_blocks(a, b, d.encode())
    assert left.codes.shape[1] == right.codes.shape[1] == lanes == n + filling.lanes
    assert left.block == right.block and (left.block, encoded[2]) == wanted
    y, _ = torch.ops.lns_sim.conv2d(
        left.codes, left.scale, right.codes, right.scale, 8, 8, [1, 1], [0, 0], [1, 1], 1, encoded, False, False, 0, 0,
        left.shifts, right.shifts, left.block,
    )  # fmt: skip
    assert same_bits(y, blocks.conv2d(quantized(x, r, 1), quantized(w, r, 1), 1, 0, 1, d, block))


@pytest.mark.parametrize("shape, padding", [((70, 3, 5, 7), (0, 0)), ((33, 5, 8, 9), (1, 2)), ((2, 40, 1, 1), (0, 1))])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_images_become_fastest(shape, padding, dtype):
    t = torch.randint(256, shape).to(dtype)
    found = everywhere(block_convolution.images_fastest, t, padding)
    assert torch.equal(found, nn.functional.pad(t, (padding[1], padding[1], padding[0], padding[0])))
    assert found.permute(2, 1, 3, 0).is_contiguous()


def test_groups_are_layers_of_their_own():
    torch.manual_seed(2)
    whole = lns_sim.convert(nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=False), R)
    x = numbers(3, 6, 5, 5)
    x.data[:, 0, 0, 0] = x.data[:, 3, 0, 0] = 2.0**4  # one scale for both halves, and for all of it
    dy = torch.randn(3, 4, 5, 5)
    dy[0, 0, 0, 0] = dy[0, 2, 0, 0] = 16
    whole(x).backward(dy)
    found = torch.zeros_like(x)
    for i in range(2):
        half = lns_sim.convert(nn.Conv2d(3, 2, 3, padding=1, bias=False), replace(R, gradient=None))
        w = whole.weight.detach()[2 * i : 2 * i + 2]
        half.weight.data.codes.copy_(w.codes)
        half.weight.data.scale.copy_(w.scale)
        part = x.detach()[:, 3 * i : 3 * i + 3].requires_grad_()
        half(part).backward(dy[:, 2 * i : 2 * i + 2])
        found[:, 3 * i : 3 * i + 3] = part.grad
    assert torch.equal(found, x.grad)


def test_three_dimensions_of_one_slice_are_two():
    torch.manual_seed(3)
    flat = nn.Conv2d(5, 6, 3, 2, 1, bias=False)
    deep = nn.Conv3d(5, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
    deep.weight.data.copy_(flat.weight.data[:, :, None])
    flat, deep = lns_sim.convert(flat, R), lns_sim.convert(deep, R)
    x = numbers(3, 5, 7, 6)
    z = x.detach()[:, :, None].requires_grad_()
    y, v = flat(x), deep(z)
    dy = torch.randn_like(y)
    y.backward(dy)
    v.backward(dy[:, :, None])
    assert torch.equal(y, v[:, :, 0]) and torch.equal(x.grad, z.grad[:, :, 0])
    assert torch.equal(flat.weight.grad, deep.weight.grad[:, :, 0])


def test_products_of_computed_tensors_as_in_attention(device):
    torch.manual_seed(4)
    a, b = numbers(2, 5, 50, device=device), numbers(2, 50, 37, device=device)
    with lns_sim.simulate(R):
        y = a @ b
    e = torch.randn_like(y)
    y.backward(e)
    pairs = [(a[i].detach(), b[i].detach(), e[i]) for i in range(2)]
    scale = lambda t: t.abs().amax()  # noqa: E731
    for t in (a, b, e):  # the reference takes a matrix at a time: one scale for both
        assert abs(np.log2(scale(t[0]).item() / scale(t[1]).item())) < 3
    whole = {}
    for name, t in (("a", a), ("b", b), ("e", e)):
        for dim in (-1, -2):
            codes, k, shifts = quantized(t, R, dim)
            whole[name, dim] = [(codes[i], k, shifts[i]) for i in range(2)]
    d = R.forward
    for i, _ in enumerate(pairs):
        expected = blocks.matmul(whole["a", -1][i], whole["b", -2][i], d, 32)
        assert same_bits(y[i].detach().cpu(), expected)
        expected = blocks.matmul(whole["e", -1][i], turned(whole["b", -1][i]), d, 32)
        assert same_bits(a.grad[i].cpu(), expected)
        expected = blocks.matmul(turned(whole["e", -2][i]), whole["a", -2][i], d, 32)
        assert same_bits(b.grad[i].cpu(), expected.T)


def test_random_bits_are_those_of_the_elements():
    """Both codes of an error draw an element's own bits."""
    torch.manual_seed(5)
    r = recipes.lns_madam_blocks(stochastic_gradients=True, seed=9)
    layer = lns_sim.convert(nn.Linear(40, 35, bias=False), replace(r, gradient=None))
    x, dy = numbers(33, 40), torch.randn(33, 35)
    layer(x).backward(dy)
    rng = layer.weight.rng.tolist()
    expected = blocks.matmul(quantized(dy, r, 1, rng, 1), forward_codes(layer.weight, r, 0), r.forward, 32)
    assert same_bits(x.grad, expected)
    right = blocks.quantize(x.detach().numpy(), r.activation.format, 0, 32)
    assert same_bits(layer.weight.grad, blocks.matmul(turned(quantized(dy, r, 0, rng, 1)), right, r.forward, 32))


def test_fake_quant_multiplies_the_values_of_the_same_codes():
    torch.manual_seed(6)
    fake = lns_sim.convert(nn.Linear(70, 40, bias=False), recipes.fake_quant(R))
    x = numbers(9, 70)
    y = fake(x)
    dy = torch.randn_like(y)
    y.backward(dy)

    def value(q, dim, f=LNSFormat()):
        return torch.from_numpy(blocks.dequantize(*q, dim, 32, f))

    w = fake.weight
    close = dict(rtol=1e-5, atol=1e-6)  # float32 sums in another order
    torch.testing.assert_close(y, value(quantized(x, R, 1), 1) @ value(forward_codes(w, R, 1), 1).T, **close)
    torch.testing.assert_close(x.grad, value(quantized(dy, R, 1), 1) @ value(forward_codes(w, R, 0), 0), **close)


def test_grouped_products():
    torch.manual_seed(7)
    a, b = numbers(9, 40), numbers(3, 40, 7)
    ends = torch.tensor([4, 4, 9], dtype=torch.int32)
    with lns_sim.simulate(R):
        y = torch._grouped_mm(a, b, ends)
        y.sum().backward()
        parts = [a.detach()[rows].requires_grad_() for rows in (slice(0, 4), slice(4, 9))]
        own = [b.detach()[i].requires_grad_() for i in (0, 2)]
        expected = torch.cat([p @ m for p, m in zip(parts, own)])
        expected.sum().backward()
    assert torch.equal(y, expected) and torch.equal(a.grad, torch.cat([p.grad for p in parts]))
    assert torch.equal(b.grad[0], own[0].grad) and torch.equal(b.grad[2], own[1].grad)


def test_counters_leave_out_what_fills_blocks_up():
    torch.manual_seed(8)
    layer = lns_sim.convert(nn.Conv2d(3, 4, 3, padding=1, bias=False), R)
    x = torch.rand(2, 3, 6, 6) + 0.5
    with lns_sim.count() as totals:
        layer(x.requires_grad_()).backward(torch.rand(2, 4, 6, 6) + 0.5)
    inside = torch.nn.functional.conv2d(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3), padding=1).sum().item()
    outside = int(9 * 36 - inside)  # taps in the padding
    assert len(totals) == 3
    for total in totals.values():
        assert total.macs == 2 * 36 * 4 * 27 and total.zero_lanes == 2 * 4 * 3 * outside


def test_counters_hold_the_vectors_of_hardware():
    """Which walks whole blocks: four vectors a tap, whatever is left out here."""
    r = recipes.lns_madam_blocks(block=128)
    layer = lns_sim.convert(nn.Conv2d(40, 3, 2, bias=False), r)
    with lns_sim.count() as totals:
        layer(torch.rand(2, 40, 3, 3).requires_grad_()).sum().backward()
    outputs = {"forward": 2 * 3 * 4, "input_gradient": 2 * 40 * 9, "weight_gradient": 3 * 40 * 4}
    assert {name: total.vectors for name, total in totals.items()} == {n: 4 * 4 * k for n, k in outputs.items()}


def test_models_compile_copy_and_save(tmp_path):
    torch.manual_seed(9)
    net = lns_sim.convert(nn.Sequential(nn.Linear(40, 33), nn.ReLU(), nn.Linear(33, 5)), R)
    x = torch.randn(6, 40)
    net(x).sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    y = torch.compile(net, backend="aot_eager")(x)
    y.sum().backward()
    assert torch.equal(y, net(x))
    for p, grad in zip(net.parameters(), expected):
        assert torch.equal(p.grad, grad)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = lns_sim.convert(nn.Sequential(nn.Linear(40, 33), nn.ReLU(), nn.Linear(33, 5)), R)
    other.load_state_dict(torch.load(tmp_path / "net.pt"))
    assert torch.equal(other(x), y) and torch.equal(copy.deepcopy(net)(x), y)


def test_recipes_by_name_and_in_files(tmp_path, monkeypatch):
    for name, bits, gamma in (("", 8, 8), ("-4bit", 4, 1), ("-5bit", 5, 2), ("-6bit", 6, 4)):
        r = recipes.get(f"lns-madam-block32{name}")
        assert r.name == f"lns-madam-block32{name}" and r.weight == LNSFormat(bits, gamma) and r.block == 32
        assert ", blocks of 32;" in recipes.describe(r) and r.update == LNSFormat(16, 2048)
        assert recipes.from_plain(recipes.to_plain(r)) == r
        path = tmp_path / "r.toml"
        path.write_text(recipes.dump(r))
        assert recipes.load(path).default == r
    path.write_text('preset = "lns-madam-block32"\n[[override]]\nlayers = "a"\nblock = "none"\n')
    assert recipes.load(path).overrides[0][1].block is None
    path.write_text("block = 48\n")
    with pytest.raises(ValueError, match="blocks of 48 are no multiple of the forward datapath's vector_size = 32"):
        recipes.load(path)
    with pytest.raises(ValueError, match="the activation is quantized by .* which knows no block scales"):
        replace(recipes.fake_quant(R), activation=SAWB())
    layer = lns_sim.convert(nn.Linear(4, 4), R)
    for recipe in (R, replace(R, weight=LNS(), gradient=None)):  # weights as codes, and in float32
        with pytest.raises(ValueError, match="no processing element here has block scales"):
            lns_sim.energy(nn.Linear(4, 4), torch.randn(2, 4), recipe=recipe)
    with pytest.raises(ValueError, match="codes for each pass"):
        layer.weight.forward_codes()
    monkeypatch.setattr(lns_sim.distributed, "batches_are_one", lambda: True)
    with pytest.raises(ValueError, match="block scales are each rank's own"):
        layer(torch.randn(2, 4))


def test_comparison_and_a_tensor_left_in_float32():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    x = torch.randn(4, 3, 8, 8)
    found = lns_sim.compare(net, lambda m: m(x).square().mean(), R)
    assert len(found.rows) == 5 and all(row.datapath > 30 for row in found.rows)
    assert all(0 <= c.clipped < 0.01 for codes in found.codes.values() for c in codes)
    plain = replace(recipes.fake_quant(R), activation=None, error=LNS())
    y = lns_sim.convert(net, plain)(x)
    y.sum().backward()
    assert y.isfinite().all()


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(64, 40), (3, 32, 64)),
        (nn.Conv2d(32, 40, 3, stride=2, padding=1), (32, 32, 6, 6)),
        (nn.ConvTranspose2d(32, 40, 3), (32, 32, 3, 3)),
        (nn.Conv3d(32, 8, 2), (32, 32, 2, 3, 3)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_backward_passes_keep_codes(layer, shape, device):
    """A byte an element and a byte a block, of the weight gradient's K; the tensor itself may change meanwhile."""
    layer = lns_sim.convert(layer, R).to(device)
    x, found = numbers(*shape, device=device), []
    for changed in (False, True):
        kept, y = [], x.detach().clone().requires_grad_()
        seen = y.clone()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            out = layer(seen)
        held = sum(t.numel() * t.element_size() for t in kept if not isinstance(t, lns_sim.LNSTensor))
        assert x.numel() * 33 / 32 <= held < x.numel() * 33 / 32 + 200
        if changed:
            seen.detach().zero_()
        found.append(torch.autograd.grad(out.square().sum(), (y, layer.weight)))
    assert all(map(torch.equal, *found))


def test_products_keep_codes(device):
    a, b = numbers(2, 64, 32, device=device), numbers(2, 32, 96, device=device)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = torch.ops.lns_sim.product(a, b, None, R.encode())[0]
    out.sum().backward()
    assert {t.dtype for t in kept if t.numel() > 1} == {torch.uint8}
    assert sum(t.numel() for t in kept) < 1.05 * (a.numel() + b.numel())
