"""Commands as jobs: what they write, where, what they say of it, and what they leave alone."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from command import LOAD
from helpers import ROOT
from tools import require_module
from typer.testing import CliRunner

from lns_sim.cli.console import Output
from lns_sim.command.app import COMMANDS, app
from lns_sim.environment import environment

QUICK = ("--model", "mlp", "--recipe", "fp32", "--epochs", "1", "--seeds", "1", "--batch-size", "256")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every command runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args, status=0):
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == status, (result.output, result.stderr, result.exception)
    return result


# ---- Folders.


def test_nothing_is_overwritten_unasked(folder):
    run("train", *QUICK)
    first = (folder / "runs/train/1/run.json").read_bytes()
    run("train", *QUICK)
    assert {p.name for p in (folder / "runs/train").iterdir()} == {"1", "2"}
    refused = run("train", *QUICK, "--out", "runs/train/1", status=1)
    assert "runs/train/1 is not empty; choose another folder, or --force" in refused.stderr
    assert (folder / "runs/train/1/run.json").read_bytes() == first
    run("train", *QUICK, "--seed", 4, "--out", "runs/train/1", "--force")
    assert json.loads((folder / "runs/train/1/run.json").read_text())["runs"] == [["fp32", 4]]
    run("vectors", "v", "--k", 8, "--count", 2)
    assert "v is not empty" in run("vectors", "v", "--k", 8, "--count", 3, status=1).stderr
    assert run("check-vectors", "v", "v/acc.hex").stdout == "All 2 accumulators are equal.\n"


def test_resuming_needs_nothing_else_and_names_what_differs(folder):
    run("train", *QUICK, "--lr", 0.5, "--acc-bits", 20, "--recipe", "lns-madam", "--held-out", 0.2)
    again = run("train", "--resume")
    assert "fp32" in again.stdout and "lns-madam" in again.stdout
    more = run("train", "--resume", "--epochs", 2)
    record = json.loads((folder / "runs/train/1/run.json").read_text())
    assert [len(r["test"]) for r in record["results"]] == [2, 2] and "epoch 2/2" in more.stderr
    assert len(record["commands"]) == 3 and record["settings"]["lr"] == 0.5
    assert record["runs"][1][0]["forward"]["acc_bits"] == 20 and record["data"]["origin"]["held_out"] == 0.2
    for options, message in (
        (["--lr", 0.25, "--data", "text"], "--lr was 0.5, not 0.25, --data was digits, not text"),
        (["--held-out", 0.3], "--held-out was 0.2, not 0.3"),
        (["--epochs", 1], "settings.epochs is 2, which 1 would cut short"),
        (["--recipe", "fp32", "--recipe", "lns-madam", "--acc-bits", 12], "1.forward.acc_bits is 20, not 12"),
        (["--no-counters"], "--no-counters was False, not True"),
        (["--force"], "give one of them"),
        (["--out", "nowhere"], "nowhere holds no run.json"),
    ):
        assert message in run("train", "--resume", *options, status=1).stderr
    run("train", "--resume", *QUICK[:2], "--lr", 0.5)  # the same again is no other


# ---- What is written, and what is shown.


def test_every_record_says_how_it_was_made(folder):
    run("train", *QUICK)
    run("compare", "mlp", "--acc-bits", 16, "--batch-size", 8)
    run("compare-recipes", "fp32", *QUICK[:2], *QUICK[4:], "--search", "1", "--out", "contest")
    run("sweep", "acc_bits=16", "--model", "mlp", "--epochs", 1, "--batch-size", 256, "--out", "sweep")
    for path in ("runs/train/1/run.json", "runs/compare/1/compare.json", "contest/recipes.json", "sweep/sweep.json"):
        record = json.loads((folder / path).read_text())
        assert record["environment"] == environment() and len(record["commands"]) == 1, path
        assert record["data"]["name"] == "digits" and len(record["data"]["fingerprint"]) == 16, path
    for name in ("energy", "cycles"):
        run(name, "mlp", "--recipe", "lns-madam")
        record = json.loads((folder / f"runs/{name}/1/{name}.json").read_text())
        assert record["environment"] == environment() and record["recipe"]["name"] == "lns-madam", name
    assert json.loads((folder / "sweep/sweep.json").read_text())["recipe"]["forward"]["acc_bits"] == 24
    assert json.loads((folder / "sweep/sweep.json").read_text())["trials"][0]["point"] == {"acc_bits": 16}


@pytest.mark.slow
def test_metrics_are_written_as_epochs_end(folder):
    code = "import lns_sim.cli.train as t; from lns_sim.command.app import app; app()"
    command = [sys.executable, "-c", code, "train", *QUICK[:4], "--epochs", "400", "--seeds", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [process.stderr.readline() for _ in range(3)]  # as they are said, without a terminal
    known = (folder / "runs/train/1/metrics.jsonl").read_text().splitlines()
    process.kill()
    process.communicate()
    assert [line.split(":")[0] for line in lines] == [f"fp32, seed 0, epoch {n}/400" for n in (1, 2, 3)]
    assert len(known) >= 3
    first = json.loads(known[0])
    assert (first["recipe"], first["seed"], first["epoch"]) == ("fp32", 0, 1) and first["test"] > 10


def test_json_on_stdout_and_quiet(folder):
    shown = run("train", *QUICK, "--json")
    assert json.loads(shown.stdout) == json.loads((folder / "runs/train/1/run.json").read_text())
    assert "epoch 1/1" in shown.stderr
    quiet = run("train", *QUICK, "--quiet")
    assert quiet.stdout == quiet.stderr == ""
    for args in (
        ["compare", "mlp", "--batch-size", 8],
        ["info"],
        ["energy", "mlp"],
        ["cycles", "mlp"],
        ["vectors", "v", "--k", 4, "--count", 2],
        ["check-vectors", "v", "v/acc.hex"],
        ["compare-recipes", "fp32", *QUICK[:2], *QUICK[4:], "--search", "1"],
        ["sweep", "acc_bits=16", "--model", "mlp", "--epochs", 1, "--batch-size", 256],
    ):
        assert isinstance(json.loads(run(*args, "--json").stdout), dict), args


@pytest.mark.slow
def test_files_are_there_before_tables_are_shown(folder):
    """A reader that goes away, as head does, loses nothing."""
    code = f"{LOAD}command.main()"
    command = [sys.executable, "-c", code, "train", *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    process.wait()
    assert (folder / "runs/train/1/curves.png").stat().st_size > 10_000 and "Traceback" not in errors


def test_a_sweep_without_a_result_fails(folder):
    shown = run("sweep", "lut_entries=9,17", "--model", "mlp", "--epochs", 1, "--out", "s", status=1)
    assert "no result in 2 trials; the first: no such datapath: lut_entries must be" in shown.stderr
    assert shown.stdout == "" and (folder / "s/sweep.csv").exists() and not (folder / "s/pareto.png").exists()
    assert "acc_bits would change nothing in luq" in run("sweep", "acc_bits=12", "--recipe", "luq", status=1).stderr


# ---- Models and data of one's own.

OWN = """
import numpy as np, torch
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 90)
x = rng.normal(size=(90, 6)).astype("float32") + 3 * y[:, None]
def data(): return x[:60], y[:60], x[60:], y[60:]
def words(): return "x_train"
class Output:
    def __init__(self, logits): self.logits = logits
