"""compare: its numbers by hand, where it says that the datapath first matters, the command, and the page in a
browser.
"""

import json
import math
import re
import subprocess
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from command import lns_sim as command
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSFormat, recipes
from lns_sim.environment import provenance
from lns_sim.quantizers import LNS
from lns_sim.recipes import ModelRecipe
from lns_sim.studies import models
from lns_sim.studies.compare import page
from lns_sim.studies.compare.measure import signal_to_noise


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 24, bias=False), nn.ReLU(), nn.Linear(24, 6, bias=False))


def cross_entropy(x, y):
    return lambda model: F.cross_entropy(model(x), y)


def batch(device="cpu"):
    torch.manual_seed(1)
    return torch.randn(32, 40).to(device), torch.randint(6, (32,)).to(device)


def test_the_numbers_of_a_layer_by_hand(device):
    model, (x, y) = small().to(device), batch(device)
    found = lns_sim.compare(model, cross_entropy(x, y), recipes.lns_madam(datapath=Datapath(acc_bits=16)))
    row = found.rows[0]
    xq, w = (
        lns_sim.quantize(x),
        lns_sim.LNSWeight.from_float(model[0].weight.detach(), recipes.lns_madam()).forward_codes(),
    )
    exact, counters = lns_sim.matmul(xq, w.T, datapath=Datapath(acc_bits=16), counters=True)
    fake, plain = xq.dequantize() @ w.dequantize().T, x @ model[0].weight.detach().T

    def decibels(a, b):
        return 20 * math.log10(b.double().norm().item() / (a.double() - b.double()).norm().item())

    assert (row.layer, row.name, row.macs) == ("0", "forward", 32 * 40 * 24)
    for measured, a, b in ((row.fake_quant, fake, plain), (row.bit_exact, exact, plain), (row.datapath, exact, fake)):
        assert math.isclose(measured, decibels(a, b), abs_tol=0.02)
    assert math.isclose(row.difference_datapath, ((exact - fake).abs().max() / fake.abs().max()).item(), rel_tol=1e-3)
    assert row.vanished == counters.vanished / row.macs and row.saturated == counters.saturations / counters.narrowed


def test_every_pass_in_order_and_the_model_as_it_was():
    torch.manual_seed(0)
    model = models.GPT(11, 6, width=16, layers=1, heads=2)
    model.head.weight = model.tokens.weight
    before = {name: p.clone() for name, p in model.state_dict().items()}
    tokens = torch.randint(11, (4, 6))
    state = torch.get_rng_state()
    found = lns_sim.compare(model, lambda m: F.cross_entropy(m(tokens).flatten(0, 1), tokens.flatten()))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None and type(p) is nn.Parameter for p in model.parameters())
    names = [(row.layer, row.name) for row in found.rows]
    layers = ["blocks.0.qkv", "blocks.0", "blocks.0 [2]", "blocks.0.out", "blocks.0.up", "blocks.0.down", "head"]
    assert names[:7] == [(layer, "forward") for layer in layers]
    assert names[7:9] == [("head", "input_gradient"), ("head", "weight_gradient")]
    assert sorted(names[7:]) == sorted(
        (layer, name) for layer in layers for name in ("input_gradient", "weight_gradient")
    )
    assert set(found.losses) == {"float32", "fake-quant", "bit-exact"} and len(set(found.losses.values())) == 3
    assert {c.tensor for c in found.codes["head"]} == {"activation", "weight", "error", "gradient"}
    assert [c.tensor for c in found.codes["tokens"]] == ["weight", "gradient"]  # looked up: codes, but no product
    assert found.first is None and "stays below that of quantization" in found.verdict()


def test_where_the_datapath_first_matters():
    """A narrow accumulator in one pass of one layer is found; a saturating one is told apart."""
    base = recipes.lns_madam()
    narrow, full = (
        replace(base, weight_gradient=Datapath(acc_bits=8)),
        replace(base, weight_gradient=Datapath(acc_lsb=0)),
    )
    x, y = batch()
    found = lns_sim.compare(small(), cross_entropy(x, y), ModelRecipe(base, (("2", narrow),)))
    assert (found.first.layer, found.first.name) == ("2", "weight_gradient") and found.first.margin < 0
    assert found.verdict().startswith("The datapath first matters in the weight gradient of 2: it adds more noise")
    assert sum(row.margin < 0 for row in found.rows) == 1 and found.first_saturated is None
    found = lns_sim.compare(small(), cross_entropy(x, y), ModelRecipe(base, (("0", full),)))
    assert (found.first_saturated.layer, found.first_saturated.name) == ("0", "weight_gradient")
    assert "first leave their range in the weight gradient of 0" in found.verdict()


