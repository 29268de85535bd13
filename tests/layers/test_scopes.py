"""A converted model simulates its products however they are reached: by any method, thread, copy or recomputation."""

import asyncio
import copy
import dataclasses
import functools
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import lns_sim
from lns_sim import recipes
from lns_sim.ops.observer import Observer, observe

NAMES = ["lns-madam", "lns-madam-fake-quant", "fp8", "int8", "luq", "shiftquant6", "lns-madam-published"]


class Products(Observer):
    def __init__(self):
        self.names = []

    def product(self, product):
        self.names.append(product.name)


def products(call):
    """How many forward products were simulated."""
    with observe(Products()) as seen:
        call()
    return seen.names.count("forward")


class Pair(nn.Module):
    """Two layers and a product between them, reached in many ways."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 8)

    def encode(self, x):
        return self.enc(x)

    def scores(self, x):
        return x @ x.mT

    def training_step(self, x):
        return (self(x) - x).square().mean()

    def _private(self, x):
        return self.scores(self.encode(x))

    def pieces(self, x):
        """A generator, whose body runs when it is asked."""
        for row in x:
            yield self.scores(row[None])

    def forward(self, x):
        return self.dec(self.scores(self.encode(x)) @ x)

    @staticmethod
    def helper(x):
        return x + 1


def converted(name, make=Pair):
    torch.manual_seed(0)
    return lns_sim.convert(make(), name)


@pytest.mark.parametrize("name", NAMES)
def test_every_way_into_a_model(name):
    model, x = converted(name), torch.randn(4, 8)
    ways = {
        "call": (lambda: model(x), 4),
        "forward": (lambda: model.forward(x), 4),
        "encode": (lambda: model.encode(x), 1),
        "training_step": (lambda: model.training_step(x), 4),
        "private": (lambda: model._private(x), 2),
        "between layers": (lambda: model.scores(x), 1),
        "generator": (lambda: list(model.pieces(x)), 4),
        "container": (lambda: model.enc(x), 1),
        "layer": (lambda: model.dec(x), 1),
        "layer's forward": (lambda: model.dec.forward(x), 1),
        "class": (lambda: type(model).forward(model, x), 4),
    }
    assert {way: products(call) for way, (call, _) in ways.items()} == {way: n for way, (_, n) in ways.items()}
    assert torch.equal(model(x), model.forward(x)) or "luq" in name or "int8" in name or "shift" in name
    assert model.helper(1) == 2 and torch._C._len_torch_function_stack() == 0


def test_methods_of_a_part_have_its_recipe():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Pair()

        def forward(self, x):
            return self.inner._private(x) @ x

    model = lns_sim.convert(Outer(), "lns-madam", skip="inner")
    x = torch.randn(4, 8)
    assert products(lambda: model(x)) == 1
    model = lns_sim.convert(Outer(), "lns-madam", only="inner")
    assert products(lambda: model(x)) == 2


class Scores:
    """Of the many that models mix in: no module."""

    def scores(self, x):
        return x @ x.mT

    @property
    def gram(self):
        return self.weight @ self.weight.mT

    @functools.cached_property
    def kept(self):
        return self.weight @ self.weight.mT

    def steps(self, x):
        """A generator that is sent values and thrown errors, and returns one."""
        try:
            while (x := (yield self.scores(x))) is not None:
                pass
        except KeyError:
            yield self.scores(torch.ones(4, 8))
        return "end"


class Mixed(Scores, nn.Linear):
    """Methods beside a layer of torch's."""


class Called(nn.Sequential):
    """A container that multiplies, at a call that is not its forward."""

    def __call__(self, x):
        return super().__call__(x) @ x.mT


def test_methods_are_found_where_attributes_are():
    x = torch.randn(4, 8)
    mixed = lns_sim.convert(Mixed(8, 8), "fp8")
    assert products(lambda: mixed.scores(x)) == products(lambda: mixed.gram) == products(lambda: mixed(x)) == 1
    assert products(lambda: mixed.kept) == 1 and products(lambda: mixed.kept) == 0
    assert products(lambda: lns_sim.convert(Called(nn.Linear(8, 8)), "fp8")(x)) == 2

    class Overriding(Mixed):
        scores = nn.Linear.forward

    assert products(lambda: lns_sim.convert(Overriding(8, 8), "fp8").scores(x)) == 1


