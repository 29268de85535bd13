"""Converted layers: outputs and all gradients equal the reference's products on the reference's codes."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from agreement import reference_quantize, reference_weight, rounded
from helpers import same_bits
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSFormat, recipes, reference
from lns_sim.quantizers import LNS

RECIPES = {
    "default": recipes.lns_madam(),
    "6 bits": recipes.lns_madam(bits=6, gamma=4, update_bits=12),
    "stochastic": recipes.lns_madam(stochastic_gradients=True, seed=3),
    "a format per pass": dataclasses.replace(
        recipes.lns_madam(),
        error=LNS(LNSFormat(6, 8), underflow="flush"),
        input_gradient=Datapath(lut_entries=2),
        weight_gradient=Datapath(acc_bits=20, rounding="nearest"),
    ),
    "10 bits": recipes.lns_madam(bits=10, gamma=32),
    "narrow forward": dataclasses.replace(
        recipes.lns_madam(bits=5, gamma=8, update_bits=5), update=LNSFormat(16, 2048)
    ),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_linear(recipe, device):
    torch.manual_seed(0)
    layer = lns_sim.convert(nn.Linear(37, 9), recipe).to(device)
    x = torch.randn(4, 5, 37, device=device, requires_grad=True)
    y = layer(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    w, r = layer.weight, recipe
    xq, k_x = reference_quantize(x, r.activation, w, 0)
    wq, k_w = reference_weight(w)
    eq, k_e = reference_quantize(dy.reshape(-1, 9), r.error, w, 1)
    xq = xq.reshape(-1, 37)
    product = reference.matmul((xq, k_x), (wq.T, k_w), r.forward)
    assert same_bits(y.detach().cpu(), (torch.from_numpy(product).reshape(4, 5, 9) + layer.bias.cpu()).detach())
    dx = reference.matmul(*common(((eq, k_e), r.error.format), ((wq, k_w), r.weight), r.input_gradient))
    assert same_bits(x.grad.cpu(), dx.reshape(4, 5, 37))
    dw = reference.matmul(*common(((eq.T, k_e), r.error.format), ((xq, k_x), r.activation.format), r.weight_gradient))
    assert same_bits(w.grad.cpu(), rounded(dw, w))
    assert torch.allclose(layer.bias.grad, dy.sum((0, 1)), atol=1e-6)  # the bias is ordinary float32


def common(a, b, datapath):
    """Codes of fewer bits than the datapath's, with the sign moved to the datapath's place."""

    def moved(tensor, fmt):
        (codes, k) = tensor
        sign, e = reference.decode(codes, fmt)
        return reference.encode(sign < 0, e, datapath.format), k

    return moved(*a), moved(*b), datapath


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize(
    "options", [dict(padding=1), dict(stride=2, groups=2, padding=(0, 2)), dict(dilation=2, padding=2)]
)
def test_conv2d(recipe, options, device):
    torch.manual_seed(1)
    layer = lns_sim.convert(nn.Conv2d(4, 6, 3, **options), recipe).to(device)
    x = torch.randn(2, 4, 7, 6, device=device, requires_grad=True)
    y = layer(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    w, r = layer.weight, recipe
    where = (layer.stride, layer.padding, layer.dilation, layer.groups)
    xq, wq, eq = reference_quantize(x, r.activation, w, 0), reference_weight(w), reference_quantize(dy, r.error, w, 1)
    product = torch.from_numpy(reference.conv2d(xq, wq, *where, r.forward))
    assert same_bits(y.detach().cpu(), (product + layer.bias.cpu().view(-1, 1, 1)).detach())
    a, b, d = common((eq, r.error.format), (wq, r.weight), r.input_gradient)
    assert same_bits(x.grad.cpu(), reference.conv2d_input_gradient(a, b, tuple(x.shape), *where, d))
    a, b, d = common((eq, r.error.format), (xq, r.activation.format), r.weight_gradient)
    assert same_bits(w.grad.cpu(), rounded(reference.conv2d_weight_gradient(a, b, (3, 3), *where, d), w))


def test_conv1d_is_conv2d_of_one_row():
    layer = lns_sim.convert(nn.Conv1d(4, 6, 3, stride=2, padding=1), "lns-madam")
    x = torch.randn(2, 4, 11, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    expected = F.conv2d(x.detach()[:, :, None], layer.weight.unsqueeze(2), layer.bias, (1, 2), (0, 1))
    assert torch.equal(y, expected[:, :, 0]) and layer.weight.grad.shape == (6, 4, 3) and x.grad is not None


def test_padding_by_name_and_mode():
    same = lns_sim.convert(nn.Conv2d(3, 4, 3, padding="same"), "lns-madam")
    x = torch.randn(1, 3, 6, 6)
    assert torch.equal(same(x), F.conv2d(x, same.weight, same.bias, padding=1))
    even = lns_sim.convert(nn.Conv2d(3, 4, (2, 4), dilation=(3, 1), padding="same"), "lns-madam")
    beyond = F.pad(x, (1, 2, 1, 2))  # what is odd goes to the end
    assert torch.equal(even(x), F.conv2d(beyond, even.weight, even.bias, dilation=(3, 1)))
    circular = lns_sim.convert(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), "lns-madam")
    padded = F.pad(x, (1, 1, 1, 1), mode="circular")
    assert torch.equal(circular(x), F.conv2d(padded, circular.weight, circular.bias))


@pytest.mark.parametrize(
    "make, shape",
    [(lambda: nn.Linear(20, 8), (6, 20)), (lambda: nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), (3, 4, 8, 8))],
)
def test_fake_quant_multiplies_the_same_codes_in_float32(make, shape):
    torch.manual_seed(2)
    plain = make()
    exact = lns_sim.convert(copy.deepcopy(plain), "lns-madam")
    fake = lns_sim.convert(plain, "lns-madam-fake-quant")
    x = torch.randn(*shape)
    results = {}
    for name, layer in (("exact", exact), ("fake", fake)):
        xi = x.clone().requires_grad_()
        y = layer(xi)
        y.backward(torch.ones_like(y) * torch.linspace(-1, 1, y.numel()).reshape(y.shape))
        results[name] = (y.detach(), xi.grad, layer.weight.grad)
    assert torch.equal(exact.weight.codes, fake.weight.codes)
    # The fake-quant output is the float product of the very codes.
    value = lns_sim.quantize(x).dequantize()
    w = fake.weight.forward_codes().dequantize()
    expected = F.linear(value, w) if isinstance(plain, nn.Linear) else F.conv2d(value, w, None, 2, 1, 1, 2)
    bias = fake.bias if isinstance(plain, nn.Linear) else fake.bias.view(-1, 1, 1)
    assert torch.allclose(results["fake"][0], (expected + bias).detach(), atol=1e-6)
    # And the datapath computes nearly the same.
    for a, b in zip(results["exact"], results["fake"]):
        assert (a - b).norm() < 0.05 * b.norm()


def test_counting_covers_all_passes_and_only_inside():
    layer = lns_sim.convert(nn.Linear(40, 8), "lns-madam")
    x = torch.randn(6, 40, requires_grad=True)
    with lns_sim.count() as totals:
        layer(x).sum().backward()
    layer(x)
    assert {name: c.macs for name, c in totals.items()} == dict.fromkeys(
        ["forward", "input_gradient", "weight_gradient"], 6 * 40 * 8
    )
    assert totals["forward"].vectors == 6 * 8 * 2


def test_a_nan_reaches_the_loss():
    layer = lns_sim.convert(nn.Linear(8, 8), "lns-madam")
    x = torch.randn(2, 8)
    x[0, 0] = float("nan")
    assert layer(x).isnan().all()
