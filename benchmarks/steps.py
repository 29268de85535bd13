"""Training steps: bit-exact against float32 and against fake quantization in torch operations; other systems against
float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

import lns_sim
from benchmarks.harness import Measurement, step_against
from lns_sim import recipes
from lns_sim.cli.bench import torch_quantize
from lns_sim.optim import LNSMadam
from lns_sim.studies import models

# Whose steps are timed: one of each kind of quantizer.
OTHER_SYSTEMS = ("fp8", "int8", "luq", "shiftquant6")


class _FakeQuantize(torch.autograd.Function):
    """Quantizes values on the way forward (``forward``) or gradients on the way back."""

    @staticmethod
    def forward(ctx, x, forward):
        ctx.quantize_gradient = not forward
        return torch_quantize(x) if forward else x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return torch_quantize(dy) if ctx.quantize_gradient else dy, None


class EagerFakeQuant(nn.Module):
    """A layer between quantizers made of torch operations, as fake-quant frameworks build it: activations, weights,
    output gradients and weight gradients."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        q, layer = _FakeQuantize.apply, self.layer
        x, w = q(x, True), q(q(layer.weight, False), True)
        if isinstance(layer, nn.Conv2d):
            y = F.conv2d(x, w, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        else:
            y = F.linear(x, w)
        y = q(y, False)
        bias = layer.bias
        return y if bias is None else y + (bias.view(-1, 1, 1) if y.dim() == 4 else bias)


def eager_fake_quant(model: nn.Module) -> nn.Module:
    """A copy of the model with its layers wrapped."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (nn.Conv2d, nn.Linear)):
                setattr(module, name, EagerFakeQuant(child))
    return model


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, shape, classes: int, device: str = "cpu"):
    """A function that trains on one batch."""
    x, y = torch.randn(shape, device=device), torch.randint(0, classes, shape[:1], device=device)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def steps() -> Iterator[Measurement]:
    """Forward, backward and optimizer of the digits CNN (batch 64) and ResNet-20 on CIFAR shapes (batch 64)."""
    for work, name, shape in [
        ("digits CNN, batch 64", "cnn", (64, 1, 8, 8)),
        ("ResNet-20, batch 64", "resnet20", (64, 3, 32, 32)),
    ]:
        torch.manual_seed(0)
        plain = models.build(name, shape[1:], 10)
        exact, fake = lns_sim.convert(copy.deepcopy(plain), recipes.lns_madam()), eager_fake_quant(plain)
        sgd = {"lr": 0.01, "momentum": 0.9}
        ours = training_step(exact, LNSMadam(exact.parameters()), shape, 10)
        peers = {
            "eager fake-quant": (training_step(fake, torch.optim.SGD(fake.parameters(), **sgd), shape, 10), 0.8),
            "float32": (training_step(plain, torch.optim.SGD(plain.parameters(), **sgd), shape, 10), 5.0),
        }
        for peer, (step, target) in peers.items():
            yield step_against("training step", work, ours, peer, step, target)
    for name in OTHER_SYSTEMS:  # on ResNet-20, the last
        other = lns_sim.convert(copy.deepcopy(plain), name)
        ours = training_step(other, torch.optim.SGD(other.parameters(), **sgd), shape, 10)
        yield step_against("training step", f"{work}, {name}", ours, "float32", peers["float32"][0])
