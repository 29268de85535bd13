"""Counting what happens in the datapath during training, pass by pass; costs nothing when off."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from lns_sim.datapath import Counters
from lns_sim.ops.observer import Observer, Product, observe


class _Totals(Observer):
    """Totals by pass: MACs, and the operators' counters summed on their device."""

    counts = True

    def __init__(self):
        self.pending: dict[str, list] = {}

    def product(self, product: Product) -> None:
        counters = product.counters
        if counters is None:
            return
        total = self.pending.setdefault(product.name, [0, torch.zeros_like(counters)])
        total[0] += product.macs
        total[1] += counters.to(total[1].device)


@contextmanager
def count():
    """Counts every product of the layers run inside: ``with lns_sim.count() as totals: ...``.

    Yields:
        dict from "forward", "input_gradient" and "weight_gradient" to :class:`lns_sim.Counters`, filled when the block
        ends, so that no GPU is waited for before. It counts eager execution; a compiled model raises RuntimeError
        rather than report nothing.
    """
    totals: dict[str, Counters] = {}
    with observe(_Totals()) as found:
        try:
            yield totals
        finally:
            for name, (macs, counters) in found.pending.items():
                totals[name] = Counters.from_tensor(macs, counters)
