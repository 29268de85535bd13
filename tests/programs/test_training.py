"""The trainer: learns, resumes to the same bits, refuses foreign checkpoints, reads what users have."""

import dataclasses
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import lns_sim
from lns_sim import LNSWeight, recipes
from lns_sim.environment import provenance
from lns_sim.optim import Diverged
from lns_sim.studies import models
from lns_sim.studies.training import data, load, report
from lns_sim.studies.training.checkpoint import ForeignFile, read_checkpoint, save_checkpoint
from lns_sim.studies.training.experiment import Experiment
from lns_sim.studies.training.trainer import Result, Settings, Trainer, crop_flip, draw_crops

SMALL = Settings(model="mlp", epochs=2, batch_size=128)
RECIPES = [None, recipes.lns_madam_fake_quant(), recipes.lns_madam()]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def codes_of(model):
    return [p.codes if isinstance(p, LNSWeight) else p.data for p in model.parameters()]


def test_a_network_learns_bit_exactly(digits):
    trainer = Trainer(digits, recipes.lns_madam(), 0, dataclasses.replace(SMALL, lr=1 / 16, epochs=4))
    for _ in range(4):
        trainer.run_epoch()
    result = trainer.result
    assert result.test[-1] > 90
    layers = [(64, 256), (256, 256), (256, 10)]
    macs = {"forward": sum(a * b for a, b in layers), "weight_gradient": sum(a * b for a, b in layers)}
    assert result.counters["weight_gradient"]["macs"] == 4 * len(digits.x_train) * macs["weight_gradient"]
    assert result.counters["forward"]["macs"] == 4 * len(digits.x_train) * macs["forward"]
    assert result.weight_bytes == 2 * sum(a * b for a, b in layers) + 4 * (256 + 256 + 10)


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("stop_at", [5, 11, 15, 27, 40])
@pytest.mark.slow
def test_an_interrupted_experiment_resumes_to_the_same_bits(digits, tmp_path, stop_at):
    def experiment(name):
        return Experiment(digits, RECIPES, [3], SMALL, tmp_path / name)

    whole = experiment("whole")
    whole.run()

    steps = 0

    def on_step(trainer):
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Interrupt

    broken = experiment("broken")
    with pytest.raises(Interrupt):
        broken.run(on_step)
    again = experiment("broken")
    again.resume()
    assert again.steps_done == (stop_at - 1) // 11 * 11
    results = again.run()
    for a, b in zip(results, whole.results, strict=True):
        assert (a.loss, a.test, a.counters) == (b.loss, b.test, b.counters)
    for run in range(3):
        a, b = (codes_of(load(e.checkpoint(run)).model) for e in (again, whole))
        assert all(map(torch.equal, a, b))
    a, b = ((e.folder / "metrics.jsonl").read_text().splitlines() for e in (again, whole))
    assert a == b and len(a) == 3 * SMALL.epochs


def test_a_finished_experiment_resumes_to_its_results(digits, tmp_path):
    results = Experiment(digits, RECIPES[:1], [0], SMALL, tmp_path).run()
    second = Experiment(digits, RECIPES[:1], [0], SMALL, tmp_path)
    second.resume()
    assert second.run() == results and second.steps_done == second.steps


def test_tests_of_more_samples_than_there_are_are_refused(digits):
    with pytest.raises(ValueError, match="test_samples is 451, but .*digits.* has 450 to test on"):
        Trainer(digits, None, 0, Settings(model="mlp", test_samples=451))


def test_a_seed_that_generators_do_not_hold_is_refused(digits):
    with pytest.raises(ValueError, match=f"seed must be between 0 and {2**43 - 1}, got {2**43}"):
        Trainer(digits, None, 2**43, Settings(model="mlp"))
    Trainer(digits, None, 2**43 - 1, dataclasses.replace(SMALL, model="mlp", epochs=1)).run()


def test_a_sample_is_of_text(digits):
    with pytest.raises(ValueError, match="a sample is of text, but the data is 'digits'"):
        Trainer(digits, None, 0, Settings(model="mlp")).sample()


