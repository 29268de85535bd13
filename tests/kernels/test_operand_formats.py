"""Operands of different formats: a coarser gamma's exponents are counted in the datapath's steps (spec section 8)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import ISAS, core, everywhere, random_codes, same_bits, to_reference
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import datapaths, formats
from typer.testing import CliRunner

import lns_sim
from lns_sim import Datapath, LNSFormat, LNSTensor, recipes, reference
from lns_sim.command.app import app
from lns_sim.golden import check_results, make_vectors, read_vectors, trace_dot
from lns_sim.quantizers import LNS

ONE = torch.ones(())
FINE, COARSE = LNSFormat(8, 8), LNSFormat(5, 2)
ops = torch.ops.lns_sim


def test_the_unit_is_the_formats_not_the_operands():
    torch.manual_seed(0)
    a = lns_sim.quantize(torch.randn(64, 512), LNSFormat(6, 4), underflow="flush")
    b = lns_sim.quantize(torch.randn(512, 32), LNSFormat(5, 2), underflow="flush")
    lost = {}
    for lsb in (None, -2):
        counters = lns_sim.matmul(a, b, Datapath(acc_lsb=lsb), counters=True)[1]
        lost[lsb] = counters.vanished / counters.macs
    assert f"{lost[None]:.0%}" == "94%" and lost[-2] == 0  # the numbers of docs/arithmetic.md


def recoded(x: LNSTensor, datapath: Datapath):
    codes, k = to_reference(x)
    return reference.recode(codes, x.format, datapath.format), k


def agree(a, b, datapath):
    got = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
    operands = recoded(a, datapath), recoded(b, datapath)
    np.testing.assert_array_equal(got.numpy(), reference.matmul(*operands, datapath, return_accumulator=True))
    assert same_bits(everywhere(lns_sim.matmul, a, b, datapath), reference.matmul(*operands, datapath))


@pytest.mark.parametrize(
    "pair", [(FINE, COARSE), (LNSFormat(4, 1), LNSFormat(6, 4)), (LNSFormat(10, 32), FINE)], ids=str
)
def test_every_pair_of_codes(pair):
    datapath = Datapath(LNSFormat.holding(*pair))
    a, b = (LNSTensor(torch.arange(1 << f.bits).to(f.dtype), ONE, f) for f in pair)
    single = {}

    def one(x, y):
        if (x, y) not in single:
            single[x, y] = reference.dot([x], [y], datapath)
        return single[x, y]

    rows, columns = recoded(a, datapath)[0].tolist(), recoded(b, datapath)[0].tolist()
    expected = np.array([[one(x, y) for y in columns] for x in rows])
    for isa in ISAS:
        core.set_isa(isa)
        got = everywhere(lns_sim.matmul, a[:, None], b[None], return_accumulator=True)
        np.testing.assert_array_equal(got.numpy(), expected)
        got = everywhere(lns_sim.matmul, b[:, None], a[None], datapath, return_accumulator=True)
        np.testing.assert_array_equal(got.numpy(), expected.T)


@given(data=st.data(), m=st.integers(1, 50), n=st.integers(1, 4), k=st.integers(1, 70), seed=st.integers(0, 999))
def test_any_formats_any_datapath(data, m, n, k, seed):
    pair = [data.draw(formats(12)), data.draw(formats(12))]
    held = max(f.e_max * (max(pair, key=lambda f: f.gamma).gamma // f.gamma) for f in pair)
    assume(held < 1 << 13)
    datapath = data.draw(datapaths(LNSFormat.holding(*pair), foreign=data.draw(st.booleans())))
    rng = np.random.default_rng(seed)
    core.set_isa(data.draw(st.sampled_from(ISAS)))
    agree(random_codes((min(m, 6), k), pair[0], rng, k=3), random_codes((k, n), pair[1], rng, k=-9), datapath)
    a, b = random_codes((m, k), pair[0], rng), random_codes((k, n), pair[1], rng)
    wide = [
        LNSTensor(torch.from_numpy(recoded(x, datapath)[0]).to(datapath.format.dtype), ONE, datapath.format)
        for x in (a, b)
    ]
    got, counters = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True, counters=True)
    expected, counted = lns_sim.matmul(*wide, datapath, return_accumulator=True, counters=True)
    assert torch.equal(got, expected) and counters == counted


@pytest.mark.parametrize("pair", [(FINE, COARSE), (COARSE, FINE), (LNSFormat(9, 16), COARSE)], ids=str)
@pytest.mark.parametrize("groups, stride, dilation", [(1, 1, 1), (2, 2, 1), (1, 1, 2)])
def test_every_pass_of_a_convolution(pair, groups, stride, dilation, rng):
    datapath = Datapath(LNSFormat.holding(*pair))
    x, w = random_codes((2, 4, 7, 6), pair[0], rng, k=1), random_codes((6, 4 // groups, 3, 2), pair[1], rng)
    geometry = dict(stride=stride, padding=1, dilation=dilation, groups=groups)
    operands = recoded(x, datapath), recoded(w, datapath)
    y = everywhere(lns_sim.conv2d, x, w, **geometry, datapath=datapath)
    assert same_bits(y, reference.conv2d(*operands, **geometry, datapath=datapath))
    dy = random_codes(tuple(y.shape), pair[1], rng)
    e = recoded(dy, datapath)
    tail = ([stride] * 2, [1, 1], [dilation] * 2, groups, datapath.encode(), False, False)
    of_dy, gammas = (dy.codes, dy.scale), (dy.gamma, w.gamma)
    dx, _ = everywhere(
        ops.conv2d_input_gradient, *of_dy, w.codes, w.scale, dy.bits, w.bits, list(x.shape), *tail, *gammas
    )
    assert same_bits(dx, reference.conv2d_input_gradient(e, operands[1], x.shape, **geometry, datapath=datapath))
    dw, _ = everywhere(
        ops.conv2d_weight_gradient, *of_dy, x.codes, x.scale, dy.bits, x.bits, [3, 2], *tail, dy.gamma, x.gamma
    )
    assert same_bits(dw, reference.conv2d_weight_gradient(e, operands[0], (3, 2), **geometry, datapath=datapath))


def test_the_smallest_format_that_holds_both():
    assert LNSFormat.holding(FINE, COARSE) == FINE
    assert LNSFormat.holding(LNSFormat(8, 2), FINE) == LNSFormat(10, 8)
    assert LNSFormat.holding(LNSFormat(4, 1), LNSFormat(6, 32)) == LNSFormat(9, 32)
    assert FINE.holds(COARSE) and not COARSE.holds(FINE) and not FINE.holds(LNSFormat(8, 4))
    assert FINE.holds(LNSFormat(7, 4)) and not LNSFormat(8, 4).holds(LNSFormat(4, 8))
    with pytest.raises(ValueError, match="it would need 19 bits at gamma 64"):
        LNSFormat.holding(LNSFormat(13, 1), LNSFormat(8, 64))


def test_errors(rng):
    a, b = random_codes((3, 4), LNSFormat(8, 4), rng), random_codes((4, 3), FINE, rng)
    with pytest.raises(ValueError, match=r"a has format LNSFormat\(bits=8, gamma=4.*at most e_max = 127"):
        lns_sim.matmul(a, b, Datapath())
    with pytest.raises(ValueError, match="b has format"):
        lns_sim.matmul(a, b, Datapath(LNSFormat(8, 4)))
    with pytest.raises(ValueError, match="the forward pass' weight has format"):
        replace(recipes.lns_madam(), weight=LNSFormat(8, 4))
    with pytest.raises((ValueError, RuntimeError), match="does not fit a datapath of 8 bits and gamma 8"):
        ops.matmul(a.codes, ONE.expand(3, 1), b.codes, ONE.expand(1, 3), 8, 8, Datapath().encode(), False, False, 4)
    with pytest.raises(ValueError, match="does not fit the datapath's"):
        trace_dot(a[0], b[:, 0], Datapath())
    with pytest.raises(ValueError, match="corner is for operands of the datapath's own format"):
        make_vectors(Datapath(), "corner", formats=(FINE, COARSE))


def train(recipe):
    """A step of a linear layer and of attention's kind of product: what goes in and what comes out."""
    torch.manual_seed(0)
    layer = lns_sim.convert(torch.nn.Linear(40, 7, bias=False), recipe)
    x, dy = torch.randn(9, 40, requires_grad=True), torch.randn(9, 7)
    y = layer(x)
    y.backward(dy)
    a, b, e = torch.randn(2, 9, 40, requires_grad=True), torch.randn(2, 40, 7, requires_grad=True), torch.randn(2, 9, 7)
    with lns_sim.simulate(recipe):
        (z := a @ b).backward(e)
    return layer.weight, x, y, dy, a, b, z, e


