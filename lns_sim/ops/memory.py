"""What quantizers keep between steps, for each product and kind of tensor.

The scope of a converted module announces where a product's memory lies before the product; its forward pass reads it
there, and the operator's context takes it along to the backward pass.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lns_sim.quantizers import Quantizer
from lns_sim.recipes import Recipe

Memory = dict[str, Tensor]


class Place(NamedTuple):
    """A product's own key in what its module keeps, and what becomes of it: a step "learns" what it keeps, an
    evaluation only "reads" it, and a forward pass that activation checkpointing "repeats" finds what it found before.
    """

    memories: dict[Hashable, Memory]
    key: Hashable
    mode: str = "learn"

    @property
    def memory(self) -> Memory:
        """What the errors of this product left in the steps before."""
        return self.memories.setdefault(self.key, {})

    def of(self, kind: str) -> Memory:
        """What an operand of its forward pass left, an "activation" or a "weight"."""
        return self.memories.setdefault((self.key, kind), {})


_next = threading.local()


@contextlib.contextmanager
def running(mode: str) -> Iterator[None]:
    """What runs within is of that mode, whether gradients are enabled or not."""
    before, _next.mode = getattr(_next, "mode", None), mode
    try:
        yield
    finally:
        _next.mode = before


def mode() -> str:
    """What a forward pass does with what is kept, as of :class:`Place`."""
    return getattr(_next, "mode", None) or ("learn" if torch.is_grad_enabled() else "read")


def keeper(recipe: Recipe | None) -> Quantizer | None:
    """A quantizer of a recipe that keeps something between steps; None: none does."""
    return None if recipe is None else recipe.keeper


def announce(place: Place | None, q: Quantizer) -> None:
    """The next product's place, for that quantizer.

    Raises:
        RuntimeError: a compiler is tracing, which would keep the first step's memory for good.
    """
    if torch.compiler.is_compiling():
        if place is None:  # nor was anything announced before
            return
        raise RuntimeError(
            f"{type(q).__name__}'s {q.keeps} changes from step to step; run the model without torch.compile"
        )
    _next.place = place


def announced(q: Quantizer) -> Place:
    """The place of this product, in its forward pass.

    Raises:
        RuntimeError: nobody keeps the memory.
    """
    place = getattr(_next, "place", None)
    if place is None:
        raise RuntimeError(
            f"{type(q).__name__}'s {q.keeps} is kept by a converted model's modules; this product runs outside of them"
        )
    return place


def take(recipe: Recipe) -> Place | None:
    """The place that was announced for this product; None where the recipe needs none.

    Raises:
        RuntimeError: nobody keeps the memory.
    """
    q = keeper(recipe)
    if q is None:
        return None
    place, _next.place = announced(q), None
    return place
