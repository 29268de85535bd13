"""Counting what happens in the datapath during training, pass by pass; costs nothing when off."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from lns_sim.datapath import Counters

_totals: dict[str, Counters] | None = None


def active() -> bool:
    """Is a :func:`count` block open?"""
    return _totals is not None


@contextmanager
def count():
    """Counts every product of the layers run inside: ``with lns_sim.count() as totals: ...``.

    Yields:
        dict from "forward", "input_gradient" and "weight_gradient" to :class:`lns_sim.Counters`, filled as layers run.
        It counts eager execution; a compiled model raises RuntimeError rather than report nothing.
    """
    global _totals
    outer, _totals = _totals, {}
    try:
        yield _totals
    finally:
        _totals = outer


def record(pass_name: str, macs: int, counters: torch.Tensor) -> None:
    """Adds one operator's counters to the open block, if there is one.

    Raises:
        RuntimeError: a compiler is tracing, and the counters hold no numbers.
    """
    if _totals is not None:
        if type(counters) is not torch.Tensor:
            raise RuntimeError("lns_sim.count() counts eager execution; run the model without torch.compile")
        _totals[pass_name] = _totals.get(pass_name, Counters()) + Counters.from_tensor(macs, counters)
