"""The energy model: its mapping by hand, the paper's table, what datapaths change, price files, and the command."""

import json
import re
import sys
from dataclasses import replace

import prices
import pytest
import tomlkit
import torch
from helpers import ROOT
from mapped import work
from tools import require_module
from torch import nn
from typer.testing import CliRunner

import lns_sim
from lns_sim import Datapath, LNSFormat, LogDatapath, recipes
from lns_sim.cli.built import build
from lns_sim.command.app import app
from lns_sim.studies import models
from lns_sim.studies.energy import paper
from lns_sim.studies.energy.components import STATUSES, constants, memory_of
from lns_sim.studies.energy.paper_prices import FORMATS, Paper, conversion
from lns_sim.studies.energy.technologies import MEASURED, get
from lns_sim.studies.energy.technology import NoSuchDesign
from lns_sim.watching.passes import Shape


class TwoExperts(nn.Module):
    """A mixture that sends no row to one of its experts."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x).sum() + self.unused(x[:0]).sum()


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, row", [("resnet18-imagenet", "ResNet-18"), ("resnet50", "ResNet-50"), ("bert-base", "BERT-Base")]
)
def test_the_documentation_says_what_is_computed(name, row):
    """docs/energy.md, of our hardware: each format's row, and logarithms beside linear sums."""
    if name in paper.BERTS:
        require_module("transformers")
    rows = re.findall(rf"\| {row} \| (.*) \|", (ROOT / "docs/energy.md").read_text())
    cells = [[float(n) for n in re.findall(r"\d[\d.]*", line.replace(",", ""))] for line in rows]
    model, x = paper.build(name)
    found = lns_sim.energy(model, x, technology="measured")
    seven, *floats = (f"FP8, {kind}" for kind in ("7 fraction bits", "11-bit float sums", "24-bit float sums"))
    expected = [found.total(f) for f in ("LNS", "FP8", seven, *floats, "FP16, 7 fraction bits", "INT8")]
    expected += [found.total() / found.total(f) for f in ("FP8", seven, *floats)]
    assert cells[0][:-1] == pytest.approx(expected, abs=0.51, rel=0.001)
    assert cells[0][-5:-1] == pytest.approx(expected[-4:], abs=0.0051)
    if name != "resnet18-imagenet":
        log = [
            (12, "shift", "tree"),
            (12, "shift", "sequential"),
            (12, "exact", "tree"),
            (16, "shift", "tree"),
            (16, "exact", "tree"),
        ]
        paths = [Datapath(acc_bits=16)] + [
            LogDatapath(acc_bits=b, tables=t, order=o, vector_size=32) for b, t, o in log
        ]
        others = [lns_sim.energy(model, x, recipe=recipes.lns_madam(datapath=d), technology="measured") for d in paths]
        assert cells[1] == pytest.approx([found.total(), *(other.total() for other in others)], abs=0.51, rel=1e-4)


def test_prices_of_datapaths():
    default, technology = Datapath(), Paper()
    memory = technology.memory()

    def total(prices):
        reads = prices.bits / 8 * (memory.a / 16 + memory.b / 32)
        return sum(prices.slot.values()) + prices.accumulation / 32 + reads

    base = technology.lns(default, "forward")
    for n, fj in constants()["conversion"].value.items():
        assert conversion(Datapath(lut_entries=int(n))) == pytest.approx(fj)
    assert conversion(Datapath(lut_entries=4, lut_bits=4)) == pytest.approx(12.29 + (17.24 - 12.29) / 2)
    assert conversion(Datapath(LNSFormat(8, 16))) > 19.02
    assert "extrapolated" not in base.rests_on and base.idle is None
    assert total(base) == pytest.approx(75.35)
    for name in ("FP8", "FP16", "FP32"):
        p = technology.others("forward")[name]
        assert total(p) == pytest.approx(constants()[f"total_{name.lower()}"].value)
        assert p.bits == 8 * FORMATS[name]
    narrow = technology.lns(replace(default, acc_bits=16), "forward")
    assert narrow.accumulation == pytest.approx(base.accumulation * 16 / 24) and "extrapolated" in narrow.rests_on
    assert narrow.slot["conversion"] == pytest.approx(19.02 * 10 / 18)  # lanes of 18 and of 10 bits
    assert technology.lns(default, "forward", bits=4).bits == 4
    assert memory_of(technology.process, 4 << 20).global_buffer == pytest.approx(2**0.5 * memory.global_buffer)
    assert all(c.status in STATUSES and c.source for c in constants().values())
    assert constants()["conversion"].status == "recalled"  # nobody checked it against the print


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
    assert "INT8: extrapolated" in str(found) and json.dumps(found.to_dict())
    with pytest.raises(ValueError, match="multiplied in float32"):
        lns_sim.energy(models.build("mlp", (1, 8, 8), 10), x, recipe="lns-madam-fake-quant")
    with pytest.raises(ValueError, match="no product on a datapath"):
        lns_sim.energy(nn.ReLU(), x)
    for estimate in (lns_sim.energy, lns_sim.cycles):
        with pytest.raises(ValueError, match="the batch is empty"):
            estimate(nn.Linear(4, 3), torch.zeros(0, 4))
        assert estimate(TwoExperts(), torch.zeros(2, 4)).total() > 0
    rows = lns_sim.energy(TwoExperts(), torch.zeros(2, 4)).rows
    assert {row.layer: row.products for row in rows} == {"used": 2 * 4 * 3, "unused": 0}
    with pytest.raises(ValueError, match="converted already"):
        lns_sim.energy(converted, x, recipe="lns-madam")
    skipped = lns_sim.convert(models.build("mlp", (1, 8, 8), 10), "lns-madam", skip="5")
    assert lns_sim.energy(skipped, x).float_products