def test_an_experiment_is_overwritten_only_when_asked_to(digits, tmp_path):
    one = dataclasses.replace(SMALL, epochs=1)
    Experiment(digits, RECIPES[:1], [0], one, tmp_path).run()
    with pytest.raises(FileExistsError, match="holds an experiment"):
        Experiment(digits, RECIPES[:1], [0], one, tmp_path).run()
    other = dataclasses.replace(one, float_lr=0.01)
    (result,) = Experiment(digits, RECIPES[:1], [0], other, tmp_path, overwrite=True).run()
    assert load(tmp_path / "fp32-seed0.pt").result == result
    with pytest.raises(ValueError, match="two recipes are called 'lns-madam'"):
        Experiment(digits, [RECIPES[-1], RECIPES[-1]], [0], one, tmp_path)
    with pytest.raises(ValueError, match="the recipe's name 'a/b' is to be a file's"):
        Experiment(digits, [dataclasses.replace(RECIPES[-1], name="a/b")], [0], one, tmp_path)


def test_a_recipe_that_fits_no_layer_is_refused_before_another_trains(digits, tmp_path):
    unfit = recipes.ModelRecipe(recipes.lns_madam(), (("nolayer*", None),))
    with pytest.raises(ValueError, match="'nolayer.*' matches no layer"):
        Experiment(digits, [None, unfit], [0], Settings(model="mlp", epochs=1), tmp_path / "run").run()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Linear(7, 10), "the model Linear does not take samples of .*digits.*, of shape .*: RuntimeError: mat1"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), r"logits of shape \(2, 10\) .* a tensor of shape \(2, 3\)"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(128, 10)), r"logits of shape \(2, 10\) .* a tensor of shape \(10,\)"),
        (nn.GRU(8, 8), "does not take samples of"),
    ],
)
def test_a_model_of_ones_own_that_does_not_take_the_data_is_refused_before_any_trains(digits, tmp_path, net, message):
    with pytest.raises(ValueError, match=message):
        Experiment(digits, [None], [0], Settings(epochs=1), tmp_path / "run", model=net).run()
    assert not (tmp_path / "run").exists()


def test_a_model_of_ones_own_trains_as_it_was_given(digits, tmp_path):
    """What it does while it is tried leaves nothing in it."""
    seen = []

    class Counting(nn.Linear):
        def forward(self, x):
            seen.append((self.training, int(self.calls)))
            self.calls += 1
            return super().forward(x.flatten(1))

    own = Counting(64, 10)
    own.register_buffer("calls", torch.zeros(()))
    Experiment(digits, [None], [0], Settings(epochs=1), tmp_path / "run", model=own).run()
    assert min(calls for training, calls in seen if training) == 0


def test_epochs_can_be_added(digits, tmp_path):
    short = Experiment(digits, RECIPES[:1], [0, 1], SMALL, tmp_path)
    before = [list(r.loss) for r in short.run()]
    longer = Experiment(digits, RECIPES[:1], [0, 1], dataclasses.replace(SMALL, epochs=3), tmp_path)
    longer.resume()
    assert [r.loss[:2] for r in longer.run()] == before and all(len(r.loss) == 3 for r in longer.results)
    assert len(longer.record["commands"]) == 2
    with pytest.raises(ForeignFile, match=r"settings\.epochs is 3, which 2 would cut short"):
        short.resume()


@pytest.mark.parametrize("recipe", [None, RECIPES[-1], recipes.ModelRecipe(RECIPES[-1], (("5", None),))])
def test_a_checkpoint_says_how_it_was_trained(digits, tmp_path, recipe):
    experiment = Experiment(digits.held_out(0.2), [recipe], [3], dataclasses.replace(SMALL, epochs=1), tmp_path)
    (result,) = experiment.run()
    found = lns_sim.training.load(experiment.checkpoint(0))
    assert (found.recipe, found.seed, found.settings, found.result) == (recipe, 3, experiment.settings, result)
    assert found.data["origin"] == {"source": "digits", "held_out": 0.2}
    same = data.load(**found.data["origin"])
    assert same.fingerprint == found.data["fingerprint"] != digits.fingerprint
    with torch.no_grad():
        right = (found.model.eval()(same.x_test).argmax(1) == same.y_test).double().mean()
    assert abs(100 * right.item() - result.test[-1]) < 1e-9


