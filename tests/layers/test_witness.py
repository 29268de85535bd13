"""Nothing multiplies in float32 unnoticed: what no handler knows is refused, or listed where a recipe leaves it."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import DEVICES, same
from tools import require_module
from torch import nn
from torch.utils.checkpoint import checkpoint

import lns_sim
from lns_sim import recipes
from lns_sim.nn import witness
from lns_sim.random import random_state

A, B = torch.randn(30, 4), torch.randn(30, 4)
IMAGE, KERNEL = torch.ones(1, 2, 5, 5), torch.ones(3, 2, 3, 3)
REFUSED = {
    "convolution": lambda: torch.convolution(IMAGE, KERNEL, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    "conv_tbc": lambda: torch.conv_tbc(torch.ones(5, 2, 4), torch.ones(3, 4, 4), torch.zeros(4)),
    "cdist": lambda: torch.cdist(A, B),
    "few rows of cdist": lambda: torch.cdist(A[:2], B[:2]),
    "cov": lambda: torch.cov(A),
    "corrcoef": lambda: A.corrcoef(),
    "matrix_power": lambda: torch.linalg.matrix_power(torch.eye(4), 3),
    "sparse": lambda: torch.sparse.mm(A.to_sparse(), B.t()),
    "sparse @": lambda: A.to_sparse() @ B.t(),
    "complex": lambda: torch.complex(A, A) @ torch.complex(B, B).mT,
    "bilinear": lambda: F.bilinear(A, B, torch.randn(2, 4, 4)),
    "embedding_bag": lambda: F.embedding_bag(
        torch.tensor([[0, 1]]), A, mode="sum", per_sample_weights=torch.ones(1, 2)
    ),
    "aten mm": lambda: torch.ops.aten.mm(A, B.t()),
    "aten overload": lambda: torch.ops.aten.mm.default(A, B.t()),
    "aten matmul": lambda: torch.ops.aten.matmul(A, B.t()),
    "low rank": lambda: torch.svd_lowrank(A, 2),
    "Fourier transform": lambda: torch.fft.rfft(A),
    "solve": lambda: torch.linalg.solve(torch.eye(30), A),
    "inverse": lambda: torch.inverse(torch.eye(4)),
    "distances": lambda: F.pdist(A),
    "grid of a transformer": lambda: F.affine_grid(torch.ones(1, 2, 3), (1, 1, 4, 4), align_corners=False),
    "cholesky": lambda: torch.ops.aten.cholesky(torch.eye(4)),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_simulated_form_is_refused(call):
    with lns_sim.simulate("lns-madam"), pytest.raises(NotImplementedError, match="has no simulated form"):
        call()
    with lns_sim.simulate("lns-madam"), lns_sim.simulate(None):
        left = call()
    assert left is not None and call() is not None


@pytest.mark.parametrize("name", REFUSED)
def test_compiled_code_is_refused_it_too(name):
    """Where nothing has run before, and no weight is of codes."""

    def run(function):
        with lns_sim.simulate(FP8):
            return function()

    torch._dynamo.reset()
    with pytest.raises(Exception, match="has no simulated form"):
        torch.compile(run, backend="eager")(REFUSED[name])


FP8 = recipes.get("fp8")


def test_what_multiplies_nothing_stays():
    with lns_sim.simulate("lns-madam"):
        y = torch.softmax(F.layer_norm(A, (4,)), -1).cumsum(0).sort().values + B.norm() + F.gelu(A).std()
        assert torch.arange(6).reshape(2, 3) @ torch.arange(3) is not None  # integers count
        assert torch.outer(A[0], B[0]).shape == (4, 4) and A[0, :1] @ B[0, :1] == A[0, 0] * B[0, 0]
    assert y.isfinite().all()


@pytest.fixture
def fresh_witness(monkeypatch):
    """As if no function had been watched before."""
    monkeypatch.setattr(witness, "_harmless", set())


@pytest.mark.parametrize(
    ("function", "harmless", "multiplying"),
    [(torch.ops.aten.mm, (A[:, :1], B.t()[:1]), (A, B.t())), (torch.linalg.matrix_norm, (A,), (A, 2))],
    ids=["sum of one", "another norm"],
)
def test_a_call_that_multiplies_nothing_excuses_no_later_one(fresh_witness, function, harmless, multiplying):
    with lns_sim.simulate("lns-madam"):
        function(*harmless)
        with pytest.raises(NotImplementedError, match="has no simulated form"):
            function(*multiplying)


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(6, 4), function

    def forward(self, x):
        return self.function(self.layer(x))


@torch.library.custom_op("lns_sim_tests::contracted", mutates_args=())
def contracted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b.t()).relu()


_library = torch.library.Library("lns_sim_tests", "FRAGMENT")
_library.define("unknown(Tensor a) -> Tensor")
_library.impl("unknown", lambda a: a @ a.mT, "CPU")


@contracted.register_fake
def _(a, b):
    return a.new_empty(len(a), len(b))


@torch.library.custom_op("lns_sim_tests::shifted", mutates_args=())
def shifted(a: torch.Tensor) -> torch.Tensor:
    return a.relu() + 1


def test_operators_of_ones_own_are_looked_into(fresh_witness):
    with lns_sim.simulate("lns-madam"):
        assert torch.equal(shifted(A), A.relu() + 1) and torch.equal(shifted(A), A.relu() + 1)
        for call in (contracted, torch.ops.lns_sim_tests.contracted):
            with pytest.raises(NotImplementedError, match="has no simulated form"):
                call(A, B)
    weight = lns_sim.convert(nn.Linear(4, 3), "lns-madam").weight
    with lns_sim.simulate("lns-madam"), torch.no_grad(), pytest.raises(NotImplementedError, match="no simulated form"):
        contracted(A, weight)


def test_operators_that_nobody_can_look_into_are_refused(fresh_witness):
    def run(x):
        with lns_sim.simulate(FP8):
            return torch.ops.lns_sim_tests.unknown(x)

    torch._dynamo.reset()
    for call in (run, torch.compile(run, backend="eager")):
        with pytest.raises(Exception, match="lns_sim_tests::unknown.* has no simulated form"):
            call(A)
    with pytest.raises(NotImplementedError, match="has no form on codes"):
        torch.ops.lns_sim_tests.unknown(lns_sim.convert(nn.Linear(4, 3), "lns-madam").weight)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:DeprecationWarning")
def test_products_that_torchscript_compiled_are_refused():
    compiled = torch.jit.trace(lambda y: y @ y.mT, (A,), check_trace=False)
    harmless = torch.jit.trace(lambda y: y.relu() + 1, (A,), check_trace=False)
    model, x = lns_sim.convert(Net(compiled), "lns-madam"), torch.randn(5, 6)
    with pytest.raises(NotImplementedError, match="matmul in .*TorchScript compiled, has no simulated form"):
        model(x)
    assert lns_sim.convert(Net(harmless), "lns-madam")(x).shape == (5, 4)
    with lns_sim.simulate("lns-madam"), lns_sim.simulate(None):
        assert compiled(A).shape == (30, 30)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace(_method)?. is deprecated:DeprecationWarning")
def test_modules_that_torchscript_compiled_are_refused_unless_skipped():
    x, y = torch.randn(5, 6), torch.randn(5, 4)
    compiled = torch.jit.trace(nn.Linear(4, 3), (y,))
    with lns_sim.simulate("lns-madam"), pytest.raises(NotImplementedError, match="linear in forward, .*TorchScript"):
        compiled(y)
    with pytest.raises(TypeError, match="function is compiled by TorchScript"):
        lns_sim.convert(Net(compiled), "lns-madam")
    model = lns_sim.convert(Net(compiled), "lns-madam", skip="function")
    assert torch.equal(model(x), compiled(model.layer(x)))


def test_nested_tensors_are_made_and_refused_as_operands(fresh_witness):
    """One that is made within a simulation asks for its sizes by operators that torch's dispatcher does not know."""

    def nested(y):
        return torch.nested.nested_tensor_from_jagged(y, torch.tensor([0, 2, 5]))

    model, x = lns_sim.convert(Net(lambda y: nested(y).values()), "lns-madam"), torch.randn(5, 6)
    assert torch.equal(model(x), model.layer(x))
    for product in (lambda n: F.linear(n, torch.ones(3, 4)), lambda n: F.scaled_dot_product_attention(n, n, n)):
        with pytest.raises(NotImplementedError, match="nested tensor"):
            lns_sim.convert(Net(lambda y, product=product: product(nested(y))), "lns-madam")(x)


