"""Wider linear datapaths (spec section 8) as a share of the default's speed in the same run, on any device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

import lns_sim
from benchmarks.harness import Measurement, paired
from benchmarks.products import random_codes
from lns_sim import Datapath, LNSFormat, recipes

FORMATS = [((8, 8), (5, 2)), ((5, 2), (8, 8)), ((8, 8), (4, 1)), ((6, 4), (7, 8))]


def _row(section: str, work: str, n: int, target: float, ours, default, path: str) -> Measurement:
    ratio, t, peer = paired(ours, default, rounds=5)
    return Measurement(
        section, work, ratio, target, unit="x default", seconds=t, peer_seconds=peer, macs=n**3, path=path
    )


BLOCKS = {
    "blocks of 32": (Datapath(), 32),
    "blocks of 32, nearest": (Datapath(rounding="nearest"), 32),
    "blocks of 128": (Datapath(), 128),
    "blocks of 16, vectors of 16": (Datapath(vector_size=16), 16),
    "blocks of 32, 2 LUT entries": (Datapath(lut_entries=2), 32),
    "blocks of 32, acc_bits 32": (Datapath(acc_bits=32), 32),
    "blocks of 32, 4 bits, gamma 1": (Datapath(LNSFormat(4, 1)), 32),
    "blocks of 32, 12 bits, gamma 128": (Datapath(LNSFormat(12, 128)), 32),
}


CONVOLUTIONS = ((128, 16), (16, 32))  # channels, and sides of images


def _replayed(step: Callable) -> Callable:
    """A step's kernels as a trainer runs them, as a CUDA graph: the host takes longer than a small layer."""
    with torch.cuda.stream(torch.cuda.Stream()):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _convolutions(device: str) -> Iterator[Measurement]:
    """A layer's passes by a recipe with blocks, quantization included, against the same without."""
    batch = 32 if device == "cpu" else 256
    section = ("GPU, " if device != "cpu" else "") + "wider operands, conv2d"
    few = None if device == "cpu" else 0.7  # what is asked of few channels, which do not fill a block
    for channels, side in CONVOLUTIONS:
        shape, layer = (batch, channels, side, side), torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        steps = {}
        for recipe in ("lns-madam", "lns-madam-block32"):
            own = lns_sim.convert(copy.deepcopy(layer), recipes.get(recipe)).to(device)
            x = torch.randn(shape, device=device, requires_grad=True)
            dy = torch.randn(shape, device=device)
            step = lambda own=own, x=x, dy=dy: torch.autograd.grad(own(x), (x, own.weight), dy)  # noqa: E731
            steps[recipe] = step if device == "cpu" else _replayed(step)
        ratio, t, peer = paired(steps["lns-madam-block32"], steps["lns-madam"], rounds=5)
        macs = 3 * 9 * channels**2 * side**2 * batch
        work = (
            f"{channels} -> {channels} channels, {side} x {side}, batch {batch}, blocks of 32: forward and both "
            "gradients, quantizers included"
        )
        target = 0.7 if channels % 32 == 0 else few
        yield Measurement(section, work, ratio, target, unit="x default", seconds=t, peer_seconds=peer, macs=macs)


def wide(device: str = "cpu") -> Iterator[Measurement]:
    """Operands of different formats (0.9 asked) and block scales (0.7 asked where the default's path holds them)."""
    on_gpu = device != "cpu"
    n, section = (4096, "GPU, wider operands, 4096^3") if on_gpu else (768, "wider operands, 768^3")
    a, b = (random_codes((n, n), LNSFormat()).to(device) for _ in range(2))
    for pair in FORMATS:
        x, y = (random_codes((n, n), LNSFormat(*f)).to(device) for f in pair)
        d = Datapath(LNSFormat.holding(x.format, y.format))
        path = "" if on_gpu else d.path(n, n)
        name = " by ".join(f"{bits} bits, gamma {gamma}" for bits, gamma in pair)
        yield _row(section, name, n, 0.9, lambda: lns_sim.matmul(x, y, d), lambda: lns_sim.matmul(a, b), path)
    for name, (d, block) in BLOCKS.items():
        x, y = (random_codes((n, n), d.format).to(device).dequantize() for _ in range(2))
        p, q = lns_sim.quantize(x, d.format, 1, block=block), lns_sim.quantize(y, d.format, 0, block=block)
        v, w = lns_sim.quantize(x, d.format), lns_sim.quantize(y, d.format)
        path = "" if on_gpu else d.path(n, n, blocks=True)
        target = None if d.format.bits > 8 else 0.7
        row = _row(section, name, n, 0.7, lambda: lns_sim.matmul(p, q, d), lambda: lns_sim.matmul(v, w, d), path)
        yield replace(row, target=target, unit="x without blocks")
    yield from _convolutions(device)
    if on_gpu:
        torch.cuda.empty_cache()
