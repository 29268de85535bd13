"""Sweeps: the space, and workers that share a study, are killed, and go on."""

import csv
import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace

import prices
import pytest
import torch
from command import lns_sim as command
from tools import require_module

import lns_sim
from lns_sim import Datapath, LNSFormat, LogDatapath, recipes
from lns_sim.studies import models
from lns_sim.studies.sweep import report, space
from lns_sim.studies.sweep.costs import costs_of
from lns_sim.studies.training import data
from lns_sim.studies.training.trainer import Settings

optuna = require_module("optuna")
from lns_sim.studies.sweep import study  # noqa: E402
from lns_sim.studies.sweep.study import OtherSweep, Sweep  # noqa: E402

FAST = ("--model", "mlp", "--epochs", "1", "--batch-size", "256", "--seeds", "2")


def test_what_a_space_says():
    found = space.parse(
        ["acc_bits=16:24:4", "forward.lut_entries=1,2,8", "rounding=nearest,truncate", "bits=6:8", "gamma=8,8"]
    )
    assert found == {
        "acc_bits": [16, 20, 24],
        "forward.lut_entries": [1, 2, 8],
        "rounding": ["nearest", "truncate"],
        "bits": [6, 7, 8],
        "gamma": [8],
    }
    assert space.size(found) == len(space.points(found)) == 54
    for text, message in [
        ("acc_bit=3", "did you mean 'acc_bits'"),
        ("acc_bits", "NAME=VALUES"),
        ("acc_bits=a", "takes integers, got 'a'"),
        ("acc_bits=9:3", "from:to"),
        ("acc_bits=1:9:0", "from:to"),
        ("rounding=up", "rounding must be one of"),
        ("bins=apart", "one of 'joint', 'signed'"),
    ]:
        with pytest.raises(ValueError, match=message):
            space.parse([text])
    with pytest.raises(ValueError, match="given twice"):
        space.parse(["bits=6", "bits=7"])


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_short_formats_with_block_scales_are_the_presets(bits):
    preset = recipes.get(f"lns-madam-block32-{bits}bit")
    assert space.recipe_of({"bits": bits}, recipes.get("lns-madam-block32")) == replace(
        preset, name="lns-madam-block32"
    )
    assert space.recipe_of({"bits": bits, "gamma": 2}, preset).activation.format == LNSFormat(bits, 2)


def test_the_recipe_of_a_point():
    base = recipes.lns_madam()
    assert space.recipe_of({"bits": 6, "gamma": 4, "update_bits": 12}, base) == recipes.lns_madam(6, 4, 12)
    assert space.recipe_of({"gamma": 16}, base) == recipes.lns_madam(gamma=16)
    one = space.recipe_of({"acc_bits": 20, "forward.acc_bits": 16, "weight_gradient.lut_entries": 2}, base)
    assert one == replace(
        base,
        forward=Datapath(acc_bits=16),
        input_gradient=Datapath(acc_bits=20),
        weight_gradient=Datapath(acc_bits=20, lut_entries=2),
    )
    mixed = space.recipe_of({"error.bits": 6, "weight.bits": 5}, base)
    assert (
        mixed.error.format == LNSFormat(6, 8)
        and mixed.weight == LNSFormat(5, 8)
        and mixed.activation == base.activation
    )
    assert mixed.update == LNSFormat(16, 16384)  # the weight's octaves
    assert (mixed.forward.format.bits, mixed.input_gradient.format.bits) == (8, 6)
    wide = replace(base, forward=Datapath(LNSFormat(10, 8)))  # for operands of 8 bits
    assert space.recipe_of({"acc_bits": 20}, wide).forward == Datapath(LNSFormat(10, 8), acc_bits=20)
    with pytest.raises(ValueError, match="lut_entries must be between 1 and 4"):
        space.recipe_of({"gamma": 4, "lut_entries": 8}, base)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_grid_resumes_refuses_other_settings_and_reports(tmp_path):
    out = str(tmp_path / "out")
    run = command("sweep", "acc_bits=12,24", "lut_entries=1,16", *FAST, "--out", out)
    assert run.returncode == 0, run.stderr
    assert (
        "best compromises" in run.stdout
        and run.stderr.count("no such datapath: lut_entries must be between 1 and 8") == 2
    )
    rows = read(tmp_path / "out/sweep.csv")
    assert sorted((r["acc_bits"], r["lut_entries"]) for r in rows) == [
        ("12", "1"),
        ("12", "16"),
        ("24", "1"),
        ("24", "16"),
    ]
    done = [r for r in rows if not r["note"]]
    assert len(done) == 2 and all(float(r["test accuracy %"]) > 40 for r in done) and "±" in run.stdout
    for r in done:
        for name in ("held-out accuracy %", "test accuracy %"):
            assert float(r[name]) == pytest.approx(sum(float(r[f"{name}, seed {seed}"]) for seed in (0, 1)) / 2)
    assert any(r["best compromise"] == "1" for r in done) and (tmp_path / "out/pareto.png").stat().st_size > 10_000
    again = command("sweep", "acc_bits=12,24", "lut_entries=1,16", *FAST, "--out", out)
    assert again.returncode == 0 and "trial 0" not in again.stderr and read(tmp_path / "out/sweep.csv") == rows
    other = command("sweep", "acc_bits=12,24", "lut_entries=1", *FAST, "--out", out)
    assert other.returncode == 1 and "other settings" in other.stderr and other.stderr.count("\n") == 1
    wrong = command("sweep", "acc_bits=12", "--recipe", "fp32", "--out", out)
    assert wrong.returncode == 1 and "got fp32" in wrong.stderr


