"""LNSTensor and LNSWeight as tensors: views, copies, files, and what they refuse."""

import copy
import io

import pytest
import torch

import lns_sim
from lns_sim import LNSFormat, LNSTensor, LNSWeight, nn, recipes


def weight(shape=(4, 6), **kwargs):
    return torch.nn.Parameter(LNSWeight.from_float(torch.randn(*shape), recipes.lns_madam(**kwargs)))


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.T,
        lambda t: t.transpose(0, 1),
        lambda t: t[1:3],
        lambda t: t[:, 2],
        lambda t: t.reshape(2, 12),
        lambda t: t.view(-1),
        lambda t: t.unsqueeze(0),
        lambda t: t.permute(1, 0),
        lambda t: t[None].expand(3, 4, 6),
    ],
)
def test_views_commute_with_values(view):
    x = lns_sim.quantize(torch.randn(4, 6))
    assert torch.equal(view(x).dequantize(), view(x.dequantize()))


@pytest.mark.parametrize(
    "view", [lambda t: t.T, lambda t: t[1:3], lambda t: t[2], lambda t: t[:, 2], lambda t: t[None]]
)
@pytest.mark.parametrize("dim", [0, 1])
def test_views_of_sliced_scales_commute_with_values(view, dim):
    x = lns_sim.quantize(torch.randn(4, 6) * torch.logspace(-3, 3, 6), dim=dim)
    assert torch.equal(view(x).dequantize(), view(x.dequantize()))


def test_arithmetic_is_refused_with_advice():
    with pytest.raises(NotImplementedError, match="dequantize"):
        lns_sim.quantize(torch.randn(3)) + 1
    with pytest.raises(TypeError, match="dequantize"):
        weight().data.to(torch.bfloat16)


def test_a_weight_is_two_bytes():
    w = weight((64, 64))
    assert isinstance(w, torch.nn.Parameter) and isinstance(w, LNSWeight) and w.requires_grad
    assert w.codes.dtype == torch.int16 and w.codes.untyped_storage().nbytes() == 2 * 64 * 64
    assert w.data_ptr() == w.codes.data_ptr()  # nothing but codes and scale


def test_deepcopy_and_files():
    model = lns_sim.convert(torch.nn.Linear(6, 4), recipes.lns_madam(stochastic_gradients=True, seed=2**63 + 1))
    for clone in (copy.deepcopy(model), reload(model)):
        a, b = model.weight, clone.weight
        assert type(b) is LNSWeight and isinstance(b, torch.nn.Parameter) and b.requires_grad
        assert torch.equal(a.codes, b.codes) and a.codes.data_ptr() != b.codes.data_ptr()
        assert torch.equal(a.scale, b.scale) and a.recipe == b.recipe and torch.equal(a.rng, b.rng)


def reload(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = lns_sim.convert(torch.nn.Linear(6, 4), model.weight.recipe)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def test_an_lns_tensor_survives_a_file():
    x = lns_sim.quantize(torch.randn(3, 4), LNSFormat(10, 32), dim=1)
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    y = torch.load(file, weights_only=True)
    assert type(y) is LNSTensor and torch.equal(x.codes, y.codes) and torch.equal(x.scale, y.scale)


def test_loading_float_weights_quantizes_them():
    model, plain = lns_sim.convert(torch.nn.Linear(6, 4), "lns-madam"), torch.nn.Linear(6, 4)
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.weight.codes, LNSWeight.from_float(plain.weight, model.weight.recipe).codes)


def test_copying_between_formats_is_refused():
    with pytest.raises(ValueError, match="dequantize"):
        weight(update_bits=16).data.copy_(weight(update_bits=12).data)


def test_to_and_clone():
    w = weight()
    moved = w.to("cpu", copy=True)
    assert torch.equal(moved.codes, w.codes) and moved.codes.data_ptr() != w.codes.data_ptr()
    assert w.to(torch.float32).dequantize().equal(w.dequantize())
    model = lns_sim.convert(torch.nn.Linear(6, 4), "lns-madam")
    assert isinstance(model.to("cpu").float().weight, nn.LNSWeight)


def test_repr_says_what_it_is():
    assert "octaves" in repr(weight()) and "LNSWeight" in repr(weight())
    assert "k=" in repr(lns_sim.quantize(torch.randn(3)))