def test_generators_are_sent_and_thrown():
    mixed, x = lns_sim.convert(Mixed(8, 8), "fp8"), torch.randn(4, 8)

    def call():
        steps = mixed.steps(x)
        first, second = next(steps), steps.send(2 * x)
        assert torch.equal(4 * first, second) and steps.throw(KeyError()).shape == (4, 4)
        with pytest.raises(StopIteration, match="end"):
            next(steps)
        mixed.steps(x).close()

    assert products(call) == 3 and torch._C._len_torch_function_stack() == 0


def test_coroutines_take_turns():
    class Asked(Pair):
        async def answer(self, x):
            first = self.scores(x)
            await asyncio.sleep(0)
            return first + self.scores(x)

    async def both(a, b, x):
        return await asyncio.gather(a.answer(x), b.answer(x), a.answer(x))

    simulated, left, x = lns_sim.convert(Asked(), "fp8"), Asked(), torch.randn(4, 8)
    assert products(lambda: asyncio.run(both(simulated, left, x))) == 4
    first, other, again = asyncio.run(both(simulated, left, x))
    assert torch.equal(first, again) and torch.equal(other, 2 * (x @ x.mT)) and not torch.equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_backward_pass_within_a_method(name):
    class Trained(Pair):
        def step(self, x):
            self(x).sum().backward()

    model = converted(name, Trained)
    model.step(torch.randn(4, 8))
    assert all(p.grad is not None for p in model.parameters())


def test_parts_in_float32_stay_so_under_other_modes():
    model, x = lns_sim.convert(Pair(), "fp8", skip="dec"), torch.randn(4, 8)
    with torch.device("cpu"), lns_sim.simulate("fp8"), torch.device("cpu"):
        assert products(lambda: model.dec(x)) == 0
        assert products(lambda: model(x)) == 3 and products(lambda: x @ x.mT) == 1


def test_a_module_of_two_recipes_is_refused():
    shared = Pair()
    with pytest.raises(ValueError, match="1 and 0 are one module"):
        lns_sim.convert(nn.Sequential(shared, shared), "fp8", skip="1")
    with pytest.raises(TypeError, match="0 is compiled by TorchScript"):
        lns_sim.convert(nn.Sequential(torch.jit.script(nn.Linear(8, 8))), "fp8")


@pytest.mark.parametrize("recipe", ["lns-madam", "fp8"])
def test_results_of_layers_may_be_written_to(recipe):
    """However a layer's operator is called: straight, and by a tracer."""
    layers = nn.Sequential(nn.Linear(8, 4, bias=False), nn.ReLU(inplace=True))
    model, x = lns_sim.convert(layers, recipe), torch.randn(2, 3, 8)
    assert torch.equal(torch.jit.trace(model, x)(x), model(x))


@pytest.mark.parametrize("gradients", [True, False])
def test_traced_models_keep_their_products(gradients):
    model, x = lns_sim.convert(nn.Linear(8, 4), "lns-madam"), torch.randn(3, 8)
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, x)
    assert torch.equal(traced(x), model(x)) and "lns_sim::linear" in str(traced.inlined_graph)


def test_classes_stay_what_they_were():
    model = converted("fp8")
    assert isinstance(model, Pair) and isinstance(model.dec, nn.Linear)
    assert type(model).__name__ == "Pair" and type(model).__qualname__ == Pair.__qualname__
    assert type(model) is type(converted("int8")) and "scores" in dir(model) and model.forward.__wrapped__
    plain = lns_sim.nn.to_float(model)
    assert type(plain) is Pair and type(plain.dec) is nn.Linear and products(lambda: plain(torch.randn(4, 8))) == 0
    assert products(lambda: type(model)()(torch.randn(4, 8))) == 0  # another instance was never converted


class Module(Pair):
    """Of this module's namespace, so that it can be pickled."""


