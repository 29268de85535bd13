"""lns-sim train in several processes: the codes of one that takes as many micro-batches, and its files."""

import json
from dataclasses import replace

import pytest
import torch
import training_ranks
from command import torchrun
from helpers import HAVE_CUDA, flat

import lns_sim
from lns_sim import recipes
from lns_sim.optim import Diverged
from lns_sim.studies.training import Experiment, Settings, Trainer, ranks
from lns_sim.studies.training import data as datasets

two_gpus = [
    pytest.mark.gpus,
    pytest.mark.skipif(not HAVE_CUDA or torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


@pytest.fixture
def one_thread():
    """As ranks have: torch's own softmax rounds by its number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def differences(a, b):
    """Names of all that two states have different; codes, scales and random states each."""
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    found = []
    for name, x in a.items():
        y = b[name]
        if isinstance(x, lns_sim.LNSTensor):
            same = all(torch.equal(getattr(x, part), getattr(y, part)) for part in x.__tensor_flatten__()[0])
        else:
            same = torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        found += [] if same else [name]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "device, name",
    [
        ("cpu", "lns-madam"),
        pytest.param("cuda", "lns-madam", marks=two_gpus),
        pytest.param("cuda", "luq", marks=two_gpus),  # whose random bits a CUDA graph draws in one process
    ],
)
def test_two_processes_train_as_one_with_two_micro_batches(device, name, tmp_path, one_thread):
    """All codes, moments, losses and counters, and a stop between epochs, from which the other way goes on."""
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    text = datasets.load(f"text:{tmp_path / 'text.txt'}", context=16)
    settings = Settings(model="gpt", batch_size=32, micro_batches=2, float_optimizer="adamw", float_lr=0.003)

    def one(folder, epochs):
        return Experiment(text, [recipes.get(name)], [0], replace(settings, epochs=epochs), tmp_path / folder, device)

    def two(*args):
        return torchrun(2, "-m", "lns_sim", "train", "--device", device, *args)

    def compare():
        states = [torch.load(tmp_path / f"{f}/{name}-seed0.pt", "cpu", weights_only=True) for f in ("one", "two")]
        differ = set(differences(*(s["trainer"] for s in states)))
        assert {d for d in differ if "seconds" not in d} <= {"result.peak_bytes.", "result.eager."}, differ
        assert states[0]["settings"] == states[1]["settings"]

    one("one", 1).run()
    options = ["--data", f"text:{tmp_path / 'text.txt'}", "--context", 16, "--batch-size", 32]
    options += ["--epochs", 1, "--seeds", 1, "--recipe", name]
    told = two(*options, "--out", tmp_path / "two")
    told_once = "".join(told.stdout.split()).count(f"to{tmp_path / 'two'}") == 1  # however lines are broken
    assert told_once and told.stderr.count("epoch 1/1") == 1
    record = json.loads((tmp_path / "two/run.json").read_text())
    assert record["processes"] == 2 and "torch" in record["environment"]
    assert len((tmp_path / "two/metrics.jsonl").read_text().splitlines()) == 1
    compare()
    two("--resume", "--out", tmp_path / "one", "--epochs", 2)
    other = one("two", 2)
    other.resume()
    other.run()
    compare()


@pytest.mark.slow
def test_sums_are_in_the_order_of_the_ranks(tmp_path, one_thread):
    """Of three ranks, whose sums of gradients other orders would round otherwise; running statistics of batch norm are
    the first rank's.
    """
    torchrun(3, training_ranks.__file__, tmp_path / "states.pt")
    states = torch.load(tmp_path / "states.pt", weights_only=True)
    found = {}
    for name, (recipe, settings) in training_ranks.RUNS.items():
        trainer = Trainer(training_ranks.images(), recipe, 0, settings)
        trainer.run()
        found[name] = differences(states[name], trainer.state_dict())
        found[name] = [d for d in found[name] if "seconds" not in d]
    assert found["luq"] == found["fp32"] == []
    assert found["cnn"].pop() == "result.test.0."
    assert found["cnn"] and all("running_" in d or "num_batches_tracked" in d for d in found["cnn"])
    assert any("moment" in d for d in found["twice"])  # two micro-batches a rank are summed in another order


def test_micro_batches_are_a_batch_where_nothing_is_rounded():
    """Gradients are means: a step of float32 training is the same up to rounding. An epoch is cut to a multiple."""
    data = training_ranks.images()
    runs = [
        Trainer(data, None, 0, Settings(model="mlp", epochs=2, batch_size=30, micro_batches=parts)) for parts in (1, 3)
    ]
    for trainer in runs:
        trainer._step((torch.arange(30),), [0] * trainer.settings.micro_batches, check=True)
    for a, b in zip(*(trainer.model.parameters() for trainer in runs)):
        torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(a, b)
    assert [len(trainer._draws()[0]) for trainer in runs] == [70, 69]
    assert len(runs[1].run().loss) == 2


def test_micro_batches_draw_random_bits_of_their_own():
    """The mean over two equal ones is no gradient of one, unless both are told to draw the same."""
    settings = Settings(model="mlp", epochs=1, batch_size=20, micro_batches=2)
    trainer = Trainer(training_ranks.images(), training_ranks.RECIPE, 0, settings)
    twice = torch.arange(10).repeat(2)

    def gradients(*seeds):
        trainer._gradients_of((twice[: 10 * len(seeds)],), list(seeds))
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])

    states = [p.rng.clone() for p in trainer.model.parameters() if isinstance(p, lns_sim.LNSWeight)]
    same, other = gradients(1 << 61, 1 << 61), gradients(1 << 61, 7)
    assert torch.equal(gradients(1 << 61, 1 << 61), same) and not torch.equal(other, same)
    after = [p.rng for p in trainer.model.parameters() if isinstance(p, lns_sim.LNSWeight)]
    assert all(map(torch.equal, states, after))


def test_parts_that_do_not_fit_are_refused(monkeypatch):
    data = training_ranks.images()
    small = Settings(model="mlp", epochs=1, batch_size=6, micro_batches=2)
    with pytest.raises(ValueError, match="batch_size = 6 is no multiple of micro_batches = 4"):
        replace(small, micro_batches=4)
    with pytest.raises(ValueError, match="an epoch of random has fewer samples than micro_batches = 71"):
        Trainer(data, None, 0, replace(small, batch_size=71, micro_batches=71))
    with pytest.raises(ValueError, match="HALP computes gradients itself: micro_batches must be 1"):
        Trainer(data, recipes.get("svrg"), 0, small)
    with pytest.raises(Diverged, match="first in the forward pass of"):
        Trainer(data, None, 0, replace(small, float_lr=1e30)).run()
    monkeypatch.setattr(ranks, "count", lambda: 2)
    for recipe, message in (
        ("madam", "the optimizer of madam works on whole weights; train it in one process"),
        ("fp8-delayed", "would have its own FP8's history"),
    ):
        with pytest.raises(ValueError, match=message):
            Trainer(data, recipes.get(recipe), 0, small)
    with pytest.raises(ValueError, match="2 processes cannot share micro_batches = 3"):
        Trainer(data, None, 0, replace(small, micro_batches=3))


def test_processes_that_cannot_have_their_devices_are_told(monkeypatch):
    assert ranks.join("cuda:1") == "cuda:1"
    for name, value in dict(WORLD_SIZE=2, RANK=1, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match="each of 2 processes takes a GPU of its own: say cuda"):
        ranks.join("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes need as many GPUs, but torch finds 1"):
        ranks.join("cuda")
