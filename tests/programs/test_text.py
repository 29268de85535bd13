"""Language models: text as data, training by every recipe, samples, the command line."""

import json
import math
from dataclasses import replace

import pytest
import torch
from command import lns_sim as run
from helpers import ROOT
from tools import require_module

import lns_sim
from lns_sim import recipes
from lns_sim.studies import models
from lns_sim.studies.models.decoders import turned
from lns_sim.studies.training import data, text
from lns_sim.studies.training.experiment import Experiment
from lns_sim.studies.training.trainer import Settings, Trainer, lr_factor


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


def test_sources_of_a_folder_validate_in_whole_files(tmp_path):
    for i in range(20):
        path = tmp_path / f"{i % 3}/{i}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"x{i} = {i}\n" * 30)
    (tmp_path / "again.py").write_text("x4 = 4\n" * 30)
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n" * 30)
    (tmp_path / "notes.txt").write_text("no Python\n" * 30)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages/other.py").write_text("installed = 1\n" * 30)
    name, train, test = text.read(str(tmp_path))
    files = [t.decode().split("\n")[0] for t in train + test]
    assert sorted(files) == sorted(f"x{i} = {i}" for i in range(20)) and files != sorted(files)
    assert len(test) in (2, 3) and tmp_path.name in name and (name, train, test) == text.read(str(tmp_path))
    d = data.load(f"text:{tmp_path}", context=16)
    assert d.tokenizer.decode(d.x_test.flatten().tolist()) == b"".join(test).decode()[: d.x_test.numel()]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no Python sources"):
        text.read(str(tmp_path / "empty"))


def test_the_whole_standard_library(monkeypatch, tmp_path):
    """Of an interpreter with a small one."""
    (tmp_path / "a.py").write_text("a = 1\n" * 99)
    (tmp_path / "b.py").write_text("b = 2\n" * 9)
    monkeypatch.setattr(text, "standard_library", lambda: tmp_path)
    d = data.load("text:python", context=8)
    assert d.x_train.numel() + d.x_test.numel() > 600 and d.name == "Python's standard library, byte tokens"


def test_long_texts_are_encoded_in_pieces(monkeypatch):
    require_module("tokenizers")
    monkeypatch.setattr(text, "_PIECE", 100)
    monkeypatch.setattr(text, "_BATCH", 3)
    readme = (ROOT / "README.md").read_bytes()
    pairs = text.BytePairs([readme], 400)
    decoded = pairs.decode(pairs.encode([readme, b"\xc3\xa9 end"]).tolist())
    assert pairs.size == 400 and decoded == readme.decode() + "é end"


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
    (seconds,) = record["results"][0]["epoch_seconds"]
    assert 0 < seconds < record["results"][0]["seconds"]
    assert "million tokens" in (tmp_path / "out/curves.svg").read_text()
    wrong = run("train", "--data", f"text:{abc}", "--model", "cnn", "--out", str(tmp_path / "b"))
    assert wrong.returncode != 0 and "llama read text" in wrong.stderr
    assert run("train", "--model", "gpt", "--out", str(tmp_path / "c")).returncode != 0


@pytest.mark.parametrize("recipe", ["fp32", "lns-madam", "lns-madam-fake-quant", "fp8"])
def test_a_llama_learns(abc, recipe):
    d = data.load(f"text:{abc}", context=16)
    settings = Settings("llama-small", 2, 8, lr=1 / 8, float_optimizer="adamw", float_lr=1e-3, counters=False)
    settings = replace(settings, epoch_samples=48, test_samples=4)
    found = Trainer(d, recipes.get(recipe), 0, settings).run()
    assert found.loss[1] < found.loss[0] and found.test[1] < math.log(256)


def test_a_llama_is_causal_and_turns_by_position():
    torch.manual_seed(0)
    model = models.build("llama-small", (12,), 30)
    x = torch.randint(30, (2, 12))
    later = x.clone()
    later[:, 8:] = (x[:, 8:] + 1) % 30
    assert torch.equal(model(x)[:, :8], model(later)[:, :8]) and not torch.equal(model(x)[:, 8:], model(later)[:, 8:])
    a, b = torch.randn(2, 1, 64)
    at = lambda x, place: turned(x, model.cos[place], model.sin[place])  # noqa: E731
    products = [at(a, i) @ at(b, j).mT for i, j in ((3, 1), (9, 7))]
    assert torch.allclose(*products, atol=1e-4) and torch.allclose(at(a, 0), a)
    with torch.device("meta"):
        assert 20e6 < sum(p.numel() for p in models.build("llama", (512,), 8192).parameters()) < 30e6


