"""What the other systems' quantizers have in common: codes that, times one scale, are the values; products run on those."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

KINDS: dict[str, type[ValueQuantizer]] = {}  # by name, as recipes are written


class ValueQuantizer:
    """A quantizer of a tensor kind in a :class:`lns_sim.recipes.Recipe`, beside LNS formats.

    Subclasses are frozen dataclasses of plain fields. Products of their tensors run in float32, of integers exactly.

    Attributes:
        dtype: of the codes.
        stochastic: does it draw random bits?
        bits: of a code.
        largest: magnitude of integer codes.
    """

    format = None  # no LNS format
    dtype: ClassVar[torch.dtype]
    largest: int

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        KINDS[cls.__name__] = cls

    @property
    def stochastic(self) -> bool:
        return False

    @property
    def bits(self) -> int:
        raise NotImplementedError

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        """Codes of x's shape and a 0-d float32 scale; float32 codes stand for themselves, at scale 1.

        Args:
            x: float32.
            rng: the random state, where it is stochastic.
            dim: along which channels lie.
        """
        raise NotImplementedError


def draw(x: Tensor, rng: Tensor) -> Tensor:
    """A random number in [0, 1) for each element: the same on every device (spec section 6)."""
    return torch.ops.lns_sim.uniform(x, rng)


def largest_magnitude(x: Tensor) -> Tensor:
    """max|x|, 0-d, in one pass over x; NaN where x has one."""
    low, high = torch.aminmax(x)
    return torch.maximum(-low, high)


def scale_to(top: Tensor, largest: float) -> Tensor:
    """The scale at which ``top`` is ``largest``; 1 for an all-zero tensor, NaN where top is not finite."""
    scale = top / largest
    return torch.where(scale > 0, scale, torch.where(top == 0, 1.0, torch.nan))