def test_bags_and_other_layers_of_torch_are_reached():
    model = lns_sim.convert(nn.Sequential(nn.EmbeddingBag(9, 8), nn.Linear(8, 4)), "lns-madam")
    with pytest.raises(NotImplementedError, match="embedding_bag has no simulated form"):
        model(torch.tensor([[1, 2, 3]]))


def test_summary_lists_what_a_recipe_leaves():
    def left(y):
        with lns_sim.simulate(None):
            return y @ y.mT

    found = lns_sim.summary(lns_sim.convert(Net(left), "lns-madam"), torch.randn(5, 6))
    assert found.float_products == [("", "mm", 1)] and found.float_gradients == [("mm", 2)]
    assert "products of gradients left in float32: mm x 2" in str(found)


def test_summary_sees_sums_of_elementwise_products():
    model = lns_sim.convert(Net(lambda y: (y[:, None] * y).sum(-1)), "lns-madam")
    assert lns_sim.summary(model, torch.randn(5, 6)).float_products == [("", "mul and sum", 1)]
    model = lns_sim.convert(Net(lambda y: (y * y).sum(-1) + (y * 2).mean()), "lns-madam")
    assert lns_sim.summary(model, torch.randn(5, 6)).float_products == []


def test_summary_knows_what_was_only_scaled_before_it_was_summed():
    """As the gradient of a bias behind a scale of each channel, which is no product of matrices."""
    gains = nn.Parameter(torch.arange(1.0, 5))
    model = lns_sim.convert(Net(lambda y: y * gains), "lns-madam")
    assert lns_sim.summary(model, torch.randn(5, 6)).float_gradients == []
    model = lns_sim.convert(Net(lambda y: y * torch.arange(5.0)[:, None]), "lns-madam")  # a scale of each sample
    assert lns_sim.summary(model, torch.randn(5, 6)).float_gradients == [("mul and sum", 1)]


