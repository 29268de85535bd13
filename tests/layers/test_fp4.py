"""MXFP4: numbers, scales of blocks, rounding without bias, and training's products along each pass' own K."""

import math

import pytest
import torch
from torch import nn

import lns_sim
from lns_sim import recipes
from lns_sim.quantizers import FP4
from lns_sim.random import random_state

NUMBERS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def values(q, x, dim=1, block=32, seed=None):
    return q.value_of_blocks(
        *q.quantize_blocks(x, None if seed is None else random_state(seed), dim, block), dim, block
    )


def test_numbers_and_scales_are_the_specifications():
    """Any number of float32's middle range; blocks whose scales are 80 octaves apart, the last one short."""
    torch.manual_seed(0)
    x = torch.randn(50, 70) * torch.exp2(torch.randint(-40, 40, (50, 1)).float())
    x[:, :32] *= torch.exp2(torch.randint(-6, 1, (50, 32)).float())
    found = values(FP4(), x)
    for row, here in zip(x, found):
        for block, own in zip(row.split(32), here.split(32)):
            scale = 2.0 ** (math.floor(math.log2(block.abs().max())) - 2)
            distances = ((block / scale).abs()[:, None] - NUMBERS).abs()
            at = (own / scale).abs()
            assert torch.isin(at, NUMBERS).all() and torch.equal(((block / scale).abs() - at).abs(), distances.amin(1))
            assert torch.equal(own.sign().abs(), own.sign() * block.sign())


def test_ties_go_to_even_and_large_numbers_saturate():
    x = torch.tensor([[4.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.9, -5.0, -0.25]])
    assert values(FP4(), x).tolist() == [[4.0, 0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, -4.0, 0.0]]
    assert not values(FP4(), torch.zeros(2, 3)).any() and values(FP4(), torch.zeros(2, 0)).shape == (2, 0)
    assert values(FP4(), torch.tensor([[1.0, math.nan]])).isnan().all()
    small = values(FP4(), torch.tensor([[1e-44, 2.0**-130], [3e38, 2.0**-126]]), block=1)
    assert values(FP4("stochastic"), torch.full((1, 9), 3.4e38), seed=0).isfinite().all()
    assert small.tolist() == [[0.0, 0.0], [6 * 2.0**125, 2.0**-126]]


def test_stochastic_rounding_has_no_bias():
    torch.manual_seed(1)
    x = torch.randn(40, 48)
    x[:, 0] = 7.9  # of nearest rounding's scale, 6 would be the largest number
    drawn = torch.stack([values(FP4("stochastic"), x, seed=seed) for seed in range(600)])
    z = (drawn.mean(0) - x) / (drawn.std(0) / 600**0.5).clamp(min=1e-6)
    assert z[drawn.std(0) > 0].square().mean().sqrt() < 1.1
    assert (values(FP4(), x) - x)[:, 0].mean() == pytest.approx(-1.9, abs=1e-5)


@pytest.mark.parametrize("recipe", ["mxfp4", "mxfp4-stochastic"])
def test_every_pass_has_the_blocks_of_its_own_k(recipe):
    torch.manual_seed(2)
    layer, r = nn.Linear(70, 40, bias=False), recipes.get(recipe)
    w = layer.weight.detach().clone()
    layer = lns_sim.convert(layer, r)
    x, dy = torch.randn(45, 70, requires_grad=True), torch.randn(45, 40)
    y = layer(x)
    y.backward(dy)
    q = FP4()
    assert torch.allclose(y, values(q, x.detach()) @ values(q, w).T, rtol=1e-5, atol=1e-5)
    if r.error == q:
        assert torch.allclose(x.grad, values(q, dy) @ values(q, w, 0), rtol=1e-5, atol=1e-5)
        assert torch.allclose(layer.weight.grad, values(q, dy, 0).T @ values(q, x.detach(), 0), rtol=1e-5, atol=1e-5)
    else:
        exact = dy @ values(q, w, 0)
        assert 0.01 < (x.grad - exact).norm() / exact.norm() < 0.5
