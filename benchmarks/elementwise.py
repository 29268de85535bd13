"""Quantizers, re-scaling and LNS-Madam's step, on tensors larger than any cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import lns_sim
from benchmarks.harness import Measurement, paired
from lns_sim import LNSFormat
from lns_sim.cli.bench import torch_quantize

N = 1 << 24


def elementwise() -> Iterator[Measurement]:
    """Quantize against the same in torch operations; the rest in float32 copies of the bytes that it must move."""
    section, ops = "elementwise, 16 M elements", torch.ops.lns_sim
    x = torch.randn(N)
    ratio, ours, theirs = paired(lambda: lns_sim.quantize(x), lambda: torch_quantize(x), rounds=3)
    yield Measurement(
        section,
        "quantize, nearest, scale included",
        ratio,
        8.0,
        unit="x torch ops",
        seconds=ours,
        peer_seconds=theirs,
        macs=N,
        bound_by="memory: x is read twice",
    )

    q, w = lns_sim.quantize(x), lns_sim.quantize(x, LNSFormat(16, 2048))
    moment, grad, cap, rng = torch.zeros(N), torch.randn(N), torch.tensor(10.0), torch.tensor([1, 2, 3, 0])
    hyper = torch.tensor([0.999, 0.001, 0.001, 10.0, 16.0])

    def madam(stochastic):
        ops.madam_step(w.codes, moment, grad, w.scale, cap, hyper, 16, 2048, stochastic, rng)

    philox = "multiplies: 10 rounds of Philox an element"
    # Work, bytes that it reads and writes an element, what it does.
    cases = [
        ("quantize, nearest", 9, lambda: lns_sim.quantize(x), "memory: x is read twice"),
        ("quantize, stochastic", 9, lambda: lns_sim.quantize(x, rounding="stochastic", seed=1), philox),
        ("dequantize", 5, lambda: q.dequantize(), "loads: one table entry an element"),
        (
            "re-scale",
            2,
            lambda: ops.rescale(q.codes, q.scale, q.scale * 2, 8, 8, 0, None),
            "vector ports and page faults",
        ),
        ("forward codes of a weight", 3, lambda: ops.forward_codes(w.codes, w.scale, 16, 2048, 8, 8), "vector ports"),
        ("LNS-Madam step", 16, lambda: madam(False), "memory"),
        ("LNS-Madam step, stochastic", 16, lambda: madam(True), philox),
    ]
    for work, size, f, bound in cases:
        source = torch.ones(N * size // 8)
        ratio, ours, theirs = paired(f, source.clone, rounds=5)
        yield Measurement(
            section,
            work,
            1 / ratio,
            2.0,
            at_most=True,
            unit="copies",
            seconds=ours,
            peer_seconds=theirs,
            macs=N,
            bound_by=bound,
        )