def make(path, sampler, trials=None, dimensions=("acc_bits=10:24:2",), of=None, base=None, **kwargs):
    settings = Settings(model="mlp", epochs=1, batch_size=512)
    return Sweep(
        of or data.load("digits"),
        settings,
        base or recipes.lns_madam(),
        space.parse(list(dimensions)),
        [0],
        sampler,
        trials,
        str(path),
        "s",
        **kwargs,
    )


def test_a_trainer_goes_before_the_next_one_comes(tmp_path, monkeypatch):
    """Not at a garbage collection: the memory of both would be taken."""
    alive = weakref.WeakSet()

    class Counted(study.Trainer):
        def __init__(self, *args):
            assert not alive
            alive.add(self)
            super().__init__(*args)

    monkeypatch.setattr(study, "Trainer", Counted)
    sweep = make(tmp_path / "j", "grid", None, ["acc_bits=16"])
    sweep.seeds = [0, 1]
    gc.collect()
    gc.disable()
    try:
        sweep.run()
    finally:
        gc.enable()
    assert [len(t.user_attrs["tests"]) for t in sweep.study.get_trials(deepcopy=False)] == [2] and not alive


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
@pytest.mark.slow
def test_samplers_draw_as_many_trials_and_known_points_cost_nothing(sampler, tmp_path):
    steps = []
    sweep = make(tmp_path / "j", sampler, 6, ["acc_bits=12,16,20"])
    sweep.run(lambda point, trainer: steps.append(tuple(point.items())))
    trials = sweep.study.trials
    assert sweep.finished == len(trials) == 6
    distinct = {tuple(t.params.items()) for t in trials}
    assert len(distinct) <= 3 and len(steps) == 3 * len(distinct)  # three steps an epoch, each point trained once
    by_point = {}
    for t in trials:
        assert by_point.setdefault(t.params["acc_bits"], t.values) == t.values
    best = report.front(sweep)
    assert [t.values[1] for t in best] == sorted(t.values[1] for t in best)
    recipe, x = recipes.lns_madam(datapath=Datapath(acc_bits=best[0].params["acc_bits"])), sweep.data.x_train[:512]
    energy = lns_sim.energy(models.build("mlp", (1, 8, 8), 10), x, recipe=recipe)
    assert best[0].values[1] == pytest.approx(1000 * energy.total() / 512)
    repeated = make(tmp_path / "k", sampler, 6, ["acc_bits=12,16,20"])
    repeated.run()
    assert [t.values for t in repeated.study.trials] == [t.values for t in trials]


