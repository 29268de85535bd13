"""Studies of the papers: every one in tiny form, and workers that share runs, are lost, run out of time, and fail."""

import csv
import json
import os
import time

import numpy as np
import pytest
import torch
from command import lns_sim as command
from command import lns_sim_process

from lns_sim import Datapath, LNSFormat, recipes
from lns_sim.quantizers import LNS
from lns_sim.studies import search as rates
from lns_sim.studies.papers import STUDIES, chosen, halp, update_error
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.pool import GRACE, OutOfTime, Pool, Run
from lns_sim.studies.papers.presets import PRESETS, Preset, Task
from lns_sim.studies.papers.rivals import energies
from lns_sim.studies.papers.study import Cell, Row, Study, compared, lines, points
from lns_sim.studies.papers.training import quantize_updates, search, training
from lns_sim.studies.papers.work import data_of, pool_of, work
from lns_sim.studies.pictures import pyplot
from lns_sim.studies.training import data
from lns_sim.studies.training.trainer import Settings, Trainer
from lns_sim.studies.workers import this_worker

IMAGES = Task("resnet8", "images", epochs=1, batch=32, searched=40, train=48, test=40)
TEXT = Task("gpt", "text", epochs=1, batch=8, searched=16, train=16, test=8, context=16)
TINY = Preset("tiny", {}, IMAGES, IMAGES, TEXT, seeds=1, factors=(1.0,), convex=2, points=3)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "words.txt"
    text.write_text("of grids and of logarithms, a tale in few words\n" * 400)
    return Bench({"images": "digits", "text": f"text:{text}"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shared by all studies, as runs are."""
    return tmp_path_factory.mktemp("papers")


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study(name, bench, folder):
    study, pool = STUDIES[name], pool_of([STUDIES[name]], TINY, folder)
    work([name], TINY, bench, folder, quiet=True)
    assert not pool.failures() and pool.finished == len(pool.runs) > 0
    record = study.write(TINY, pool, data_of(pool, bench), folder)
    rows = list(csv.DictReader((folder / f"{name}.csv").open()))
    assert len(rows) == len(study.cells(TINY)) and any(row["mean"] for row in rows)
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (
        json.loads(json.dumps(record)) == json.loads((folder / f"{name}.json").read_text())
        and record["preset"]["name"] == "tiny"
    )
    assert all(claim["verdict"] != "not measured" for claim in record["claims"])
    for row in record["rows"]:
        assert (row["published"] is None) == (row["published source"] is None)


def test_published_numbers_stand_beside_ours():
    for preset in PRESETS.values():
        for study in STUDIES.values():
            cells = study.cells(preset)
            assert len({json.dumps(c.labels) for c in cells}) == len(cells), study.name
            assert len({run.name for run in study.runs(preset)}) == len({run.key for run in study.runs(preset)})
    printed = {tuple(c.labels.values()): c.published for c in STUDIES["lns-madam-update-width"].cells(TINY)}
    width = printed["resnet8", "Madam", 10]
    assert (width.value, width.status) == (93.4, "read off a figure") and printed["gpt", "Madam", 10] is None


def count(bench, n):
    bench.tick()
    return {"n": n}


def add(bench, **parts):
    return sum(part["n"] for part in parts.values())


def stop(bench):
    raise KeyError("no such thing")


def test_runs_are_done_once_and_after_what_they_need(tmp_path):
    one, two = (Run(f"count {n}", count, {"n": n}) for n in (1, 2))
    runs, done = [Run("add", add, {}, {"a": one, "b": two}), one, Run("another name", count, {"n": 2})], []
    pool = Pool(tmp_path, runs)
    assert [run.name for run in pool.runs] == ["count 1", "count 2", "add"]
    pool.work(Bench({}), lambda run, record: done.append(run.name))
    assert done == ["count 1", "count 2", "add"] and pool.record(runs[0])["result"] == 3
    again = Pool(tmp_path, runs)
    again.work(Bench({}), lambda run, record: done.append(run.name))
    assert len(done) == 3 and again.finished == 3 and not list(tmp_path.glob("*.claim"))


def test_a_lost_workers_run_is_taken_over(tmp_path):
    run = Run("count", count, {"n": 1})
    pool = Pool(tmp_path, [run])
    claim, (machine, process, started) = pool.path(run, "claim"), this_worker()

    def claimed(*worker, losses=0):
        claim.write_text(json.dumps({"worker": worker, "losses": losses}))

    claimed(machine, process, started)
    assert pool._take() is False  # it is alive
    claimed("elsewhere", 1, 1.0)
    assert pool._take() is False
    os.utime(claim, (0, time.time() - GRACE - 1))
    assert pool._take() is run and json.loads(claim.read_text())["losses"] == 1
    claimed(machine, process, started - 1, losses=2)  # another process of that number
    assert pool._take() is False and pool._take() is None
    assert "3 workers were lost" in pool.failures()["count"]
    pool.forget_failures()
    claimed(machine, process, started - 1)
    pool.work(Bench({}))
    assert pool.finished == 1 and not claim.exists()


def test_time_is_over(tmp_path):
    long = Run("long", count, {"n": 1}, seconds=100)
    pool = Pool(tmp_path, [long, Run("short", count, {"n": 2}, seconds=0.01)], deadline=time.time() + 10)
    pool.work(Bench({}))
    assert pool.record(long) is None and pool.finished == 1
    late = Pool(tmp_path, [long], deadline=time.time() - 1)
    late.expected = lambda run: -100.0  # as if it had seemed to fit
    late.work(Bench({}))
    assert late.finished == 0 and not late.path(long, "claim").exists()
    with pytest.raises(OutOfTime):
        late._do(long, Bench({}))


def test_a_failure_is_kept_and_tried_again(tmp_path):
    bad, good = Run("bad", stop, {}), Run("good", count, {"n": 1})
    pool = Pool(tmp_path, [bad, Run("dependent", add, {}, {"a": bad}), good])
    pool.work(Bench({}))
    assert pool.finished == 1 and pool.failures()["bad"].endswith("KeyError: 'no such thing'\n")
    pool.forget_failures()
    assert not pool.failures()


def test_what_a_claim_says():
    def row(*values, diverged=0):
        return Row({}, "test accuracy %", list(values), diverged)

    assert compared("", row(92.0, 92.2), row(91.0, 91.2)).verdict == "holds"
    assert compared("", row(92.0, 91.0), row(91.3, 91.3)).verdict == "within the spread"
    assert compared("", row(90.0), row(91.0)).shown == "does not hold (1 seed)"
    assert compared("", row(90.0, 90.1), row(91.0, 91.1)).shown == "does not hold"
    assert compared("", row(90.3), row(91.0), margin=-1).verdict == "holds"
    assert compared("", row(90.3), row(diverged=2)).verdict == "holds"
    assert compared("", row(diverged=1), row(91.0)).verdict == "does not hold"
    assert compared("", row(diverged=1), row(diverged=2)).verdict == "both diverged"
    assert compared("", row(), row(91.0)).verdict == compared("", None, row(91.0)).verdict == "not measured"
    low, high = (Row({}, "validation loss", [v]) for v in (1.5, 1.6))
    assert compared("", low, high).verdict == "holds"


def test_what_diverged_is_in_the_picture():
    rows = [Row({"x": 1, "name": "a"}, "loss", [2.0]), Row({"x": 2, "name": "b"}, "loss", [], diverged=1)]
    for draw in (lambda axes: points(axes, rows, "name"), lambda axes: lines(axes, rows, "x")):
        axes = pyplot().figure().subplots()
        draw(axes)
        assert any("diverged" in text.get_text() for text in axes.get_legend().get_texts())
        pyplot().close(axes.figure)


def test_a_table_says_where_numbers_were_made_and_at_which_rate(tmp_path):
    searched = Run("lr", count, {"n": 1})
    run = Run("trained", add, {}, {"lr": searched})

    class One(Study):
        name, title, paper = "one", "one", "a paper"

        def cells(self, preset):
            return [Cell({"x": 1}, "loss", [run], lambda result: result["n"])]

        def draw(self, figure, rows):
            points(figure.subplots(), rows, "x")

    pool = Pool(tmp_path, [run])
    pool.work(Bench({}))
    for each, result in ((searched, {"lr": 4.0, "end": "largest"}), (run, {"n": 2})):
        record = json.loads(pool.path(each).read_text())
        record["environment"]["gpus"], record["result"] = ["a GPU elsewhere"], result
        pool.path(each).write_text(json.dumps(record))
    record = One().write(TINY, Pool(tmp_path, [run]), {}, tmp_path)
    assert record["environment"]["gpus"] == ["a GPU elsewhere"]
    assert record["rows"][0]["learning rate"] == "4 (largest tried)"


def test_a_search_goes_on_beyond_an_end():
    tried = rates.search(lambda lr: -abs(lr - 8.1), 1.0, [0.25, 1, 4], max, 6)
    assert list(tried) == [0.25, 1, 4, 16] and rates.best_of(tried, max) == (4, None)
    assert rates.best_of(rates.search(lambda lr: lr, 1.0, [1, 2], max, 2), max) == (8, "largest")
    assert rates.search(lambda lr: None, 1.0, [1, 2], max, 1) == {0.5: None, 1: None, 2: None}


def test_a_searched_rate_is_the_one_that_trains(bench):
    lr = search(bench, IMAGES.source, 40, "fp32", {**vars(IMAGES.settings())}, [0.5, 1.0])
    assert lr["lr"] in dict(lr["tried"]) and len(lr["tried"]) <= 6
    run = training(IMAGES, None, 0)
    result = run.function(bench, **run.arguments, lr={"lr": 0.0125})
    direct = training(IMAGES, None, 0, float_lr=0.0125)
    times = {name: result[name] for name in ("seconds", "epoch_seconds")}
    assert result == {**direct.function(bench, **direct.arguments), **times}
    assert result["lr"] == 0.0125 and len(result["test"]) == 1


def test_updates_are_kept_in_their_format(bench):
    trainer = Trainer(bench.data("images", 48, 40), None, 0, Settings("resnet8", epochs=1, counters=False))
    quantize_updates(trainer, LNSFormat(10, 32))
    trainer.run()
    q = LNS(LNSFormat(10, 32))
    for p in trainer.model.parameters():
        kept = torch.equal(p, q.value(*q.quantize(p.detach(), None, -1)))
        assert kept == (p.dim() > 1)


def test_the_error_of_an_update_by_hand():
    w, g = torch.tensor([2.0, -0.5], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert update_error.update("gradient descent", w, g, 0.5).tolist() == pytest.approx([0.584963, 1.0], abs=1e-6)
    assert update_error.update("multiplicative", w, g, 0.5).tolist() == [0.5, 0.5]
    assert update_error.update("sign-multiplicative", w, g, 0.5).tolist() == [0.5, -0.5]
    x = torch.full((100_000,), 0.0625, dtype=torch.float64)  # half a step of gamma 8
    assert update_error.error(x, 8, 0, 2) == pytest.approx((0.0625**2, 0.0))
    x[:50_000] = 0.0  # on the grid
    mean, noise = update_error.error(x, 8, 0, 2)
    assert mean == pytest.approx(0.5 * 0.0625**2) and noise == pytest.approx(mean / 200_000**0.5, rel=1e-3)
    assert update_error.bound("sign-multiplicative", w, g, 0.5, 8) == 2 * 0.5 / 8


def test_energies_are_those_of_the_recipes_datapaths(bench):
    def priced(recipe):
        return energies(bench, {"name": "images"}, "mlp", 2, recipes.to_plain(recipe))

    assert priced(recipes.get("lns-madam-block32-4bit")) == {}
    usual, short = priced(recipes.lns_madam()), priced(recipes.lns_madam(6, 4))
    assert len(usual) == 2 and usual == priced(recipes.get("lns-madam-published"))
    assert list(short) == ["uJ a sample, paper's prices"] and short == priced(
        recipes.lns_madam_fake_quant(bits=6, gamma=4)
    )
    one = priced(recipes.lns_madam(datapath=Datapath(lut_entries=1)))
    assert all(float(found[name]) < float(usual[name]) for found in (one, short) for name in found)


def test_names_of_studies():
    assert [s.name for s in chosen(["luq", "lns-madam-gamma"])][-1] == "lns-madam-gamma"
    assert {s.name for s in chosen(["all"])} == set(STUDIES)
    with pytest.raises(ValueError, match="did you mean 'luq-rounding'"):
        chosen(["luq-roundin"])


def test_data_differ(tmp_path):
    from lns_sim.studies.papers.work import check_data

    known = data.load("digits").describe()
    check_data({"images": known}, tmp_path)
    check_data({"images": known}, tmp_path)
    with pytest.raises(ValueError, match="read other images"):
        check_data({"images": {**known, "fingerprint": "0"}}, tmp_path)


def test_data_that_no_network_takes_are_refused_before_anything_trains(tmp_path):
    x, y = np.eye(40, 4, dtype=np.float32), np.arange(40) % 4
    np.savez(tmp_path / "rows.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    for option, message in (("--images", "model 'resnet8' needs images"), ("--text", "model 'gpt' does not fit")):
        refused = command("paper", "blocks", option, f"npz:{tmp_path}/rows.npz", "--out", str(tmp_path / "out"))
        assert refused.returncode == 1 and refused.stderr.startswith(f"lns-sim: {option}: {message}"), refused.stderr
    assert not any((tmp_path / "out/runs").iterdir())


@pytest.mark.slow
def test_the_command(tmp_path):
    out = tmp_path / "out"
    options = ["luq-rounding", "shiftquant-variance", "--out", str(out)]
    first = lns_sim_process("paper", *options, "--workers", "2", "--minutes", "5")
    assert first.returncode == 0, first.stderr
    assert "run 10/10" in first.stderr and "LUQ has no bias" in first.stdout
    assert {p.suffix for p in out.iterdir()} == {".csv", ".json", ".png", ".svg", ""}
    second = command("paper", *options, "--json")
    assert second.returncode == 0 and "run" not in second.stderr
    assert len(json.loads(second.stdout)["luq-rounding"]["commands"]) == 2
    listed = command("paper")
    assert listed.returncode == 0 and all(name in listed.stdout for name in STUDIES)
    for arguments, message in [
        (["luq-training", "--preset", "full"], "need --images"),
        (["nothing"], "study must be one of"),
        (["luq", "--preset", "medium"], "preset must be one of"),
    ]:
        refused = command("paper", *arguments, "--out", str(tmp_path / "none"))
        assert refused.returncode == 1 and message in refused.stderr, refused.stderr


def test_least_squares_in_few_bits():
    norms = {m: halp.gradient_norms(m, 4) for m in ("halp", "lp-svrg")}
    assert norms["halp"][-1] < norms["lp-svrg"][-1] / 2
