"""Training steps of language models of real size on one GPU: time and memory beside float32, TF32 and bf16 autocast.

GPT-2 of 124 M parameters on 8 x 1024 tokens, and a decoder in Llama's form of 1.1 G (2048 wide, 22 layers, 32 heads,
4 of them of keys) on 2 x 2048, both from transformers and without dropout; peers train by AdamW.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

import lns_sim
from benchmarks.harness import Measurement
from lns_sim.checks import check_device
from lns_sim.optim import LNSMadam

ROUNDS = 5  # timed steps, after two that make the optimizer's state


def gpt2() -> nn.Module:
    """GPT-2 (Radford et al., 2019), the smallest."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, use_cache=False))


def llama() -> nn.Module:
    """TinyLlama's form (Zhang et al., 2024)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True)
class Work:
    """A model, its batch, and the most that a step may take: milliseconds and GB, by way."""

    name: str
    build: Callable[[], nn.Module]
    tokens: tuple[int, int]
    milliseconds: dict[str, float]
    gigabytes: dict[str, float]


WORKS = (
    Work("GPT-2, 124 M, 8 x 1024 tokens", gpt2, (8, 1024), {"bit-exact": 700, "fake-quant": 220}, {"bit-exact": 13}),
    Work(
        "Llama form, 1.1 G, 2 x 2048 tokens",
        llama,
        (2, 2048),
        {"bit-exact": 2650, "fake-quant": 900},
        {"bit-exact": 45, "bit-exact, checkpointed": 20},
    ),
)
RECIPES = {"bit-exact": "lns-madam", "bit-exact, checkpointed": "lns-madam", "fake-quant": "lns-madam-fake-quant"}
WAYS = ("float32", "TF32", "bf16 autocast", *RECIPES)


def step_of(work: Work, way: str) -> Callable[[], None]:
    """A training step on random tokens."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = work.build()
        tokens = torch.randint(model.config.vocab_size, work.tokens)
    if way.endswith("checkpointed"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    if way in RECIPES:
        model = lns_sim.convert(model, RECIPES[way])
        optimizer: torch.optim.Optimizer = LNSMadam(model.parameters())
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16) if way == "bf16 autocast" else nullcontext():
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()

    return step


def measured(work: Work, way: str) -> tuple[float, float]:
    """Median seconds and peak bytes of a step."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, way == "TF32"
    try:
        step, times = step_of(work, way), []
        for i in range(2 + ROUNDS):
            if i == 2:
                torch.cuda.reset_peak_memory_stats()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            step()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        return statistics.median(times[2:]), torch.cuda.max_memory_allocated()
    finally:
        matmul.allow_tf32 = before
        del step
        gc.collect()  # transformers' models hold themselves
        torch.cuda.empty_cache()


def language_models() -> Iterator[Measurement]:
    """Every way of both works. Raises ValueError where there is no GPU or no kernels for it."""
    check_device("cuda")
    for work in WORKS:
        for way in WAYS:
            seconds, peak = measured(work, way)
            section, milliseconds, gigabytes = f"GPU, training step, {work.name}", 1000 * seconds, peak / 1e9
            print(f"  {work.name}, {way}: {milliseconds:.0f} ms, {gigabytes:.1f} GB", flush=True)
            target = work.milliseconds.get(way)
            yield Measurement(section, way, milliseconds, target, at_most=True, unit="ms", seconds=seconds)
            target = work.gigabytes.get(way)
            yield Measurement(section, f"{way}, peak", gigabytes, target, at_most=True, unit="GB")
