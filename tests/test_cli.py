"""The command line, end to end on one epoch, and its errors."""

import json
import os
import subprocess
import sys

import pytest
import torch


def lns_sim(*args, cwd=None):
    command = [sys.executable, "-c", "from lns_sim.cli import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "140"})


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


def test_train_options_reach_the_datapath(tmp_path):
    run = lns_sim("train", "--model", "mlp", "--recipe", "lns-madam", "--epochs", "1", "--seeds", "1", "--bits", "6",
                  "--gamma", "4", "--lut-entries", "2", "--acc-bits", "20", "--lr", "0.05", "--out", str(tmp_path))  # fmt: skip
    assert run.returncode == 0, run.stderr
    recipe, seed = json.loads((tmp_path / "run.json").read_text())["experiment"]["runs"][0]
    assert recipe["forward"]["lut_entries"] == 2 and recipe["forward"]["acc_bits"] == 20 and seed == 0
    assert recipe["weight"] == {"bits": 6, "gamma": 4}


def test_errors_are_one_sentence_and_status_1(tmp_path):
    for args, message in [
        (["train", "--recipe", "lns-madm"], "did you mean 'lns-madam'"),
        (["train", "--gamma", "3"], "gamma must be a power of two"),
        (["train", "--data", "npz:nowhere.npz"], "nowhere.npz"),
        (["train", "--lr", "nan"], "lr must be a finite number"),
        (["train", "--model", "vgg"], "model must be one of"),
        (["train", "--resume", "--out", str(tmp_path / "none")], "checkpoint.pt"),
    ]:
        run = lns_sim(*args, cwd=tmp_path)
        assert run.returncode == 1, run.stderr
        assert message in run.stderr and "Traceback" not in run.stderr and len(run.stderr.strip().splitlines()) == 1


def test_info_and_help():
    info = lns_sim("info")
    assert info.returncode == 0 and torch.__version__ in info.stdout and "instruction set" in info.stdout
    text = lns_sim("train", "--help").stdout
    for option in ("--data", "--model", "--recipe", "--epochs", "--lr", "--seed", "--bits", "--gamma", "--lut-entries", "--acc-bits"):
        assert option in text


def test_bench(monkeypatch, capsys):
    """The table's machinery, on small cases."""
    from lns_sim.cli import bench

    monkeypatch.setattr(bench, "cases", lambda: [bench._quantize(1000), bench._matmul(32, 32, 32), *bench._convolutions(1, 4, 8)])
    bench.bench()
    shown = capsys.readouterr().out
    assert "matmul 32 x 32 x 32" in shown and "weight gradient" in shown


@pytest.mark.parametrize("command", ["bench", "train"])
@pytest.mark.parametrize("device, message", [
    ("gpu", "device must be cpu, cuda or cuda:N, got 'gpu'"), ("mps", "did you mean 'cpu'"), ("cuda:99", "torch finds"),
])  # fmt: skip
def test_a_device_that_is_not_there_is_an_error(command, device, message):
    run = lns_sim(command, "--device", device)
    assert run.returncode == 1 and message in run.stderr and "Traceback" not in run.stderr
