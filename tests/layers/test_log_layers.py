"""Models on datapaths that add logarithms: all kinds of products, training, compilers, counters, comparison."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lns_sim
from lns_sim import LogDatapath, LogTables, recipes
from lns_sim.optim import LNSMadam
from lns_sim.studies import models
from lns_sim.studies.training import data

PES = [
    LogDatapath(),
    LogDatapath(acc_bits=12, tables="shift", order="tree", vector_size=8),
    LogDatapath(tables=LogTables.lists([9, 7, 4, 2, 1], [0, 30, 15, 6, 2, 1])),
]


@pytest.mark.parametrize("pe", PES[:2], ids=lambda pe: pe.label)
def test_a_cnn_learns_digits(pe):
    digits = data.load("digits")
    torch.manual_seed(0)
    model = models.build("cnn", digits.input_shape, digits.classes)
    model = lns_sim.convert(model, recipes.lns_madam(datapath=pe))
    optimizer = LNSMadam(model.parameters(), lr=1 / 32)
    losses = []
    for step in range(12):
        batch = slice(32 * step, 32 * step + 32)
        loss = F.cross_entropy(model(digits.x_train[batch]), digits.y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        x = self.norm(x)
        return self.inner(x, x, x)[0] @ x.mT


@pytest.mark.parametrize("pe", PES, ids=lambda pe: pe.label)
def test_all_products_of_attention_run_on_it(pe):
    model = lns_sim.convert(Attention(), recipes.lns_madam(datapath=pe))
    x = torch.randn(2, 5, 16, requires_grad=True)
    found = lns_sim.summary(model, x)
    assert not found.float_products and {p.datapath for p in found.passes} == {pe}
    assert {p.name for p in found.passes} == {"forward", "input_gradient", "weight_gradient"}
    with lns_sim.count() as totals:
        model(x).sum().backward()
    assert sum(c.macs for c in totals.values()) == sum(found.macs.values())
    assert all(c.vectors >= c.macs / pe.vector_size for c in totals.values())


def test_compiled_it_computes_the_same():
    torch.manual_seed(0)
    model = lns_sim.convert(
        nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 4)), recipes.lns_madam(datapath=PES[1])
    )
    x = torch.randn(5, 20)
    model(x).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager")
    assert torch.equal(compiled(x), model(x))
    compiled(x).sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected))

    product = torch.compile(lambda a, b: lns_sim.matmul(a, b, PES[1]), backend="aot_eager", fullgraph=True)
    a, b = lns_sim.quantize(torch.randn(3, 40)), lns_sim.quantize(torch.randn(40, 5))
    assert torch.equal(product(a, b), lns_sim.matmul(a, b, PES[1]))


def test_formats_of_both_operands_may_differ():
    narrow = lns_sim.quantize(torch.randn(20, 4), lns_sim.LNSFormat(5, 2))
    wide = lns_sim.quantize(torch.randn(3, 20))
    recoded = lns_sim.LNSTensor((narrow.codes & 15) * 4 | (narrow.codes & 16) << 3, narrow.scale, wide.format)
    for pe in PES:
        assert torch.equal(lns_sim.matmul(wide, narrow, pe), lns_sim.matmul(wide, recoded, pe))


def test_a_comparison_shows_its_noise():
    model, x = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3)), torch.randn(16, 20)
    rough, fine = (
        lns_sim.compare(model, lambda m: m(x).square().mean(), recipes.lns_madam(datapath=pe)).closest.margin
        for pe in (LogDatapath(acc_bits=10, acc_gamma=8, tables="shift"), LogDatapath())
    )
    assert rough < 0 < fine


def test_the_papers_prices_are_of_no_log_domain_design():
    model = lns_sim.convert(nn.Sequential(nn.Linear(8, 4)), recipes.lns_madam(datapath=LogDatapath()))
    for estimate in (lns_sim.energy, lns_sim.cycles):
        with pytest.raises(ValueError, match="the technology paper knows no processing element that adds logarithms"):
            estimate(model, torch.randn(2, 8))
