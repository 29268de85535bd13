"""Instruction sets against the best one and float32, threads against one thread."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import lns_sim
from benchmarks.harness import Measurement, paired, seconds
from benchmarks.products import random_codes
from lns_sim import Datapath, _extension


def scaling(n: int = 768) -> Iterator[Measurement]:
    """matmul n^3 on the default datapath."""
    core, default = _extension.load(), Datapath()
    a, b = random_codes((n, n), default.format), random_codes((n, n), default.format)
    x, y = torch.randn(n, n), torch.randn(n, n)
    ours, section, best = lambda: lns_sim.matmul(a, b), f"instruction sets and threads, {n}^3", core.isa()

    def forced(isa):
        def run():
            core.set_isa(isa)
            ours()
            core.set_isa(best)

        return run

    targets = {"avx2": 0.5, "scalar": None}
    for isa in core.available_isas():
        if isa == best:
            continue
        core.set_isa(isa)
        path = default.path(n, n)
        core.set_isa(best)
        ratio, t, peer = paired(forced(isa), ours, rounds=5)
        yield Measurement(
            section,
            f"{isa} against {best}",
            ratio,
            targets.get(isa),
            unit=f"x {best}",
            seconds=t,
            peer_seconds=peer,
            macs=n**3,
            path=path,
        )
    ratio, t, peer = paired(forced("scalar"), lambda: x @ y, rounds=5)
    yield Measurement(section, "scalar against float32", ratio, 0.05, seconds=t, peer_seconds=peer, macs=n**3)

    threads = torch.get_num_threads()
    if threads > 1:

        def on(count):
            torch.set_num_threads(count)
            t = seconds(ours, 0.1)
            torch.set_num_threads(threads)
            return t

        pairs = sorted((on(1), on(threads)) for _ in range(7))
        speedups = sorted(one / many for one, many in pairs)
        yield Measurement(
            section,
            f"{threads} threads against 1",
            speedups[3],
            0.9 * threads,
            unit="x 1 thread",
            seconds=pairs[3][1],
            peer_seconds=pairs[3][0],
            macs=n**3,
        )