class Net(torch.nn.Linear):
    def forward(self, x): return Output(super().forward(x))
def build(): return Net(6, 3)
built = Net(6, 3)
number = 3
"""


def test_a_model_and_data_of_ones_own(folder, monkeypatch):
    (folder / "own_things.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    options = ["--data", "own_things:data", "--epochs", 8, "--batch-size", 16, "--seeds", 1, "--recipe", "lns-madam"]
    run("train", "--model", "own_things:build", *options)
    record = json.loads((folder / "runs/train/1/run.json").read_text())
    assert record["results"][0]["test"][-1] > 60 and record["data"]["origin"] == {"source": "own_things:data"}
    run("train", "--model", "own_things:built", *options)
    run("train", "--resume", "--epochs", 9)
    run("compare", "--checkpoint", "runs/train/2/lns-madam-seed0.pt", "--batch-size", 8)
    assert json.loads((folder / "runs/compare/1/compare.json").read_text())["model"] == "own_things:built"
    for args, message in (
        (["--model", "own_things:number"], "must be a torch module or a function that returns one, got int"),
        (["--model", "own_things:none"], "own_things has no none"),
        (["--data", "own_things:words"], "must give x_train, y_train, x_test, y_test or a Data, got str"),
        (["--data", "no_such_module:f"], "no_such_module"),
    ):
        assert message in run("train", *QUICK, *args, status=1).stderr


def test_ones_own_code_that_raises_is_named(folder, monkeypatch):
    (folder / "broken.py").write_text("1 / 0")
    (folder / "boom.py").write_text("def boom(): raise RuntimeError('no such weights')")
    monkeypatch.syspath_prepend(folder)
    for command in (["energy"], ["train", *QUICK, "--model"], ["train", *QUICK, "--data"]):
        options = ["--input", "8"] if command == ["energy"] else []
        for name, said in (
            ("boom:boom", "boom:boom() raised RuntimeError: no such weights"),
            ("broken:x", "importing broken raised ZeroDivisionError: division by zero"),
        ):
            assert run(*command, name, *options, status=1).stderr.strip() == f"lns-sim: {said}"


INTERRUPTED = {
    "training.experiment.Experiment": (["train", *QUICK], "epochs are kept: lns-sim train --resume --out runs/train/1"),
    "sweep.study.Sweep": (["sweep", "acc_bits=16,24"], "trials are kept. The same command goes on."),
    "contest.Contest": (["compare-recipes", "--epochs", 1], "runs are kept. The same command goes on."),
}


@pytest.mark.parametrize("work", INTERRUPTED)
def test_an_interruption_says_how_to_go_on(folder, monkeypatch, work):
    def interrupted(*_):
        raise KeyboardInterrupt

    command, said = INTERRUPTED[work]
    monkeypatch.setattr(f"lns_sim.studies.{work}.run", interrupted)
    assert run(*command, status=130).stderr.strip() == f"Interrupted; finished {said}"


def test_data_that_are_wrong_are_named_with_their_file(folder):
    x, y = np.zeros((6, 4), np.float32), np.arange(6) % 3
    bad = x.copy()
    bad[4, 1] = np.nan
    for change, message in (
        ({"y_train": y - 1}, "y_train must hold classes from 0 on, got -1 in 0"),
        ({"y_test": np.eye(3)[y]}, "y_test holds one-hot rows, not classes; y_test.argmax(1) makes them"),
        ({"x_train": x[:0], "y_train": y[:0]}, "x_train holds no samples, its shape is (0, 4)"),
        ({"x_test": bad}, "x_test holds NaN or Inf, first in sample 4"),
        ({"y_test": y + 1}, "y_test holds the class 3, which y_train never shows"),
        ({"y_train": y[:5]}, "x_train has 6 samples, y_train 5"),
    ):
        np.savez(folder / "mine.npz", **{"x_train": x, "y_train": y, "x_test": x, "y_test": y, **change})
        shown = run("train", "--data", "npz:mine.npz", *QUICK, status=1).stderr
        assert shown == f"lns-sim: mine.npz: {message}\n"
    (folder / "mine.npz").write_text("x")
    assert "mine.npz is no npz file" in run("train", "--data", "npz:mine.npz", *QUICK, status=1).stderr
    assert not (folder / "runs").exists()


def test_options_without_effect_are_refused(folder):
    np.savez(folder / "rows.npz", x_train=np.eye(4), y_train=np.arange(4), x_test=np.eye(4), y_test=np.arange(4))
    rows = ["--data", "npz:rows.npz"]
    for args, message in (
        (["train", "--recipe", "fp32", "--lr", 0.5, "--p-scale", 2], "--lr, --p-scale would change nothing: no recipe"),
        (["compare-recipes", "fp8", "--lr", 2], "--lr would change nothing: no recipe here learns by"),
        (["compare-recipes", "--search", "1", "--held-out", 0.3], "--held-out would change nothing: one factor"),
        (["sweep", "acc_bits=12", "--trials", 3], "--trials would change nothing: a grid tries every combination"),
        (["vectors", "v", "--source", "corner", "--count", 3], "--count would change nothing: the source corner has"),
        (["train", *rows, "--model", "mlp", "--augment", "crop-flip"], "augment 'crop-flip' is for images (C, H, W)"),
        (["train", *QUICK, "--precision", "tf32"], "precision 'tf32' is a GPU's: products on a CPU would be float32's"),
        (["train", "--model", "mlp", "--fine-tune", 1], "fine_tune is for recipes with float32 weights; those of lns"),
        (["train", *QUICK, "--seed", 2**43 - 1, "--seeds", 2], f"seed must be between 0 and {2**43 - 1}, got {2**43}"),
        (["sweep", "acc_bits=12", "--seed", 2**43], f"seed must be between 0 and {2**43 - 1}, got {2**43}"),
        (["compare-recipes", "fp32", "--seed", 2**43], f"seed must be between 0 and {2**43 - 1}, got {2**43}"),
        (["train", *QUICK, "--test-samples", 451], "test_samples is 451, but digits has 450 to test on"),
        (["train", *rows], "model 'cnn' needs images (C, H, W), but the data has shape (4,)"),
    ):
        assert message in run(*args, status=1).stderr
    assert not (folder / "runs/train").exists() and not (folder / "v").exists()


def test_a_recipe_that_fits_no_layer_is_refused_before_anything_trains(folder):
    (folder / "unfit.toml").write_text('[[override]]\nlayers = "nolayer*"\nfloat32 = true\n')
    before = set(folder.iterdir())
    for args in (
        ["train", "--recipe", "fp32", "--recipe", "unfit.toml"],
        ["compare-recipes", "fp32", "unfit.toml"],
        ["sweep", "acc_bits=16", "--recipe", "unfit.toml"],
    ):
        shown = run(*args, *QUICK[:2], status=1).stderr
        assert shown.startswith("lns-sim: the pattern 'nolayer*' matches no layer") and shown.count("\n") == 1
    assert set(folder.iterdir()) == before


def test_options_of_texts_are_refused_elsewhere():
    for option in (["--tokens", "byte"], ["--context", 8]):
        shown = run("train", *option, status=1)
        assert shown.stderr == "lns-sim: context and tokens are of text, but the data is 'digits'\n"


def test_a_name_that_is_near_nothing_gets_no_hint():
    assert "did you mean 'lns-madam'" in run("train", "--recipe", "lns-madm", status=1).stderr
    assert "did you mean" not in run("train", "--recipe", "qqqq", status=1).stderr


# ---- The command itself.


def test_help_imports_no_torch():
    """It took seconds; what it imports now is counted, and everything that it lists is there."""
    code = LOAD + "sys.argv[1:] = [{!r}]\ntry: command.main()\n"
    code += "except SystemExit: print('imported:', *sorted(m for m in sys.modules if '.' not in m))"
    installed = find_spec("lns_sim_command") is not None  # of sources, lns_sim itself tells the version
    for option in ("--help", "-h", *["--version"] * installed):
        done = subprocess.run([sys.executable, "-c", code.format(option)], capture_output=True, text=True, cwd=ROOT)
        shown, _, imported = done.stdout.partition("imported:")
        assert not {"torch", "numpy", "lns_sim", "matplotlib"} & set(imported.split()), done.stderr
        assert "0.1.0" in shown if option == "--version" else all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("given", [None, "active"])
def test_threads_sleep_while_they_wait(given, monkeypatch):
    """Unless the environment says otherwise; torch reads it when it is imported."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    code = f"import os\n{LOAD}sys.argv[1:] = ['--help']\ntry: command.main()\nfinally: "
    code += "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == f"{given or 'passive'} False"