class Reduced(Pair):
    """Pickled in a way of its own, which makes a new module."""

    def __reduce__(self):
        return Reduced, (), self.__dict__


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", ["lns-madam", "fp8"])
@pytest.mark.parametrize("make", [Module, Reduced])
def test_copies_are_simulated_by_themselves(make, name, how):
    model, x = converted(name, make), torch.randn(4, 8)
    other = how(model)
    assert isinstance(other, make) and other is not model and products(lambda: other.encode(x)) == 1
    assert torch.equal(other(x), model(x))
    lns_sim.nn.to_float(other)
    assert products(lambda: other(x)) == 4


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("name", ["lns-madam", "fp8", "luq", "stochastic"])
def test_a_function_is_computed_again_as_it_was(name, reentrant):
    class Net(Pair):
        def forward(self, x, again):
            def part(h):
                h = torch.relu(self.enc(h))
                return torch.einsum("bij,bkj->bik", h, h).softmax(-1) @ h

            return self.dec(checkpoint(part, x, use_reentrant=reentrant) if again else part(x)) @ x.mT

    recipe = lns_sim.recipes.lns_madam(stochastic_gradients=True) if name == "stochastic" else name
    model, gradients = converted(recipe, Net), []
    for again in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        x = torch.randn(2, 5, 8, requires_grad=True)
        with observe(Products()) as seen:
            model(x, again).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in model.parameters())])
        assert seen.names.count("forward") == (8 if again else 5)
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_a_block_of_code_is_computed_again_as_it_was():
    x, found = torch.randn(5, 8, requires_grad=True), []
    for again in (None, True, False):
        with lns_sim.simulate("lns-madam"):
            y = (x @ x.mT) if again is None else checkpoint(lambda x: x @ x.mT, x, use_reentrant=again)
        found.append(torch.autograd.grad(y.square().sum(), x)[0] if again is None else y)
        if again is not None:
            x.grad = None
            y.square().sum().backward()
            assert torch.equal(x.grad, found[0])


def test_torch_fx_is_refused():
    model = converted("lns-madam")
    with pytest.raises(TypeError, match="torch.fx cannot trace a converted Pair: .* trace the model first"):
        torch.fx.symbolic_trace(model)

    class AnyArguments(Pair):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    class Options(Pair):
        def forward(self, x, *, again=None):
            return super().forward(x)

    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = lns_sim.convert(AnyArguments(), "lns-madam")

        def forward(self, x):
            return self.child(*[x])

    for cls in (AnyArguments, Options):
        with pytest.raises(TypeError, match=f"torch.fx cannot trace a converted {cls.__name__}"):
            torch.fx.symbolic_trace(lns_sim.convert(cls(), "lns-madam"))
    with pytest.raises(TypeError, match="torch.fx cannot trace a converted AnyArguments"):
        torch.fx.symbolic_trace(Parent())
    traced = lns_sim.convert(torch.fx.symbolic_trace(Pair()), "lns-madam")
    assert products(lambda: traced(torch.randn(4, 8))) == 4


@pytest.mark.parametrize("name", ["lns-madam", "fp8"])
def test_strict_export_is_refused(name):
    model, x = converted(name), torch.randn(4, 8)
    with pytest.raises(Exception, match="cannot export a converted Pair strictly: .* use strict=False"):
        torch.export.export(model, (x,), strict=True)
    y = model(x)
    assert torch.equal(torch.export.export(model, (x,), strict=False).module()(x), y)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(x), y)


def test_threads_in_one_model():
    model, xs = converted("lns-madam").eval(), [torch.randn(4, 8) for _ in range(200)]

    def one(i):
        with torch.no_grad():
            return model(xs[i]) if i % 2 else model._private(xs[i])

    want, interval = [one(i) for i in range(len(xs))], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(torch.equal(a, b) for a, b in zip(pool.map(one, range(len(xs))), want))
    finally:
        sys.setswitchinterval(interval)


