"""From a product's forward pass to its backward pass: where estimates of the errors' largest magnitude are kept between steps.

The scope of a converted module announces the place before each product; the operator's context takes it along.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from torch import Tensor

from lns_sim.comparators.luq import LUQ, HindsightMaximum
from lns_sim.recipes import Recipe


class Place(NamedTuple):
    """A product's own key in what its module keeps."""

    maxima: dict[int, HindsightMaximum]
    key: int

    def estimate(self, x: Tensor, momentum: float) -> Tensor:
        """Of the largest magnitude of x, from the steps before."""
        return self.maxima.setdefault(self.key, HindsightMaximum(momentum))(x)


_next = threading.local()


def is_used(recipe: Recipe | None) -> bool:
    """Do the recipe's errors take their largest magnitude from earlier steps?"""
    return recipe is not None and isinstance(recipe.error, LUQ) and recipe.error.hindsight


def announce(place: Place | None) -> None:
    """The next product's place.

    Raises:
        RuntimeError: a compiler is tracing, which would keep the first step's estimate for good.
    """
    if torch.compiler.is_compiling():
        raise RuntimeError("LUQ's maximum in hindsight changes from step to step; run the model without torch.compile")
    _next.place = place


def take(recipe: Recipe) -> Place | None:
    """The place that was announced for this product; None where the recipe needs none.

    Raises:
        RuntimeError: nobody keeps the estimate.
    """
    if not is_used(recipe):
        return None
    place, _next.place = getattr(_next, "place", None), None
    if place is None:
        raise RuntimeError("LUQ's maximum in hindsight is kept by a converted model's modules; this product runs outside of them")
    return place
