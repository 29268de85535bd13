"""What a quantizer keeps between steps, from a product's forward pass to its backward pass.

The scope of a converted module announces where a product's memory lies before the product; the operator's context takes
it along.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from torch import Tensor

from lns_sim.quantizers import Quantizer
from lns_sim.recipes import Recipe

Memory = dict[str, Tensor]


class Place(NamedTuple):
    """A product's own key in what its module keeps."""

    memories: dict[int, Memory]
    key: int

    @property
    def memory(self) -> Memory:
        """What the errors of this product left in the steps before."""
        return self.memories.setdefault(self.key, {})


_next = threading.local()


def keeper(recipe: Recipe | None) -> Quantizer | None:
    """The quantizer of a recipe's errors, where it keeps something between steps."""
    q = None if recipe is None else recipe.error
    return q if q is not None and q.keeps is not None else None


def announce(place: Place | None, q: Quantizer) -> None:
    """The next product's place, for that quantizer.

    Raises:
        RuntimeError: a compiler is tracing, which would keep the first step's memory for good.
    """
    if torch.compiler.is_compiling():
        raise RuntimeError(
            f"{type(q).__name__}'s {q.keeps} changes from step to step; run the model without torch.compile"
        )
    _next.place = place


def take(recipe: Recipe) -> Place | None:
    """The place that was announced for this product; None where the recipe needs none.

    Raises:
        RuntimeError: nobody keeps the memory.
    """
    q = keeper(recipe)
    if q is None:
        return None
    place, _next.place = getattr(_next, "place", None), None
    if place is None:
        raise RuntimeError(
            f"{type(q).__name__}'s {q.keeps} is kept by a converted model's modules; this product runs outside of them"
        )
    return place