@pytest.mark.slow
def test_two_workers_share_a_sweep_and_a_killed_one_loses_only_its_trial(tmp_path):
    args = [
        "acc_bits=11:17",
        "--model",
        "cnn",
        "--epochs",
        "3",
        "--seeds",
        "1",
        "--storage",
        str(tmp_path / "journal"),
        "--out",
    ]
    # Each says when it has started and waits to be let go, so that a busy machine does not leave all trials to the
    # first.
    code = "import lns_sim.cli.sweep; from lns_sim.command.app import app; print('ready', flush=True); input(); app()"
    start = [sys.executable, "-c", code, "sweep", *args]
    alone = {**os.environ, "COLUMNS": "140", "OMP_NUM_THREADS": "1"}

    def started(*names):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone)
        workers = [subprocess.Popen([*start, str(tmp_path / name)], **pipes) for name in names]
        assert all(w.stdout.readline() == "ready\n" for w in workers)
        for w in workers:
            w.stdin.write("\n")
            w.stdin.flush()
        return workers

    (victim,) = started("a")
    states = []
    while not (
        "COMPLETE" in states and states[-1] == "RUNNING"
    ):  # until it has finished one trial and is well inside another
        assert victim.poll() is None
        time.sleep(0.1)
        states = [t.state.name for t in _trials(tmp_path / "journal")]
    time.sleep(0.3)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    kept = [t.number for t in _trials(tmp_path / "journal") if t.state.name == "COMPLETE"]
    assert kept
    workers = started("b", "c")
    shown = [w.communicate()[1] for w in workers]
    assert all(w.returncode == 0 for w in workers)
    trials = _trials(tmp_path / "journal")
    done = [t for t in trials if t.state.name == "COMPLETE"]
    assert {t.params["acc_bits"] for t in done} == set(range(11, 18)) and [t.number for t in done][: len(kept)] == kept
    assert sum(t.state.name == "FAIL" for t in trials) <= 1 and not any(t.state.name == "RUNNING" for t in trials)
    assert all("trial " in text for text in shown), "one worker did everything"
    assert len({t.user_attrs["worker"][1] for t in done if t.number not in kept}) == 2


def _trials(journal):
    if not journal.exists():
        return []
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    studies = optuna.get_all_study_names(storage)
    return (
        optuna.load_study(study_name="sweep", storage=storage).get_trials(deepcopy=False) if "sweep" in studies else []
    )


