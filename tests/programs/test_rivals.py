"""A system of one's own: one file, registered by name, goes through every program without another line changed."""

import json
import shutil

import pytest
import torch
from command import lns_sim_process as command
from helpers import ROOT
from torch import nn

import lns_sim
from lns_sim import recipes
from lns_sim.registry import OPTIMIZERS, QUANTIZERS, RECIPES, Registry
from lns_sim.studies.training import data
from lns_sim.studies.training.trainer import Settings, Trainer


@pytest.fixture(scope="module")
def rival():
    """The file, imported as a user's own script would; forgotten afterwards, so that no other test meets it."""
    before = [dict(registry._entries) for registry in (QUANTIZERS, OPTIMIZERS, RECIPES)]
    import rival

    yield rival
    for registry, entries in zip((QUANTIZERS, OPTIMIZERS, RECIPES), before):
        registry._entries = entries


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The same file as another package that is installed, known by its entry point alone."""
    site = tmp_path / "site"
    info = site / "ladders-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(ROOT / "tests/support/rival.py", site / "ladders.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ladders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lns_sim.systems]\nladders = ladders\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    return site


def test_its_codes_are_read_by_itself(rival):
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    weight, x = layer.weight.detach().clone(), torch.randn(5, 6)
    y = lns_sim.convert(layer, "ladder")(x)

    def levels(t):
        return (t / (t.abs().max() / 7)).round() * (t.abs().max() / 7)

    assert torch.allclose(y, levels(x) @ levels(weight).T, rtol=1e-6, atol=1e-6)


def test_it_trains_and_resumes_to_the_same_numbers(rival):
    def trainer():
        return Trainer(data.load("digits"), recipes.get("ladder"), 0, Settings(model="mlp", epochs=2, float_lr=0.2))

    whole, part, resumed = trainer(), trainer(), trainer()
    whole.run_epoch()
    whole.run_epoch()
    part.run_epoch()
    resumed.load_state_dict(part.state_dict())
    resumed.run_epoch()
    assert resumed.result.loss == whole.result.loss and whole.result.test[-1] > 60
    assert whole.optimizer.param_groups[0]["epochs"] == 2


def test_it_stands_in_summaries_and_files(rival):
    model = lns_sim.convert(nn.Sequential(nn.Linear(6, 4)), "ladder")
    assert "4-bit NearestLadder x 4-bit NearestLadder" in str(lns_sim.summary(model, torch.randn(2, 6)))
    recipe = recipes.get("ladder")
    assert recipes.Recipe.decode(recipe.encode()) == recipe
    assert recipes.files.parse(recipes.dump(recipe)).default == recipe
    changed = recipes.files.parse('preset = "fp8"\nerror = { quantizer = "Ladder", slack = 2.0 }').default
    assert changed.error == rival.Ladder(slack=2.0)


def test_every_program_knows_an_installed_one(package, tmp_path):
    options = ["--model", "mlp", "--seeds", "1", "--batch-size", "128"]
    out = tmp_path / "run"
    train = command("train", "--recipe", "ladder", "--epochs", "2", *options, "--out", str(out))
    assert train.returncode == 0 and "ladder" in train.stdout, train.stderr
    resumed = command("train", "--recipe", "ladder", "--epochs", "2", *options, "--out", str(out), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    contest = command(
        "compare-recipes",
        "ladder",
        "fp8",
        "--epochs",
        "1",
        "--search",
        "1",
        *options,
        "--out",
        str(tmp_path / "contest"),
    )
    assert contest.returncode == 0, contest.stderr
    row = next(line for line in contest.stdout.splitlines() if "ladder" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")][1:5] == ["4", "4", "4", "32"]
    entries = json.loads((tmp_path / "contest/recipes.json").read_text())["entries"]
    assert [entry["name"] for entry in entries] == ["ladder", "fp8"]
    unknown = command("train", "--recipe", "laddr")
    assert unknown.returncode == 1 and "did you mean 'ladder'" in unknown.stderr


def test_a_package_that_fails_is_named(package):
    (package / "ladders.py").write_text("import nothing_such\n")
    run = command("train", "--recipe", "ladder")
    assert (
        run.returncode == 1
        and "the systems 'ladders' (ladders) of an installed package cannot be imported" in run.stderr
    )


def test_a_name_is_taken_once():
    registry = Registry("thing")
    registry.register("a", 1)
    with pytest.raises(ValueError, match="there is a thing 'a' already"):
        registry.register("a", 2)
    with pytest.raises(ValueError, match="thing must be one of 'a', got 'b'"):
        registry["b"]
