"""Recipe files: what they say, that they come back as they were written, and errors that name the key."""

import dataclasses
import re

import pytest
import torch
from helpers import ROOT
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSWeight, recipes
from lns_sim.quantizers import LNS
from lns_sim.recipes import ModelRecipe
from lns_sim.recipes import files as recipe_files

TEXT = """
preset = "lns-madam"
forward = { acc_bits = 20 }

[[override]]
layers = ["0", "head"]
float32 = true

[[override]]
layers = "*.attn"
error = { rounding = "stochastic" }
weight_gradient = "float32"
"""


def test_what_a_file_says():
    plan = recipe_files.parse(TEXT, "mine")
    default = dataclasses.replace(recipes.lns_madam(), name="mine", forward=Datapath(acc_bits=20))
    attention = dataclasses.replace(default, error=LNS(rounding="stochastic"), weight_gradient=None)
    assert plan == ModelRecipe(default, (("0", None), ("head", None), ("*.attn", attention)))
    # A datapath of another format gets that format's LUT and accumulator.
    small = "{ format = { bits = 6, gamma = 4 } }"
    passes = "\n".join(
        f"{name} = {small}"
        for name in ("activation", "error", "gradient", "forward", "input_gradient", "weight_gradient")
    )
    text = f"{passes}\nweight = {{ bits = 6, gamma = 4 }}\nupdate = {{ bits = 12, gamma = 256 }}"
    assert recipe_files.parse(text).default == recipes.lns_madam(bits=6, gamma=4, update_bits=12)


@pytest.mark.parametrize(
    "recipe",
    [
        recipes.lns_madam(),
        recipes.lns_madam_fake_quant(),
        recipes.lns_madam(bits=10, gamma=32, stochastic_gradients=True, seed=5),
        dataclasses.replace(recipes.lns_madam(), gradient=None, forward=Datapath(acc_lsb=3, lut_entries=2)),
        ModelRecipe(None),
        ModelRecipe(None, (("head", recipes.lns_madam(seed=2)), ("*", None))),
        recipe_files.parse(TEXT),
        ModelRecipe(
            dataclasses.replace(recipes.lns_madam(), forward=Datapath(acc_lsb=3)), (("a", recipes.lns_madam()),)
        ),
    ],
)
def test_written_and_read_again(recipe):
    expected = recipe if isinstance(recipe, ModelRecipe) else ModelRecipe(recipe)
    assert recipe_files.parse(recipe_files.dump(recipe)) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ('preset = "lns"', "preset: recipe must be one of.*did you mean 'lns-madam'"),
        ("forward = { acc_bit = 3 }", "forward.acc_bit is no key here; did you mean acc_bits"),
        ("forward = { acc_bits = 99 }", "forward: acc_bits must be between 4 and 32, got 99"),
        ("forwad = {}", "forwad is no key here; did you mean forward"),
        ("forward = 3", "forward must be a table, got 3"),
        ('weight = "float32"', "the forward datapath takes codes, but the weight is left in float32"),
        ("forward = { format = { gamma = 16 } }", "the forward pass' activation has format"),
        ("seed = 'a'", "seed must be an integer"),
        ("override = 3", r"\[\[override\]\]"),
        ("[[override]]\nfloat32 = true", r"override\[0\].layers must be a name pattern"),
        ("[[override]]\nlayers = 'a'\nfloat32 = true\nseed = 1", r"override\[0\].float32 takes no seed"),
        (
            "[[override]]\nlayers = 'a'\n[[override]]\nlayers = 'b'\nerror = { rounding = 'up' }",
            r"override\[1\].error: rounding must be one of",
        ),
        ("preset = 'fp32'\nseed = 1", "preset fp32 takes no seed"),
        ("x = [", "line 1"),
    ],
)
def test_errors_name_the_key(text, message):
    with pytest.raises(ValueError, match=message):
        recipe_files.parse(text)


def test_a_model_from_a_file(tmp_path):
    path = tmp_path / "narrow.toml"
    path.write_text("forward = { acc_bits = 20 }\n[[override]]\nlayers = '1'\nfloat32 = true\n")
    model = lns_sim.convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), str(path))
    assert isinstance(model[0].weight, LNSWeight) and not isinstance(model[1].weight, LNSWeight)
    assert model[0].weight.recipe.forward.acc_bits == 20 and model[0].weight.recipe.name == "narrow"
    assert model(torch.randn(2, 4)).shape == (2, 4)
    path.write_text("forward = 3")
    with pytest.raises(ValueError, match="narrow.toml: forward must be a table"):
        recipes.get(str(path))
    with pytest.raises(FileNotFoundError):
        recipes.get(str(tmp_path / "none.toml"))


def test_the_documentation_s_examples():
    text = (ROOT / "docs/recipes.md").read_text()
    python, toml = (re.search(f"```{kind}\n(.*?)```", text, re.S)[1] for kind in ("python", "toml"))
    from_file = recipe_files.parse(toml)
    model = nn.ModuleDict(
        {"conv1": nn.Conv2d(3, 4, 3), "block": nn.ModuleDict({"attn": nn.Linear(4, 4)}), "fc": nn.Linear(4, 2)}
    )
    scope = {"model": model}
    exec(python, scope)
    assert [isinstance(m.weight, LNSWeight) for m in (model["conv1"], model["block"]["attn"], model["fc"])] == [
        False,
        True,
        False,
    ]
    assert (
        scope["plan"].overrides[2][1].weight_gradient.acc_bits
        == from_file.overrides[2][1].weight_gradient.acc_bits
        == 28
    )
