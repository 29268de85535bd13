"""LNS-Madam on codes against the reference, and the optimizer around it."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import ISAS, everywhere, unsigned
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lns_sim
from lns_sim import LNSFormat, _extension, recipes, reference
from lns_sim.optim import LNSMadam
from lns_sim.optim.lns_madam import weight_cap
from lns_sim.optim.madam import Madam
from lns_sim.optim.signs import smallest_exponent, turn_signs
from lns_sim.tensor import LNSTensor

core = _extension.load()


@given(
    fmt=st.sampled_from([LNSFormat(16, 2048), LNSFormat(10, 32), LNSFormat(8, 8), LNSFormat(12, 128)]),
    lr=st.floats(1e-4, 2.0),
    beta=st.sampled_from([0.0, 0.9, 0.999]),
    t=st.integers(1, 1000),
    bound=st.floats(0.5, 20),
    cap=st.sampled_from([0.0, 0.01, 1.0, 30.0, 1e30]),
    k=st.integers(-20, 3),
    rounding=st.sampled_from(["nearest", "stochastic"]),
    seed=st.integers(0, 2**40),
    scale=st.floats(-30, 30),
)
def test_a_step_equals_the_reference(fmt, lr, beta, t, bound, cap, k, rounding, seed, scale):
    rng = np.random.default_rng(seed)
    n = 67
    codes = rng.integers(0, 1 << fmt.bits, n)
    codes[:3] = [0, 1 << (fmt.bits - 1), 1]
    grad = (rng.standard_normal(n) * 10.0**scale).astype(np.float32)
    grad[3:8] = [0.0, np.inf, np.nan, 1e-45, -1e38]
    v = np.abs(rng.standard_normal(n) * 10.0 ** min(2 * scale, 37)).astype(np.float32) * rng.integers(0, 2, n).astype(
        np.float32
    )
    expected, expected_v = reference.madam_step(
        codes, k, v, grad, t, fmt, lr, beta, bound, cap, rounding, seed, step=t, tensor_id=6
    )
    hyper = torch.tensor([beta, 1 - beta, 1 - beta**t, bound, lr * fmt.gamma], dtype=torch.float64).float()
    state = torch.tensor([seed, t, 6, 0])

    def step(codes, moment, *args):
        codes, moment = codes.clone(), moment.clone()
        torch.ops.lns_sim.madam_step(codes, moment, *args)
        return codes, moment

    for isa in ISAS:
        core.set_isa(isa)
        c, m = everywhere(
            step,
            torch.from_numpy(codes).to(fmt.dtype),
            torch.from_numpy(v.copy()),
            torch.from_numpy(grad),
            torch.tensor(2.0**k),
            torch.tensor(cap),
            hyper,
            fmt.bits,
            fmt.gamma,
            rounding == "stochastic",
            state,
        )
        # A code of -0 may come back as +0.
        np.testing.assert_array_equal(np.where(unsigned(c, fmt) & fmt.e_max, unsigned(c, fmt), 0), expected)
        assert (
            (m.numpy().view(np.uint32) == expected_v.view(np.uint32)) | (np.isnan(m.numpy()) & np.isnan(expected_v))
        ).all()


@pytest.mark.parametrize(
    "forward",
    [LNSFormat(8, 8), LNSFormat(6, 4), LNSFormat(5, 8), LNSFormat(4, 1), LNSFormat(10, 32)],
    ids=lambda f: f"{f.bits}-{f.gamma}",
)
@pytest.mark.parametrize(
    "update", [LNSFormat(16, 2048), LNSFormat(12, 128), LNSFormat(10, 32)], ids=lambda f: f"{f.bits}-{f.gamma}"
)
def test_every_forward_code(forward, update):
    codes = torch.arange(1 << update.bits).to(update.dtype)
    for part in (codes, codes[: 1 << (update.bits - 3)], codes[:1]):  # the largest code decides the scale
        for k in (-126, -14, 5):
            got, scale = everywhere(
                torch.ops.lns_sim.forward_codes,
                part,
                torch.tensor(2.0**k),
                update.bits,
                update.gamma,
                forward.bits,
                forward.gamma,
            )
            expected, k_new = reference.forward_codes(unsigned(part, update), k, update, forward)
            assert scale.item() == 2.0**k_new
            np.testing.assert_array_equal(unsigned(got, forward), expected)


def quadratic(rounding="nearest", **recipe):
    torch.manual_seed(0)
    layer = lns_sim.convert(nn.Linear(30, 20), recipes.lns_madam(**recipe))
    return layer, lns_sim.optim.LNSMadam(layer.parameters(), rounding=rounding, seed=4)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_optimizer_makes_reference_steps(rounding):
    layer, optimizer = quadratic(rounding)
    w = layer.weight
    fmt, k = w.format, int(w.k)
    codes, v = unsigned(w.codes, fmt), np.zeros(w.shape, dtype=np.float32)
    cap = reference.weight_cap(codes, k, fmt, 3.0)
    assert weight_cap(w, 3.0).item() == cap
    for t in range(1, 5):
        x = torch.randn(8, 30)
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        codes, v = reference.madam_step(
            codes, k, v, w.grad.numpy(), t, fmt, cap=cap, rounding=rounding, seed=4, step=t, tensor_id=3
        )
        optimizer.step()
        np.testing.assert_array_equal(unsigned(w.codes, fmt), codes)


@pytest.mark.parametrize("bits, gamma", [(8, 8), (12, 128), (16, 2048)])
def test_signs_turn_below_an_exponent(bits, gamma):
    fmt = LNSFormat(bits, gamma)
    codes = torch.arange(1 << bits).to(fmt.dtype)
    values = fmt.values().double()
    smallest = smallest_exponent(fmt, 2.0**9, 5.0)
    assert smallest == 4 * gamma and smallest_exponent(fmt, math.inf, 5.0) == 1 == smallest_exponent(fmt, 2.0, 9.0)
    turn_signs(LNSTensor(codes, torch.ones(()), fmt), smallest)
    fallen = (values != 0) & (values.abs() < 2.0**4)
    expected = torch.where(fallen, -values.sign() * 2.0**4, values)
    assert torch.equal(fmt.values()[codes.to(torch.int64) & (1 << bits) - 1].double(), expected) and fallen.any()


def test_a_weight_of_the_wrong_sign_turns():
    torch.manual_seed(0)
    target = 0.2 * torch.randn(6, 8)
    errors = {}
    for octaves in (None, 4.0):
        torch.manual_seed(1)
        layer = lns_sim.convert(nn.Linear(8, 6, bias=False), recipes.lns_madam_fake_quant())
        before = layer.weight.dequantize()
        optimizer = LNSMadam(layer.parameters(), lr=1 / 8, p_scale=10.0, turn_below=octaves)
        for _ in range(150):
            optimizer.zero_grad()
            (layer.weight.dequantize() - target).square().sum().backward()
            optimizer.step()
        after = layer.weight.dequantize()
        errors[octaves] = (after - target).square().mean().item()
        assert torch.equal(after.sign(), before.sign()) == (octaves is None)
    assert errors[4.0] < 0.1 * errors[None]
    state = optimizer.state_dict()
    again = LNSMadam(layer.parameters(), lr=1 / 8, turn_below=octaves)
    again.load_state_dict(state)
    assert again.state[layer.weight]["smallest"] == optimizer.state[layer.weight]["smallest"] > 1
    with pytest.raises(ValueError, match="turn_below"):
        LNSMadam(layer.parameters(), turn_below=-1.0)


def test_a_mean_of_gradients_takes_their_place():
    def layer_and_optimizer(beta1):
        torch.manual_seed(1)
        layer = lns_sim.convert(nn.Linear(8, 6, bias=False), "lns-madam")
        return layer, LNSMadam(layer.parameters(), lr=1 / 8, beta1=beta1)

    (layer, optimizer), (by_hand, plain) = layer_and_optimizer(0.75), layer_and_optimizer(0.0)
    mean = torch.zeros(6, 8)
    for step in range(4):
        gradient = torch.randn(6, 8, generator=torch.Generator().manual_seed(step))
        layer.weight.grad = gradient.clone()
        mean = 0.75 * mean + 0.25 * gradient
        by_hand.weight.grad = mean.clone()
        if step == 2:  # the mean is part of the state
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = LNSMadam(layer.parameters(), lr=1 / 8, beta1=0.75)
            optimizer.load_state_dict(state)
        optimizer.step()
        plain.step()
        assert torch.equal(layer.weight.codes, by_hand.weight.codes)
        assert torch.equal(layer.weight.grad, gradient)
    assert "mean" not in plain.state[by_hand.weight]
    with pytest.raises(ValueError, match="beta1"):
        LNSMadam(layer.parameters(), beta1=1.0)


def test_signs_and_zeros_stay_and_the_cap_holds():
    layer, optimizer = quadratic()
    with torch.no_grad():
        layer.weight.codes[0, :5] = 0
    before = layer.weight.dequantize()
    cap = weight_cap(layer.weight, 3.0).item()
    for _ in range(200):
        optimizer.zero_grad()
        (-layer(torch.ones(2, 30)).sum()).backward()
        optimizer.step()
    after = layer.weight.dequantize()
    assert torch.equal(after.sign(), before.sign())
    assert after.abs().max().item() <= cap * 2 ** (0.5 / 2048)
    assert (after[1:] >= before[1:]).all() and (after[1:] > before[1:]).any()


def test_training_reduces_a_loss_with_every_update_width():
    for bits in (16, 12, 10):
        layer, optimizer = quadratic(update_bits=bits)
        optimizer.param_groups[0]["lr"] = 1 / 16
        x = torch.randn(64, 30)
        target = x @ torch.randn(30, 20) * 0.05
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = (layer(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]


def test_float_parameters_move_as_by_their_own_optimizer():
    torch.manual_seed(0)
    layer, optimizer = quadratic()
    bias = nn.Parameter(layer.bias.detach().clone())
    alone = torch.optim.SGD([bias], lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(4, 30)).sum().backward()
        bias.grad = layer.bias.grad.clone()
        optimizer.step()
        alone.step()
        assert torch.equal(bias, layer.bias)


def test_schedulers_reach_both_kinds():
    layer, optimizer = quadratic()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    layer(torch.randn(2, 30)).sum().backward()
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [1 / 256]
    before = layer.bias.detach().clone()
    optimizer.state.clear()  # no momentum
    optimizer.step()
    assert torch.equal(before - 0.05 * layer.bias.grad, layer.bias)


@pytest.mark.parametrize("rounding, stochastic", [("nearest", False), ("stochastic", True)])
def test_saving_and_resuming_in_mid_training_changes_no_bit(tmp_path, rounding, stochastic):
    def steps(layer, optimizer, count, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            optimizer.zero_grad()
            layer(torch.randn(8, 30, generator=generator)).square().mean().backward()
            optimizer.step()

    layer, optimizer = quadratic(rounding, stochastic_gradients=stochastic)
    steps(layer, optimizer, 3, seed=1)
    torch.save({"layer": layer.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    steps(layer, optimizer, 3, seed=2)

    other, other_optimizer = quadratic(rounding, stochastic_gradients=stochastic)
    steps(other, other_optimizer, 1, seed=9)  # a different past
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    other.load_state_dict(state["layer"])
    other_optimizer.load_state_dict(state["optimizer"])
    steps(other, other_optimizer, 3, seed=2)
    assert torch.equal(layer.weight.codes, other.weight.codes) and torch.equal(layer.bias, other.bias)
    a, b = (o.state[w]["moment"] for o, w in ((optimizer, layer.weight), (other_optimizer, other.weight)))
    assert torch.equal(a, b)
    if stochastic:
        assert torch.equal(layer.weight.rng, other.weight.rng) and layer.weight.rng[1] == 6


def test_stochastic_recipes_draw_anew_each_step_and_repeat_by_seed():
    def grads(seed):
        layer = lns_sim.convert(copy.deepcopy(plain), recipes.lns_madam(stochastic_gradients=True, seed=seed))
        optimizer, found = lns_sim.optim.LNSMadam(layer.parameters(), lr=1e-9), []
        for _ in range(2):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            found.append(layer.weight.grad.clone())
            optimizer.step()
        return found

    plain, x = nn.Linear(30, 20, bias=False), torch.randn(8, 30)
    first, again, other = grads(1), grads(1), grads(2)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    "optimizer, message",
    [
        (LNSMadam, "no weights that exist as codes among .* left to 'adamw'; convert the model first"),
        (Madam, "no weights of multiplicative updates among the parameters, .* left to 'adamw'$"),
    ],
)
def test_an_optimizer_without_weights_of_its_kind_warns(optimizer, message):
    with pytest.warns(UserWarning, match=message) as found:
        optimizer([nn.Parameter(torch.ones(3))], float_optimizer="adamw")
    assert found[0].filename == __file__