@pytest.mark.parametrize(
    "contract",
    [lambda y: torch.einsum("bi,bj->ij", y, y), lambda y: torch.tensordot(y, y, ([0], [0]))],
    ids=["einsum", "tensordot"],
)
def test_summary_takes_no_check_of_shapes_for_a_product(contract):
    found = lns_sim.summary(lns_sim.convert(Net(contract), "lns-madam"), torch.randn(5, 6))
    assert found.float_products == [] and found.float_gradients == []
    assert [p.name for p in found.passes if p.kind == "product"] == ["forward", "input_gradient", "weight_gradient"]


def test_what_a_compiler_left_behind_is_known_as_simulated(fresh_witness):
    def broken(y):
        torch._dynamo.graph_break()
        return F.conv1d(y[None], torch.ones(2, 5, 3)).relu()

    model, x = lns_sim.convert(Net(broken), "lns-madam"), torch.randn(5, 6)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(model, backend="eager")(x), model(x))


def test_summary_sees_a_functions_own_backward():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g @ (x.mT @ x)

    model = lns_sim.convert(Net(Product.apply), "lns-madam")
    x = torch.randn(5, 6)
    model.layer.bias.grad = before = torch.ones(4)
    found = lns_sim.summary(model, x)
    assert found.float_products == [] and found.float_gradients == [("mm", 2)]
    assert model.layer.bias.grad is before and model.layer.weight.grad is None
    for name in ("lns-madam", "lns-madam-fake-quant", "fp8", "int8"):
        assert not lns_sim.summary(lns_sim.convert(Net(torch.relu), name), x).float_gradients


