"""The energy model: its mapping by hand, the paper's table, what datapaths change, and the command."""

import json
from dataclasses import replace

import pytest
import torch
from tools import require_module
from torch import nn
from typer.testing import CliRunner

import lns_sim
from lns_sim import Datapath, LNSFormat, recipes
from lns_sim.cli.app import app
from lns_sim.studies import models
from lns_sim.studies.energy import paper
from lns_sim.studies.energy.components import FORMATS, constants, conversion, float_prices, lns_prices
from lns_sim.studies.energy.mapping import map_pass
from lns_sim.watching.passes import Pass, Shape


def work(shape, name="forward", useful=None, vector_size=32):
    return map_pass(Pass("", "linear", name, (), None, shape, shape.macs if useful is None else useful, 0), vector_size)


def test_the_mapping_by_hand():
    full = work(Shape(64, 96, 128))  # 3 groups of 32 columns, 4 vectors, each against 64 rows
    assert (full.cycles, full.slots, full.utilization) == (3 * 4 * 64, 64 * 96 * 128, 1)
    assert full.a_reads == 3 * 4 * 4 * 1024 and full.b_reads == full.cycles * 32  # A again after 16 rows
    edges = work(Shape(10, 33, 3, taps=9))  # 2 groups, a vector a tap, A used 10 times
    assert edges.cycles == 2 * 9 * 10 and edges.a_reads == 2 * 9 * 1024
    assert edges.utilization == pytest.approx(10 * 33 * 27 / (180 * 1024))
    strided = work(Shape(64, 32, 32, taps=4), useful=64 * 32 * 32)  # one tap in four sees an output
    assert strided.cycles == 64 and strided.utilization == 1
    depthwise = work(Shape(49, 1, 1, taps=9, repeats=32))
    assert depthwise.utilization == pytest.approx(1 / 1024)
    assert work(Shape(4, 32, 64), vector_size=16).cycles == 16


def test_shapes_of_every_kind_of_layer():
    """Products of each pass, and those that see no inserted zero, against the counts of layers worked out by hand."""
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        nn.Flatten(),
        nn.Linear(6 * 64, 10),
    )
    x = torch.randn(3, 4, 8, 8, requires_grad=True)
    found = {(p.layer, p.name): p for p in lns_sim.summary(lns_sim.convert(model, "lns-madam"), x).passes}
    assert found["0", "forward"].shape == Shape(3 * 16, 4, 2, 9, 2)
    assert found["0", "input_gradient"].shape == Shape(3 * 64, 2, 4, 9, 2)
    assert found["0", "weight_gradient"].shape == Shape(4, 18, 48, 1, 2)
    assert {found["0", name].useful for name in recipes.PASSES} == {3 * 16 * 8 * 18}
    assert found["1", "forward"].shape == Shape(3 * 64, 6, 8, 4) and found["1", "input_gradient"].shape == Shape(
        3 * 16, 8, 6, 4
    )
    assert found["1", "weight_gradient"].shape == Shape(8, 24, 48)
    assert {found["1", name].useful for name in recipes.PASSES} == {3 * 16 * 8 * 24}
    assert found["3", "weight_gradient"].shape == Shape(10, 384, 3)
    with lns_sim.count() as counted:
        model(x).sum().backward()
    assert {name: sum(p.macs for (_, n), p in found.items() if n == name) for name in recipes.PASSES} == {
        name: c.macs for name, c in counted.items()
    }


def test_the_papers_table():
    require_module("transformers")
    for name, found in paper.reproduce().items():
        allowed = 0.01 if name.startswith("bert") else 0.065
        for format, mj in paper.TABLE[name].items():
            assert found.total(format) == pytest.approx(mj, rel=allowed), (name, format)
        assert not found.float_products


