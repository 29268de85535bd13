"""Recurrent layers are their cells, unrolled: the same bits, whatever layers, directions, projections and lengths."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lns_sim
from lns_sim import LNSWeight, recipes

KINDS = {"LSTM": (nn.LSTM, nn.LSTMCell), "GRU": (nn.GRU, nn.GRUCell), "RNN": (nn.RNN, nn.RNNCell)}


def unrolled(cell, x, state):
    outputs = []
    for t in range(len(x)):
        state = cell(x[t], state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs), state


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_cell_unrolled(kind, bias):
    torch.manual_seed(0)
    layer, cell = (make(5, 6, bias=bias) for make in KINDS[kind])
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in layer.state_dict().items()})
    x = torch.randn(4, 3, 5)
    h = torch.randn(3, 6)
    state = (h, torch.randn(3, 6)) if kind == "LSTM" else h
    for name in ("lns-madam", "fp8"):
        a, b = (lns_sim.convert(copy.deepcopy(m), name) for m in (layer, cell))
        assert all(isinstance(p, LNSWeight) == (name == "lns-madam") for n, p in a.named_parameters() if "weight" in n)
        with lns_sim.count() as totals:
            y, final = a(x, tuple(s[None] for s in state) if kind == "LSTM" else state[None])
        assert name != "lns-madam" or totals["forward"].macs == 4 * 3 * (5 + 6) * layer.weight_ih_l0.shape[0]
        expected, last = unrolled(b, x, state)
        assert torch.equal(y, expected)
        assert all(torch.equal(f[0], s) for f, s in zip(final, last)) if kind == "LSTM" else torch.equal(final[0], last)
        y.square().sum().backward()
        expected.square().sum().backward()
        for (n, p), q in zip(a.named_parameters(), b.parameters()):
            assert torch.equal(p.grad, q.grad) and p.grad.any(), n


OPTIONS = [dict(num_layers=2), dict(bidirectional=True), dict(num_layers=2, bidirectional=True, batch_first=True)]
OPTIONS_OF_ONE_KIND = [
    ("RNN", dict(nonlinearity="relu")),
    ("LSTM", dict(proj_size=3)),
    ("LSTM", dict(num_layers=2, proj_size=3, bidirectional=True, bias=False)),
]


@pytest.mark.parametrize(
    ("kind", "options"), [(kind, options) for kind in KINDS for options in OPTIONS] + OPTIONS_OF_ONE_KIND, ids=str
)
def test_without_codes_they_are_torchs(kind, options):
    torch.manual_seed(0)
    plain = KINDS[kind][0](5, 6, **options)
    model = lns_sim.convert(copy.deepcopy(plain), recipes.float32(recipes.lns_madam()))
    x = torch.randn(4, 3, 5)
    lengths = [3, 2, 2, 1] if options.get("batch_first") else [4, 2, 1]
    packed = pack_padded_sequence(x, lengths, batch_first=options.get("batch_first", False))
    for value in (x, x[0], packed):
        (y, final), (expected, last) = model(value), plain(value)
        if value is packed:
            y, expected = pad_packed_sequence(y)[0], pad_packed_sequence(expected)[0]
        assert torch.allclose(y, expected, atol=1e-6)
        pairs = zip(final, last) if kind == "LSTM" else [(final, last)]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_dropout_between_layers():
    torch.manual_seed(0)
    model = lns_sim.convert(nn.GRU(5, 6, num_layers=2, dropout=0.5), "lns-madam")
    x = torch.randn(4, 3, 5)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


def test_they_train_and_are_copied():
    torch.manual_seed(0)
    model = lns_sim.convert(nn.LSTM(5, 6), "lns-madam")
    optimizer = lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16)
    x, losses = torch.randn(4, 3, 5), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x)[0] - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x)[0], model(x)[0])
    assert isinstance(lns_sim.nn.to_float(model)(x)[0], torch.Tensor)