def test_summary_names_parameters_left_in_float32():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.zeros = nn.Parameter(torch.zeros(2, 3))

        def forward(self, x):
            return x + self.zeros

    found = lns_sim.summary(lns_sim.convert(Own(), "lns-madam"), torch.randn(2, 3))
    assert found.float_parameters == [("zeros", (2, 3))] and "parameters left in float32: zeros 2x3" in str(found)


def test_an_outer_products_gradients_are_simulated():
    """The product itself sums nothing and is torch's; its gradients are sums."""
    a, b = torch.randn(2, 5, 1, requires_grad=True), torch.randn(2, 1, 4, requires_grad=True)
    with lns_sim.simulate("lns-madam"), lns_sim.count() as totals:
        y = a @ b
        y.backward(error := torch.randn(2, 5, 4))
    assert torch.equal(y, a.detach() @ b.detach()) and set(totals) == {"input_gradient", "weight_gradient"}
    assert totals["input_gradient"].macs == totals["weight_gradient"].macs == 2 * 5 * 4
    codes = [lns_sim.quantize(t.detach()) for t in (error, a, b)]
    assert torch.equal(a.grad, lns_sim.matmul(codes[0], codes[2].mT))
    assert torch.equal(b.grad.mT, lns_sim.matmul(codes[0].mT, codes[1]))
    found = lns_sim.summary(
        lns_sim.convert(Net(lambda y: y[..., None] @ y[..., None, :]), "lns-madam"), torch.randn(3, 6)
    )
    assert [p.name for p in found.passes if p.kind == "product"] == ["input_gradient", "weight_gradient"]
    assert not found.float_products and not found.float_gradients


@pytest.mark.parametrize(
    ("outer", "sums"),
    [
        (torch.outer, 0),
        (torch.ger, 0),
        (lambda a, b: a.outer(vec2=b), 0),
        (lambda a, b: torch.addr(torch.ones(5, 4), a, b, beta=2, alpha=1), 2),
        (lambda a, b: torch.ones(4).addr(a, b), 1),
        (lambda a, b: torch.einsum("i,j->ij", a, b), 0),
    ],
)
def test_every_outer_product_is_one(outer, sums):
    a, b = torch.randn(5, requires_grad=True), torch.randn(4, requires_grad=True)
    error, found = torch.randn(5, 4), []
    for product in (outer, lambda a, b: a[:, None] @ b[None] + sums):
        with lns_sim.simulate("lns-madam"), lns_sim.count() as totals:
            y = product(a, b)
            gradients = torch.autograd.grad(y, (a, b), error)
        found.append((y, *gradients))
        assert set(totals) == {"input_gradient", "weight_gradient"}
    assert all(torch.equal(x, y) for x, y in zip(*found))
    torch._dynamo.reset()
    with lns_sim.simulate(lns_sim.recipes.get("lns-madam")):
        compiled = torch.autograd.grad(torch.compile(outer, backend="aot_eager", fullgraph=True)(a, b), (a, b), error)
    assert all(torch.equal(x, y) for x, y in zip(compiled, found[0][1:]))


def test_outer_products_of_weights_and_in_place():
    weight = lns_sim.convert(nn.Linear(4, 3), "lns-madam").weight
    a = torch.randn(5, requires_grad=True)
    with lns_sim.simulate("lns-madam"):
        expected = a[:, None] * weight.dequantize()[0]
        assert torch.equal(torch.outer(a, weight[0]), expected)
        assert torch.equal(torch.einsum("i,jk->ijk", a, weight)[:, 0], expected)
        assert torch.zeros(5, 5).addr_(a.detach(), a.detach()).equal(a.detach().outer(a.detach()))
        with pytest.raises(NotImplementedError, match="addr_ has no simulated form"):
            torch.zeros(5, 5).addr_(a, a)
        positions = torch.einsum("i,j->ij", torch.arange(3), a.detach())
    assert torch.equal(positions, torch.arange(3)[:, None] * a.detach())


