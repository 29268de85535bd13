"""Time and memory of training steps on a GPU: bit-exact and fake-quant beside float32, TF32 and bf16 autocast."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lns_sim import recipes
from lns_sim.nn import convert
from lns_sim.optim import LNSMadam
from lns_sim.studies import models

RECIPES = {"fake-quant": "lns-madam-fake-quant", "bit-exact": "lns-madam"}
WAYS = ("float32", "TF32", "bf16 autocast", *RECIPES)
ROUNDS = 5  # timed steps, after two that make the optimizer's state and choose algorithms


class Cost(NamedTuple):
    """Of a step: median seconds and peak bytes of memory."""

    seconds: float
    peak: int


@contextmanager
def _precision(way: str) -> Iterator[None]:
    """Float32 products in TF32 or not, convolutions by the fastest algorithm."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before, matmul.allow_tf32 = matmul.allow_tf32, way == "TF32"
    try:
        with cudnn.flags(cudnn.enabled, True, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=way == "TF32"):
            yield
    finally:
        matmul.allow_tf32 = before


def cost(build: Callable[[], nn.Module], loss: Callable[[nn.Module], Tensor], way: str, device: str = "cuda") -> Cost:
    """What a training step takes.

    Args:
        build: makes the model, in float32.
        loss: runs it on a batch.
        device: the GPU.
        way: one of ``WAYS``. LNS-Madam trains our two, AdamW the others.
    """
    with _precision(way):
        try:
            torch.manual_seed(0)
            with torch.device(device):
                model = build().train()
            if way in RECIPES:
                model = convert(model, recipes.get(RECIPES[way]))
                optimizer: torch.optim.Optimizer = LNSMadam(model.parameters())
            else:
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            times = []
            for i in range(2 + ROUNDS):
                if i == 2:
                    torch.cuda.reset_peak_memory_stats()
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.bfloat16) if way == "bf16 autocast" else nullcontext():
                    value = loss(model)
                value.backward()
                optimizer.step()
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end) / 1000)
            return Cost(statistics.median(times[2:]), torch.cuda.max_memory_allocated())
        finally:
            model = optimizer = value = None  # type: ignore[assignment]
            gc.collect()  # some libraries' models hold themselves
            torch.cuda.empty_cache()


def _resnet18(device: str) -> tuple[Callable, Callable]:
    x, y = torch.randn(256, 3, 32, 32, device=device), torch.randint(10, (256,), device=device)
    return lambda: models.build("resnet18", (3, 32, 32), 10), lambda model: F.cross_entropy(model(x), y)


def _gpt2(device: str) -> tuple[Callable, Callable]:
    x, y = torch.randint(50257, (2, 8, 1024), device=device)
    build = lambda: models.GPT(50257, 1024, width=768, layers=12, heads=12)  # noqa: E731
    return build, lambda model: F.cross_entropy(model(x).flatten(0, 1), y.flatten())


WORKS = {"ResNet-18, CIFAR, batch 256": _resnet18, "decoder of GPT-2's size, 163 M, 8 x 1024 tokens": _gpt2}


def costs(device: str) -> Iterator[tuple[str, dict[str, Cost]]]:
    """Every way of a convolutional network and of a language model."""
    with torch.cuda.device(device):
        for name, work in WORKS.items():
            build, loss = work(device)
            yield name, {way: cost(build, loss, way, device) for way in WAYS}
