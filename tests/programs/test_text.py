"""Language models: text as data, training by every recipe, samples, the command line."""

import json
import math

import pytest
import torch
from command import lns_sim as run
from helpers import ROOT
from tools import require_module

from lns_sim import recipes
from lns_sim.studies import models
from lns_sim.studies.training import data, text
from lns_sim.studies.training.experiment import Experiment
from lns_sim.studies.training.trainer import Settings


@pytest.fixture
def abc(tmp_path):
    path = tmp_path / "abc.txt"
    path.write_bytes(b"abcdefgh" * 400)
    return path


def test_windows_follow_each_other(abc):
    d = data.load(f"text:{abc}", context=10)
    assert d.x_train.shape == (287, 10) and d.x_test.shape == (31, 10) and d.classes == 256 and d.input_shape == (10,)
    assert torch.equal(d.x_train.flatten()[1:], d.y_train.flatten()[:-1]) and d.measure == "validation loss"
    assert d.tokenizer.decode(d.x_train[0].tolist()) == "abcdefghab"
    held = d.held_out(0.1)
    assert len(held.x_test) == 29 and held.tokenizer is d.tokenizer and held.x_test.shape[1] == 10


def test_byte_pairs_and_the_standard_library(abc):
    require_module("tokenizers")
    readme = ROOT / "README.md"
    d = data.load(f"text:{readme}", context=16, tokens="bpe:300")
    assert 256 <= d.classes <= 300 and d.x_train.max() >= 256
    assert readme.read_text().startswith(d.tokenizer.decode(d.x_train[0].tolist()))
    library = data.load("text", context=64)
    assert library.x_train.numel() + library.x_test.numel() > 1_000_000 and "Python" in library.name
    assert torch.equal(library.x_train, data.load("text", context=64).x_train)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(tokens="word"), "byte or bpe:N"),
        (dict(tokens="bpe:9"), "at least 256"),
        (dict(context=1), "context must be between 2"),
        (dict(context=600), "too few for a window of 600"),
    ],
)
def test_errors(abc, kwargs, message):
    with pytest.raises(ValueError, match=message):
        text.load(str(abc), **{"context": 8, "tokens": "byte", **kwargs})


@pytest.mark.slow
def test_a_small_gpt_learns_bit_exactly_and_writes(abc, tmp_path):
    d = data.load(f"text:{abc}", context=16)
    settings = Settings(model="gpt", epochs=1, batch_size=16, lr=1 / 16, float_optimizer="adamw", float_lr=3e-3)
    results = Experiment(d, [None, recipes.lns_madam()], [0], settings, tmp_path).run()
    for r in results:
        assert r.test[-1] < 0.5 * math.log(256) and len(r.sample) >= 8 and set(r.sample[:8]) <= set("abcdefgh")
    macs = results[1].counters["forward"]["macs"]
    # Embeddings look up; the head, the blocks and both attention products multiply.
    per_token = 4 * (12 * 128 * 128 + 2 * 16 * 128) + 128 * 256
    assert macs == per_token * d.x_train.numel()


@pytest.mark.slow
def test_the_command_line(abc, tmp_path):
    args = [
        "train",
        "--data",
        f"text:{abc}",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--context",
        "16",
        "--recipe",
        "fp32",
        "--out",
        str(tmp_path / "out"),
    ]
    result = run(*args)
    assert result.returncode == 0 and "validation loss" in result.stdout and "fp32 writes:" in result.stdout
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["results"][0]["test"][0] < 5 and record["results"][0]["sample"]
    wrong = run("train", "--data", f"text:{abc}", "--model", "cnn", "--out", str(tmp_path / "b"))
    assert wrong.returncode != 0 and "gpt256 read text" in wrong.stderr
    assert run("train", "--model", "gpt", "--out", str(tmp_path / "c")).returncode != 0


def test_models_by_name():
    assert models.build("resnet50", (3, 64, 64), 7)(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert models.build("gpt", (12,), 30)(torch.randint(30, (2, 12))).shape == (2, 12, 30)
    assert sum(p.numel() for p in models.build("resnet50", (3, 224, 224), 1000).parameters()) == 25_557_032