def run(*args):
    return CliRunner().invoke(app, ["energy", *map(str, args)])


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bin/lns-sim", "energy", "cnn"])
    result = run("cnn", "--layers", "--out", tmp_path)
    assert result.exit_code == 0 and "fJ a product" in result.stdout and "INT8: extrapolated" in result.stdout
    first = result.stdout[: result.stdout.index("cnn, 1 x 1x8x8")]  # above the table
    shown = " ".join(first.split())
    assert "The paper claims that FP8 takes 2.3 times the energy of LNS. Our own RTL on OSU 0.18 um" in shown
    for page in ("README.md", "docs/energy.md"):  # which say both kinds of product in one range
        assert re.search(r"0\.93 .*to 1\.12 times", " ".join((ROOT / page).read_text().split()))
    assert "0.93 (FP8), 1.09 (FP8, 7 fraction bits), 2.18 (FP8, 11-bit float sums), 4.20" in shown
    written = json.loads((tmp_path / "energy.json").read_text())
    assert written["energy"]["totals"]["LNS"]["mJ"] > 0 and written["constants"]["conversion"]["source"]
    assert written["commands"] == ["lns-sim energy cnn"]
    assert written["technology"]["name"] == "paper" and written["environment"]["lns_sim"]
    assert (tmp_path / "energy.png").stat().st_size > 10_000
    more = ("cnn", "--batch-size", 4, "--lut-entries", 2, "--out", tmp_path)
    assert "is not empty" in run(*more).stderr and run(*more, "--force").exit_code == 0
    (tmp_path / "own_net.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(6, 2)\n")
    monkeypatch.chdir(tmp_path)
    assert run("own_net:net", "--input", 6).exit_code == 0 and (tmp_path / "runs/energy/1/energy.png").exists()
    for args, message in [
        (("own_net:net",), "needs --input"),
        (("gpt", "--input", "3x3"), "takes tokens"),
        (("cnn", "--input", "3y3"), "a sample's shape"),
        (("cnn", "--recipe", "fp32"), "got fp32"),
        (("alexnet",), "model must be one of"),
    ]:
        result = run(*args)
        assert result.exit_code == 1 and message in result.stderr


@pytest.mark.parametrize("name", models.DECODERS)
def test_decoders_take_tokens(name, tmp_path):
    result = run(name, "--out", tmp_path)
    assert result.exit_code == 0 and f"{name}, 1 x" in result.stdout and "tokens" in result.stdout


@pytest.mark.parametrize("name", models.NAMES)
def test_every_model_has_an_input_of_its_own(name):
    model, x, title = build(name, None, None, 2)
    assert len(model(x)) == 2 and title.startswith(f"{name}, 2 x ")
    text = name in models.DECODERS
    assert x.dtype == (torch.int64 if text else torch.float32) and x.dim() == (2 if text else 4)