def test_prices_of_datapaths():
    default = Datapath()
    base = lns_prices(default)
    for n, fj in constants()["conversion"].value.items():
        assert conversion(Datapath(lut_entries=int(n))) == pytest.approx(fj)
    assert conversion(Datapath(lut_entries=4, lut_bits=4)) == pytest.approx(12.29 + (17.24 - 12.29) / 2)
    assert conversion(Datapath(LNSFormat(8, 16))) > 19.02
    assert not base.extrapolated
    total = sum(base.slot.values()) + base.accumulation / 32 + base.a / 16 + base.b / 32
    assert total == pytest.approx(75.35)
    for name in ("FP8", "FP16", "FP32"):
        p = float_prices(name)
        assert p.slot["multiply-add"] + p.a / 16 + p.b / 32 == pytest.approx(constants()[f"total_{name.lower()}"].value)
        assert p.a == base.a * FORMATS[name]
    narrow = lns_prices(replace(default, acc_bits=16))
    assert narrow.accumulation == pytest.approx(base.accumulation * 16 / 24) and narrow.extrapolated
    assert narrow.slot["conversion"] == pytest.approx(19.02 * 10 / 18)  # lanes of 18 and of 10 bits
    assert lns_prices(default, bits=4).a == base.a / 2
    assert all(
        c.status in ("published", "derived", "calibrated", "extrapolated") and c.source for c in constants().values()
    )


def test_energy_of_models():
    x = torch.zeros(4, 1, 8, 8)
    model = models.build("mlp", (1, 8, 8), 10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = lns_sim.energy(model, x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # a copy was converted
    first, rest = 64 * 256, 256 * 256 + 256 * 10
    assert found.products == 4 * (2 * first + 3 * rest)
    assert found.total() == pytest.approx(sum(found.components().values()))
    assert found.total() == pytest.approx(sum(sum(parts.values()) for parts in found.layers().values()))
    assert found.total() == pytest.approx(sum(sum(found.components("LNS", name).values()) for name in recipes.PASSES))
    converted = lns_sim.convert(models.build("mlp", (1, 8, 8), 10), recipes.lns_madam(datapath=Datapath(lut_entries=1)))
    assert lns_sim.energy(converted, x).total() < found.total()
    assert lns_sim.energy(converted, x).total("FP8") == found.total("FP8")
    with torch.device("meta"):
        on_meta = lns_sim.energy(models.build("mlp", (1, 8, 8), 10), torch.zeros(4, 1, 8, 8))
    assert on_meta.rows == found.rows
    assert "extrapolated" in str(found) and json.dumps(found.to_dict())
    with pytest.raises(ValueError, match="multiplied in float32"):
        lns_sim.energy(models.build("mlp", (1, 8, 8), 10), x, recipe="lns-madam-fake-quant")
    with pytest.raises(ValueError, match="no product on a datapath"):
        lns_sim.energy(nn.ReLU(), x)
    with pytest.raises(ValueError, match="converted already"):
        lns_sim.energy(converted, x, recipe="lns-madam")
    skipped = lns_sim.convert(models.build("mlp", (1, 8, 8), 10), "lns-madam", skip="5")
    assert lns_sim.energy(skipped, x).float_products


def run(*args):
    return CliRunner().invoke(app, ["energy", *map(str, args)])


def test_the_command(tmp_path, monkeypatch):
    result = run("cnn", "--layers", "--out", tmp_path)
    assert result.exit_code == 0 and "fJ a product" in result.stdout and "Extrapolated: INT8" in result.stdout
    written = json.loads((tmp_path / "energy.json").read_text())
    assert written["energy"]["totals"]["LNS"]["mJ"] > 0 and written["constants"]["conversion"]["source"]
    assert (tmp_path / "energy.png").stat().st_size > 10_000
    more = run("cnn", "--batch-size", 4, "--lut-entries", 2, "--out", tmp_path)
    assert more.exit_code == 0
    (tmp_path / "own_net.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(6, 2)\n")
    monkeypatch.chdir(tmp_path)
    assert run("own_net:net", "--input", 6, "--out", tmp_path).exit_code == 0
    for args, message in [
        (("own_net:net",), "needs --input"),
        (("gpt", "--input", "3x3"), "takes tokens"),
        (("cnn", "--input", "3y3"), "a sample's shape"),
        (("cnn", "--recipe", "fp32"), "got fp32"),
        (("alexnet",), "model must be one of"),
    ]:
        result = run(*args, "--out", tmp_path)
        assert result.exit_code == 1 and message in result.stderr
