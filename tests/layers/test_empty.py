"""Batches of nothing, as of an expert that no token chose: results and gradients of torch's shapes, gradients zero."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lns_sim
from lns_sim import recipes
from lns_sim.random import random_state
from lns_sim.registry import RECIPES

LAYERS = {
    "linear": (lambda: nn.Linear(8, 4), (0, 8)),
    "linear of sequences": (lambda: nn.Linear(8, 4), (0, 5, 8)),
    "linear of no positions": (lambda: nn.Linear(8, 4), (2, 0, 8)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (0, 4, 7)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (0, 4, 7, 6)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3), (0, 4, 5, 4, 3)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(4, 6, 3, dilation=2, output_padding=1), (0, 4, 7)),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (0, 4, 7, 6)),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(4, 6, 3), (0, 4, 3, 4, 3)),
}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if recipes.get(name) is not None])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer, recipe, device):
    make, shape = LAYERS[layer]
    model, x = make().to(device), torch.empty(shape, device=device, requires_grad=True)
    expected = model(x).shape
    lns_sim.convert(model, recipe)
    y = model(x)
    y.sum().backward()
    assert y.shape == expected and x.grad.shape == x.shape
    assert torch.equal(model.weight.grad, torch.zeros(model.weight.shape, device=device))
    assert torch.equal(model.bias.grad, torch.zeros_like(model.bias))


@pytest.mark.parametrize("recipe", [name for name in RECIPES if recipes.get(name) is not None])
def test_embeddings_and_attention(recipe, device):
    layer = lns_sim.convert(nn.Embedding(6, 4), recipe).to(device)
    y = layer(torch.empty(0, 3, dtype=torch.int64, device=device))
    y.sum().backward()
    assert y.shape == (0, 3, 4) and torch.equal(layer.weight.grad, torch.zeros(6, 4, device=device))
    model = lns_sim.convert(nn.MultiheadAttention(8, 2, batch_first=True), recipe).to(device)
    for shape in ((0, 5, 8), (2, 0, 8)):
        x = torch.empty(shape, device=device, requires_grad=True)
        y = model(x, x, x)[0]
        y.sum().backward()
        assert y.shape == x.grad.shape == shape
        assert all((p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize("a, b", [((0, 6), (6, 5)), ((4, 0), (0, 5)), ((4, 6), (6, 0)), ((0, 4, 6), (0, 6, 5))])
@pytest.mark.parametrize("recipe", ["lns-madam", "lns-madam-fake-quant", "fp8", "int8"])
def test_products(a, b, recipe, device):
    x, y = (torch.ones(shape, device=device, requires_grad=True) for shape in (a, b))
    expected = x.detach() @ y.detach()
    with lns_sim.simulate(recipe, rng=random_state(0, device=device)):
        got = x @ y
        assert torch.equal(torch.einsum("...ij,...jk->...ik", x, y), got)
    got.sum().backward()
    assert torch.equal(got, expected) and (x.grad == 0).all() and (y.grad == 0).all()


def test_attention_without_keys():
    with lns_sim.simulate("lns-madam"):
        y = F.scaled_dot_product_attention(torch.ones(2, 3, 4), torch.ones(2, 0, 4), torch.ones(2, 0, 4))
    assert torch.equal(y, torch.zeros(2, 3, 4))


def test_an_empty_share_of_a_global_batch(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = lns_sim.convert(nn.Linear(8, 4), "lns-madam")
        with pytest.raises(ValueError, match="this one's is empty"), lns_sim.distributed.global_batch():
            model(torch.empty(0, 8))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("datapath", [lns_sim.Datapath(), lns_sim.Datapath(bin_bits=20), lns_sim.LogDatapath()])
def test_the_weight_gradients_operator_counts_nothing_of_no_images(datapath, device):
    images, one = torch.zeros(0, 4, 5, 5, dtype=torch.uint8, device=device), torch.ones((), device=device)
    geometry = [3, 3], [1, 1], [1, 1], [1, 1], 1, datapath.encode()
    gradient, counters = torch.ops.lns_sim.conv2d_weight_gradient(images, one, images, one, 8, 8, *geometry, True, True)
    assert gradient.shape == (4, 4, 3, 3) and not gradient.any() and not counters.any()