def test_layers_and_products_train_with_a_format_for_each_tensor():
    """Errors of a third format, and a datapath for each pair."""
    narrow, error = LNSFormat(5, 2), LNSFormat(6, 4)
    recipe = replace(
        recipes.lns_madam(), weight=narrow, error=LNS(error), gradient=None, input_gradient=Datapath(LNSFormat(6, 4))
    )
    weight, x, y, dy, a, b, z, e = train(recipe)
    codes, k = reference.forward_codes(
        weight.codes.numpy().astype(np.int64) & 0xFFFF, int(weight.k), recipe.update, narrow
    )

    def operand(t, f, datapath):
        codes, k = reference.quantize(t.detach().numpy(), f)
        return reference.recode(codes, f, datapath.format), k

    def turned(q):
        return np.swapaxes(q[0], -1, -2), q[1]

    fine, back = recipe.forward, recipe.input_gradient
    w = {d: (reference.recode(codes, narrow, d.format), k) for d in (fine, back)}
    assert same_bits(y.detach(), reference.matmul(operand(x, FINE, fine), turned(w[fine]), fine))
    assert same_bits(x.grad, reference.matmul(operand(dy, error, back), w[back], back))
    dw = reference.matmul(turned(operand(dy, error, fine)), operand(x, FINE, fine), fine)
    assert same_bits(weight.grad, dw)
    assert same_bits(z.detach(), reference.matmul(operand(a, FINE, fine), operand(b, narrow, fine), fine))
    assert same_bits(a.grad, reference.matmul(operand(e, error, back), turned(operand(b, narrow, back)), back))
    db = reference.matmul(turned(operand(e, error, fine)), operand(a, FINE, fine), fine)
    assert same_bits(b.grad, np.swapaxes(db, -1, -2))


