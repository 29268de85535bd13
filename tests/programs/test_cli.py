"""The command line, end to end on one epoch, and its errors."""

import json
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import typer
from command import LOAD, lns_sim, lns_sim_process

from lns_sim.command.app import app


@pytest.mark.slow
def test_train_one_epoch(tmp_path):
    run = lns_sim_process("train", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    for name in ("fp32", "lns-madam-fake-quant", "lns-madam"):
        assert name in run.stdout
    record = json.loads((tmp_path / "run.json").read_text())
    assert [r["recipe"] for r in record["results"]] == ["fp32", "lns-madam-fake-quant", "lns-madam"]
    assert all(r["test"][-1] > 40 for r in record["results"])
    assert record["results"][2]["counters"]["forward"]["macs"] > 1e9
    assert record["environment"]["torch"] == torch.__version__
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert record["commands"] == [f"lns-sim train --epochs 1 --seeds 1 --out {tmp_path}"]
    for name in ("fp32", "lns-madam-fake-quant", "lns-madam"):
        assert torch.load(tmp_path / f"{name}-seed0.pt", weights_only=True)["trainer"]["result"]["recipe"] == name

    again = lns_sim("train", "--out", str(tmp_path), "--resume")
    assert again.returncode == 0 and "lns-madam" in again.stdout
    other = lns_sim("train", "--lr", "2", "--seeds", "2", "--out", str(tmp_path), "--resume")
    assert other.returncode == 1 and "--lr was 0.0625, not 2.0, --seeds was 1, not 2" in other.stderr


@pytest.mark.slow
def test_train_options_reach_the_datapath(tmp_path):
    run = lns_sim(
        "train",
        "--model",
        "mlp",
        "--recipe",
        "lns-madam",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--bits",
        "6",
        "--gamma",
        "4",
        "--lut-entries",
        "2",
        "--acc-bits",
        "20",
        "--lr",
        "0.05",
        "--out",
        str(tmp_path),
    )
    assert run.returncode == 0, run.stderr
    recipe, seed = json.loads((tmp_path / "run.json").read_text())["runs"][0]
    assert recipe["forward"]["lut_entries"] == 2 and recipe["forward"]["acc_bits"] == 20 and seed == 0
    assert recipe["weight"] == {"bits": 6, "gamma": 4}


def test_errors_are_one_sentence_and_status_1(tmp_path):
    for args, message in [
        (["train", "--recipe", "lns-madm"], "did you mean 'lns-madam'"),
        (["train", "--gamma", "3"], "gamma must be a power of two"),
        (["train", "--data", "npz:nowhere.npz"], "nowhere.npz"),
        (["train", "--lr", "nan"], "lr must be a finite number"),
        (["train", "--model", "vgg"], "model must be one of"),
        (["train", "--resume", "--out", str(tmp_path / "none")], "holds no run.json"),
        (["train", "--out", "/dev/null/run"], "/dev/null"),
        (["train", "--model", "mlp", "--out", "/proc"], "/proc"),
    ]:
        run = lns_sim(*args, cwd=tmp_path)
        assert run.returncode == 1, run.stderr
        assert message in run.stderr and "Traceback" not in run.stderr and len(run.stderr.strip().splitlines()) == 1


def test_info_and_help():
    info = lns_sim("info")
    assert info.returncode == 0 and torch.__version__ in info.stdout and "instruction set" in info.stdout
    text = lns_sim("train", "--help").stdout
    for option in (
        "--data",
        "--model",
        "--recipe",
        "--epochs",
        "--lr",
        "--seed",
        "--bits",
        "--gamma",
        "--lut-entries",
        "--acc-bits",
    ):
        assert option in text
    assert "default: (cnn, for text gpt)" in " ".join(text.split())  # one that the option itself does not hold


def test_bench(monkeypatch, capsys):
    """The table's machinery, on small cases."""
    from lns_sim.cli import bench

    monkeypatch.setattr(
        bench, "cases", lambda: [bench._quantize(1000), bench._matmul(32, 32, 32), *bench._convolutions(1, 4, 8)]
    )
    bench.bench()
    shown = capsys.readouterr().out
    assert "matmul 32 x 32 x 32" in shown and "weight gradient" in shown


@pytest.mark.parametrize("command", ["bench", "train"])
@pytest.mark.parametrize(
    "device, message",
    [
        ("gpu", "device must be cpu, cuda or cuda:N, got 'gpu'"),
        ("mps", "device must be one of 'cpu', 'cuda', got 'mps'\n"),
        ("cuda:99", "torch finds"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(command, device, message):
    run = lns_sim(command, "--device", device)
    assert run.returncode == 1 and message in run.stderr and "Traceback" not in run.stderr


def cpu_seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Killed up to three times at random points, against an undisturbed run. The kernel kills, by the computing that a
    run did: a
    busy machine changes nothing, as no thread waits for another."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["train", "--model", "mlp", "--recipe", "lns-madam", "--epochs", "40", "--seeds", "2"]
    before = cpu_seconds_of_children()
    assert lns_sim_process(*options, "--out", str(tmp_path / "whole")).returncode == 0
    needed = cpu_seconds_of_children() - before
    timer = "import signal, sys; signal.setitimer(signal.ITIMER_PROF, float(sys.argv.pop(1)))"
    code = f"{timer}\n{LOAD}command.main()"
    out, chance, kills, resumed = tmp_path / "killed", random.Random(0), 0, 0
    while True:
        resume = ["--resume"] if (out / "run.json").exists() else []
        resumed += len(resume)
        seconds = needed * chance.uniform(0.35, 0.65) if kills < 3 else 0  # 0: undisturbed
        command = [sys.executable, "-c", code, str(seconds), *options, "--out", str(out), *resume]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGPROF, run.stderr
        kills += 1
    assert kills >= 1 and resumed >= 1
    for file in ("lns-madam-seed0.pt", "lns-madam-seed1.pt"):
        whole, killed = (torch.load(d / file, weights_only=True)["trainer"] for d in (tmp_path / "whole", out))
        a, b = ({k: v for k, v in t["result"].items() if "seconds" not in k} for t in (whole, killed))
        assert a == b
        for name, tensor in whole["model"].items():
            other = killed["model"][name]
            assert torch.equal(getattr(tensor, "codes", tensor), getattr(other, "codes", other)), name
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (out / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_interrupting_says_how_to_go_on(tmp_path):
    command = [
        sys.executable,
        "-c",
        f"{LOAD}command.main()",
        "train",
        "--model",
        "mlp",
        "--epochs",
        "500",
        "--recipe",
        "fp32",
        "--out",
        str(tmp_path),
    ]
    heeded = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # also where a shell runs the tests in the background
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, preexec_fn=heeded)
    while process.poll() is None and not (tmp_path / "fp32-seed0.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in errors and "Traceback" not in errors
    assert torch.load(tmp_path / "fp32-seed0.pt", weights_only=True)["trainer"]["result"]["test"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_out_of_memory_is_one_sentence(error, capsys):
    from lns_sim.cli.errors import user_errors

    with pytest.raises(typer.Exit) as status, user_errors():
        raise error
    shown = capsys.readouterr().err
    assert (
        status.value.exit_code == 1
        and shown.startswith("lns-sim: out of memory; use a smaller batch")
        and shown.count("\n") == 1
    )


def test_a_bug_stays_a_traceback():
    from lns_sim.cli.errors import user_errors

    with pytest.raises(RuntimeError, match="a bug"), user_errors():
        raise RuntimeError("a bug")


def test_options_that_would_change_nothing_are_refused(tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "lns-madam"\n')
    for names, options, message in (
        (["luq"], ["--acc-bits", "12"], "--acc-bits would change nothing in luq"),
        (["luq", "fp8"], ["--bits", "6", "--gamma", "4"], "--bits, --gamma would change nothing in luq and fp8"),
        (["lns-madam-fake-quant"], ["--lut-bits", "9"], "--lut-bits would change nothing in lns-madam-fake-quant"),
        (["mine.toml"], ["--lut-entries", "3"], "lut_entries must be a power of two"),
        (["fp8", "fp8"], [], "two recipes are called 'fp8'"),
        (["fp8"], ["--float-lr", "0"], "float_lr must be a finite number above 0"),
    ):
        chosen = [part for name in names for part in ("--recipe", name)]
        run = lns_sim("train", *chosen, *options, "--epochs", "1", cwd=tmp_path)
        assert run.returncode == 1 and message in run.stderr, run.stderr


@pytest.mark.parametrize(
    "line, message",
    [
        ("train --lr 0", "lr must be a finite number above 0, got 0.0"),
        ("train --held-out 1", "held_out must be a finite number in (0, 1), got 1.0"),
        ("train --weight-decay -1", "weight_decay must be a finite number of at least 0, got -1.0"),
        ("train --model nowhere:net", "nowhere:net: there is no module nowhere here or among the installed ones"),
        ("train --out notes.txt", "notes.txt: a file, but no folder"),
        ("sweep acc_bits=16 --out notes.txt", "notes.txt: a file, but no folder"),
        ("sweep acc_bit=16", "a dimension cannot be 'acc_bit'; did you mean 'acc_bits'?"),
    ],
)
def test_wrong_values_are_told_in_a_line(line, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SystemExit) as status:
        app(line.split())
    assert status.value.code == 1 and capsys.readouterr().err == f"lns-sim: {message}\n"
    assert not Path("runs").exists()
