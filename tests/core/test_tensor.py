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


@pytest.mark.parametrize("view", [lambda t: t.view(t.shape), lambda t: t[::2].reshape(-1), lambda t: t.squeeze(0)])
def test_a_scale_per_slice_survives_the_same_shape(view):
    x = lns_sim.quantize(torch.randn(5) * torch.logspace(-3, 3, 5), dim=0)
    assert torch.equal(view(x).dequantize(), view(x.dequantize()))


@pytest.mark.parametrize("copied", [copy.deepcopy, torch.clone, lambda t: t.contiguous()])
def test_copies_of_views_have_the_strides_of_their_codes(copied):
    x = copied(lns_sim.quantize(torch.randn(5, 4, 1)).narrow(1, 0, 3))
    assert x.stride() == x.codes.stride() and x.reshape(-1).shape == (15,)


def test_rows_are_written_at_the_scale_of_the_whole():
    w = weight()
    values = w.dequantize().detach()
    with torch.no_grad():
        w[1].fill_(100.0)
        w[2] = 1e-2
        w[torch.tensor([0, 3])] = 0.0
    values[1], values[2], values[[0, 3]] = 100.0, 1e-2, 0.0
    assert torch.allclose(w.dequantize(), values, rtol=4e-4)


def test_values_of_codes_become_the_same_codes():
    """Whatever the largest of them is: the scale stays where it holds all values."""
    w = weight()
    w.scale.mul_(8)
    w.codes.sub_(3 * 2048)
    before = copy.deepcopy(w)
    w.data.copy_(before.dequantize())
    assert torch.equal(w.codes, before.codes) and torch.equal(w.scale, before.scale)


def test_a_weight_has_no_codes_for_nan():
    with pytest.raises(ValueError, match="NaN or Inf"):
        weight().data.fill_(float("nan"))


def test_data_can_be_assigned():
    w, other = weight(), weight()
    w.data = torch.full((4, 6), 2.0)
    assert torch.equal(w.dequantize(), torch.full((4, 6), 2.0)) and w.requires_grad
    w.data = other.data
    assert torch.equal(w.codes, other.codes)
    w.data = other.data[:2]
    assert w.shape == (2, 6) and torch.equal(w.dequantize(), other[:2].dequantize())
    values = torch.nn.utils.parameters_to_vector([other])
    torch.nn.utils.vector_to_parameters(values + 1, [other])
    assert torch.allclose(other.dequantize().flatten(), values + 1, atol=2e-3)
    with pytest.raises(ValueError, match="dequantize"):
        w.data = weight(update_bits=12).data


def test_memory_is_that_of_codes_or_a_copy_of_values():
    w = weight().detach()
    assert torch.equal(torch.from_dlpack(w), w.dequantize()) and w.tolist() == w.dequantize().tolist()
    assert (w.numpy() == w.dequantize().numpy()).all() and float(w[0, 0]) == w.dequantize()[0, 0]
    assert w.share_memory_() is w and w.is_shared() and w.codes.is_shared() and w.scale.is_shared()
    for look in (w.storage, w.untyped_storage().data_ptr):
        with pytest.raises(RuntimeError, match="state_dict"):
            look()
    assert w.untyped_storage().share_memory_().nbytes() == 0
    with pytest.raises(RuntimeError, match="data pointer"):  # C++ has no null pointer to read
        torch.from_dlpack(torch.utils.dlpack.to_dlpack(w))
    with pytest.raises(NotImplementedError, match="dequantize"):
        w.apply_(abs)


@pytest.mark.parametrize("where", [None, "cpu", {"cuda:0": "cpu"}, lambda storage, location: storage])
def test_files_are_read_to_any_place(where):
    w, file = weight(), io.BytesIO()
    torch.save({"w": w}, file)
    file.seek(0)
    read = torch.load(file, map_location=where, weights_only=True)["w"]
    assert torch.equal(read.codes, w.codes) and isinstance(read, torch.nn.Parameter) and read.requires_grad


def test_repr_without_numbers():
    assert "meta" in repr(weight().to("meta"))


def test_functions_on_codes_refuse_gradients():
    x = torch.randn(3, 3, requires_grad=True)
    with pytest.raises(ValueError, match="detach"):
        lns_sim.quantize(x)
    q = lns_sim.quantize(x.detach())
    with pytest.raises(ValueError, match="b requires grad"):
        lns_sim.matmul(q, weight((3, 3), bits=8, gamma=8))
    with torch.no_grad():
        lns_sim.quantize(x)