def test_grouped_products_are_those_of_each_group():
    recipe = replace(recipes.lns_madam(), weight=COARSE)
    a, b = torch.randn(9, 16), torch.randn(2, 16, 5)
    with lns_sim.simulate(recipe):
        y = torch._grouped_mm(a, b, torch.tensor([4, 9], dtype=torch.int32))
        parts = [a[:4] @ b[0], a[4:] @ b[1]]
    assert torch.equal(y, torch.cat(parts))


def test_recipe_files_and_compare(tmp_path):
    (tmp_path / "mixed.toml").write_text(
        "weight = { bits = 5, gamma = 2 }\n[error]\nformat = { bits = 6, gamma = 4 }\n"
        '[[override]]\nlayers = "2"\nweight = { bits = 4, gamma = 1 }\n'
    )
    recipe = recipes.load(tmp_path / "mixed.toml")
    assert recipe.default.weight == COARSE and recipe.overrides[0][1].weight == LNSFormat(4, 1)
    assert recipes.from_plain(recipes.to_plain(recipe)) == recipe
    net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    x = torch.randn(5, 8)
    found = lns_sim.compare(net, lambda m: m(x).square().mean(), recipe)
    assert len(found.rows) == 5 and all(row.datapath is not None for row in found.rows)


def test_traces_and_vectors(tmp_path, rng):
    a, b = random_codes((70,), FINE, rng), random_codes((70,), COARSE, rng)
    expected = lns_sim.matmul(a[None], b[:, None], return_accumulator=True).item()
    assert trace_dot(a, b).accumulator == expected
    made = make_vectors(Datapath(), count=20, k=45, formats=(FINE, COARSE))
    made.write(tmp_path, intermediates=True)
    again = read_vectors(tmp_path)
    assert again.formats == (FINE, COARSE) and np.array_equal(again.b, made.b) and made.b.max() < 32
    for x, y, acc in zip(made.a, made.b, made.accumulators):
        assert reference.dot(x.tolist(), reference.recode(y, COARSE, FINE).tolist(), Datapath()) == acc
    assert check_results(again, tmp_path / "acc.hex") is None
    lines = (tmp_path / "b.hex").read_text().splitlines()
    assert all(len(line) == 40 for line in lines) and int(lines[0], 16) & 31 == made.b[0, 0]
    words = (tmp_path / "acc.hex").read_text().splitlines()
    (tmp_path / "wrong.hex").write_text("\n".join([*words[:3], f"{int(words[3], 16) ^ 1:06x}", *words[4:]]))
    assert check_results(again, tmp_path / "wrong.hex").index == 3
    options = ["vectors", str(tmp_path / "cli"), "--count=5", "--b-format=5:2"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "cli" / "vectors.json").read_text())
    assert written["formats"] == [{"bits": 8, "gamma": 8}, {"bits": 5, "gamma": 2}]
    result = CliRunner().invoke(app, ["vectors", str(tmp_path / "other"), "--b-format=8:4"])
    assert result.exit_code == 1 and "does not fit the datapath's" in result.output
