"""Wider linear datapaths (spec section 8) as a share of the default's speed in the same run, on any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import lns_sim
from benchmarks.harness import Measurement, paired
from benchmarks.products import random_codes
from lns_sim import Datapath, LNSFormat

FORMATS = [((8, 8), (5, 2)), ((5, 2), (8, 8)), ((8, 8), (4, 1)), ((6, 4), (7, 8))]


def _row(section: str, work: str, n: int, target: float, ours, default, path: str) -> Measurement:
    ratio, t, peer = paired(ours, default, rounds=5)
    return Measurement(
        section, work, ratio, target, unit="x default", seconds=t, peer_seconds=peer, macs=n**3, path=path
    )


def wide(device: str = "cpu") -> Iterator[Measurement]:
    """Operands of different formats (0.9 asked)."""
    on_gpu = device != "cpu"
    n, section = (4096, "GPU, wider operands, 4096^3") if on_gpu else (768, "wider operands, 768^3")
    a, b = (random_codes((n, n), LNSFormat()).to(device) for _ in range(2))
    for pair in FORMATS:
        x, y = (random_codes((n, n), LNSFormat(*f)).to(device) for f in pair)
        d = Datapath(LNSFormat.holding(x.format, y.format))
        path = "" if on_gpu else d.path(n, n)
        name = " by ".join(f"{bits} bits, gamma {gamma}" for bits, gamma in pair)
        yield _row(section, name, n, 0.9, lambda: lns_sim.matmul(x, y, d), lambda: lns_sim.matmul(a, b), path)
    if on_gpu:
        torch.cuda.empty_cache()
