"""Torch's default dtype is of tensors that the user makes: what is simulated is float32 whatever it says."""

import copy
from contextlib import contextmanager

import pytest
import torch
from helpers import same_bits
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSFormat, LNSTensor, recipes
from lns_sim.golden import make_vectors
from lns_sim.nn.l1norm import L1BatchNorm
from lns_sim.optim import ClosureOptimizer, LNSMadam
from lns_sim.registry import OPTIMIZERS, RECIPES, OptimizerSettings


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(9, 8), nn.Conv3d(1, 8, (1, 1, 3), padding=(0, 0, 1))
        self.norm, self.layer_norm = nn.BatchNorm1d(8), nn.LayerNorm(8)
        self.attention, self.linear = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, at):
        x = self.embedding(at)
        x = self.norm(self.conv(x[:, None, None])[:, :, 0].mean((2, 3)))[:, None] + x
        masked = torch.zeros(at.shape, dtype=torch.bool)
        x = self.layer_norm(self.attention(x, x, x, key_padding_mask=masked)[0])
        return self.linear(x) @ torch.einsum("bij,bj->bi", x[:, :4], x[:, 0])[:, :, None]


def train(model, recipe, at, dtype):
    """Two steps of what the recipe converts and updates, with another default dtype."""
    with default_dtype(dtype):
        lns_sim.convert(model, recipe)
        if recipe.optimizer is None:
            kind = LNSMadam if recipe.coded_weights else torch.optim.SGD
            optimizer = kind(model.parameters(), lr=1 / 128)
        else:
            optimizer = OPTIMIZERS[recipe.optimizer].make(model.parameters(), OptimizerSettings())
        found = []

        def closure():
            torch.manual_seed(1)
            y = model(at)
            y.square().mean().backward()
            found.extend([y.detach(), *(p.grad.clone() for p in model.parameters())])
            return y.sum()

        own = isinstance(optimizer, ClosureOptimizer)
        if own:
            optimizer.begin_epoch(closure)
        for _ in range(2):
            optimizer.zero_grad()
            optimizer.step(closure) if own else (closure(), optimizer.step())
        return found + [p.detach().dequantize() if isinstance(p, LNSTensor) else p.detach() for p in model.parameters()]


@pytest.mark.parametrize("name", [name for name in RECIPES if recipes.get(name) is not None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_training_step(name, dtype):
    torch.manual_seed(0)
    model, at = Net(), torch.randint(9, (3, 5))
    results = [train(copy.deepcopy(model), recipes.get(name), at, d) for d in (torch.float32, dtype)]
    assert all(a.dtype == b.dtype and same_bits(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tensors_and_files(dtype):
    x = torch.randn(4, 40)

    def everything():
        q = lns_sim.quantize(x)
        vectors = make_vectors(Datapath(), count=2, k=40)
        return (
            lns_sim.matmul(q, q.t()),
            q.rescale(2).dequantize(),
            LNSFormat(6, 4).values(),
            torch.from_numpy(vectors.accumulators).float(),
            L1BatchNorm(40)(x).detach(),
        )

    expected = everything()
    with default_dtype(dtype):
        got = everything()
    assert all(a.dtype == b.dtype and same_bits(a, b) for a, b in zip(expected, got))
