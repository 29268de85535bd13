"""Autocast changes nothing of what is simulated: operands are widened, products are the same bits."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import same_bits
from torch import nn

import lns_sim
from lns_sim import recipes
from lns_sim.registry import RECIPES


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(9, 8), nn.Conv1d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(1, 2, 3, padding=1)
        self.attention, self.linear = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 64)

    def forward(self, at):
        x = self.conv(self.embedding(at).mT).mT
        x = self.attention(x, x, x)[0]
        x = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        x = self.up(torch.einsum("bij,bkj->bik", x, x).unsqueeze(1)).flatten(1)
        return self.linear(F.pad(x, (0, 8 - x.shape[1] % 8)).unflatten(1, (-1, 8)))


@pytest.mark.parametrize("recipe", [name for name in RECIPES if recipes.get(name) is not None])
def test_the_same_bits(recipe, device):
    torch.manual_seed(0)
    whole = lns_sim.convert(Net(), recipe).to(device)
    at, results = torch.randint(9, (2, 5), device=device), []
    for narrow in (None, torch.bfloat16):
        model = copy.deepcopy(whole)  # with what its quantizers keep of steps before
        torch.manual_seed(1)
        with torch.autocast(device, dtype=narrow, enabled=narrow is not None):
            y = model(at)
            y.square().sum().backward()  # the backward pass within, too
        results.append((y.detach(), *(p.grad for p in model.parameters())))
    assert all(same_bits(a.cpu(), b.cpu()) for a, b in zip(*results))


def test_narrow_operands_are_widened():
    torch.manual_seed(0)
    model = lns_sim.convert(nn.Linear(8, 4), "lns-madam")
    a, b = torch.randn(4, 8).bfloat16(), torch.randn(8, 4).half()
    expected = model(a.float())
    with torch.autocast("cpu"), lns_sim.simulate("lns-madam"):
        assert torch.equal(model(a), expected) and torch.equal(a @ model.weight.t(), expected - model.bias)
        product = a @ b
        assert torch.equal(torch.addmm(b[:4], a, b), product + b[:4])
        with pytest.raises(ValueError, match="float32, got torch.float64"):
            a.double() @ b.double()
    with lns_sim.simulate("lns-madam"):
        assert torch.equal(product, a.float() @ b.float())
        with pytest.raises(ValueError, match="float32, got torch.bfloat16"):
            a @ b.bfloat16()


def test_compiled_under_autocast():
    model = lns_sim.convert(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)), "fp8")
    x, plain = torch.randn(4, 8), copy.deepcopy(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.autocast("cpu"):
        y = compiled(x)
        y.sum().backward()
    expected = plain(x)
    expected.sum().backward()
    assert torch.equal(y, expected) and torch.equal(model[0].weight.grad, plain[0].weight.grad)
