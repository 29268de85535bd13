"""convert keeps forward logic and weights: residual blocks, shared weights, functional calls, patterns."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn

import lns_sim
from lns_sim import LNSWeight
from lns_sim.studies import models


class Functional(nn.Module):
    """Uses its layers in ways that a rewritten forward would lose."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.again = nn.Linear(8, 6, bias=False)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        h = F.linear(x, self.embed.weight, self.embed.bias * 2)
        h = torch.tanh(h) if self.calls % 2 else h
        y = self.again(h) + F.linear(h, self.embed.weight.t().contiguous())
        return self.conv(torch.stack([y, x], 1).unsqueeze(-1)).flatten(1)


def test_functional_calls_run_on_the_datapath():
    torch.manual_seed(0)
    plain = Functional()
    model = lns_sim.convert(copy.deepcopy(plain), "lns-madam")
    x = torch.randn(5, 6)
    with lns_sim.count() as totals:
        y = model(x)
    assert totals["forward"].macs == 3 * 5 * 6 * 8 + 5 * 2 * 6 * 2 * 9
    assert model.calls == 1
    expected = plain(x)
    assert (y - expected).norm() < 0.1 * expected.norm()


def test_a_residual_network_keeps_its_forward_and_weights():
    torch.manual_seed(0)
    plain = models.resnet(3, 10, widths=(4, 8), blocks=(1, 1)).eval()
    model = lns_sim.convert(copy.deepcopy(plain), "lns-madam")
    x = torch.randn(2, 3, 8, 8)
    expected, got = plain(x), model(x)
    assert (got - expected).norm() < 0.15 * expected.norm()
    for (name, a), (_, b) in zip(plain.named_parameters(), model.named_parameters()):
        if name.endswith("weight") and a.dim() > 1:
            assert isinstance(b, LNSWeight)
            assert ((b.dequantize() - a).abs() <= a.abs() * 2e-4 + 2e-4 * a.abs().max()).all()
        else:
            assert torch.equal(a, b) and not isinstance(b, LNSWeight)
    for a, b in zip(plain.modules(), model.modules(), strict=True):
        assert isinstance(b, type(a)) and type(b).__name__ == type(a).__name__


def test_shared_weights_stay_shared():
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.weight = first.weight
    outside = nn.ParameterDict({"same": first.weight})
    model = lns_sim.convert(nn.ModuleList([first, second, outside]), "lns-madam")
    assert model[0].weight is model[1].weight is model[2]["same"]
    assert len(list(model.parameters())) == 3
    x = torch.randn(3, 5)
    (model[0](x).sum() + model[1](x).sum()).backward()
    both = model[0].weight.grad.clone()
    model.zero_grad()
    model[0](x).sum().backward()
    assert torch.equal(both, 2 * model[0].weight.grad)


def test_hooks_and_frozen_weights_stay():
    layer = nn.Linear(4, 4)
    layer.weight.requires_grad_(False)
    seen = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    lns_sim.convert(layer, "lns-madam")(torch.randn(2, 4))
    assert seen == [1] and not layer.weight.requires_grad


def test_patterns():
    def model():
        return nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "head": nn.Linear(4, 2)})

    def converted(m):
        return [name for name, p in m.named_parameters() if isinstance(p, LNSWeight)]

    assert converted(lns_sim.convert(model(), "lns-madam", skip="head")) == ["body.0.weight", "body.1.weight"]
    assert converted(lns_sim.convert(model(), "lns-madam", only=["body.1", "head"])) == ["body.1.weight", "head.weight"]
    assert converted(lns_sim.convert(model(), "lns-madam", only="body.*", skip="*.0")) == ["body.1.weight"]
    with pytest.raises(ValueError, match="body.0, body.1, head"):
        lns_sim.convert(model(), "lns-madam", skip="tail")
    with pytest.raises(TypeError, match="skip must be a name pattern or a list of them, got 3"):
        lns_sim.convert(model(), "lns-madam", skip=3)