def test_a_model_of_ones_own(digits, tmp_path):
    torch.manual_seed(5)
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    before = own[1].weight.clone()
    experiment = Experiment(digits, [None, RECIPES[-1]], [0], dataclasses.replace(SMALL, epochs=1), tmp_path, model=own)
    results = experiment.run()
    assert torch.equal(own[1].weight, before) and results[0].test[-1] > 70  # signs of codes never flip
    assert experiment.record["settings"]["model"] == "Sequential"
    with pytest.raises(ValueError, match="model must be one of .*, got 'Sequential'"):
        load(experiment.checkpoint(1))
    again = load(experiment.checkpoint(1), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))).model
    assert isinstance(again[1].weight, LNSWeight)


def test_callbacks_of_a_trainer(digits):
    seen = []
    trainer = Trainer(digits, None, 0, SMALL)
    trainer.run(lambda t: seen.append("step"), lambda t: seen.append(t.epoch))
    assert seen == ["step"] * 11 + [1] + ["step"] * 11 + [2]


def test_a_gpus_checkpoint_opens_where_there_is_none(digits, tmp_path):
    """Its tensors say "cuda:0"; here by editing the names in a file whose tensors lay on the CPU."""
    trainer = Trainer(digits, RECIPES[-1], 0, dataclasses.replace(SMALL, epochs=1))
    trainer.run_epoch()
    others = dict.fromkeys(("data", "settings", "recipe", "seed"))
    save_checkpoint({**others, "trainer": trainer.state_dict()}, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as source, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as out:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\0\0\0cpu" in content
                content = content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            out.writestr(name, content)
    again = Trainer(digits, RECIPES[-1], 0, trainer.settings)
    again.load_state_dict(read_checkpoint(tmp_path / "gpu.pt")["trainer"])
    assert all(torch.equal(a, b) for a, b in zip(codes_of(again.model), codes_of(trainer.model), strict=True))


def test_foreign_and_damaged_checkpoints_are_refused(digits, tmp_path):
    experiment = Experiment(digits, RECIPES[:1], [0], dataclasses.replace(SMALL, epochs=1), tmp_path)
    experiment.run()
    path = experiment.checkpoint(0)
    for changed, message in (
        (Experiment(digits, RECIPES[:1], [1], SMALL, tmp_path), r"other settings: runs\.0\.1 is 0, not 1"),
        (Experiment(digits, RECIPES[1:2], [0], SMALL, tmp_path), "runs.0.0 is 'fp32', not"),
        (
            Experiment(digits, RECIPES[:1], [0], dataclasses.replace(SMALL, float_lr=0.5), tmp_path),
            r"settings\.float_lr is 0\.1, not 0\.5",
        ),
        (Experiment(digits.held_out(0.5), RECIPES[:1], [0], SMALL, tmp_path), "data.fingerprint is"),
    ):
        with pytest.raises(ForeignFile, match=message):
            changed.resume()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # among the weights and moments
    for damaged in (whole[:1000], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ForeignFile, match="damaged"):
            Experiment(digits, RECIPES[:1], [0], SMALL, tmp_path).resume()
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ForeignFile, match=r"run\.json is no record"):
        experiment.resume()


def test_divergence_is_named(digits):
    trainer = Trainer(digits, None, 0, dataclasses.replace(SMALL, float_lr=1e30))
    with pytest.raises(Diverged, match="fp32, seed 0: NaN or Inf in epoch 1, first in the forward pass of"):
        trainer.run_epoch()


