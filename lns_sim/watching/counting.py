"""Counting what happens in the datapath during training, pass by pass; costs nothing when off."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor

from lns_sim.datapaths import AnyDatapath, Counters
from lns_sim.ops.observer import Observer, Product, observe

# A pass by name, and one of its datapaths: what counters mean is the datapath's.
Pass = tuple[str, AnyDatapath]


class Totals(Observer):
    """Totals by pass: MACs, and the operators' counters summed on their device."""

    counts = True

    def __init__(self):
        self._macs: dict[Pass, int] = {}
        self._counters: dict[Pass, Tensor] = {}

    def product(self, product: Product) -> None:
        counters = product.counters
        if counters is None:
            return
        key = product.name, getattr(product.recipe, product.name)
        self._macs[key] = self._macs.get(key, 0) + product.macs
        if key not in self._counters:
            self._counters[key] = torch.zeros_like(counters)
        self._counters[key] += counters.to(self._counters[key].device)

    def macs(self) -> dict[Pass, int]:
        """By pass and datapath."""
        return dict(self._macs)

    def add_macs(self, macs: dict[Pass, int], times: int = 1) -> None:
        """Of products that were counted on the device alone, as a CUDA graph does when it is replayed."""
        for key, n in macs.items():
            self._macs[key] += times * n

    def take(self) -> dict[str, Counters]:
        """What was counted since the last time."""
        found: dict[str, Counters] = {}
        for (name, datapath), n in self._macs.items():
            if n:
                counters = Counters.from_tensor(n, self._counters[name, datapath], datapath)
                found[name] = found.get(name, Counters()) + counters
        for key, counted in self._counters.items():  # a graph goes on adding to them
            self._macs[key] = 0
            counted.zero_()
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
