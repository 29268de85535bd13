"""The snippets of README and documentation run as printed, and what the text names is there."""

import importlib
import re

import pytest
import torch
from helpers import ROOT
from torch import nn

import lns_sim
from lns_sim import recipes
from lns_sim.cli.command import DATAPATH, LOG_DATAPATH
from lns_sim.studies import models
from lns_sim.studies.sweep.space import FIELDS, LOG_FIELDS
from lns_sim.studies.training import Experiment, Settings, data

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def run(code, page, names):
    exec(compile(code, str(page), "exec"), names)
    return names


class Net(nn.Module):
    """A model with the layers that docs/recipes.md speaks of."""

    def __init__(self):
        super().__init__()
        self.conv1, self.block, self.fc = nn.Conv2d(1, 4, 3), nn.Module(), nn.Linear(4, 2)
        self.block.attn = nn.MultiheadAttention(4, 1)


def names_of(page, folder):
    """What a page's reader has."""
    if page.name == "recipes.md":
        return {"model": Net()}
    if page.name == "weights.md":
        path = folder / "model.safetensors"
        lns_sim.weights.save(lns_sim.convert(nn.Linear(4, 2), "lns-madam"), path)
        return {"path": path}
    if page.name == "jobs.md":
        digits = data.load("digits")
        experiment = Experiment(digits, [recipes.lns_madam()], [0], Settings(model="mlp", epochs=1), folder)
        experiment.run()
        return {
            "path": experiment.checkpoint(0),
            "data": digits,
            "model": nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        }
    return {}


def test_the_ten_lines_run():
    (code,) = snippets(ROOT / "README.md")
    names = run(code, "README.md", {})
    assert names["y"].shape == (64, 10) and names["counters"].macs == 64 * 512 * 10


@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p)], ids=lambda page: page.name)
def test_snippets_run(page, tmp_path, capsys):
    torch.manual_seed(0)
    names = names_of(page, tmp_path)
    for code in snippets(page):
        run(code, page, names)
    if page.name == "recipes.md":
        for file, model in zip(snippets(page, "toml"), (Net(), models.build("llama-small", (8,), 16)), strict=True):
            (tmp_path / "mine.toml").write_text(file)
            lns_sim.convert(model, str(tmp_path / "mine.toml"))


def test_what_the_text_names_is_there():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for name in set(re.findall(r"`(lns_sim(?:\.\w+)+)", page.read_text())):
            found, parts = lns_sim, name.split(".")[1:]
            for i, part in enumerate(parts):
                if not hasattr(found, part):
                    importlib.import_module(".".join(["lns_sim", *parts[: i + 1]]))
                found = getattr(found, part)


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


def test_commands_take_all_of_the_datapath():
    assert set(DATAPATH) == set(FIELDS)
    assert set(LOG_DATAPATH) == set(LOG_FIELDS)