@pytest.mark.slow
def test_info_and_vectors_need_neither_matplotlib_nor_scikit_learn(folder):
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('matplotlib', 'sklearn', 'jinja2') else find(name, *a)\n"
        f"{LOAD}command.find_spec = u.find_spec\n"
        "for name in ('matplotlib', 'sklearn', 'jinja2'): sys.modules[name] = None\n"
        "command.main()"
    )

    def without(*args):
        return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)

    assert "instruction set" in without("info").stdout
    assert "Wrote 2 dot products" in without("vectors", "v", "--k", "4", "--count", "2").stdout
    refused = without("train")
    assert refused.returncode == 1 and refused.stderr == "lns-sim: train needs matplotlib: pip install matplotlib\n"


@pytest.mark.slow
def test_python_m_and_a_traceback_on_request(folder):
    command = [sys.executable, "-m", "lns_sim", "train", "--epochs", "0"]
    plain, debug = (subprocess.run([*command, *more], capture_output=True, text=True) for more in ([], ["--debug"]))
    assert plain.returncode == 1 and plain.stderr == "lns-sim: epochs must be at least 1, got 0\n"
    assert debug.returncode == 1 and "Traceback" in debug.stderr and "ValueError: epochs must be" in debug.stderr


def test_the_command_is_told_as_it_was_given(folder):
    (folder / "mine.py").write_text("from lns_sim.environment import command; print(command())")
    for given in (["-m", "mine"], ["mine.py"]):
        told = subprocess.run([sys.executable, *given, "--x", "a b"], capture_output=True, text=True, check=True).stdout
        assert told == ("python -m mine" if given == ["-m", "mine"] else "mine.py") + " --x 'a b'\n"


