"""Counting what happens in the datapath during training, pass by pass; costs nothing when off."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from lns_sim.datapath import Counters

_pending: dict[str, list] | None = None  # by pass: MACs, and the operators' counters summed on their device


def active() -> bool:
    """Is a :func:`count` block open?"""
    return _pending is not None


@contextmanager
def count():
    """Counts every product of the layers run inside: ``with lns_sim.count() as totals: ...``.

    Yields:
        dict from "forward", "input_gradient" and "weight_gradient" to :class:`lns_sim.Counters`, filled when the block
        ends, so that no GPU is waited for before. It counts eager execution; a compiled model raises RuntimeError
        rather than report nothing.
    """
    global _pending
    outer, _pending = _pending, {}
    totals: dict[str, Counters] = {}
    try:
        yield totals
    finally:
        for name, (macs, counters) in _pending.items():
            totals[name] = Counters.from_tensor(macs, counters)
        _pending = outer


def record(pass_name: str, macs: int, counters: torch.Tensor) -> None:
    """Adds one operator's counters to the open block, if there is one.

    Raises:
        RuntimeError: a compiler is tracing, and the counters hold no numbers.
    """
    if _pending is None:
        return
    if type(counters) is not torch.Tensor:
        raise RuntimeError("lns_sim.count() counts eager execution; run the model without torch.compile")
    if pass_name not in _pending:
        _pending[pass_name] = [macs, counters.clone()]
        return
    total = _pending[pass_name]
    total[0] += macs
    total[1] += counters.to(total[1].device)
