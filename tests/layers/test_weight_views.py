"""What models do with a weight besides multiplying by it: views and choices stay codes, all else takes its values."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lns_sim
from lns_sim import LNSWeight

ROWS = torch.tensor([0, 2, 2])


def weight(out=4, width=6) -> LNSWeight:
    torch.manual_seed(0)
    return lns_sim.convert(nn.Linear(width, out, bias=False), "lns-madam").weight


CODES = {
    "slice": lambda w: w[1:3],
    "select": lambda w: w[1],
    "column": lambda w: w[..., 0],
    "narrow": lambda w: w.narrow(0, 1, 2),
    "squeeze": lambda w: w[None].squeeze(0),
    "squeeze all": lambda w: w[None, :, None].squeeze(),
    "unsqueeze": lambda w: w.unsqueeze(1),
    "reshape": lambda w: w.T.reshape(2, -1),
    "flatten": lambda w: w.flatten(),
    "unflatten": lambda w: w.unflatten(0, (2, 2)),
    "T": lambda w: w.T,
    "mT": lambda w: w.mT,
    "movedim": lambda w: w.movedim(0, 1),
    "permute": lambda w: w.permute(1, 0),
    "expand": lambda w: w[None].expand(3, -1, -1),
    "split": lambda w: w.split(2)[1],
    "split by sizes": lambda w: w.split([1, 5], dim=1)[1],
    "chunk": lambda w: w.chunk(2)[1],
    "unbind": lambda w: w.unbind(1)[1],
    "iteration": lambda w: list(w)[2],
    "rows": lambda w: w[ROWS],
    "list": lambda w: w[[1, 0]],
    "mask": lambda w: w[torch.tensor([True, False, True, False])],
    "index_select": lambda w: w.index_select(1, ROWS),
    "repeat": lambda w: w.repeat(2, 1),
    "repeat_interleave": lambda w: w.repeat_interleave(2, 0),
    "flip": lambda w: w.flip(0),
    "stack": lambda w: torch.stack([w, w]),
    "cat of chunks": lambda w: torch.cat(w.chunk(2)),
    "diagonal": lambda w: w.diagonal(),
}
VALUES = {
    "mul": lambda w: w * 0.5,
    "pow": lambda w: w.pow(2),
    "sign": lambda w: w.sign() + w,
    "norm": lambda w: w.norm(dim=1),
    "normalize": lambda w: F.normalize(w),
    "layer_norm": lambda w: F.layer_norm(w, (6,)),
    "batch_norm": lambda w: F.batch_norm(w, None, None, training=True),
    "cosine": lambda w: F.cosine_similarity(w, w.flip(0)),
    "standardized": lambda w: (w - w.mean()) / w.std(),
    "cat with others": lambda w: torch.cat([w, torch.ones(1, 6)]),
    "straight through": lambda w: w + (w.round() - w).detach(),
    "prod": lambda w: w[0].prod(),
    "dequantize": lambda w: w.dequantize() if isinstance(w, LNSWeight) else w.clone(),
}


@pytest.mark.parametrize("name", [*CODES, *VALUES])
def test_the_values_and_their_gradient(name):
    f = CODES.get(name) or VALUES[name]
    w = weight()
    plain = w.detach().dequantize().requires_grad_()
    out, expected = f(w), f(plain)
    assert isinstance(out, LNSWeight) == (name in CODES)
    if name in CODES:
        assert out.stride() == out.codes.stride() and out.recipe == w.recipe
        out = out.dequantize()
    assert torch.equal(out, expected)
    for y in (out, expected):
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
    assert torch.equal(w.grad, plain.grad)
    with torch.inference_mode():
        again = f(w)
        assert torch.equal(again.dequantize() if name in CODES else again, expected)


def test_one_of_its_numbers_is_formatted_as_a_number():
    w = weight()
    assert f"{w[0, 0]:.3f}" == f"{w.dequantize()[0, 0]:.3f}"


X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "product",
    [
        lambda w: F.linear(X, w[ROWS]),
        lambda w: F.linear(X, torch.cat([w, w])),
        lambda w: F.linear(w, weight(3)),  # an embedding as a layer's input
        lambda w: F.conv1d(X, w[:, :5, None]),
        lambda w: F.embedding(ROWS[:1], w[1:]) @ w.T,
        lambda w: X @ w[0],
        lambda w: w[0] @ X[0].T,
        lambda w: w @ w.T,
        lambda w: torch.bmm(X, w.T.expand(2, 6, 4)),
        lambda w: torch.einsum("bti,hdi->bthd", X, w.view(2, 2, 6)),
        lambda w: torch.einsum("bi,oi->boi", X[:, 0], w).sum() + F.linear(X, w).sum(),
    ],
)
def test_products_of_views_are_simulated(product):
    w = weight()
    plain = w.detach().dequantize().requires_grad_()
    with lns_sim.count() as totals:
        y = product(w)
        y.square().sum().backward()
    expected = product(plain)
    expected.square().sum().backward()
    assert totals and (y - expected).norm() < 0.2 * expected.norm()
    assert (w.grad - plain.grad).norm() < 0.3 * plain.grad.norm()


class Queries(nn.Module):
    """As detection models use embeddings: repeated, normalized, added, and as a layer's input."""

    def __init__(self):
        super().__init__()
        self.queries, self.norm = nn.Embedding(4, 6), nn.LayerNorm(6)
        self.attention, self.out = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        q = self.queries.weight
        found = self.norm(
            q.unsqueeze(0).repeat(len(x), 1, 1) + self.attention(self.norm(q[None]).expand(2, -1, -1), x, x)[0]
        )
        return self.out(found) + self.out(q) + self.out(F.normalize(q))