def test_transformers_own_grouped_products_are_simulated():
    moe = require_module("transformers.integrations.moe")
    x, offs = torch.randn(7, 6), torch.tensor([2, 5, 5, 7], dtype=torch.int32)

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 6, 5))

        def forward(self, x, product):
            return product(x, self.weight, offs=offs)

    assert moe is not None
    model = lns_sim.convert(Experts(), "lns-madam")
    expected = model(x, torch._grouped_mm)
    assert torch.equal(model(x, torch.ops.transformers.grouped_mm_fallback), expected)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager")
        assert torch.equal(compiled(x, torch.ops.transformers.grouped_mm_fallback), expected)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6, 5))

    def forward(self, x, ends):
        return torch._grouped_mm(x, self.weight, torch.tensor(ends, dtype=torch.int32, device=x.device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", ["lns-madam", "lns-madam-fake-quant", "fp8", "luq", "float32"])
@pytest.mark.parametrize("ends", [[2, 5, 5, 7], [3, 3, 4, 6]])
def test_grouped_products_are_their_groups(ends, recipe, device):
    """Forward and backward, to the bit, and in the same random streams; compiled, too, in one graph."""
    recipe = recipes.float32(recipes.lns_madam()) if recipe == "float32" else recipe
    model = lns_sim.convert(Experts().to(device), recipe)
    x, error = torch.randn(7, 6, device=device), torch.randn(7, 5, device=device)

    def gradients(product):
        a = x.clone().requires_grad_()
        torch.manual_seed(0)
        y = product(a, ends)
        model.weight.grad = None
        y.backward(error)
        return y.detach(), a.grad, model.weight.grad

    def one_by_one(a, ends):
        rng = random_state(5, device=device)
        with lns_sim.simulate(recipe, rng):
            parts = [a[begin:end] @ model.weight[i] for i, (begin, end) in enumerate(zip([0, *ends], ends))]
        return torch.cat([*parts, a.new_zeros(7 - ends[-1], 5)])

    def together(a, ends):
        with lns_sim.simulate(recipe, random_state(5, device=device)):
            return Experts.forward(model, a, ends)

    equal = same
    if recipe == "lns-madam-fake-quant" and device == "cuda":  # cuBLAS sums transposed operands in another order
        equal = partial(torch.allclose, rtol=0.1, atol=1e-6)  # a step of the gradients' codes
    assert all(map(equal, gradients(together), gradients(one_by_one)))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert all(map(same, gradients(compiled), gradients(model)))


def test_grouped_products_are_recomputed_by_checkpoints():
    model, x = lns_sim.convert(Experts(), "lns-madam"), torch.randn(7, 6, requires_grad=True)

    def gradients(function):
        x.grad = model.weight.grad = None
        function(model, x, [2, 5, 5, 7]).square().sum().backward()
        return x.grad, model.weight.grad

    expected = gradients(lambda model, x, ends: model(x, ends))
    assert all(map(same, gradients(partial(checkpoint, use_reentrant=False)), expected))


def test_grouped_products_of_other_forms():
    a, b = torch.randn(4, 3, 6), torch.randn(4, 6, 5)
    with lns_sim.simulate("lns-madam"):
        assert torch._grouped_mm(a, b).shape == (4, 3, 5)
        with pytest.raises(ValueError, match="rows .T, K., matrices .G, K, N. and ends"):
            torch._grouped_mm(torch.randn(7, 6), b, torch.tensor([2, 5], dtype=torch.int32))