def test_epochs_of_some_samples_go_on_through_the_training_set(abc):
    d = data.load(f"text:{abc}", context=100)  # 28 windows
    settings = Settings("llama-small", 7, 4, float_optimizer="adamw", epoch_samples=8, counters=False)
    trainer = Trainer(d, None, 3, settings)
    seen = []
    for _ in range(7):
        seen += trainer._draws()[0].tolist()
        trainer.result.test.append(0.0)
    assert sorted(seen[:28]) == sorted(seen[28:]) == list(range(28)) and seen[:28] != seen[28:]
    assert trainer.steps_per_epoch == 2 and Experiment(d, [None], [0, 1], settings, abc.parent).steps == 28
    whole = Trainer(d, None, 3, replace(settings, epoch_samples=0))
    assert whole._draws()[0].tolist() == seen[:28]


def test_some_of_the_test_set_tests(abc):
    d = data.load(f"text:{abc}", context=8)
    trainer = Trainer(d, None, 0, Settings("llama-small", 1, 4, test_samples=2, counters=False))
    half = len(d.x_test) // 2
    few = replace(d, x_test=d.x_test[[0, half]], y_test=d.y_test[[0, half]])
    assert trainer.test() == pytest.approx(Trainer(few, None, 0, trainer.settings).test())


def test_precision_is_told_and_refused_for_recipes(abc, tmp_path):
    d = data.load(f"text:{abc}", context=16)
    settings = Settings("llama-small", 1, 4, float_optimizer="adamw", precision="bf16", epoch_samples=8, counters=False)
    experiment = Experiment(d, [None], [0], settings, tmp_path / "bf16")
    (found,) = experiment.run()
    assert found.recipe == "bf16" and (tmp_path / "bf16/bf16-seed0.pt").exists()
    assert experiment.record["settings"]["precision"] == "bf16"
    trainer = Trainer(d, None, 0, settings)
    seen = []
    trainer.model.head.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    trainer.run()
    assert set(seen) == {torch.bfloat16} and trainer.model.head.weight.grad.dtype == torch.float32
    for begin in (
        lambda r: Trainer(d, r, 0, settings),
        lambda r: Experiment(d, [None, r], [0], settings, tmp_path / "other"),
    ):
        with pytest.raises(ValueError, match="'bf16' is of fp32's products; those of lns-madam are its own"):
            begin(recipes.lns_madam())


def test_flushed_errors_of_tokens_that_never_come_add_up_to_nothing():
    """Rows of a softmax have thousands of tiny errors of one sign: clamped to the smallest code they are a gradient."""
    x = torch.ones(64, 8)
    errors = torch.full((64, 100), 1e-9)
    errors[:, 0] = -1.0
    rows = {}
    for name in ("lns-madam", "lns-madam-flush", "lns-madam-flush-fake-quant"):
        head = lns_sim.convert(torch.nn.Linear(8, 100, bias=False), name)
        head(x).backward(errors)
        rows[name] = head.weight.grad[1:].abs().max().item()
        assert head.weight.grad[0].max() < -60
    assert rows == {"lns-madam": pytest.approx(64 * 2**-14.875), "lns-madam-flush": 0, "lns-madam-flush-fake-quant": 0}


def test_settings_reach_the_optimizer_and_the_schedule(abc):
    d = data.load(f"text:{abc}", context=100)
    settings = Settings("llama-small", 2, 7, warmup=0.5, schedule="linear", turn_below=4.0, beta1=0.9, counters=False)
    trainer = Trainer(d, recipes.lns_madam_fake_quant(), 0, settings)
    group = trainer.optimizer.param_groups[0]
    assert (group["turn_below"], group["beta1"]) == (4.0, 0.9)
    factors = [lr_factor(settings, 4, step) for step in range(8)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
    with pytest.raises(ValueError, match="no effect in the schedule linear"):
        replace(settings, decay=0.5)


def test_models_by_name():
    assert models.build("resnet50", (3, 64, 64), 7)(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert models.build("gpt", (12,), 30)(torch.randint(30, (2, 12))).shape == (2, 12, 30)
    assert sum(p.numel() for p in models.build("resnet50", (3, 224, 224), 1000).parameters()) == 25_557_032