def test_a_model_of_them_trains():
    torch.manual_seed(0)
    model = lns_sim.convert(Queries(), "lns-madam")
    optimizer = lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(X) - 1).square().mean()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("layer", [nn.Conv1d(5, 4, 3), nn.ConvTranspose1d(5, 4, 3), Queries()])
def test_inference_mode_is_no_grad(layer):
    model = lns_sim.convert(layer, "lns-madam").eval()
    with torch.no_grad():
        expected = model(X)
    with torch.inference_mode():
        assert torch.equal(model(X), expected)


@pytest.mark.parametrize("name", ["normal_", "xavier_uniform_", "trunc_normal_", "orthogonal_", "zeros_", "eye_"])
def test_initialization_writes_codes(name):
    w, plain = weight(32, 64), nn.Parameter(torch.empty(32, 64))
    codes = w.codes
    for p in (w, plain):
        torch.manual_seed(1)
        getattr(nn.init, name)(p)
    # A truncated normal of torch 2.10 is five operations in place, each of which rounds to codes.
    rtol = 2e-3 if name == "trunc_normal_" else 4e-4
    assert w.codes is codes and torch.allclose(w.dequantize(), plain, rtol=rtol, atol=1e-6)


def test_arithmetic_in_place_writes_codes():
    w = weight()
    expected = w.dequantize().detach()
    with torch.no_grad():
        w.mul_(3).add_(1)
        w.data += 1
        torch.neg(w, out=w)
    assert torch.allclose(w.dequantize(), -(3 * expected + 2), rtol=2e-3)


def test_what_multiplies_elsewhere_is_refused():
    with pytest.raises(NotImplementedError, match="docs/recipes.md"):
        F.scaled_dot_product_attention(*[weight()[None]] * 3)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # in vmap one sample is one product
def test_transforms_of_functions():
    torch.manual_seed(0)
    models = [lns_sim.convert(nn.Linear(6, 4), "lns-madam") for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(models)
    run = lambda p, b, x: torch.func.functional_call(models[0], (p, b), (x,))  # noqa: E731
    y = torch.func.vmap(run, (0, 0, None))(parameters, buffers, X)
    assert isinstance(parameters["weight"], LNSWeight)  # of equal scales
    assert all(torch.equal(y[i], m(X)) for i, m in enumerate(models))
    with pytest.raises(NotImplementedError, match="torch.func"):
        torch.func.grad(lambda x: models[0](x).sum())(X)
    with pytest.raises(NotImplementedError, match="torch.func"):
        torch.func.jacrev(models[0])(X)
