"""What is computed once: passes over memory that change no bit are not made."""

import pytest
import torch
from helpers import same, same_bits
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lns_sim
from lns_sim import LNSFormat, recipes
from lns_sim.nn import LNSWeight
from lns_sim.ops.quantize import weight_operand
from lns_sim.quantizers import LNS
from lns_sim.quantizers.operand import lies_transposed


def gradients(layer, x):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    layer(x).square().sum().backward()
    return x.grad, layer.weight.grad


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of LNS codes that became values."""
    sizes, value = [], LNS.value
    monkeypatch.setattr(LNS, "value", lambda q, codes, scale: sizes.append(codes.numel()) or value(q, codes, scale))
    return sizes


def test_a_fake_quant_layer_makes_no_codes_of_its_gradients(decoded):
    torch.manual_seed(0)
    layer = lns_sim.convert(nn.Linear(5, 7), recipes.lns_madam_fake_quant())
    x = torch.randn(3, 5)
    with lns_sim.count():  # observers are told of codes, product by product
        expected = gradients(layer, x)
    decoded.clear()
    for found, of_codes in zip(gradients(layer, x), expected):
        assert same_bits(found, of_codes)
    assert decoded.count(3 * 7) == 0 and decoded.count(3 * 5) == decoded.count(7 * 5) == 2  # in both passes


@pytest.mark.parametrize(
    "q", [LNS(), LNS(LNSFormat(12, 64), underflow="flush"), LNS(LNSFormat(4, 1)), LNS(rounding="stochastic")]
)
@pytest.mark.parametrize("n", [0, 1, 7, 70_001])
def test_values_without_codes_are_those_of_the_codes(q, n, device):
    rng = torch.tensor([5, 1, 2, 0], device=device) if q.stochastic else None
    x = torch.randn(n + 1, device=device)[1:] ** 5
    for last in (0.0, torch.inf):
        codes, scale = q.quantize(x, rng, -1)
        assert all(map(same, q.quantized_values(x, rng, -1), (q.value(codes, scale), scale)))
        x[-1:] = last


def test_a_transposed_weight_stays_so_where_values_are_multiplied():
    """As transformers' Conv1D has it; on datapaths codes lie in rows."""
    torch.manual_seed(0)
    exact, fake = recipes.lns_madam(), recipes.lns_madam_fake_quant()
    weight, x = torch.randn(5, 7), torch.randn(3, 5)
    for recipe in (exact, fake):
        w = LNSWeight.from_float(weight, recipe).requires_grad_()
        codes = weight_operand(w.t(), recipe).codes
        assert lies_transposed(codes) == (recipe is fake)
        assert torch.equal(codes, weight_operand(LNSWeight.from_float(weight.t().contiguous(), recipe), recipe).codes)
        (x @ w).square().sum().backward()
        found, w.grad = w.grad, None
        with lns_sim.count():  # observers see products of errors by activations, in this order
            (x @ w).square().sum().backward()
        assert torch.allclose(found, w.grad, rtol=1e-6) and found.stride() == w.stride()


def test_a_product_that_nobody_scales_is_not_multiplied_by_one():
    x, w, b = torch.randn(3, 4), torch.randn(4, 5, requires_grad=True), torch.randn(5)
    with lns_sim.simulate("lns-madam"):
        one, two = torch.addmm(b, x, w), torch.addmm(b, x, w, alpha=2)
    assert "Mul" not in str(one.grad_fn.next_functions) and "Mul" in str(two.grad_fn.next_functions)
    assert torch.allclose(two, 2 * one - b)


class Made(TorchDispatchMode):
    """The types of tensors that operators make."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.dtypes += [x.dtype for x in tree_leaves(out) if isinstance(x, torch.Tensor) and "zeros" in str(func)]
        return out


def test_no_zeros_are_made_for_codes_that_have_no_gradient():
    layer = lns_sim.convert(nn.Linear(5, 7), recipes.lns_madam())
    y = layer(torch.randn(3, 5, requires_grad=True)).sum()
    with Made() as made:
        y.backward()
    assert torch.uint8 not in made.dtypes