@pytest.mark.parametrize("normalized", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_is_refused_unless_it_is_left_out(normalized):
    def model():
        return nn.Sequential(nn.Linear(4, 4), normalized(nn.Linear(4, 4)))

    with pytest.raises(ValueError, match="^1.* has spectral_norm, .* is not simulated; remove it, or .* skip"):
        lns_sim.convert(model(), "lns-madam")
    assert lns_sim.convert(model(), None) is not None
    found = lns_sim.summary(lns_sim.convert(model(), "lns-madam", skip="1"), torch.randn(3, 4))
    assert {p.layer for p in found.passes} == {"0"} and ("1", "addmm", 1) in found.float_products


def test_fp32_changes_nothing():
    layer = nn.Linear(3, 3)
    weight = layer.weight
    assert lns_sim.convert(layer, "fp32").weight is weight


def test_converting_twice_changes_nothing():
    layer = lns_sim.convert(nn.Linear(3, 3), "lns-madam")
    weight = layer.weight
    assert lns_sim.convert(layer, "lns-madam").weight is weight


def test_another_recipe_for_a_converted_model_is_refused():
    model = lns_sim.convert(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), "lns-madam")
    for other in (lns_sim.recipes.lns_madam(bits=6), "fp8", "fp32", None):
        with pytest.raises(ValueError, match="0 is converted already, by the recipe lns-madam; .*to_float"):
            lns_sim.convert(model, other)
    with pytest.raises(ValueError, match="1 is converted already"):
        lns_sim.convert(model, "fp8", only="1")
    values = lns_sim.convert(nn.Sequential(nn.Linear(3, 3)), "fp8")
    with pytest.raises(ValueError, match="converted already, by the recipe fp8"):
        lns_sim.convert(values, "lns-madam")
    anew = lns_sim.convert(lns_sim.nn.to_float(model), lns_sim.recipes.lns_madam(bits=6))
    assert anew[0].weight.recipe.weight.bits == 6


def test_parameters_of_ones_own_modules_are_weights():
    """Those that multiply without a layer of torch around them: raw matrices, stacks of experts, what pruning reads."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.experts = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 6, 4))
            self.zeros, self.gain = nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.randn(4))
            self.narrow = nn.Parameter(torch.randn(2, 2).half())

        def forward(self, x):
            return x @ self.matrix * self.gain

    model = lns_sim.convert(Own(), "lns-madam")
    assert {n for n, p in model.named_parameters() if isinstance(p, LNSWeight)} == {"matrix", "experts"}
    model(torch.randn(2, 6)).sum().backward()
    assert model.matrix.grad.shape == (6, 4)
    assert not any(isinstance(p, LNSWeight) for p in lns_sim.convert(Own(), "fp8").parameters())
    layer = nn.Linear(6, 4)
    nn.utils.prune.l1_unstructured(layer, "weight", 0.5)
    assert isinstance(lns_sim.convert(nn.Sequential(layer), "lns-madam")[0].weight_orig, LNSWeight)


@pytest.mark.parametrize("within", [nn.Sequential, lambda layer: layer], ids=["in a model", "alone"])
def test_a_parametrization_can_be_removed_and_its_weight_be_converted(within):
    model = lns_sim.convert(within(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))), "lns-madam")
    layer, x = model[0] if within is nn.Sequential else model, torch.randn(4, 6)
    assert type(copy.deepcopy(layer)) is type(layer)
    y = model(x)
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(layer).__name__ == "Linear" and torch.equal(model(x), y)
    assert not isinstance(layer.weight, LNSWeight)
    lns_sim.convert(model, "lns-madam")
    assert isinstance(layer.weight, LNSWeight) and type(lns_sim.nn.to_float(layer)) is nn.Linear


def test_converting_in_parts_keeps_random_streams_apart():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    recipe = lns_sim.recipes.lns_madam(stochastic_gradients=True)
    for name in ("1", "0", "2"):
        lns_sim.convert(model, recipe, only=name)
    ids = [int(layer.weight.rng[2]) for layer in model]
    assert len(set(ids)) == 3


def test_memory_of_a_converted_model():
    model = lns_sim.convert(nn.Linear(256, 256, bias=False), "lns-madam")
    tensors = [t for p in model.parameters() for t in (p.codes, p.scale)]
    assert sum(t.untyped_storage().nbytes() for t in tensors) == 2 * 256 * 256 + 4


@pytest.mark.slow
def test_compiles_without_warnings_of_ours():
    torch._dynamo.reset()  # what other tests compiled counts against its limit
    model = lns_sim.convert(nn.Linear(4, 4), "lns-madam")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*LNSWeight.*")
        torch.compile(model, fullgraph=True)(torch.randn(2, 4))


def test_stochastic_recipes_have_gradients_on_the_meta_device():
    recipe = lns_sim.recipes.lns_madam(stochastic_gradients=True)
    model = lns_sim.convert(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4)), recipe).to("meta")
    x = torch.randn(5, 2, 4, 4, device="meta", requires_grad=True)
    model(x).sum().backward()
    assert x.grad.is_meta and all(p.grad.shape == p.shape for p in model.parameters())
