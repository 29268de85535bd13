"""LUQ (arXiv 2112.10769): INT4 forward by SAWB's clip, and unbiased logarithmic 4-bit gradients of the neurons.

Gradients are FP4 [1,3,0]: a sign and a power of two of ``alpha``, or zero. Below alpha they are pruned at random, above
it rounded at random between neighbouring powers, both linear in value: without bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lns_sim.checks import check_bool, check_choice, check_int, check_number
from lns_sim.contract import FIRST_ELEMENT
from lns_sim.quantizers.integer import on_scale
from lns_sim.quantizers.operand import Operand
from lns_sim.quantizers.quantizer import Quantizer, largest_magnitude, scale_to


@dataclass(frozen=True)
class SAWB(Quantizer):
    """Integers below a clip fitted to the distribution: ``clip = c1 rms(x) - c2 mean|x|``, max|x| where that is not
    positive.

    Args:
        bits: of a code; the clip's constants as published are for 4.
        c1, c2: of the clip; (12.1, 12.2) as published.
    """

    bits: int = 4
    c1: float = 12.1
    c2: float = 12.2
    dtype: ClassVar[torch.dtype] = torch.int8

    def __post_init__(self):
        check_int("bits", self.bits, 2, 8)
        check_number("c1", self.c1, 0.0)
        check_number("c2", self.c2, 0.0)

    @property
    def largest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def clip(self, x: Tensor) -> Tensor:
        """The largest magnitude that is kept; means are in float64, whose order no device shows in float32."""
        top, wide = largest_magnitude(x), torch.float64
        clip = (self.c1 * x.square().mean(dtype=wide).sqrt() - self.c2 * x.abs().mean(dtype=wide)).to(x.dtype)
        return torch.where(clip > 0, torch.minimum(clip, top), top)

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        scale = scale_to(self.clip(x), self.largest)
        return on_scale(x, scale, self.largest, None).to(torch.int8), scale


@dataclass(frozen=True)
class LUQ(Quantizer):
    """Logarithmic unbiased quantization of gradients: ``alpha = max|x| / 2^exponents``, then powers of two of it.

    Args:
        exponents: octaves from alpha to the largest magnitude: 7 as in the published code, 6 fits 4 bits with sign
            and zero.
        below: "stochastic" (pruning: alpha with probability |x| / alpha, else 0) or "flush" (to the nearer of 0 and
            alpha).
        above: "stochastic" (between neighbouring powers, unbiased) or "nearest" (power, by value).
        samples: of the errors of each weight gradient, averaged (SMP of the paper).
        hindsight: in training the largest magnitude is estimated from the steps before (:func:`maximum_in_hindsight`).
        momentum: of that.
    """

    exponents: int = 7
    below: str = "stochastic"
    above: str = "stochastic"
    samples: int = 1
    hindsight: bool = False
    momentum: float = 0.1
    dtype: ClassVar[torch.dtype] = torch.float32

    def __post_init__(self):
        check_int("exponents", self.exponents, 0, 126)
        check_choice("below", self.below, ("stochastic", "flush"))
        check_choice("above", self.above, ("stochastic", "nearest"))
        check_int("samples", self.samples, 1, 1024)
        check_bool("hindsight", self.hindsight)
        check_number("momentum", self.momentum, 0.0, 1.0)

    @property
    def bits(self) -> int:
        """Sign, and codes for zero and every power."""
        return 1 + (self.exponents + 1).bit_length()

    @property
    def stochastic(self) -> bool:
        return "stochastic" in (self.below, self.above)

    @property
    def keeps(self) -> str | None:
        return "maximum in hindsight" if self.hindsight else None

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        return logarithmic(x, largest_magnitude(x), self, rng), x.new_ones(())

    def value(self, codes: Tensor, scale: Tensor) -> Tensor:
        return codes

    def error_operands(
        self, x: Tensor, rng: Tensor | None, dim: int, memory: dict[str, Tensor]
    ) -> tuple[Operand, Operand]:
        """The weight gradient multiplies the mean of all samples, of which the input gradient multiplies the first."""
        top = maximum_in_hindsight(x, memory, self.momentum) if self.hindsight else largest_magnitude(x)
        first = Operand(logarithmic(x, top, self, rng), x.new_ones(()), self)
        if self.samples == 1 or rng is None:  # what draws nothing has one sample
            return first, first
        total = first.codes.clone()
        for i in range(1, self.samples):
            fresh = rng.clone()
            fresh[FIRST_ELEMENT] += i * x.numel()  # random bits of elements beyond the tensor's
            total += logarithmic(x, top, self, fresh)
        return first, first.with_codes(total / self.samples)


def logarithmic(x: Tensor, top: Tensor, q: LUQ, rng: Tensor | None) -> Tensor:
    """Values of LUQ's gradients.

    Args:
        x: float32.
        top: the largest magnitude, 0-d; of x, or an estimate (:func:`maximum_in_hindsight`): what is above it is
            clipped.
        q: how.
        rng: the random state, where q is stochastic.
    """
    return torch.ops.lns_sim.round_to_powers(x, top, q.exponents, q.below == "stochastic", q.above == "stochastic", rng)


def maximum_in_hindsight(x: Tensor, memory: dict[str, Tensor], momentum: float) -> Tensor:
    """The largest magnitude of x estimated from the steps before, so that it need not be read twice (the paper's
    option).

    ``estimate = (1 - momentum) max|x_{t-1}| + momentum estimate``; the first tensor's own at first.

    Args:
        x: the tensor, whose own largest magnitude goes into the next estimate.
        memory: holds the estimate for the next step.
        momentum: 0.1 as published.
    """
    own = largest_magnitude(x)
    used = memory["maximum"].to(own.device) if "maximum" in memory else own
    memory["maximum"] = (1 - momentum) * own + momentum * used
    return used