def test_another_machines_trial_is_lost_after_its_silence(tmp_path):
    sweep = make(tmp_path / "j", "grid", dimensions=["acc_bits=12,24"], grace=600.0)
    sweep.study.enqueue_trial({"acc_bits": 12})
    lost = sweep.study.ask()
    lost.suggest_categorical("acc_bits", [12, 24])
    lost.set_user_attr("worker", ["elsewhere", 1, 0.0])
    lost.set_user_attr("seen", time.time() - 10)
    sweep.run()
    assert [t.state.name for t in sweep.study.trials] == ["RUNNING", "COMPLETE"]  # it may still come back
    lost.set_user_attr("seen", time.time() - 601)
    sweep.run()
    assert [t.state.name for t in sweep.study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert {t.params["acc_bits"] for t in sweep.study.trials[1:]} == {12, 24}


def test_points_are_judged_on_held_out_samples_alone(tmp_path):
    """The values are of the held-out part; another test set changes what is reported, and no value."""
    found = []
    for name, digits in (("j", data.load("digits")), ("k", None)):
        if digits is None:
            digits = data.load("digits")
            digits = replace(digits, y_test=digits.y_test.roll(1), fingerprint="")
        sweep = make(tmp_path / name, "grid", dimensions=["acc_bits=16"], of=digits)
        sweep.run()
        found.append(sweep.study.trials[0])
        tests = len(digits.held_out(0.2).y_test)
        assert found[-1].values[0] == found[-1].user_attrs["held out"][0]
        assert found[-1].values[0] * tests / 100 == pytest.approx(round(found[-1].values[0] * tests / 100))
    assert found[0].values == found[1].values and found[0].user_attrs["tests"] != found[1].user_attrs["tests"]


def test_a_study_of_other_settings_is_refused(tmp_path):
    make(tmp_path / "j", "grid")
    with pytest.raises(OtherSweep, match="other settings"):
        make(tmp_path / "j", "random", 3)


def test_mendable_errors_are_one_sentence(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "optuna", None)
        with pytest.raises(ImportError, match=r"need the library optuna: pip install optuna"):
            make(tmp_path / "j", "grid")
    for args, message in [
        (["acc_bit=3"], "did you mean 'acc_bits'"),
        (["acc_bits=12", "--sampler", "tpe"], "sampler must be one of"),
        (["acc_bits=12", "--out", "/proc/x"], "/proc/x"),
        (["acc_bits=12", "--storage", "/proc/journal"], "/proc/journal"),
    ]:
        run = command("sweep", *args, *FAST, cwd=tmp_path)
        assert run.returncode == 1 and message in run.stderr and run.stderr.count("\n") == 1, (args, run.stderr)


def test_a_worker_that_was_taken_for_lost_spoils_nothing(tmp_path):
    """Its trial was given up and run again elsewhere; what it brings later is left aside."""
    sweep = make(tmp_path / "j", "grid", dimensions=["acc_bits=12"])

    def give_up(point, trainer):
        first = sweep.study.trials[0]
        if first.state.name == "RUNNING":
            sweep.study.tell(0, state=optuna.trial.TrialState.FAIL)

    sweep.run(give_up)
    assert [t.state.name for t in sweep.study.trials] == ["FAIL", "COMPLETE"]


def test_a_trial_that_fails_is_given_back(tmp_path):
    def fail(point, trainer):
        raise KeyboardInterrupt

    sweep = make(tmp_path / "j", "grid", dimensions=["acc_bits=12"])
    with pytest.raises(KeyboardInterrupt):
        sweep.run(fail)
    assert [t.state.name for t in sweep.study.trials] == ["FAIL"]
    sweep.run()
    assert [t.state.name for t in sweep.study.trials] == ["FAIL", "COMPLETE"]


def test_costs_of_energy_area_and_cycles(tmp_path):
    """Both directions count; a point that nobody measured is no trial's cost, and no error."""
    own = prices.write(tmp_path / "own.toml")
    costs = ("energy", "area", "cycles")
    sweep = make(tmp_path / "j", "grid", dimensions=["acc_bits=12,16,24"], costs=costs, technology=own)
    sweep.run()
    trials = {t.params["acc_bits"]: t for t in sweep.study.trials}
    assert "no LNS design with gamma 8, lut_entries 8, acc_bits 12" in trials[12].user_attrs["none"]
    x = sweep.data.x_train[:512]
    for acc_bits, area in ((16, 2000), (24, 4000)):
        recipe = recipes.lns_madam(datapath=Datapath(acc_bits=acc_bits))
        model = models.build("mlp", (1, 8, 8), 10)
        energy = lns_sim.energy(model, x, recipe=recipe, technology=own).total()
        cycles = lns_sim.cycles(model, x, recipe=recipe).cycles
        assert trials[acc_bits].values[1:] == pytest.approx([1000 * energy / 512, area, cycles / 512])
    front = report.front(sweep)
    assert front[0].params["acc_bits"] == 16  # the cheaper in both, whatever its accuracy
    report.write_csv(sweep, tmp_path / "sweep.csv")
    assert {r["um2"] for r in read(tmp_path / "sweep.csv")} == {"", "2000.0", "4000.0"}
    report.draw(sweep, "a title", "a command", tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "dimension, base, message",
    [("log_acc_bits=12", None, "adds logarithms"), ("acc_bits=20", recipes.lns_madam_blocks(), "has block scales")],
)
def test_hardware_without_a_price_has_cycles_alone(dimension, base, message, tmp_path):
    """A point is not trained for an energy that would be another design's."""
    found = []
    for cost in ("energy", "cycles"):
        sweep = make(tmp_path / cost, "grid", dimensions=[dimension], base=base, costs=(cost,))
        sweep.run()
        found += sweep.study.trials
    note = found[0].user_attrs["none"]
    assert found[0].values is None and message in note and note.endswith("; the cost cycles is known of all")
    assert found[1].values[1] > 0


def test_logarithms_added_cost_what_their_design_does():
    recipe = recipes.lns_madam(datapath=LogDatapath(acc_bits=12, tables="shift", vector_size=32))
    with torch.device("meta"):
        model, batch = torch.nn.Sequential(torch.nn.Conv2d(32, 32, 1)), torch.zeros(4, 32, 4, 8)
    priced = lns_sim.energy(model, batch, recipe=recipe, technology="measured").total()
    energy, area = costs_of(("energy", "area"), model, batch, recipe, "measured")
    assert energy == pytest.approx(1000 * priced / 4) and area == 568_612


def test_costs_that_cannot_be_told_are_refused(tmp_path):
    no_area = prices.write(tmp_path / "n.toml", prices.PROCESS, prices.lns().replace("area_um2 = 4000.0", ""))
    for options, message in [
        (dict(costs=("power",)), "a cost must be one of"),
        (dict(costs=()), "one or more different costs, got none"),
        (dict(costs=("area", "area")), "one or more different costs"),
        (dict(costs=("area",)), "the technology paper gives no areas"),
        (dict(costs=("area",), technology=no_area), "n.toml gives no areas"),
        (dict(costs=("cycles",), technology=no_area), "the technology would change nothing"),
        (dict(technology="45nm"), "technology must be paper, measured"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(tmp_path / "j", "grid", **options)
