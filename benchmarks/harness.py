"""Timing in pairs, what a measurement is, and how a table of them is printed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer


@dataclass
class Measurement:
    """Our work beside a peer's.

    ``ratio`` is the peer's time over ours (1: as fast, 2: twice as fast), or whatever ``unit`` says; ``target`` the
    least it should be, or the most where ``at_most``.
    """

    section: str
    work: str
    ratio: float
    target: float | None = None
    at_most: bool = False
    unit: str = "x float32"
    seconds: float = 0.0
    peer_seconds: float = 0.0
    macs: int = 0
    path: str = ""
    intensity: float = 0.0  # MACs per byte of operands and result
    bound_by: str = ""

    @property
    def verdict(self) -> str:
        if self.target is None:
            return "-"
        good = self.ratio <= self.target if self.at_most else self.ratio >= self.target
        return "ok" if good else "short"

    def record(self) -> dict:
        return {**asdict(self), "verdict": self.verdict}


def seconds(f: Callable, at_least: float = 0.02) -> float:
    """Time of one call, from enough calls to fill ``at_least`` seconds."""
    timer = Timer("f()", globals={"f": f}, num_threads=torch.get_num_threads())
    once = timer.timeit(1).mean
    return timer.timeit(max(1, int(at_least / max(once, 1e-9)))).mean


def paired(ours: Callable, peer: Callable, rounds: int = 7) -> tuple[float, float, float]:
    """(median peer/ours, median seconds of ours, median seconds of the peer), measured in turns: machines drift."""
    ours(), peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    return tuple(statistics.median(v) for v in ([p / o for o, p in pairs], *zip(*pairs)))


def median_seconds(f: Callable) -> float:
    """Median of five such times, each of 0.05 seconds at least."""
    f()
    return statistics.median(seconds(f, 0.05) for _ in range(5))


def step_against(
    section: str, work: str, ours: Callable, name: str, peer: Callable, target: float | None = None, rounds: int = 7
) -> Measurement:
    """Time of our training step as a multiple of that of a peer called ``name``; ``target``: the most it should be."""
    ratio, t, theirs = paired(ours, peer, rounds)
    return Measurement(
        section,
        f"{work}, time against {name}",
        1 / ratio,
        target,
        at_most=True,
        unit=f"of {name}",
        seconds=t,
        peer_seconds=theirs,
    )


def print_table(rows: list[Measurement], title: str) -> None:
    """All measurements with target and verdict."""
    table = Table(title=title)
    for name in ("work", "path", "ns each", "measured", "target", "verdict", "bound by"):
        table.add_column(name, justify="left" if name in ("work", "path", "verdict", "bound by") else "right")
    section = None
    for r in rows:
        if r.section != section:
            table.add_section()
            table.add_row(f"[bold]{r.section}", *[""] * 6)
            section = r.section
        each = f"{r.seconds / r.macs * 1e9:.4f}" if r.macs else ""
        target = "-" if r.target is None else f"{'<=' if r.at_most else '>='} {r.target:g}"
        table.add_row(r.work, r.path, each, f"{r.ratio:.2f} {r.unit}", target, r.verdict, r.bound_by)
    Console(width=None if Console().is_terminal else 170).print(table)
