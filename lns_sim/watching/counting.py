"""Counting what happens in the datapath during training, pass by pass; costs nothing when off."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor

from lns_sim.datapath import Counters
from lns_sim.ops.observer import Observer, Product, observe


class Totals(Observer):
    """Totals by pass: MACs, and the operators' counters summed on their device."""

    counts = True

    def __init__(self):
        self._macs: dict[str, int] = {}
        self._counters: dict[str, Tensor] = {}

    def product(self, product: Product) -> None:
        counters, name = product.counters, product.name
        if counters is None:
            return
        self._macs[name] = self._macs.get(name, 0) + product.macs
        if name not in self._counters:
            self._counters[name] = torch.zeros_like(counters)
        self._counters[name] += counters.to(self._counters[name].device)

    def macs(self) -> dict[str, int]:
        """By pass."""
        return dict(self._macs)

    def add_macs(self, macs: dict[str, int], times: int = 1) -> None:
        """Of products that were counted on the device alone, as a CUDA graph does when it is replayed."""
        for name, n in macs.items():
            self._macs[name] += times * n

    def take(self) -> dict[str, Counters]:
        """What was counted since the last time."""
        found = {name: Counters.from_tensor(n, self._counters[name]) for name, n in self._macs.items() if n}
        for name, counters in self._counters.items():  # a graph goes on adding to them
            self._macs[name] = 0
            counters.zero_()
        return found


@contextmanager
def count():
    """Counts every product of the layers run inside: ``with lns_sim.count() as totals: ...``.

    Yields:
        dict from "forward", "input_gradient" and "weight_gradient" to :class:`lns_sim.Counters`, filled when the block
        ends, so that no GPU is waited for before. It counts eager execution; a compiled model raises RuntimeError
        rather than report nothing.
    """
    totals: dict[str, Counters] = {}
    with observe(Totals()) as found:
        try:
            yield totals
        finally:
            totals.update(found.take())