def test_events_for_tensorboard(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lns_sim.studies.training.tensorboard.find_spec", lambda name: None)
        shown = run("train", *QUICK, "--tensorboard", status=1)
        assert shown.stderr.endswith("need the library tensorboard: pip install tensorboard\n")
        assert not (folder / "runs").exists()
    accumulators = require_module("tensorboard.backend.event_processing.event_accumulator")
    run("train", *QUICK, "--tensorboard")
    run("train", "--resume", "--epochs", 3, "--tensorboard")
    found = accumulators.EventAccumulator(str(folder / "runs/train/1/tensorboard/fp32-seed0"))
    found.Reload()
    losses = [json.loads(line)["loss"] for line in (folder / "runs/train/1/metrics.jsonl").read_text().splitlines()]
    assert [(s.step, s.value) for s in found.Scalars("training loss")] == [
        (epoch, pytest.approx(loss)) for epoch, loss in enumerate(losses, start=1)
    ]


def test_a_narrow_table_leaves_columns_out_and_says_so(monkeypatch, capsys):
    header = ["recipe", "test accuracy %", "seconds", "weight bytes"]
    rows = [["lns-madam-fake-quant", "91.56 ± 0.94", "0.1", "171,048"], ["fp32", "88.00", "0.1", "340,008"]]
    for width, gone in ((100, ""), (60, ""), (56, "seconds"), (44, "seconds, weight bytes")):
        Output().table("title", "caption", header, rows, width=width, left=["recipe"], spare=header[2:])
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= width and "lns-madam-fake-quant" in shown and "…" not in shown
        said = " ".join(shown.split())
        assert f"no room for: {gone}" in said if gone else "no room" not in said
