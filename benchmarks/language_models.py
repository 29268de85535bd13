"""Training steps of language models of real size on one GPU: time and memory beside float32, TF32 and bf16 autocast.

GPT-2 of 124 M parameters on 8 x 1024 tokens, and a decoder in Llama's form of 1.1 G (2048 wide, 22 layers, 32 heads,
4 of them of keys) on 2 x 2048, both from transformers and without dropout; peers train by AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.harness import Measurement
from lns_sim.checks import check_device
from lns_sim.cli.bench_steps import WAYS, Cost, cost


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
CHECKPOINTED = ", checkpointed"  # behind a way: activations are computed again
EVERY_WAY = (*WAYS, "bit-exact" + CHECKPOINTED)


def measured(work: Work, way: str) -> Cost:
    """A training step on random tokens."""

    def build() -> nn.Module:
        model = work.build()
        if way.endswith(CHECKPOINTED):
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return model

    tokens = torch.randint(32000, work.tokens, device="cuda")
    loss = lambda model: model(input_ids=tokens, labels=tokens).loss  # noqa: E731
    return cost(build, loss, way.removesuffix(CHECKPOINTED))


def language_models() -> Iterator[Measurement]:
    """Every way of both works. Raises ValueError where there is no GPU or no kernels for it."""
    check_device("cuda")
    for work in WORKS:
        for way in EVERY_WAY:
            seconds, peak = measured(work, way)
            section, milliseconds, gigabytes = f"GPU, training step, {work.name}", 1000 * seconds, peak / 1e9
            print(f"  {work.name}, {way}: {milliseconds:.0f} ms, {gigabytes:.1f} GB", flush=True)
            target = work.milliseconds.get(way)
            yield Measurement(section, way, milliseconds, target, at_most=True, unit="ms", seconds=seconds)
            target = work.gigabytes.get(way)
            yield Measurement(section, f"{way}, peak", gigabytes, target, at_most=True, unit="GB")
