"""Training steps as CUDA graphs: the same bits as eager ones; what a trainer holds goes with it."""

import gc
import subprocess
import sys
import weakref
from dataclasses import asdict, replace

import pytest
import torch
from helpers import HAVE_CUDA, ROOT, flat

import lns_sim
from lns_sim import recipes
from lns_sim.optim import LNSMadam
from lns_sim.optim.halp import HALP
from lns_sim.quantizers import LUQ
from lns_sim.random import Draws, random_state
from lns_sim.studies.training import Result, Settings, Trainer
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.graph import why_eager
from lns_sim.studies.training.report import gpu_lines
from lns_sim.watching.counting import Totals


def on_gpu(test):
    return pytest.mark.gpu(pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")(test))


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(90, 3, 8, 8, generator=generator), torch.arange(90) % 5
    return Data("random", x, y, x[:20], y[:20])


def trained(data, recipe, settings, device="cpu", eager=False, state=None):
    trainer = Trainer(data, recipe, 0, settings, device)
    if state is not None:
        trainer.load_state_dict(state)
    if eager:
        trainer._gradients.why_eager = "the test says so"
    trainer.run()
    return trainer


def assert_same(trainer, other):
    a, b = flat(trainer.state_dict()), flat(other.state_dict())
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key
        elif "seconds" not in key and "eager" not in key and "peak" not in key:
            assert value == b[key], key


@on_gpu
@pytest.mark.parametrize(
    "recipe",
    [
        recipes.lns_madam(),
        recipes.lns_madam(stochastic_gradients=True),
        *map(recipes.get, ("lns-madam-fake-quant", "fp8", "int8", "luq", "shiftquant6", "madam")),
    ],
    ids=lambda r: f"{r.name}, stochastic" if r.stochastic else r.name,
)
def test_graphs_train_to_the_bits_of_eager_steps(recipe, images, monkeypatch):
    """With batches that are not whole, random crops, rates that change, counters, and a stop between epochs."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    settings = Settings(model="cnn", epochs=3, batch_size=16, augment="crop-flip", lr=1 / 64)
    eager = trained(images, recipe, settings, "cuda", eager=True)
    graphed = trained(images, recipe, settings, "cuda")
    assert graphed.result.eager == "" and graphed._gradients._graph is not None
    assert_same(graphed, eager)
    first = Trainer(images, recipe, 0, settings, "cuda")
    first.run_epoch()
    assert_same(trained(images, recipe, settings, "cuda", state=first.state_dict()), eager)


@pytest.mark.gpus
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_graphs_on_the_second_gpu(images):
    """After the first one, whose stream for captures torch keeps."""
    settings = Settings(model="mlp", epochs=2, batch_size=16)
    for device in ("cuda:0", "cuda:1"):
        graphed = trained(images, recipes.lns_madam(), settings, device)
        assert graphed.result.eager == "" and graphed._gradients._graph is not None
        assert_same(graphed, trained(images, recipes.lns_madam(), settings, device, eager=True))


@on_gpu
def test_text_and_a_fine_tuned_epoch(tmp_path, images):
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 400)
    text = datasets.load(f"text:{tmp_path / 'text.txt'}", context=16)
    settings = Settings(model="gpt", epochs=1, batch_size=32, float_optimizer="adamw", float_lr=1e-3)
    graphed = trained(text, recipes.lns_madam(), settings, "cuda")
    assert graphed.result.eager == "" and graphed._gradients._graph is not None
    assert_same(graphed, trained(text, recipes.lns_madam(), settings, "cuda", eager=True))
    settings = Settings(model="mlp", epochs=3, batch_size=16, fine_tune=1)
    runs = [trained(images, recipes.get("int8"), settings, "cuda", eager) for eager in (False, True)]
    assert_same(*runs)


@on_gpu
def test_a_step_that_cannot_be_captured_is_told(images):
    trainer = Trainer(images, recipes.lns_madam(), 0, Settings(model="mlp", epochs=1, batch_size=16), "cuda")
    compute = trainer._compute
    trainer._compute = lambda batch: compute(batch) * float(torch.ones((), device="cuda"))
    assert "a capture fails" in trainer.run().eager
    assert len(trainer.result.test) == 1


def test_why_steps_stay_eager():
    weight = [torch.nn.Parameter(torch.ones(2, 2))]
    plain = torch.optim.SGD(weight, 0.1)
    assert why_eager(recipes.lns_madam(), "cnn", plain) == why_eager(None, "gpt", plain) == ""
    assert "HALP computes gradients itself" in why_eager(None, "cnn", HALP(weight, 0.1, "svrg"))
    assert "a model of one's own" in why_eager(None, "somewhere:net", plain)
    luq = replace(recipes.get("luq"), error=LUQ(hindsight=True))
    for recipe in (luq, recipes.ModelRecipe(None, (("head", luq),))):
        assert "LUQ's maximum in hindsight changes" in why_eager(recipe, "cnn", plain)


def test_draws_are_those_of_eager_code():
    torch.manual_seed(5)
    expected = [random_state(None, 1, 7), random_state(None), random_state(None, 1, 7), random_state(None)]
    torch.manual_seed(5)
    draws = Draws(torch.device("cpu"))
    with draws:
        states = [random_state(None, 1, 7, "cpu"), random_state(None)]
        assert random_state(3).tolist() == [3, 0, 0, 0]
    views = [draws._states[0], draws._states[1]]  # what a graph reads again; outside of one it has read zeros
    assert not any(state.any() for state in states)
    for i in (0, 2):
        draws.draw()
        assert torch.equal(torch.stack(views), torch.stack(expected[i : i + 2]))
    with pytest.raises(RuntimeError, match="more than 4096"), draws:
        for _ in range(Draws.MOST):
            random_state(None)
    assert random_state(None).any()


def test_totals_are_taken_and_begin_anew():
    a = torch.randn(3, 40)
    with lns_sim.simulate("lns-madam"), lns_sim.count() as expected:
        a @ a.mT
    totals = Totals()
    for _ in range(2):
        with lns_sim.simulate("lns-madam"), lns_sim.ops.observer.observe(totals):
            a @ a.mT
        assert totals.macs() == {("forward", lns_sim.Datapath()): 3 * 3 * 40}
        assert totals.take() == expected and totals.take() == {}


@pytest.mark.parametrize("recipe", ["lns-madam", "int8", "fp32"])
def test_a_trainer_goes_with_its_last_reference(recipe, images):
    """Not at a garbage collection: the next run would find its memory taken."""
    gc.collect()
    gc.disable()
    try:
        trainer = trained(images, recipes.get(recipe), Settings(model="cnn", epochs=1, batch_size=64))
        left = [weakref.ref(x) for x in (trainer, trainer.model, trainer.optimizer)]
        result = asdict(trainer.result)
        del trainer
        assert [x() for x in left] == [None] * 3 and result["eager"] == ""
    finally:
        gc.enable()


@pytest.mark.slow
def test_the_first_trainer_of_a_process_goes_too():
    """The first optimizer loads torch's compiler, with frames of the trainer about."""
    code = """
import gc, sys, weakref, torch
from lns_sim.studies.training import Settings, Trainer
from lns_sim.studies.training.data import Data
gc.disable()
x, y = torch.randn(8, 3), torch.arange(8) % 2
trainer = Trainer(Data("random", x, y, x, y), None, 0, Settings(model="mlp", epochs=1))
trainer.run()
left = weakref.ref(trainer)
del trainer
assert left() is None and "torch._dynamo" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_is_told_of_runs_on_a_gpu():
    runs = [Result("a", 0, peak_bytes=2 * 10**9), Result("b", 0, peak_bytes=10**9, eager="it keeps something")]
    assert gpu_lines([Result("a", 0)]) == []
    assert gpu_lines(runs) == [
        "GPU memory at its peak: a 2.00 GB, b 1.00 GB.",
        "b: steps were launched operation by operation, not as a CUDA graph: it keeps something.",
    ]


@on_gpu
def test_a_run_reports_its_own_peak(images):
    peaks = []
    for _ in range(3):
        trainer = trained(images, recipes.lns_madam(), Settings(model="cnn", epochs=2, batch_size=16), "cuda")
        peaks.append(trainer.result.peak_bytes)
        assert isinstance(trainer.optimizer, LNSMadam)
        del trainer
    assert max(peaks) < 1.02 * min(peaks)
