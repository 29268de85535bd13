"""What runs work with: data by name, a device, and the sign of life that they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from lns_sim.studies.training import data as datasets
from lns_sim.studies.training.data import Data


@dataclass
class Bench:
    """A worker's place.

    Attributes:
        sources: by the names that runs use ("images", "text") what :func:`lns_sim.studies.training.data.load` takes.
        device: where to compute.
        tick: runs call it once a step; it ends a run whose time is over.
    """

    sources: dict[str, str | None]
    device: str = "cpu"
    tick: Callable[[], None] = field(default=lambda: None)

    def data(self, name: str, train: int | None = None, test: int | None = None, context: int | None = None) -> Data:
        """A data set, or the first so many of its training samples (of a fixed shuffle) and of its test samples.

        Args:
            name: one of the sources'.
            train, test: how many; None: all.
            context: of text, see :func:`lns_sim.studies.training.data.load`.
        """
        return part(_load(self.sources[name], context), train, test)


@lru_cache(maxsize=4)
def _load(source: str | None, context: int | None) -> Data:
    return datasets.load(source, context)


def part(data: Data, train: int | None, test: int | None) -> Data:
    """So many samples of a data set, see :meth:`Bench.data`."""
    if train is None and test is None:
        return data
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))[:train]
    tested = torch.randperm(len(data.x_test), generator=torch.Generator().manual_seed(1))[:test]
    return replace(
        data,
        name=f"{len(order):,} samples of {data.name}",
        x_train=data.x_train[order],
        y_train=data.y_train[order],
        x_test=data.x_test[tested],
        y_test=data.y_test[tested],
        fingerprint=f"{data.fingerprint}, {len(order)} and {len(tested)} of it",
    )