def test_a_graph_break_in_a_loop():
    """Frames that the compiler gives up run in the simulation, whose own code is never compiled by itself."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x):
            return self.a(x) * (1 + len(x.sum(1).nonzero()))  # data decide

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layers = nn.Linear(8, 6), nn.ModuleList([Layer(), Layer()])
            self.own = nn.Parameter(torch.randn(6, 6))

        def forward(self, x):
            x = self.first(x) * len(x.shape)
            x = x + torch.arange(x.shape[1], device=x.device)
            for layer in self.layers:
                x = layer(x) @ self.own.t()
            return x * len(x.T)

    plain, x, breaks = Net(), torch.randn(4, 8), []
    model = lns_sim.convert(copy.deepcopy(plain), "lns-madam")
    for net in (plain, model):
        torch._dynamo.reset()
        counters.clear()
        y = torch.compile(net, backend="eager")(x)
        breaks.append(counters["graph_break"].total())
    assert torch.equal(y, model(x)) and breaks[1] <= breaks[0]


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return torch.einsum("bij,bkj->bik", self.layer(x), x)


class Cross(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x[:, :2], x[:, :2])[0]


class Unflatten(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x).unflatten(-1, sizes=(2, 4))


@pytest.mark.parametrize("make", [Einsum, Cross, Unflatten])
def test_one_graph_as_in_float32(make):
    torch._dynamo.reset()
    model, x = converted("lns-madam", make), torch.randn(2, 3, 8)
    y = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(y, model(x))
    y.sum().backward()
    compiled = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(compiled, model.parameters()))


def test_products_of_hooks_are_simulated_within_a_module_or_listed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(x)

    for inner in (True, False):
        model = lns_sim.convert(Net(), "lns-madam")
        (model.layer if inner else model).register_forward_hook(lambda module, args, out: out @ out.mT)
        found = lns_sim.summary(model, torch.randn(4, 8))
        assert found.macs["forward"] == 4 * 8 * 8 + inner * 4 * 4 * 8
        assert [name for _, name, _ in found.float_products] == ["mm"] * (not inner)


class Handing(nn.Module):
    """Multiplies in functions that it hands to torch, which compiled code runs as operators of their own."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.how = nn.Linear(6, 6), how

    def squares(self, x):
        return self.layer(x) @ x

    def forward(self, x):
        if self.how == "method":
            return checkpoint(self.squares, x, use_reentrant=False) @ x
        if self.how == "function":
            return checkpoint(lambda t: checkpoint(lambda u: u @ u, t, use_reentrant=False) @ x, x, use_reentrant=False)
        if self.how == "cond":
            return torch.cond(x.sum() < 1e9, lambda t: torch.bmm(t, t), lambda t: t * 2, (x,))
        return torch.ops.higher_order.map_impl(lambda t: (t @ t,), (x,), ())[0]


@pytest.mark.parametrize("name", ["lns-madam", "fp8"])
@pytest.mark.parametrize("how", ["method", "function"])
def test_functions_that_compiled_code_hands_on_are_simulated(how, name):
    torch.manual_seed(0)
    torch._dynamo.reset()
    plain, x = Handing(how), torch.randn(4, 6, 6)
    y = torch.compile(lns_sim.convert(copy.deepcopy(plain), name), backend="aot_eager")(x)
    with torch.no_grad():
        error = (y - plain(x)).norm() / y.norm()
    assert 0.005 < error < 0.2
    assert torch.equal(y, lns_sim.convert(plain, name)(x))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("how", ["cond", "map"])
def test_control_flow_is_refused(how, compiled):
    torch._dynamo.reset()
    model = lns_sim.convert(Handing(how), "lns-madam")
    if compiled:
        model.compile(backend="aot_eager")
    with pytest.raises(Exception, match="control flow, .*, has no simulated form"):
        model(torch.randn(4, 6, 6))


def test_functions_that_are_handed_on_do_not_count_random_streams():
    torch._dynamo.reset()
    recipe = dataclasses.replace(recipes.lns_madam(), activation=lns_sim.quantizers.LNS(rounding="stochastic"))
    model = lns_sim.convert(Handing("function"), recipe)
    with pytest.raises(Exception, match="compiled code checkpoints, has no simulated form"):
        torch.compile(model, backend="aot_eager", fullgraph=True)(torch.randn(4, 6, 6))