def test_npz(tmp_path):
    arrays = dict(
        x_train=np.random.randint(0, 255, (20, 8, 8, 3), dtype=np.uint8),
        y_train=np.arange(20) % 4,
        x_test=np.random.randint(0, 255, (5, 8, 8, 3), dtype=np.uint8),
        y_test=np.arange(5) % 4,
    )
    np.savez(tmp_path / "d.npz", **arrays)
    d = data.load(f"npz:{tmp_path / 'd.npz'}")
    assert d.input_shape == (3, 8, 8) and d.classes == 4 and d.y_train.dtype == torch.int64
    assert torch.allclose(d.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    del arrays["y_test"]
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(ValueError, match="lacks y_test"):
        data.load(f"npz:{tmp_path / 'e.npz'}")


def test_openml_goes_through_scikit_learn(monkeypatch):
    class Bunch:
        data, target = np.random.rand(40, 16), np.array(["b", "a"] * 20)

    def fetch(name, **_):
        assert name == "tiny"
        return Bunch

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    d = data.load("openml:tiny")
    assert d.input_shape == (1, 4, 4) and d.classes == 2 and len(d.x_train) == 30


@pytest.mark.parametrize(
    "source, message", [("digit", "did you mean 'digits'"), ("npz:", "needs a path"), ("openml:", "needs a name")]
)
def test_bad_sources(source, message):
    with pytest.raises(ValueError, match=message):
        data.load(source)


def test_crops_and_flips_show_pieces_of_the_image():
    x = torch.arange(2 * 1 * 8 * 8, dtype=torch.float32).reshape(2, 1, 8, 8) + 1
    out = crop_flip(x, *draw_crops(len(x), *x.shape[2:], torch.Generator().manual_seed(0)))
    assert out.shape == x.shape
    for before, after in zip(x, out):
        inside = after[after > 0]
        assert set(inside.tolist()) <= set(before.flatten().tolist()) and len(inside) >= 49


@pytest.mark.slow
def test_the_table_and_the_curves(digits, tmp_path):
    experiment = Experiment(digits, RECIPES, [0, 1], SMALL, tmp_path)
    results = experiment.run()
    rows = report.rows(results, digits.measure)
    assert [r[0] for r in rows] == ["fp32", "lns-madam-fake-quant", "lns-madam"]
    assert "±" in rows[0][1] and rows[0][3] == "-" and rows[2][3] != "-"
    report.draw_curves(results, "test", digits.measure, tmp_path / "c.png", experiment.record)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_curves_of_text_are_by_tokens_and_by_seconds(tmp_path):
    results = [Result(name, 0, [2.0, 1.5], [1.9, 1.4], epoch_seconds=[3.0, 5.0]) for name in ("fp32", "lns-madam")]
    report.draw_curves(results, "a title", "validation loss", tmp_path / "c.png", provenance(), tokens=1_500_000)
    drawn = (tmp_path / "c.svg").read_text()
    assert drawn.count("million tokens") == 2 and drawn.count("seconds of training") == 1 and "epoch" not in drawn
    unknown = [*results, Result("fp8", 0, [2.0, 1.5], [1.9, 1.4])]  # as of a checkpoint from before they were told
    report.draw_curves(unknown, "a title", "validation loss", tmp_path / "c.png", provenance(), tokens=1_500_000)
    drawn = (tmp_path / "c.svg").read_text()
    assert drawn.count("million tokens") == 2 and "seconds of training" not in drawn


def test_curves_of_many_recipes_have_a_panel_each(tmp_path):
    results = [Result(f"recipe{i}", seed, [2.0, 0.5], [50.0, 90.0 + i + seed]) for i in range(7) for seed in (0, 1)]
    report.draw_curves(results, "a title", "test accuracy %", tmp_path / "c.png", provenance())
    drawn = (tmp_path / "c.svg").read_text()
    for i in range(7):
        assert f"recipe{i}: 0.500 ± 0.000" in drawn and f"recipe{i}: {90.5 + i:.2f} ± 0.71" in drawn
    for text in ("a title; mean and range of 2 seeds", "training loss", "test accuracy %", "epoch"):
        assert text in drawn
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_held_out_part_stands_in_for_the_test_set(digits):
    tuning = digits.held_out(0.25)
    assert len(tuning.x_test) == round(0.25 * len(digits.x_train)) and tuning.name != digits.name
    together = torch.cat([tuning.x_train, tuning.x_test]).flatten(1)
    assert torch.equal(
        together.sum(1).sort().values, digits.x_train.flatten(1).sum(1).sort().values
    )  # and nothing else
    assert torch.equal(digits.held_out(0.25).y_test, tuning.y_test)  # the same for everyone
    for share in (0.0, 1.0, -1, float("nan"), 1e-9):
        with pytest.raises(ValueError, match=r"held_out (must be a .* in \(0, 1\)|= 1e-09 of .* leaves a side empty)"):
            digits.held_out(share)


class Poison(torch.autograd.Function):
    """Passes its input on, and makes NaN in the pass it is told."""

    @staticmethod
    def forward(ctx, x, where):
        ctx.where = where
        return x * float("nan") if where == "forward" else x.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy * float("inf") if ctx.where == "backward" else dy, None


class Poisoned(torch.nn.Module):
    where = ""

    def forward(self, x):
        return Poison.apply(x, self.where)


@pytest.mark.parametrize("recipe", [None, recipes.lns_madam()], ids=["fp32", "lns-madam"])
@pytest.mark.parametrize(
    "where, message",
    [
        ("forward", "the forward pass of 2"),
        ("backward", "the input gradient of 2"),
        ("parameter", "the parameter 1.bias"),
    ],
)
def test_nan_is_traced_to_its_layer_and_pass(digits, tmp_path, recipe, where, message):
    own = models.build("mlp", digits.input_shape, digits.classes)
    own[2] = Poisoned()
    experiment = Experiment(digits, [recipe], [0], SMALL, tmp_path, model=own)

    def on_step(trainer):
        """A whole epoch, then something breaks."""
        if trainer.epoch == 1:
            if where == "parameter":
                trainer.model[1].bias.data[0] = float("nan")
            else:
                trainer.model[2].where = where

    with pytest.raises(Diverged, match=message):
        experiment.run(on_step)
    before = torch.load(experiment.checkpoint(0), weights_only=True)
    assert len(before["trainer"]["result"]["test"]) == 1  # the epoch before is intact


def test_a_full_disk_keeps_the_checkpoint_before(digits, tmp_path, monkeypatch):
    experiment = Experiment(digits, RECIPES[:1], [0], SMALL, tmp_path)
    experiment.run()
    path, files = experiment.checkpoint(0), set(tmp_path.iterdir())
    before = path.read_bytes()

    def full(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device; .*fp32-seed0\.pt still holds"):
        save_checkpoint({}, path)
    assert path.read_bytes() == before and set(tmp_path.iterdir()) == files


@pytest.mark.parametrize("contents", [b"", b"garbage", b"half"])
def test_a_damaged_checkpoint_is_an_error(digits, tmp_path, contents):
    experiment = Experiment(digits, RECIPES[:1], [0], SMALL, tmp_path)
    experiment.run()
    path = experiment.checkpoint(0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if contents == b"half" else contents)
    for read in (experiment.resume, lambda: load(path)):
        with pytest.raises(ForeignFile, match="damaged"):
            read()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("recipe"),
        lambda state: state.update(recipe=5),
        lambda state: state.update(settings=3),
        lambda state: state.update(settings={"modl": "mlp"}),
        lambda state: state.update(data={}),
        lambda state: state.update(trainer=3),
        lambda state: state["trainer"].pop("model"),
        lambda state: state["trainer"].update(model=3),
        lambda state: state["trainer"]["model"].popitem(),
        lambda state: state["trainer"].update(optimizer={}),
        lambda state: state["trainer"].update(result={"recipe": 1}),
    ],
)
def test_a_checkpoint_with_other_contents_is_an_error(digits, tmp_path, change):
    experiment = Experiment(digits, RECIPES[:1], [0], dataclasses.replace(SMALL, epochs=1), tmp_path)
    experiment.run()
    path = experiment.checkpoint(0)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    longer = Experiment(digits, RECIPES[:1], [0], SMALL, tmp_path)
    with pytest.raises(ForeignFile, match=r"fp32-seed0\.pt (is damaged|is no checkpoint|was made with other settings)"):
        longer.resume()
        longer.run()