def test_a_price_file_by_hand(tmp_path):
    """Products at their pass' price, idle lanes at their own, buffers by the process; nothing of the paper's."""
    own = prices.write(tmp_path / "own.toml")
    found = lns_sim.energy(nn.Linear(48, 8, bias=False), torch.zeros(4, 48), technology=own)
    (forward, gradient) = found.rows  # the input needs no gradient
    assert found.formats == ["LNS", "FP8"] and (forward.name, gradient.name) == ("forward", "weight_gradient")
    busy, slots = 4 * 8 * 48, 2 * 4 * 1024  # two vectors for each of four rows
    energy = forward.energy["LNS"]
    assert energy["lanes"] + energy["clock"] == pytest.approx(100 * busy)
    assert energy["clock"] == pytest.approx(100 * busy * 50 / 150)  # its share of the mean of the passes
    assert energy["idle lanes"] == pytest.approx(10 * (slots - busy))
    sram = 10000 / 8 * (90 / 45) * (1.8 / 0.9) ** 2  # fJ a byte of 8 KB
    assert energy["buffer B"] == pytest.approx(sram * 2 * 4 * 32)
    assert forward.energy["FP8"]["products"] == pytest.approx(300 * busy)
    assert gradient.energy["LNS"]["lanes"] + gradient.energy["LNS"]["clock"] == pytest.approx(150 * busy)
    assert found.rests_on["LNS"] == "given on a process, without wires: rom 24"
    assert any("less than half of the lanes" in note and "10.0 fJ" in note for note in found.notes)
    assert found.technology["name"] == "own.toml" and str(tmp_path) not in json.dumps(found.to_dict())


@pytest.mark.parametrize("order, shell", [("tree", ""), ("sequential", ", no handshake")])
@pytest.mark.parametrize("tables", ["exact", "shift"])
@pytest.mark.parametrize("bits", [16, 12])
def test_what_adds_logarithms_costs_what_was_measured(bits, tables, order, shell):
    name, d = (
        f"log {order}, {bits} bits, {tables}{shell}",
        LogDatapath(acc_bits=bits, tables=tables, vector_size=32, order=order),
    )
    design, measured = tomlkit.parse(MEASURED.read_text()).unwrap()["designs"][name], get("measured")
    for source, fj in design["fj"].items():
        if source not in ("random", "idle", "blocks"):
            assert sum(measured.lns(d, source).slot.values()) == pytest.approx(fj)
    assert measured.lns(d, "forward").idle == design["fj"]["idle"]
    assert measured.area(d) == design["area_um2"] and measured.clock(d) == pytest.approx(1 / design["period_ns"])
    model, x = nn.Conv2d(32, 32, 1), torch.zeros(1, 32, 4, 8)  # all lanes are in use
    found = lns_sim.energy(model, x, recipe=recipes.lns_madam(datapath=d), technology="measured")
    for row in found.rows:
        at = {k: fj for k, fj in row.energy["LNS"].items() if "buffer" not in k}
        assert sum(at.values()) == pytest.approx(design["fj"][row.name] * row.products)
    assert found.rests_on["LNS"].endswith(f"without wires: {name}")
    assert any(note.startswith(f"Only LNS's datapath was changed (log-domain {bits}-bit") for note in found.notes)


def test_what_adds_logarithms_otherwise_is_refused(tmp_path):
    measured, own = get("measured"), get(prices.write(tmp_path / "own.toml"))
    for technology, datapath, message in [
        (
            measured,
            LogDatapath(acc_bits=12),
            "lanes 1; vector_size = 32 is log sequential, 12 bits, exact, no handshake",
        ),
        (
            measured,
            LogDatapath(acc_bits=14, vector_size=32),
            "acc_bits 14, .* lanes 32; it has log tree, 16 bits, exact; ",
        ),
        (
            measured,
            LogDatapath(tables="coarse:3", vector_size=32),
            "tables coarse:3, order sequential, lanes 32; it has",
        ),
        (measured, LogDatapath(headroom_bits=2, vector_size=32), "the usual offset .* not of .*, headroom 2; it has"),
        (measured, LogDatapath(tables=([9, 4], [0, 8]), vector_size=32), "named tables, .* 2 and 2 entries"),
        (own, LogDatapath(vector_size=32), "own.toml has no log-domain design .*; it has none that adds logarithms"),
        (
            Paper(),
            LogDatapath(),
            r"knows no processing element that adds logarithms \(LogDatapath\): take the technology",
        ),
    ]:
        for asked in (lambda t, d: t.lns(d, "forward"), lambda t, d: t.clock(d)):
            with pytest.raises(NoSuchDesign, match=message):
                asked(technology, datapath)


