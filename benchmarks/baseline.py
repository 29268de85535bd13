"""What changed against a run that was kept.

Only ratios are compared, each to a peer that ran beside it, so that the two runs may be of different machines; rates,
which belong to one machine, are left out.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Measurement

RATES = ("TMAC/s",)


@dataclass(frozen=True)
class Change:
    """A work whose ratio moved, or that only one of the runs has.

    ``gain`` is how many times better it is now: above 1 better, below worse, None where there is nothing to compare.
    """

    section: str
    work: str
    unit: str
    before: float | None
    now: float | None
    gain: float | None = None


def changes(rows: list[Measurement], kept: list[dict], tolerance: float = 0.1) -> list[Change]:
    """The worst first, then what only one run has, of the sections that were measured now.

    Args:
        rows: measured now.
        kept: rows of a file that ``--json`` wrote.
        tolerance: moves up to this share are noise.
    """
    sections = {r.section for r in rows}
    before = {(r["section"], r["work"]): r for r in kept if r["section"] in sections and r["unit"] not in RATES}
    moved, single = [], []
    for r in rows:
        if r.unit in RATES:
            continue
        old = before.pop((r.section, r.work), None)
        if old is None:
            single.append(Change(r.section, r.work, r.unit, None, r.ratio))
            continue
        better, worse = (old["ratio"], r.ratio) if r.at_most else (r.ratio, old["ratio"])
        gain = better / worse if worse else math.inf if better else 1.0
        if not 1 / (1 + tolerance) <= gain <= 1 + tolerance:
            moved.append(Change(r.section, r.work, r.unit, old["ratio"], r.ratio, gain))
    single += [Change(*key, old["unit"], old["ratio"], None) for key, old in before.items()]
    return sorted(moved, key=lambda c: c.gain) + single


def print_changes(rows: list[Measurement], file: str, tolerance: float = 0.1) -> None:
    """A table of all changes against a file that ``--json`` wrote, and the machine that it is of."""
    kept = json.loads(Path(file).read_text())
    where = kept["environment"]
    found = changes(rows, kept["rows"], tolerance)
    table = Table(
        title=f"against {where['cpu']}, {where['isa']}, torch {where['torch']}: moved by more than {tolerance:.0%}"
    )
    for name in ("section", "work", "before", "now", "change"):
        table.add_column(name, justify="left" if name in ("section", "work") else "right")
    for c in found:
        ratios = ("-" if ratio is None else f"{ratio:.2f} {c.unit}" for ratio in (c.before, c.now))
        verdict = ("new" if c.before is None else "gone") if c.gain is None else f"{c.gain:.2f} x"
        table.add_row(c.section, c.work, *ratios, verdict)
    if found:
        Console(width=None if Console().is_terminal else 170).print(table)
    worse, better = (sum(c.gain is not None and (c.gain < 1) == down for c in found) for down in (True, False))
    print(f"against the baseline: {worse} worse, {better} better, {len(found) - worse - better} only in one run")
