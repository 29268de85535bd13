"""Workers that share work through files: who they are, and whether one is still there."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path


def this_worker() -> list:
    """This process, as others may ask for it: machine, number, and when it began."""
    return [_machine(), os.getpid(), _started(os.getpid())]


def gone(worker: Sequence, silent: float, grace: float) -> bool:
    """Is a worker lost? One of this machine where its process has ended, another's after ``grace`` seconds of
    silence.
    """
    machine, process, started = worker
    return not _alive(process, started) if machine == _machine() else silent > grace


@lru_cache
def _machine() -> str:
    """This machine, since it was started, and the space of process numbers in it."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return " ".join(parts)


def _started(process: int) -> float:
    """When a process of this machine began, in clock ticks since boot; 0 where the system does not tell."""
    try:
        return float(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0.0


def _alive(process: int, started: float) -> bool:
    """Is it that very process, not a later one of the same number?"""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(process) == started