def test_what_a_price_file_does_not_have_is_on_a_line_or_refused(tmp_path):
    own = get(prices.write(tmp_path / "own.toml"))
    between = own.lns(Datapath(acc_bits=20), "forward")
    assert sum(between.slot.values()) == pytest.approx((100 + 70) / 2)
    assert "interpolated by acc_bits between rom 16 and rom 24" in between.rests_on
    assert own.area(Datapath(acc_bits=18)) == pytest.approx(2500) and own.clock(Datapath()) == pytest.approx(0.25)
    for datapath, message in [
        (Datapath(acc_bits=12), "no LNS design with gamma 8, lut_entries 8, acc_bits 12"),
        (Datapath(lut_entries=2), "nor two between which it lies; it has rom 24, rom 16"),
        (Datapath(rounding="nearest"), "no LNS design with alignment by nearest"),
        (Datapath(acc_lsb=3), r"no LNS design with a unit of 2\^3"),
        (Datapath(bin_bits=9), "no LNS design with bin_bits 9"),
    ]:
        with pytest.raises(ValueError, match=message):
            own.lns(datapath, "forward")
    scaled = get(
        prices.write(tmp_path / "s.toml", prices.PROCESS, prices.lns(), "[scale]\nnode_nm = 45\nvoltage = 0.9")
    )
    assert sum(scaled.lns(Datapath(), "forward").slot.values()) == pytest.approx(100 / 8)  # half the length, V squared
    assert scaled.area(Datapath()) == 1000 and scaled.clock(Datapath()) is None
    memory = get(prices.write(tmp_path / "m.toml", prices.PROCESS, prices.lns(), "[memory]\ndram = 7.0\nbuffer_a = 3"))
    assert (memory.memory().dram, memory.memory().a) == (7, 3)
    assert memory.common()["memories"].startswith("given: dram, buffer_a; the rest: SRAM")
    assert memory.memory().b == own.memory().b


def test_damaged_price_files(tmp_path):
    lns = prices.lns()
    for text, message in [
        ("[process", "is no TOML file"),
        (lns, "the file lacks process"),
        (prices.PROCESS, "the file lacks designs"),
        (prices.PROCESS.replace("voltage", "volt") + lns, "did you mean 'voltage'"),
        (prices.PROCESS.replace("1.8", "-1") + lns, "voltage must be a finite number"),
        (prices.PROCESS + lns.replace("idle = 10.0", ""), "fj lacks idle"),
        (prices.PROCESS + lns.replace("gamma = 8", ""), "lacks gamma"),
        (prices.PROCESS + lns.replace('"lns"', '"fixed"'), "kind must be one of"),
        (prices.PROCESS + lns.replace('"LNS8"', '"FP8"'), "format is such as LNS8, INT4, E4M3 or E3M0 x INT4"),
        (prices.PROCESS + lns.replace("200.0", '"200"'), "must be a number"),
        (prices.PROCESS + lns.replace("clock = 50.0", "clock = 500.0"), "blocks must sum to the mean of the passes"),
        (prices.PROCESS + lns.replace("area_um2", "area"), "did you mean 'area_um2'"),
        ("designs = 3\n" + prices.PROCESS, "designs must be a table"),
        (prices.PROCESS + lns.replace("lanes = 32", "lanes = 0"), "lanes must be at least 1"),
        (prices.PROCESS + lns + "[memory]\ndram = 0", "memory.dram must be a finite number"),
        (prices.PROCESS + lns + "[scale]\nnode_nm = 7", "scale lacks voltage"),
    ]:
        prices.write(tmp_path / "own.toml", text)
        result = run("mlp", "--technology", tmp_path / "own.toml", "--out", tmp_path / "out")
        assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
        assert "own.toml is no" in result.stderr
    missing = run("mlp", "--technology", tmp_path / "none.toml", "--out", tmp_path / "out")
    assert missing.exit_code == 1 and "none.toml" in missing.stderr
    assert "technology must be paper, measured" in run("mlp", "--technology", "45nm", "--out", tmp_path / "out").stderr


def test_a_changed_datapath_is_not_compared_without_a_word():
    x = torch.zeros(1, 1, 8, 8)
    same = lns_sim.energy(models.build("cnn", (1, 8, 8), 10), x)
    assert not any("Only LNS's datapath was changed" in note for note in same.notes)
    narrow = recipes.lns_madam(datapath=Datapath(acc_bits=16, lut_entries=2))
    changed = lns_sim.energy(models.build("cnn", (1, 8, 8), 10), x, recipe=narrow)
    assert any("was changed (2 LUT entries, 16-bit accumulators)" in note for note in changed.notes)


