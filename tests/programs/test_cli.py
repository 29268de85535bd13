"""The command line, end to end on one epoch, and its errors."""

import json
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
import typer
from command import lns_sim


@pytest.mark.slow
def test_train_one_epoch(tmp_path):
    run = lns_sim("train", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    for name in ("fp32", "lns-madam-fake-quant", "lns-madam"):
        assert name in run.stdout
    record = json.loads((tmp_path / "run.json").read_text())
    assert [r["recipe"] for r in record["results"]] == ["fp32", "lns-madam-fake-quant", "lns-madam"]
    assert all(r["test"][-1] > 40 for r in record["results"])
    assert record["results"][2]["counters"]["forward"]["macs"] > 1e9
    assert record["environment"]["torch"] == torch.__version__
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["results"]

    again = lns_sim("train", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path), "--resume")
    assert again.returncode == 0 and "lns-madam" in again.stdout
    other = lns_sim("train", "--epochs", "2", "--seeds", "1", "--out", str(tmp_path), "--resume")
    assert other.returncode == 1 and "other settings" in other.stderr


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
    recipe, seed = json.loads((tmp_path / "run.json").read_text())["experiment"]["runs"][0]
    assert recipe["forward"]["lut_entries"] == 2 and recipe["forward"]["acc_bits"] == 20 and seed == 0
    assert recipe["weight"] == {"bits": 6, "gamma": 4}


@pytest.mark.slow
def test_errors_are_one_sentence_and_status_1(tmp_path):
    for args, message in [
        (["train", "--recipe", "lns-madm"], "did you mean 'lns-madam'"),
        (["train", "--gamma", "3"], "gamma must be a power of two"),
        (["train", "--data", "npz:nowhere.npz"], "nowhere.npz"),
        (["train", "--lr", "nan"], "lr must be a finite number"),
        (["train", "--model", "vgg"], "model must be one of"),
        (["train", "--resume", "--out", str(tmp_path / "none")], "checkpoint.pt"),
        (["train", "--out", "/dev/null/run"], "/dev/null"),
        (["train", "--model", "mlp", "--out", "/proc"], "/proc"),
    ]:
        run = lns_sim(*args, cwd=tmp_path)
        assert run.returncode == 1, run.stderr
        assert message in run.stderr and "Traceback" not in run.stderr and len(run.stderr.strip().splitlines()) == 1


@pytest.mark.slow
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
@pytest.mark.slow
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
    assert lns_sim(*options, "--out", str(tmp_path / "whole")).returncode == 0
    needed = cpu_seconds_of_children() - before
    timer = "import signal, sys; signal.setitimer(signal.ITIMER_PROF, float(sys.argv.pop(1)))"
    code = f"{timer}; from lns_sim.cli import main; main()"
    out, chance, kills, resumed = tmp_path / "killed", random.Random(0), 0, 0
    while True:
        resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
        resumed += len(resume)
        seconds = needed * chance.uniform(0.35, 0.65) if kills < 3 else 0  # 0: undisturbed
        command = [sys.executable, "-c", code, str(seconds), *options, "--out", str(out), *resume]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGPROF, run.stderr
        kills += 1
    assert kills >= 1 and resumed >= 1
    whole, killed = (torch.load(d / "checkpoint.pt", weights_only=True) for d in (tmp_path / "whole", out))
    for a, b in zip(whole["results"], killed["results"], strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    for name, tensor in whole["trainer"]["model"].items():
        other = killed["trainer"]["model"][name]
        assert torch.equal(getattr(tensor, "codes", tensor), getattr(other, "codes", other)), name


@pytest.mark.slow
def test_interrupting_says_how_to_go_on(tmp_path):
    command = [
        sys.executable,
        "-c",
        "from lns_sim.cli import main; main()",
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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "checkpoint.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in shown and "Traceback" not in errors
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["trainer"]["result"]["test"]


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
        (["luq"], ["--acc-bits", "12"], "--acc-bits would change nothing: luq has formats"),
        (["mine.toml"], ["--bits", "6", "--gamma", "4"], "--bits, --gamma would change nothing: mine.toml has"),
        (["lns-madam", "mine.toml"], ["--lut-entries", "2"], "--lut-entries would change nothing: mine.toml has"),
        (["fp8", "fp8"], [], "two recipes are called 'fp8'"),
        (["fp8"], ["--float-lr", "0"], "float_lr must be a finite number in (0"),
    ):
        chosen = [part for name in names for part in ("--recipe", name)]
        run = lns_sim("train", *chosen, *options, "--epochs", "1", cwd=tmp_path)
        assert run.returncode == 1 and message in run.stderr, run.stderr
