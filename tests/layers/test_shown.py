"""What print and notebooks show of models, recipes, tensors and comparisons."""

import re

import torch
from torch import nn

import lns_sim
from lns_sim import Datapath, recipes
from lns_sim.recipes import ModelRecipe
from lns_sim.registry import RECIPES


def test_a_model_says_what_is_simulated():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Conv1d(2, 2, 1), nn.MultiheadAttention(4, 2))
    before = str(model)
    lns_sim.convert(model, ModelRecipe(recipes.lns_madam(), (("2", None),)))
    lines = str(model).splitlines()
    assert lines[1] == "  (0): Linear(in_features=8, out_features=4, bias=True, simulated: lns-madam)"
    assert lines[2] == "  (1): ReLU()" and lines[3].endswith("stride=(1,), float32)")
    assert lines[5] == "    simulated: lns-madam"
    assert str(lns_sim.nn.to_float(model)) == before


def test_recipes_are_a_line():
    small = recipes.lns_madam(datapath=Datapath(acc_bits=16, acc_lsb=3))
    plan = ModelRecipe(recipes.lns_madam(), (("a", None), ("b.*", small), ("c", small)))
    assert repr(small) == (
        "Recipe('lns-madam': all tensors: 8-bit gamma 8; weights kept in 16 bits, gamma 2048; "
        "all passes: 32 lanes, LUT 8, 16-bit saturate, unit 2^3)"
    )
    assert recipes.describe(plan).endswith("24-bit saturate; a: float32; b.*, c: " + recipes.describe(small))
    for name in RECIPES:
        recipe = recipes.get(name)
        assert recipes.from_plain(recipes.to_plain(recipe)) == recipe and len(recipes.describe(recipe)) < 130
    assert recipes.from_plain(recipes.to_plain(plan)) == plan


def test_notebooks_get_tables():
    found = lns_sim.compare(nn.Linear(4, 2), lambda m: m(torch.ones(3, 4)).square().sum())
    assert repr(found) == f"Comparison('lns-madam', 2 passes: {found.verdict()})"
    text = found._repr_html_()
    assert text.count("<tr>") == 3 and "<td>weight gradient</td>" in text and "&#x27;" in text
    rows = re.findall("<tr><td>(.*?)</td><td>(.*?)</td></tr>", recipes.get("fp8")._repr_html_())
    assert dict(rows)["gradient"] == "float32" and dict(rows)["forward"] == "float32 products" and len(rows) == 7


def test_a_scale_of_nan_says_so():
    assert "k=0," in repr(lns_sim.quantize(torch.ones(2) * 2 ** (127 / 8)))
    assert "scale=nan, so that all is NaN" in repr(lns_sim.quantize(torch.tensor([1.0, float("nan")])))


def test_estimates_are_a_line():
    model, x = nn.Linear(64, 32), torch.zeros(1, 64)
    assert re.fullmatch(
        r"Energy\(LNS \S+, FP8 \S+, FP16 \S+, FP32 \S+, INT8 \S+ mJ by technology paper\)",
        repr(lns_sim.energy(model, x)),
    )
    assert re.fullmatch(
        r"Cycles\(66 in \S+ ms, \S+ mJ; Array\(.*\), 1\.05 GHz, technology paper\)", repr(lns_sim.cycles(model, x))
    )
