"""What every model must do once it is converted: a check of each promise, and what it takes of a model's output."""

import copy
import io
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import lns_sim
from lns_sim import LNSWeight, recipes


def logits(outputs):
    """A model's main output; of a detector, its losses."""
    if isinstance(outputs, Tensor):
        return outputs
    for name in ("logits", "logits_per_image", "sample", "out"):
        if name in outputs:
            return outputs[name]
    return torch.stack(list(outputs.values())) if "loss_classifier" in outputs else outputs[0]


def loss(y):
    """Of logits against classes drawn once; the sum of losses."""
    if y.dim() == 1:
        return y.sum()
    y = y.movedim(1, -1) if y.dim() == 4 else y
    y = y.reshape(-1, y.shape[-1])
    classes = torch.randint(y.shape[-1], (len(y),), generator=torch.Generator().manual_seed(2))
    return nn.functional.cross_entropy(y, classes)


def run(model, inputs):
    """A model's main output, without gradients."""
    with torch.no_grad():
        return logits(model(**inputs))


def converted(model, recipe="lns-madam"):
    with warnings.catch_warnings():
        warnings.simplefilter("error", lns_sim.nn.ZeroWeightsWarning)
        return lns_sim.convert(model, recipe)


def check_numbers(plain, model, inputs, within=0.15):
    """Outputs are ``within`` of float32's, and about as far as those of the same codes multiplied in float32."""
    fake = converted(copy.deepcopy(plain), recipes.fake_quant(recipes.lns_madam()))
    expected = run(plain, inputs)
    exact, fake = ((run(m, inputs) - expected).norm() for m in (model, fake))
    assert exact < within * expected.norm() and 0.6 * fake < exact < 1.6 * fake


def check_summary(model, inputs, gradients=frozenset()):
    """Nothing multiplies outside the datapath but sums of elementwise ``gradients``."""
    report = lns_sim.summary(model, **inputs)
    assert report.float_products == [] and {name for name, _ in report.float_gradients} == gradients
    return report


def check_copies(make, model, inputs):
    """Copies and states hold every bit."""
    y = run(model, inputs)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = converted(make()).train(model.training)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(run(m, inputs), y) for m in (fresh, copy.deepcopy(model)))


def train(model, inputs, optimizer, steps=10):
    """The losses before each step and after the last."""
    losses = []
    for _ in range(steps):
        value = loss(logits(model(**inputs)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return [*losses, loss(run(model, inputs)).item()]


def check_training(plain, model, inputs, lr=1 / 16, float_lr=3e-3, falls=0.2):
    """It learns what float32 learns: in ten steps its loss falls at least ``falls`` as far. Both are trained."""
    of_float = train(plain, inputs, torch.optim.AdamW(plain.parameters(), lr=float_lr))
    before = {n: p.codes.clone() for n, p in model.named_parameters() if isinstance(p, LNSWeight)}
    losses = train(model, inputs, lns_sim.optim.LNSMadam(model.parameters(), lr=lr, float_lr=float_lr))
    assert of_float[-1] < of_float[0]
    assert losses[0] == pytest.approx(of_float[0], rel=0.15)
    assert losses[0] - losses[-1] > falls * (of_float[0] - of_float[-1])
    for n, p in plain.named_parameters():
        own = model.get_parameter(n)
        assert (p.grad is None) == (own.grad is None), n
        assert n not in before or own.grad is None or not own.grad.any() or not torch.equal(own.codes, before[n]), n


def compiled(model, inputs, backend):
    """The main output of a compiled model, and how often its graph broke."""
    torch._dynamo.reset()
    counters.clear()
    return run(torch.compile(model, backend=backend), inputs), counters["graph_break"].total()


def check_compiled(plain, model, inputs, backend="aot_eager"):
    """Compiled it has the same bits, and its graph breaks no more often than float32's."""
    y, breaks = compiled(model, inputs, backend)
    assert torch.equal(y, run(model, inputs))
    assert breaks <= compiled(plain, inputs, "eager")[1]