def test_shares_of_energy_where_lanes_are_idle():
    """A depthwise layer has few of the products and most of the energy."""
    depthwise = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.Conv2d(32, 64, 1, bias=False))
    found = lns_sim.energy(depthwise, torch.zeros(1, 32, 14, 14))
    (note,) = [note for note in found.notes if "half of the lanes" in note]
    energy = sum(sum(row.energy["LNS"].values()) for row in found.rows if row.layer == "0") * 1e-12 / found.total()
    products = sum(row.products for row in found.rows if row.layer == "0") / found.products
    assert note.startswith(f"{energy:.0%} of LNS's energy") and f"have {products:.1%} of the products" in note
    assert energy > 0.9 and products < 0.2
    assert "as much as a busy one" in note  # the paper says nothing else


@pytest.mark.slow
def test_the_papers_table_leaves_no_older_picture(tmp_path):
    require_module("transformers")
    assert run("cnn", "--out", tmp_path).exit_code == 0
    before = (tmp_path / "energy.png").read_bytes()
    result = run("paper", "--out", tmp_path, "--force")
    assert result.exit_code == 0 and (tmp_path / "energy.png").read_bytes() != before
    assert json.loads((tmp_path / "energy.json").read_text())["model"] == "paper"
    refused = run("paper", "--batch-size", 4, "--out", tmp_path, "--force")
    assert refused.exit_code == 1 and "--batch-size would change nothing" in refused.stderr


def test_formats_and_shells_of_a_price_file(tmp_path):
    """Operands' bits are the format's; what is compared has the handshake of the LNS design, or has none too."""
    bare = prices.FP8.replace("FP8", "bare").replace("handshake = true", "handshake = false")
    mixed = prices.FP8.replace("FP8", "mixed").replace("E4M3", "E3M0 x INT4").replace("handshake = true", "")
    half = prices.FP8.replace("FP8", "half").replace("E4M3", "E5M10")
    shelled = prices.lns().replace("lanes = 32", "lanes = 32\nhandshake = true")
    own = get(prices.write(tmp_path / "own.toml", prices.PROCESS, shelled, prices.FP8, bare, mixed, half))
    assert {name: p.bits for name, p in own.others("forward").items()} == {"FP8": 8, "mixed": 4, "half": 16}


def test_our_own_hardware(tmp_path):
    """The file that `make cells` wrote prices every design in it; its ratio stands below the paper's."""
    written = tomlkit.parse(MEASURED.read_text()).unwrap()
    designs = {name: d["fj"] for name, d in written["designs"].items()}
    model, x = nn.Linear(64, 64, bias=False), torch.zeros(64, 64, requires_grad=True)
    found = lns_sim.energy(model, x, technology="measured")
    buffers = ("buffer A", "buffer B", "idle lanes")
    convolution = lns_sim.energy(nn.Conv2d(32, 32, 1), torch.zeros(1, 32, 4, 8), technology="measured")
    for name in found.formats:
        fj = designs["LNS rom, LUT 8" if name == "LNS" else name]
        for rows, tensors in ((found.rows, "transformer_"), (convolution.rows, "")):
            for row in rows:
                lanes = sum(v for component, v in row.energy[name].items() if component not in buffers)
                assert lanes == pytest.approx(fj[tensors + row.name] * row.products)
                assert row.energy[name]["idle lanes"] == 0
        assert found.rests_on[name].startswith(f"measured on {written['process']['name']}, without wires: ")
    assert {"INT8", "FP8", "FP8, 7 fraction bits", "FP8, 11-bit float sums"} <= set(found.formats)
    mean = {name: sum(fj[p] for p in recipes.PASSES) for name, fj in designs.items()}
    shown = " ".join(run("mlp", "--out", tmp_path).stdout.split())
    assert f" {mean['FP8'] / mean['LNS rom, LUT 8']:.2f} (FP8)," in shown
    for n in (1, 2, 4, 8):  # all LUTs of the paper
        assert get("measured").area(Datapath(lut_entries=n)) == written["designs"][f"LNS rom, LUT {n}"]["area_um2"]
    with pytest.raises(ValueError, match="measured has no LNS design with gamma 8, lut_entries 8, acc_bits 8"):
        lns_sim.energy(model, x, technology="measured", recipe=recipes.lns_madam(datapath=Datapath(acc_bits=8)))


def test_the_price_file_of_the_docs(tmp_path):
    """It is read as printed: scaled from 16 nm and 0.8 V to 7 nm and 0.7 V, with memories of its own."""
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/energy.md").read_text(), re.S)
    (tmp_path / "own.toml").write_text(text)
    own = get(str(tmp_path / "own.toml"))
    scale = 7 / 16 * (0.7 / 0.8) ** 2
    assert sum(own.lns(Datapath(), "forward").slot.values()) == pytest.approx(60 * scale)
    assert own.area(Datapath()) == pytest.approx(5000 * (7 / 16) ** 2) and own.memory().dram == 31200
