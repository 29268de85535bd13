"""Observers: what they see, and what watching costs when nobody does."""

import time
import timeit
from unittest import mock

import pytest
import torch
from torch import nn

import lns_sim
from lns_sim.ops import observer as observing
from lns_sim.ops.observer import Observer, observe
from lns_sim.studies import models


class Log(Observer):
    def __init__(self, counts=False):
        self.counts, self.products, self.tensors = counts, [], []

    def product(self, product):
        self.products.append(product)

    def quantized(self, quantized):
        self.tensors.append(quantized)


def test_what_observers_see(device):
    torch.manual_seed(0)
    net = lns_sim.convert(nn.Sequential(nn.Linear(6, 5), nn.Conv1d(3, 2, 3)), "lns-madam").to(device)
    x = torch.randn(4, 3, 6, device=device, requires_grad=True)
    with observe(Log()) as outer, observe(Log(counts=True)) as inner:
        net(x).sum().backward()
    assert [(p.name, p.macs) for p in inner.products] == [
        ("forward", 4 * 3 * 6 * 5),
        ("forward", 4 * 2 * 3 * 3 * 3),
        ("input_gradient", 4 * 15 * 2 * 3),
        ("weight_gradient", 18 * 4 * 3),
        ("input_gradient", 4 * 3 * 5 * 6),
        ("weight_gradient", 5 * 6 * 12),
    ]
    sites = [p.site for p in inner.products]
    assert sites[0] == sites[4] == sites[5] != sites[1] == sites[2] == sites[3]
    assert [p.name for p in outer.products] == [p.name for p in inner.products]
    for p in inner.products:
        assert p.counters is not None and (p.out - p.in_float32()).norm() < 0.01 * p.out.norm()
    assert {t.name for t in inner.tensors} == {"activation", "weight", "error", "gradient"}
    assert all(t.site in sites for t in inner.tensors)
    with observe(Log()) as alone:
        net(x)
    assert all(p.counters is None for p in alone.products)  # nobody wants them
    count = len(alone.products)
    net(x)
    assert len(alone.products) == count


@pytest.mark.parametrize("recipe", ["lns-madam", "fp8", "madam"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_code_is_not_watched(recipe, backend):
    """Nor is its backward pass alone, nor what was compiled before; and that is said."""
    model, x = lns_sim.convert(nn.Sequential(nn.Linear(8, 8), nn.Conv1d(4, 2, 3)), recipe), torch.randn(4, 4, 8)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    y = compiled(x)
    compiled(x).sum().backward()
    assert torch.equal(y, model(x))
    for watching in (lambda: lns_sim.count(), lambda: observe(Log())):
        with pytest.raises(RuntimeError, match="neither counted nor observed"), watching():
            compiled(x).sum().backward()
        y = compiled(x)
        with pytest.raises(RuntimeError, match="neither counted nor observed"), watching():
            y.sum().backward()
        torch._dynamo.reset()
        with pytest.raises(RuntimeError, match="without torch.compile"), watching():
            torch.compile(model, backend=backend)(x).sum().backward()
        compiled = torch.compile(model, backend=backend)
        compiled(x)
    with lns_sim.count() as totals:
        model(x)
    assert ("forward" in totals) == (recipe == "lns-madam")


def test_watching_costs_nothing_when_nobody_does():
    """The calls of a step, times what each takes with no observer, against the step."""
    torch.manual_seed(0)
    model = lns_sim.convert(models.build("cnn", (1, 8, 8), 10), "lns-madam")
    x = torch.randn(64, 1, 8, 8)

    def step():
        model(x).square().mean().backward()

    step()
    calls, arguments = (
        {},
        {
            "enter": (),
            "site": (),
            "go_on": (None,),
            "counting": (),
            "report": (None, None, None, 0, torch.zeros(()), None, None),
            "report_codes": (None,) * 3,
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in arguments:
            calls[name] = mock.Mock(side_effect=getattr(observing, name))
            patch.setattr(observing, name, calls[name])
        step()
    assert all(call.call_count for call in calls.values())
    cost = 0.0
    for name, call in calls.items():
        function = getattr(observing, name)
        cost += call.call_count * min(timeit.repeat(lambda: function(*arguments[name]), number=1000, repeat=5)) / 1000
    times = []
    for _ in range(5):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(f"{sum(c.call_count for c in calls.values())} calls, {cost * 1e6:.1f} us of {min(times) * 1e3:.1f} ms")
    assert cost < 0.005 * min(times)
