"""Steps of `lns-sim train` and `compare-recipes` on one GPU, as the trainer runs them: replayed as CUDA graphs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise

import torch

from benchmarks.harness import Measurement
from lns_sim import recipes
from lns_sim.studies.training import Data, Settings, Trainer

BATCH, STEPS = 256, 24
# The most milliseconds of a step of ResNet-20, and for ResNet-18 times of float32.
RESNET20 = {
    "fp32": None,
    "lns-madam": 14,
    "lns-madam-fake-quant": 10,
    "fp8": 12,
    "int8": 15,
    "luq": 15,
    "shiftquant6": 20,
}
RESNET18 = {"int8": 2.0, "shiftquant6": 2.5}
BLOCKS = 0.7  # of the default's speed, with block scales


def step_seconds(model: str, recipe: str) -> float:
    """Median of an epoch's steps, on random images of CIFAR's size; the epoch before captures."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH * STEPS, 3, 32, 32), torch.randint(10, (BATCH * STEPS,))
    data = Data("random", x, y, x[:BATCH], y[:BATCH], fingerprint="random")
    settings = Settings(model=model, epochs=3, batch_size=BATCH, counters=False, lr=1 / 64, float_lr=0.01)
    trainer, events = Trainer(data, recipes.get(recipe), 0, settings, "cuda"), []

    def on_step() -> None:
        events.append(torch.cuda.Event(enable_timing=True))
        events[-1].record()

    trainer.run_epoch()
    trainer.run_epoch(on_step)
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events)) / 1000


def trainer_steps() -> Iterator[Measurement]:
    """ResNet-20 by every recipe that has a target, ResNet-18 by those of 8-bit integers against float32, and both with
    block scales against the default.
    """
    section = "GPU, a trainer's step, batch 256"
    for recipe, target in RESNET20.items():
        t = step_seconds("resnet20", recipe)
        yield Measurement(section, f"ResNet-20, {recipe}", 1000 * t, target, at_most=True, unit="ms", seconds=t)
    float32 = step_seconds("resnet18", "fp32")
    for recipe, target in RESNET18.items():
        t = step_seconds("resnet18", recipe)
        work = f"ResNet-18, {recipe}, time against float32"
        yield Measurement(
            section, work, t / float32, target, at_most=True, unit="of float32", seconds=t, peer_seconds=float32
        )
    for name in ("ResNet-20", "ResNet-18"):
        default, t = (step_seconds(name.lower().replace("-", ""), r) for r in ("lns-madam", "lns-madam-block32"))
        work = f"{name}, lns-madam-block32"
        yield Measurement(section, work, default / t, BLOCKS, unit="x lns-madam", seconds=t, peer_seconds=default)
