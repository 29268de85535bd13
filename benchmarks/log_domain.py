"""Datapaths that add logarithms: nanoseconds a product on the CPU, products a second on a GPU, and what others take."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import lns_sim
from benchmarks.harness import Measurement, paired
from benchmarks.products import random_codes
from lns_sim import Datapath, LogDatapath, LogTables

SHORT = LogTables.lists([8, 7, 6, 5, 4, 3, 2, 1] * 8, [0, *range(63, 0, -1)])  # 64 entries each
# With the most nanoseconds that a product may take on the CPU.
PES = {
    "16 bits, exact (5,391 entries)": (LogDatapath(), None),
    "16 bits, 1,024 entries": (LogDatapath(tables=LogTables.lists([1] * 1024, [0, *[2] * 1023])), 0.5),
    "16 bits, 64 entries": (LogDatapath(tables=SHORT), 0.25),
    "16 bits, 64 entries, trees of 32": (LogDatapath(tables=SHORT, order="tree", vector_size=32), None),
    "16 bits, shift": (LogDatapath(tables="shift"), None),
    "16 bits, exact, saturating underflow": (LogDatapath(underflow="saturate"), None),
    "16 bits, exact, trees of 32": (LogDatapath(order="tree", vector_size=32), None),
    "12 bits, exact (210 entries)": (LogDatapath(acc_bits=12), 0.5),
    "20 bits, exact (119,020 entries)": (LogDatapath(acc_bits=20), None),
}


def log_domain() -> Iterator[Measurement]:
    """At 768^3; the peers, if they are found, at the sizes that they do in a second."""
    n = 768
    a, b = (random_codes((n, n), Datapath().format) for _ in range(2))
    for name, (pe, most) in PES.items():
        _, t, peer = paired(lambda: lns_sim.matmul(a, b, pe), lambda: lns_sim.matmul(a, b), rounds=5)
        yield Measurement(
            f"log-domain accumulation, {n}^3",
            name,
            1e9 * t / n**3,
            most,
            at_most=True,
            unit="ns",
            seconds=t,
            peer_seconds=peer,
            macs=n**3,
            path=pe.path(n, n),
        )
    yield from _others()


def _xlnstorch(x: torch.Tensor, y: torch.Tensor):
    import xlnstorch

    p, q = xlnstorch.lnstensor(x), xlnstorch.lnstensor(y)
    return lambda: p @ q


def _mptorch(x: torch.Tensor, y: torch.Tensor):
    from mptorch import FloatingPoint
    from mptorch.quant import QAffineFormats, qmatmul

    number = FloatingPoint(exp=5, man=10)
    formats = QAffineFormats(fwd_mac=(number, number), fwd_rnd="nearest")
    return lambda: qmatmul(x, y, formats)


def _others() -> Iterator[Measurement]:
    for name, make in (("xlnstorch, 64^3", _xlnstorch), ("mptorch, every sum rounded to 16 bits, 64^3", _mptorch)):
        x, y = torch.randn(64, 64), torch.randn(64, 64)
        a, b = lns_sim.quantize(x), lns_sim.quantize(y)
        try:
            _, ours, t = paired(lambda: lns_sim.matmul(a, b, LogDatapath()), make(x, y), rounds=3)
        except Exception as error:  # not installed, or a failure of its own
            print(f"peer {name.partition(',')[0]}: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        yield Measurement(
            "log-domain accumulation",
            f"{name}, against 16 bits, exact",
            t / ours,
            unit="x its time",
            seconds=ours,
            peer_seconds=t,
            macs=64**3,
        )


def on_gpu() -> Iterator[Measurement]:
    """At 4096^3, 1 TMAC/s asked of sequential sums that flush."""
    n = 4096
    a, b = (random_codes((n, n), Datapath().format).to("cuda") for _ in range(2))
    for name, (pe, _) in PES.items():
        asked = 1.0 if pe.order == "sequential" and pe.underflow == "flush" and pe.acc_bits <= 16 else None
        _, t, peer = paired(lambda: lns_sim.matmul(a, b, pe), lambda: lns_sim.matmul(a, b), rounds=3)
        yield Measurement(
            f"GPU, log-domain accumulation, {n}^3",
            name,
            n**3 / t / 1e12,
            asked,
            unit="TMAC/s",
            seconds=t,
            peer_seconds=peer,
            macs=n**3,
        )
