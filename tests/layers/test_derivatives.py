"""Derivatives of derivatives: right where nothing is quantized, else refused in a sentence, never silently wrong."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import lns_sim
from lns_sim import recipes
from lns_sim.registry import RECIPES

CODED = [name for name in RECIPES if (r := recipes.get(name)) is not None and r.quantizes]
PLAIN = [name for name in RECIPES if (r := recipes.get(name)) is not None and not r.quantizes]
SENTENCE = "no second derivatives.*float32"


class Net(nn.Module):
    """Each of the differentiable operators."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv1d(4, 6, 3), nn.ConvTranspose1d(6, 4, 3, output_padding=1, dilation=2)
        self.linear = nn.Linear(9, 5)

    def forward(self, x):
        y = self.linear(torch.tanh(self.up(torch.tanh(self.conv(x)))))
        return torch.tanh(y) @ torch.sin(y).mT


def nets(recipe):
    torch.manual_seed(0)
    plain = Net()
    return plain, lns_sim.convert(copy.deepcopy(plain), recipe), torch.randn(2, 4, 6, requires_grad=True)


def penalty(model, x):
    (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return torch.autograd.grad((g.norm() - 1).square(), [x, *(p for p in model.parameters() if p.dim() > 1)])


@pytest.mark.parametrize("recipe", PLAIN)
def test_second_derivatives_of_what_is_not_quantized(recipe):
    plain, model, x = nets(recipe)
    for a, b in zip(penalty(model, x), penalty(plain, x)):
        torch.testing.assert_close(a, b)
    f, g = (lambda x: model(x).sum()), (lambda x: plain(x).sum())
    hessian = torch.autograd.functional.hessian
    torch.testing.assert_close(hessian(f, x.detach()), hessian(g, x.detach()))


@pytest.mark.parametrize("recipe", CODED)
def test_second_derivatives_of_quantized_products_are_refused(recipe):
    _, model, x = nets(recipe)
    with pytest.raises(RuntimeError, match=SENTENCE):
        penalty(model, x)
    for of in (torch.autograd.functional.hessian, torch.autograd.functional.jvp, torch.autograd.functional.hvp):
        rest = [] if of is torch.autograd.functional.hessian else [torch.ones_like(x)]
        with pytest.raises(RuntimeError, match=SENTENCE):
            of(lambda x: model(x).sum(), x.detach(), *rest)


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 3), lambda: nn.Conv1d(4, 2, 3)])
def test_no_way_around_the_refusal(make):
    """Of a single layer, whose gradient depends on its weight or its input alone."""
    model = lns_sim.convert(make(), "lns-madam")
    x = torch.randn(2, 4, 6, requires_grad=True)
    (dx,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (dw,) = torch.autograd.grad(model(x).sum(), model.weight, create_graph=True)
    for gradient, other in ((dx, model.weight), (dw, x)):
        with pytest.raises(RuntimeError, match=SENTENCE):
            torch.autograd.grad(gradient.square().sum(), other)


def test_gradients_with_a_graph_have_the_same_bits():
    _, model, x = nets("lns-madam")
    (a,) = torch.autograd.grad(model(x).sum(), x)
    (b,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    assert torch.equal(a, b)


def test_an_embeddings_second_derivative():
    """Its gradient is a sum of rows of the error, and depends on nothing else."""
    at = torch.tensor([0, 2, 2])
    for recipe in ("lns-madam", "madam"):
        layer = lns_sim.convert(nn.Embedding(4, 3), recipe)
        error = torch.ones(3, 3, requires_grad=True)
        (dw,) = torch.autograd.grad(layer(at), layer.weight, error, create_graph=True)
        if recipe == "madam":
            assert torch.equal(torch.autograd.grad(dw.square().sum(), error)[0][:, 0], torch.tensor([2.0, 4.0, 4.0]))
        else:
            with pytest.raises(RuntimeError, match=SENTENCE):
                torch.autograd.grad(dw.square().sum(), error)


@pytest.mark.parametrize("recipe", ["lns-madam", "fp8", "madam"])
def test_forward_mode_and_transforms_are_refused(recipe):
    _, model, x = nets(recipe)
    x = x.detach()
    with torch.autograd.forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
            model(torch.autograd.forward_ad.make_dual(x, x))
        assert model(x).shape == (2, 4, 4)
    for transform in (
        lambda: torch.func.grad(lambda x: model(x).sum())(x),
        lambda: torch.func.jvp(model, (x,), (x,)),
        lambda: torch.func.hessian(lambda x: model(x).sum())(x),
    ):
        with pytest.raises(NotImplementedError, match="torch.autograd.grad, or a float32 copy"):
            transform()


def test_transforms_of_weights_that_draw_random_bits_are_refused():
    """By functional_call another tensor takes a weight's place, which has no random state."""
    model, x = lns_sim.convert(nn.Linear(6, 3), lns_sim.recipes.lns_madam(stochastic_gradients=True)), torch.ones(2, 6)
    call = lambda parameters: torch.func.functional_call(model, parameters, (x,))  # noqa: E731
    with pytest.raises(NotImplementedError, match="torch.func"):
        torch.func.grad(lambda parameters: call(parameters).sum())(dict(model.named_parameters()))
    assert call({"weight": torch.ones(3, 6), "bias": torch.zeros(3)}).detach() == pytest.approx(6, rel=0.05)


def test_a_compiled_model_refuses_second_derivatives():
    model, x = lns_sim.convert(nn.Linear(6, 3), "lns-madam"), torch.randn(2, 6, requires_grad=True)
    torch._dynamo.reset()
    (g,) = torch.autograd.grad(torch.compile(model, backend="aot_eager")(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward|does not require grad"):  # as torch's versions put it
        g.square().sum().backward()


# ---- Products within a backward pass.


class Product(torch.autograd.Function):
    """As people write them: the backward multiplies itself."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return dy @ w, dy.t() @ x


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 5, bias=False)

    def forward(self, x):
        return Product.apply(x, self.linear.weight)


def test_a_product_in_a_backward_is_refused():
    model, x = lns_sim.convert(Outer(), "lns-madam"), torch.randn(4, 6, requires_grad=True)
    with pytest.raises(RuntimeError, match="inside a backward pass"):
        model(x).sum().backward()
    checkpointed = lns_sim.convert(nn.Sequential(nn.Linear(6, 6), Outer()), "lns-madam")
    with pytest.raises(RuntimeError, match="inside a backward pass"):
        checkpoint(checkpointed, x, use_reentrant=True).sum().backward()


class Watching(nn.Module):
    """Multiplies without gradients, too, as a teacher does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        with torch.no_grad():
            target = self.linear(x)
        return torch.tanh(self.linear(x)) * target


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_recomputes(reentrant):
    torch.manual_seed(0)
    model, x = lns_sim.convert(nn.Sequential(Watching(), Watching()), "lns-madam"), torch.randn(4, 6)
    results = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=reentrant)):
        leaf = x.clone().requires_grad_()
        run(leaf).square().sum().backward()
        results.append((leaf.grad, *(p.grad.clone() for p in model.parameters())))
        model.zero_grad()
    assert all(torch.equal(*pair) for pair in zip(*results))


def test_linear_layers_still_take_a_bias_of_one_number():
    x, w = torch.randn(2, 4), torch.randn(3, 4)
    with lns_sim.simulate(recipes.float32(recipes.lns_madam())):
        assert torch.equal(F.linear(x, w, torch.ones(1)), x @ w.t() + 1)
        with pytest.raises(RuntimeError, match="expand"):
            F.linear(x, w, torch.ones(5, 3))