def test_without_a_datapath_nothing_but_quantization():
    x, y = batch()
    found = lns_sim.compare(small(), cross_entropy(x, y), "lns-madam-fake-quant")
    assert all(row.datapath is None and row.saturated is None and row.fake_quant == row.bit_exact for row in found.rows)
    assert not found.simulated and set(found.losses) == {"float32", "fake-quant"}
    assert re.fullmatch(
        r"No product runs on a simulated datapath: what differs is quantization, most in the \w+ \w+ of \d "
        r"\(signal-to-noise \d+\.\d dB\)\.",
        found.verdict(),
    )
    text = page.html(found, "small", provenance(seed=1))
    assert "bit-exact" not in text.split("<script>")[0].split("</style>")[1] and "margin dB" not in text
    part = ModelRecipe(recipes.lns_madam(), (("2", None),))
    assert {row.layer for row in lns_sim.compare(small(), cross_entropy(x, y), part).rows} == {"0"}


def test_what_became_of_the_codes():
    fmt = LNSFormat(4, 1)  # seven octaves
    x = torch.zeros(1, 10)
    x[0, :6] = torch.tensor([64.0, 1.0, 0.9, 0.71, 0.70, 1e-3])  # e = 7, 1, 1, 1, then half a step below, and far below
    base = replace(recipes.lns_madam(), activation=LNS(fmt, underflow="flush"), forward=None, weight_gradient=None)
    model = nn.Sequential(nn.Linear(10, 2, bias=False))
    found = lns_sim.compare(model, lambda m: m(x).sum(), base)
    codes = {c.tensor: c for c in found.codes["0"]}["activation"]
    assert (codes.underflowed, codes.zeros, codes.clipped) == (0.2, 0.6, 0.0)
    assert math.isclose(codes.octaves, math.log2(64 / 1e-3), rel_tol=1e-6)
    # Weights near the top of the update format are above the largest forward code.
    with torch.no_grad():
        model[0].weight.copy_(torch.linspace(0.1, 2 ** (15 + 7 / 8 + 0.1) / 2**15, 20).view(2, 10))
    weight = {c.tensor: c for c in lns_sim.compare(model, lambda m: m(x).sum(), base).codes["0"]}["weight"]
    assert weight.clipped == 0.05


@pytest.mark.parametrize("bits", [12, 16])
def test_more_octaves_than_a_double_holds(bits):
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    found = lns_sim.compare(model, lambda m: m(x).sum(), recipes.lns_madam_fake_quant(bits=bits, gamma=1))
    assert all(codes.clipped == 0 for codes in next(iter(found.codes.values())))


