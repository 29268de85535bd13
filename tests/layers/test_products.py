"""Products of computed tensors, and layers beside Linear and Conv2d: values and gradients equal the reference's."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from agreement import reference_weight, rounded
from helpers import same_bits
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSFormat, recipes, reference
from lns_sim.registry import RECIPES

R = recipes.lns_madam()
FMT = LNSFormat()


def codes(x):
    return reference.quantize(x.detach().cpu().numpy(), FMT)


def moved(q, function):
    return function(q[0]), q[1]


def multiply(a, b):
    return reference.matmul(a, b, Datapath())


def turned(q):
    return moved(q, lambda c: np.swapaxes(c, -1, -2))


def test_a_product_of_computed_tensors(device):
    torch.manual_seed(0)
    a, b = (
        torch.randn(2, 3, 5, 40, device=device, requires_grad=True),
        torch.randn(2, 3, 40, 7, device=device, requires_grad=True),
    )
    with lns_sim.simulate(R):
        y = a @ b
    dy = torch.randn_like(y)
    y.backward(dy)
    qa, qb, qe = codes(a), codes(b), codes(dy)
    assert same_bits(y.detach().cpu(), multiply(qa, qb))
    assert same_bits(a.grad.cpu(), multiply(qe, turned(qb)))
    assert same_bits(b.grad.cpu(), np.swapaxes(multiply(turned(qe), qa), -1, -2))


def test_a_shared_right_operand_is_one_product():
    a, b = torch.randn(2, 3, 40), torch.randn(40, 7, requires_grad=True)
    with lns_sim.simulate(R):
        y = a @ b
    dy = torch.randn_like(y)
    y.backward(dy)
    qa, qe = moved(codes(a), lambda c: c.reshape(6, 40)), moved(codes(dy), lambda c: c.reshape(6, 7))
    assert same_bits(b.grad, multiply(turned(qe), qa).T)


def test_every_way_to_write_a_product():
    a, b, v = torch.randn(4, 6), torch.randn(6, 5), torch.randn(6)
    expected = torch.from_numpy(multiply(codes(a), codes(b)))
    batch = torch.randn(3, 4, 6), torch.randn(3, 6, 5)
    batched = torch.from_numpy(multiply(*map(codes, batch)))
    with lns_sim.simulate(R):
        for got in (
            a @ b,
            torch.mm(a, b),
            a.matmul(b),
            F.linear(a, b.t()),
            torch.einsum("ik,kj", a, b),
            torch.einsum("ki,kj->ij", a.t(), b),
            torch.tensordot(a, b, 1),
            torch.addmm(torch.zeros(5), a, b),
            torch.einsum("ij,jk,k->ik", a, b, torch.ones(5)),
        ):
            assert torch.equal(got, expected)
        assert torch.equal(torch.bmm(*batch), batched)
        assert torch.equal(torch.einsum("...ik,...kj->...ij", *batch), batched)
        assert torch.equal(torch.baddbmm(torch.ones(1), *batch, beta=2, alpha=0.5), 0.5 * batched + 2)
        assert torch.equal(a @ v, (a @ v[:, None])[:, 0]) and torch.equal(v @ b, (v[None] @ b)[0])
        assert (v @ v).shape == ()


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 4, 5)]),
        ("bij,jk->ibk", [(2, 3, 4), (4, 5)]),
        ("i,i", [(7,), (7,)]),
        ("abc,bcd->ad", [(2, 3, 4), (3, 4, 5)]),
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)]),
        ("iij,jk->ik", [(3, 3, 4), (4, 5)]),
        ("abx,bc->ac", [(2, 3, 4), (3, 5)]),
        ("...a,ab->b...", [(2, 3, 4), (4, 5)]),
    ],
)
def test_einsum_sums_what_torch_sums(equation, shapes):
    """Whole numbers of one code: then a product on the datapath is exact."""
    operands = [2.0 ** torch.randint(0, 3, shape) for shape in shapes]
    with lns_sim.simulate(R), lns_sim.count() as totals:
        got = torch.einsum(equation, *operands)
    expected = torch.einsum(equation, *operands)
    assert got.shape == expected.shape and "forward" in totals
    # Intermediate results have several bits, so chains round.
    assert (
        torch.equal(got, expected)
        if len(shapes) == 2 and "x" not in equation
        else torch.allclose(got, expected, rtol=0.1)
    )


def test_what_is_no_dot_product_stays_in_float32():
    a, b, n = torch.randn(4, 1), torch.randn(1, 5), torch.arange(6).reshape(2, 3)
    with lns_sim.simulate(R), lns_sim.count() as totals:
        assert torch.equal(a @ b, a * b)
        assert torch.equal(torch.einsum("ij,ij->ij", a, a), a * a)
        assert torch.equal(n @ n.t(), torch.tensor([[5, 14], [14, 50]]))
    assert totals == {}


def test_errors():
    a = torch.randn(4, 4)
    with lns_sim.simulate(R):
        with pytest.raises(ValueError, match="must be float32, got torch.float64"):
            a @ a.double()
        for refused in (
            lambda: torch.dot(a[0], a[0]),
            lambda: a.clone().addmm_(a, a),
            lambda: torch.linalg.multi_dot([a, a, a]),
        ):
            with pytest.raises(NotImplementedError, match="matmul or einsum"):
                refused()
        with pytest.raises(ValueError, match="last but one"):
            a @ torch.randn(3, 4)
        with pytest.raises(RuntimeError, match="more operands were provided"):
            torch.einsum("ij->i", a, a)
    with pytest.raises(ValueError, match="did you mean 'lns-madam'"), lns_sim.simulate("lns-adam"):
        pass
    with pytest.raises(ValueError, match="rng"), lns_sim.simulate(recipes.lns_madam(stochastic_gradients=True)):
        a @ a


def test_a_simulation_compiles():
    def f(a, b):
        with lns_sim.simulate(R):
            return torch.relu(a @ b) @ b

    a, b = torch.randn(5, 6), torch.randn(6, 6)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(a, b), f(a, b))


def test_no_simulation_no_change():
    a = torch.randn(4, 4)
    with lns_sim.simulate(None), lns_sim.count() as totals:
        assert totals == {}
        a @ a
    assert totals == {}


# ---- Attention


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(is_causal=True),
        dict(scale=0.3),
        dict(attn_mask=torch.randn(5, 6)),
        dict(attn_mask=torch.rand(2, 1, 5, 6) > 0.4),
    ],
)
def test_attention_multiplies_twice_on_the_datapath(options):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 6, 8), torch.randn(2, 4, 6, 8)
    with lns_sim.simulate(R), lns_sim.count() as totals:
        got = F.scaled_dot_product_attention(q, k, v, **options)
    assert totals["forward"].macs == 2 * 2 * 4 * 5 * 6 * 8
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    assert (got - expected).norm() < 0.06 * expected.norm()
    scores = torch.from_numpy(multiply(codes(q), turned(codes(k)))) * options.get("scale", 8**-0.5)
    if "is_causal" not in options:
        mask = options.get("attn_mask", torch.zeros(()))
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        assert same_bits(got, multiply(codes(torch.softmax(scores, -1).nan_to_num()), codes(v)))


def test_attention_with_fewer_key_heads_and_a_masked_row():
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    with lns_sim.simulate(R):
        got = F.scaled_dot_product_attention(q, k, k, attn_mask=mask, enable_gqa=True)
        wide = k.repeat_interleave(2, 1)
        assert torch.equal(got, F.scaled_dot_product_attention(q, wide, wide, attn_mask=mask))
    assert (got[:, :, 1] == 0).all()


@pytest.mark.parametrize(
    "options",
    [{}, dict(bias=False), dict(kdim=12, vdim=20), dict(add_bias_kv=True, add_zero_attn=True), dict(batch_first=True)],
)
def test_multi_head_attention(options):
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(32, 4, **options)
    model = lns_sim.convert(copy.deepcopy(plain), "lns-madam")
    q, k, v = (
        torch.randn(5, 3, 32),
        torch.randn(7, 3, options.get("kdim", 32)),
        torch.randn(7, 3, options.get("vdim", 32)),
    )
    if "batch_first" in options:
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    masks = dict(attn_mask=torch.rand(5, 7) > 0.8, key_padding_mask=torch.arange(7).expand(3, 7) > 5)
    with lns_sim.count() as totals:
        got, weights = model(q, k, v, **masks)
    expected, expected_weights = plain(q, k, v, **masks)
    for a, b in ((got, expected), (weights, expected_weights)):
        assert a.shape == b.shape and (a - b).norm() < 0.12 * b.norm()
    sources = 7 + 2 * ("add_bias_kv" in options)
    assert totals["forward"].macs == 3 * (2 * 5 * 32 * 32 + 7 * 32 * (k.shape[-1] + v.shape[-1]) + 2 * 5 * sources * 32)
    got.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    alone = (
        model(q[0], k[0], v[0], need_weights=False) if "batch_first" in options else model(q[:, 0], k[:, 0], v[:, 0])
    )
    assert alone[0].shape == (5, 32)


# ---- Layers


@pytest.mark.parametrize(
    "stride, padding, dilation, output_padding", [(2, 1, 1, 1), (1, 0, 2, 1), (2, 1, 3, 2), (1, 2, 4, (3, 0))]
)
def test_transposed_convolution_exchanges_the_passes(stride, padding, dilation, output_padding, device):
    torch.manual_seed(1)
    layer = nn.ConvTranspose2d(6, 4, 3, stride, padding, output_padding, groups=2, dilation=dilation)
    shape = layer(torch.zeros(2, 6, 4, 5)).shape
    layer = lns_sim.convert(layer, R).to(device)
    x = torch.randn(2, 6, 4, 5, device=device, requires_grad=True)
    y = layer(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    where = (stride, padding, dilation, 2)
    w, qx, qe = reference_weight(layer.weight), codes(x), codes(dy)
    # Whole strides of output padding: positions of the convolution beyond x's, which hold zeros.
    beyond = [n // stride for n in np.broadcast_to(output_padding, 2)]
    qx = moved(qx, lambda c: np.pad(c, [(0, 0), (0, 0), *((0, n) for n in beyond)]))
    expected = reference.conv2d_input_gradient(qx, w, tuple(y.shape), *where, Datapath())
    assert y.shape == shape
    assert same_bits(y.detach().cpu(), (torch.from_numpy(expected) + layer.bias.cpu().view(-1, 1, 1)).detach())
    assert same_bits(x.grad.cpu(), reference.conv2d(qe, w, *where, Datapath())[:, :, :4, :5])
    dw = reference.conv2d_weight_gradient(qx, qe, (3, 3), *where, Datapath())
    assert same_bits(layer.weight.grad.cpu(), rounded(dw, layer.weight))


@pytest.mark.parametrize("recipe", [name for name in RECIPES if recipes.get(name) is not None])
@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: nn.ConvTranspose1d(4, 6, 3, 2, output_padding=3, dilation=4, groups=2), (3, 4, 9)),
        (lambda: nn.ConvTranspose2d(4, 6, 3, (1, 2), output_padding=(2, 4), dilation=(3, 5)), (3, 4, 5, 4)),
        (lambda: nn.ConvTranspose3d(4, 6, 2, (1, 2, 1), output_padding=(1, 3, 2), dilation=4), (3, 4, 3, 4, 3)),
    ],
)
def test_output_padding_of_whole_strides(make, shape, recipe):
    torch.manual_seed(4)
    plain = make()
    results = []
    for layer in (plain, lns_sim.convert(copy.deepcopy(plain), recipe)):
        torch.manual_seed(5)
        x = torch.randn(shape, requires_grad=True)
        y = layer(x)
        torch.manual_seed(6)  # stochastic recipes have drawn
        y.backward(torch.randn_like(y))
        results.append((y.detach(), x.grad, layer.weight.grad))
    for expected, got in zip(*results):
        assert got.shape == expected.shape and (got - expected).norm() < 0.5 * expected.norm()


def patches(c, kernel, stride, padding, dilation):
    """(N * positions, kh * kw * kd * C) of (N, C, D, H, W), the taps in the order of a dot product."""
    c = np.pad(c, [(0, 0), (0, 0)] + [(p, p) for p in padding])
    out = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(c.shape[2:], kernel, stride, dilation)]
    taps = []
    for i in range(kernel[1]):
        for j in range(kernel[2]):
            for t in range(kernel[0]):
                at = [slice(o * d, o * d + s * (n - 1) + 1, s) for o, d, s, n in zip((t, i, j), dilation, stride, out)]
                taps.append(c[(slice(None), slice(None), *at)])
    stacked = np.stack(taps, -1)  # N, C, out..., taps
    return np.moveaxis(stacked, 1, -1).reshape(-1, stacked.shape[-1] * stacked.shape[1]), out


@pytest.mark.parametrize(
    "stride, padding, dilation",
    [((1, 1, 1), (0, 0, 0), (1, 1, 1)), ((2, 1, 2), (1, 0, 1), (1, 2, 1)), ((1, 2, 1), (2, 1, 0), (2, 1, 1))],
)
def test_conv3d(stride, padding, dilation, device):
    torch.manual_seed(2)
    kernel = (2, 3, 2)
    layer = lns_sim.convert(nn.Conv3d(3, 4, kernel, stride, padding, dilation, bias=False), R).to(device)
    x = torch.randn(2, 3, 5, 7, 6, device=device, requires_grad=True)
    y = layer(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    (w, k_w), (c, k_x), (e, k_e) = reference_weight(layer.weight), codes(x), codes(dy)
    rows, out = patches(c, kernel, stride, padding, dilation)
    columns = np.transpose(w, (3, 4, 2, 1, 0)).reshape(-1, 4)
    expected = multiply((rows, k_x), (columns, k_w)).reshape(2, *out, 4)
    assert same_bits(y.detach().cpu(), np.ascontiguousarray(np.moveaxis(expected, -1, 1)))
    errors = np.moveaxis(e, 1, 0).reshape(4, -1)  # (O, positions)
    dw = multiply((errors, k_e), (rows, k_x)).reshape(4, 3, 2, 2, 3).transpose(0, 4, 3, 1, 2)
    assert same_bits(layer.weight.grad.cpu(), rounded(np.ascontiguousarray(dw), layer.weight))
    rows = seen_from(e, tuple(x.shape[2:]), kernel, stride, padding, dilation)
    columns = np.transpose(w, (3, 4, 2, 0, 1)).reshape(-1, 3)
    dx = multiply((rows, k_e), (columns, k_w)).reshape(2, 5, 7, 6, 3)
    assert same_bits(x.grad.cpu(), np.ascontiguousarray(np.moveaxis(dx, -1, 1)))


def seen_from(e, size, kernel, stride, padding, dilation):
    """What every input element meets of the output gradient (N, O, D, H, W): (N * elements, kh * kw * kd * O)."""

    def at(i, tap, d):
        p, rest = divmod(i + padding[d] - tap * dilation[d], stride[d])
        return p if rest == 0 and 0 <= p < e.shape[2 + d] else None

    rows = np.zeros((len(e), *size, kernel[1], kernel[2], kernel[0], e.shape[1]), dtype=e.dtype)
    for z, y, x, i, j, t in np.ndindex(*size, kernel[1], kernel[2], kernel[0]):
        place = at(z, t, 0), at(y, i, 1), at(x, j, 2)
        if None not in place:
            rows[:, z, y, x, i, j, t] = e[(slice(None), slice(None), *place)]
    return rows.reshape(len(e) * np.prod(size), -1)


def test_conv3d_of_one_slice_is_conv2d():
    torch.manual_seed(3)
    flat = lns_sim.convert(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), R)
    deep = copy.deepcopy(flat)
    weight, x = flat.weight.unsqueeze(2), torch.randn(2, 4, 7, 6, requires_grad=True)
    y = F.conv3d(x.unsqueeze(2), deep.weight.unsqueeze(2), deep.bias, (1, 2, 2), (0, 1, 1), groups=2)
    assert weight.shape[2] == 1 and torch.equal(y.squeeze(2), flat(x))
    dy = torch.randn_like(y)
    a = torch.autograd.grad(y, (x, deep.weight), dy)
    b = torch.autograd.grad(flat(x), (x, flat.weight), dy.squeeze(2))
    assert all(torch.equal(*pair) for pair in zip(a, b))


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: nn.Conv3d(4, 6, 3, padding=1, stride=(1, 2, 1), groups=2), (2, 4, 5, 6, 5)),
        (lambda: nn.ConvTranspose3d(4, 6, 3, stride=2, padding=1, output_padding=(1, 0, 1), groups=2), (2, 4, 3, 4, 3)),
        (lambda: nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), (2, 4, 9)),
        (lambda: nn.ConvTranspose2d(4, 6, 3, dilation=2), (4, 5, 5)),
    ],
)
def test_every_pass_is_near_torch(make, shape):
    torch.manual_seed(4)
    plain = make()
    results = []
    for layer in (
        plain,
        lns_sim.convert(copy.deepcopy(plain), R),
        lns_sim.convert(copy.deepcopy(plain), recipes.lns_madam_fake_quant()),
    ):
        torch.manual_seed(5)
        x = torch.randn(shape, requires_grad=True)
        y = layer(x)
        y.backward(torch.randn_like(y))
        results.append((y.detach(), x.grad, layer.weight.grad))
    for expected, exact, fake in zip(*results):
        assert exact.shape == expected.shape and (exact - expected).norm() < 0.08 * expected.norm()
        assert (exact - fake).norm() < 0.05 * fake.norm()


def test_embedding_looks_codes_up(device):
    torch.manual_seed(6)
    layer = lns_sim.convert(nn.Embedding(9, 6, padding_idx=2), R).to(device)
    at = torch.tensor([[1, 2, 1], [8, 0, 1]], device=device)
    y = layer(at)
    assert torch.equal(y, layer.weight.forward_codes().dequantize()[at])
    dy = torch.randn_like(y)
    y.backward(dy)
    plain = nn.Embedding(9, 6, padding_idx=2).to(device)
    plain(at).backward(dy)
    assert same_bits(layer.weight.grad.cpu(), rounded(plain.weight.grad.cpu().numpy(), layer.weight))
    with pytest.raises(ValueError, match="max_norm"):
        F.embedding(at, layer.weight, max_norm=1.0)
