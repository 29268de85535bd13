"""Runs: independent pieces of work with a name, each done once, by any number of workers who share a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lns_sim.environment import provenance
from lns_sim.files import write_json
from lns_sim.optim import Diverged
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.workers import gone, this_worker

GRACE = 600.0  # seconds without a sign of life after which another machine's run counts as lost
LOSSES = 3  # so many workers lost at a run, and it counts as failed


@dataclass(frozen=True)
class Run:
    """A function of plain arguments.

    Attributes:
        name: what it is, in words.
        function: from a :class:`lns_sim.studies.papers.bench.Bench`, the arguments, and the results of ``after`` under
            their names, to plain data.
        arguments: plain data.
        after: runs whose results it takes, by argument.
        seconds: how long it is expected to take, to be corrected by how long others took.
    """

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    after: dict[str, Run] = field(default_factory=dict)
    seconds: float = 1.0

    @cached_property
    def key(self) -> str:
        """What makes it what it is: equal keys are the same work, in whichever study."""
        parts = [_name(self), self.arguments, {name: run.key for name, run in self.after.items()}]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _name(run: Run) -> str:
    """Of its function."""
    return f"{run.function.__module__}:{run.function.__qualname__}"


class OutOfTime(Exception):
    """The time that was given is over; the run that was under way is left undone."""


class Pool:
    """Runs in a folder: KEY.json of each that is done, KEY.claim while a worker is at it, KEY.failed after an error.

    Args:
        folder: shared by all workers; made if there is none.
        runs: what is to be done, the first first; what they come after is added before them.
        deadline: ``time.time()`` at which work ends; None: when all is done.
    """

    def __init__(self, folder: Path, runs: Iterable[Run], deadline: float | None = None):
        self.folder, self.deadline = folder, deadline
        self.runs: list[Run] = []
        known: set[str] = set()

        def add(run: Run) -> None:
            for other in run.after.values():
                add(other)
            if run.key not in known:
                known.add(run.key)
                self.runs.append(run)

        for run in runs:
            add(run)
        folder.mkdir(parents=True, exist_ok=True)
        self._records: dict[str, dict] = {}

    def path(self, run: Run, kind: str = "json") -> Path:
        return self.folder / f"{run.key}.{kind}"

    def record(self, run: Run) -> dict | None:
        """What a finished run left: "result" (None: it diverged, and "diverged" says how) and how it came about."""
        if run.key not in self._records:
            with contextlib.suppress(FileNotFoundError):
                self._records[run.key] = json.loads(self.path(run).read_text())
        return self._records.get(run.key)

    @property
    def finished(self) -> int:
        """Runs that are done."""
        return sum(self.record(run) is not None for run in self.runs)

    def failures(self) -> dict[str, str]:
        """The errors that ended runs, by name."""
        return {run.name: p.read_text() for run in self.runs if (p := self.path(run, "failed")).exists()}

    def forget_failures(self) -> None:
        """Lets what failed be tried again."""
        for run in self.runs:
            self.path(run, "failed").unlink(missing_ok=True)

    def expected(self, run: Run) -> float:
        """Seconds that a run will take, by those of the same function that are done."""
        like = [r for r in self._records.values() if r["function"] == _name(run) and r["seconds"] > 1]
        return run.seconds * max(1.0, statistics.median(r["seconds"] / r["expected"] for r in like) if like else 1.0)

    def work(self, bench: Bench, on_run: Callable[[Run, dict | None], None] | None = None) -> None:
        """Does what nobody else does, until nothing is left or time is over; waits for what others do, to take it over
        where they are lost.

        Args:
            bench: what runs work with.
            on_run: called with each run of this worker and its record; None: it failed.
        """
        while True:
            found = self._take()
            if found is None:
                return
            if found is False:
                time.sleep(0.5)
                continue
            try:
                record = self._do(found, bench)
            except OutOfTime:
                return
            finally:
                self.path(found, "claim").unlink(missing_ok=True)
            if on_run:
                on_run(found, record)

    def _take(self) -> Run | bool | None:
        """A run that is now this worker's; False: there may be one later; None: there is none."""
        others = False
        for run in self.runs:
            if self.record(run) is not None or self.path(run, "failed").exists():
                continue
            if any(self.record(other) is None for other in run.after.values()):
                continue
            if self.deadline is not None and time.time() + self.expected(run) > self.deadline:
                continue
            if self._claim(run):
                if not self.path(run).exists():
                    return run
                self.path(run, "claim").unlink()  # it was finished meanwhile
            others = True
        return False if others else None

    def _claim(self, run: Run) -> bool:
        claim, mine = self.path(run, "claim"), self.folder / f"{os.getpid()}-{this_worker()[2]:.0f}.worker"
        losses = 0
        with contextlib.suppress(OSError, ValueError):
            text = claim.read_text()
            known = json.loads(text)
            if not gone(known["worker"], time.time() - claim.stat().st_mtime, GRACE):
                return False
            claim.replace(mine)
            if mine.read_text() != text:  # another worker took it over just now
                mine.replace(claim)
                return False
            losses = known["losses"] + 1
            if losses == LOSSES:
                mine.unlink()
                self.path(run, "failed").write_text(f"{losses} workers were lost at it\n")
                return False
        mine.write_text(json.dumps({"worker": this_worker(), "losses": losses}))
        try:
            os.link(mine, claim)  # whole, or not there
        except FileExistsError:
            return False
        finally:
            mine.unlink(missing_ok=True)
        return True

    def _do(self, run: Run, bench: Bench) -> dict | None:
        claim, begun = self.path(run, "claim"), time.time()
        seen = begun

        def tick() -> None:
            nonlocal seen
            now = time.time()
            if self.deadline is not None and now > self.deadline:
                raise OutOfTime
            if now - seen > GRACE / 20:
                seen = now
                with contextlib.suppress(OSError):
                    os.utime(claim)

        bench.tick = tick
        results = {name: self.record(other)["result"] for name, other in run.after.items()}
        record = {"run": run.name, "function": _name(run), "arguments": run.arguments, "result": None}
        try:
            record["result"] = run.function(bench, **run.arguments, **results)
        except Diverged as error:
            record["diverged"] = str(error)
        except OutOfTime:
            raise
        except Exception:  # of one run; the others go on
            self.path(run, "failed").write_text(traceback.format_exc())
            return None
        record |= {"seconds": round(time.time() - begun, 3), "expected": run.seconds, "device": bench.device}
        write_json({**provenance(), **record}, self.path(run))
        return self.record(run)