def test_errors():
    x, y = batch()
    with pytest.raises(ValueError, match="takes a float32 model"):
        lns_sim.compare(lns_sim.convert(small(), "lns-madam"), cross_entropy(x, y))
    with pytest.raises(ValueError, match="simulates products, got fp32"):
        lns_sim.compare(small(), cross_entropy(x, y), "fp32")
    with pytest.raises(ValueError, match=r"scalar, got shape \(32, 6\)"):
        lns_sim.compare(small(), lambda m: m(x))
    assert signal_to_noise(torch.ones(2), torch.zeros(2)) == -math.inf


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A command's folder, on a model of the user's own."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "mine.py").write_text(
        "from lns_sim.studies import models\ndef build(): return models.build('mlp', (1, 8, 8), 10)\nx = 3\n"
        "def number(): return 3\n"
    )
    run = command("compare", "mine:build", "--acc-bits", "11", "--batch-size", "32", "--out", "out", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "first matters in the" in " ".join(run.stdout.split())
    return folder


@pytest.mark.slow
def test_the_command(report):
    found = json.loads((report / "out/compare.json").read_text())
    assert len(found["rows"]) == 8 and found["verdict"].startswith("The datapath first matters")
    assert found["environment"]["torch"] == torch.__version__
    assert (report / "out/compare.png").read_bytes()[:4] == b"\x89PNG"
    drawn = (report / "out/compare.svg").read_text()
    assert set(found["kinds"].values()) == {"Linear"}
    for text in (*found["kinds"], *found["kinds"].values(), "signal-to-noise ratio, dB", "11-bit saturate", "seed 0"):
        assert text in drawn
    for args, message in [
        (["mine:none"], "mine has no none"),
        (["mine:number"], "must return a torch module, got int"),
        (["nowhere:f"], "nowhere"),
        (["cnn", "--recipe", "fp32"], "got fp32"),
        (["cnn", "--checkpoint", "none.pt"], "none.pt"),
        (["cnn", "--checkpoint", "mine.py"], "no checkpoint of lns-sim train"),
        (["cnn", "--out", "out"], "out is not empty"),
        ([], "compare needs a model, or a checkpoint"),
        (["cnn", "--recipe", "luq", "--acc-bits", "12"], "--acc-bits would change nothing in luq"),
        (["gpt"], "llama read text"),
    ]:
        run = command("compare", *args, cwd=report)
        assert run.returncode == 1 and message in run.stderr and run.stderr.count("\n") == 1, (args, run.stderr)


@pytest.mark.slow
def test_a_training_checkpoint_is_compared(tmp_path):
    trained, out = tmp_path / "trained", tmp_path / "out"
    options = ["--model", "mlp", "--recipe", "lns-madam", "--acc-bits", "16", "--epochs", "1", "--seeds", "1"]
    run = command("train", *options, "--out", str(trained))
    assert run.returncode == 0, run.stderr
    file = str(trained / "lns-madam-seed0.pt")
    run = command("compare", "--checkpoint", file, "--lut-entries", "2", "--out", str(out))
    assert run.returncode == 0, run.stderr
    found = json.loads((out / "compare.json").read_text())
    assert found["losses"]["float32"] < 1.5  # trained: log(10) is 2.3
    assert (found["recipe"]["forward"]["acc_bits"], found["recipe"]["forward"]["lut_entries"]) == (16, 2)
    assert found["checkpoint"] == file and found["seed"] == 0 and found["model"] == "mlp"
    assert found["commands"] == [f"lns-sim compare --checkpoint {file} --lut-entries 2 --out {out}"]
    said = (out / "report.html").read_text()
    assert all(text in said for text in (file, "LUT 2, 16-bit saturate", found["data"]["fingerprint"]))
    run = command("compare", "cnn", "--checkpoint", file, "--out", str(tmp_path / "other"))
    assert run.returncode == 1 and "another model" in run.stderr and not (tmp_path / "other").exists()


def browse(browser, file, fragment=""):
    """The page's elements after its script has run."""
    run = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=2000",
            "--dump-dom",
            f"file://{file}{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run.stdout


def shown_rows(dom):
    table = dom[dom.index('id="passes"') : dom.index('id="codes"')]
    rows = re.findall(r"<tr class=\"[^\"]*\"(?P<hidden>[^>]*)>(.*?)</tr>", table, re.S)
    return [re.findall(r"<td[^>]*>(.*?)</td>", cells) for hidden, cells in rows if "hidden" not in hidden]


@pytest.mark.slow
def test_the_page_needs_nothing_else(report):
    text = (report / "out/report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#)|@import|url\((?!#)""", text), "it refers to something outside"


@pytest.mark.slow
def test_the_page_in_a_browser(report, browser):
    file = report / "out/report.html"
    found = json.loads((report / "out/compare.json").read_text())
    dom = browse(browser, file)
    assert f"{len(found['rows'])} of {len(found['rows'])} passes" in dom and found["verdict"].split(":")[0] in dom
    rows = shown_rows(dom)
    assert [row[1:3] for row in rows] == [[r["layer"], r["name"].replace("_", " ")] for r in found["rows"]]
    assert all(len(row) == len(page.HEADER) for row in rows)
    margin = page.HEADER.index("margin dB")
    ascending = [float(row[margin]) for row in shown_rows(browse(browser, file, f"#sort={margin}"))]
    assert ascending == sorted(ascending) and ascending[0] < 0
    vanished = page.HEADER.index("vanished")
    descending = [float(row[vanished].split()[0]) for row in shown_rows(browse(browser, file, f"#sort=-{vanished}"))]
    assert descending == sorted(descending, reverse=True)
    picked = shown_rows(browse(browser, file, "#pass=forward&layer=3&marked"))
    marked = [
        r for r in found["rows"] if r["name"] == "forward" and "3" in r["layer"] and r["datapath"] < r["fake_quant"]
    ]
    assert [row[1] for row in picked] == [r["layer"] for r in marked]
