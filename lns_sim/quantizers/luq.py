"""LUQ (arXiv 2112.10769): INT4 forward by SAWB's clip, and unbiased logarithmic 4-bit gradients of the neurons.

Gradients are FP4 [1,3,0]: a sign and a power of two of ``alpha``, or zero. Below alpha they are pruned at random, above
it rounded at random between neighbouring powers, both linear in value: without bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lns_sim.checks import check_bool, check_choice, check_int, check_number
from lns_sim.contract import FIRST_ELEMENT
from lns_sim.quantizers.operand import Operand
from lns_sim.quantizers.quantizer import LARGEST_VALUE, Quantizer, largest_magnitude, scale_to

GRIDS = ("weights", "activations", "symmetric")


@dataclass(frozen=True)
class SAWB(Quantizer):
    """Integers below a clip fitted to the distribution: ``clip = c1 rms(x) - c2 mean|x|``, max|x| where that is not
    positive.

    The published code (the paper's supplement) spreads ``[-clip, clip]`` over as many steps as there are between the
    lowest and the highest code, and caps neither at max|x|: weights have the codes ``-2^(bits-1) .. 2^(bits-1)``, one
    more than bits hold, at ``clip / 2^(bits-1)``; activations ``0 .. 2^bits - 1`` at ``2 clip / (2^bits - 1)``, so that
    they reach ``2 clip``, and down from ``-2^(bits-1)`` at ``2 clip / (2^bits - 1 + 2^(bits-1))`` where a tensor has
    negatives (in the published code: where the layer ever saw one). "symmetric" is ours: ``+-(2^(bits-1) - 1)`` at
    ``clip / (2^(bits-1) - 1)``, the clip at most max|x|.

    Args:
        bits: of a code, 2 to 8, to 7 on the published grids; the clip's constants as published are for 4.
        c1, c2: of the clip; (12.1, 12.2) as published.
        grid: "weights" or "activations" as published, or "symmetric".
    """

    bits: int = 4
    c1: float = 12.1
    c2: float = 12.2
    grid: str = "symmetric"
    dtype: ClassVar[torch.dtype] = torch.int8

    def __post_init__(self):
        check_choice("grid", self.grid, GRIDS)
        check_int("bits", self.bits, 2, 8 if self.grid == "symmetric" else 7)
        check_number("c1", self.c1, 0.0)
        check_number("c2", self.c2, 0.0)

    @property
    def lowest(self) -> int:
        return -self.largest if self.grid == "symmetric" else -(1 << (self.bits - 1))

    @property
    def largest(self) -> int:
        half = 1 << (self.bits - 1)
        return {"weights": half, "activations": 2 * half - 1, "symmetric": half - 1}[self.grid]

    def clip(self, x: Tensor) -> Tensor:
        """The magnitude that the grid is spread over; means are in float64, whose order no device shows in float32."""
        top, n = largest_magnitude(x), max(x.numel(), 1)
        norms = [torch.linalg.vector_norm(x, order, dtype=torch.float64) for order in (2, 1)]
        clip = (self.c1 / math.sqrt(n) * norms[0] - self.c2 / n * norms[1]).clamp(max=LARGEST_VALUE).to(x.dtype)
        return torch.where(clip > 0, torch.minimum(clip, top) if self.grid == "symmetric" else clip, top)

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        clip, both = self.clip(x), (self.largest - self.lowest) / 2
        scale = scale_to(clip, both)
        if self.grid == "activations" and x.numel():
            scale = torch.where(x.amin() < 0, scale, scale_to(clip, self.largest / 2))
        scale = scale.clamp(max=LARGEST_VALUE / self.largest)
        return (x / scale).round_().clamp_(self.lowest, self.largest).to(torch.int8), scale


@dataclass(frozen=True)
class LUQ(Quantizer):
    """Logarithmic unbiased quantization of gradients: ``alpha = max|x| / 2^exponents``, then powers of two of it.

    Args:
        exponents: octaves from alpha to the largest magnitude: 6 fill FP4 [1,3,0], the paper's format (a sign, zero
            and seven powers); its text has ``max|x| / 2^(2^(b-1))`` with b = 3, which are 4 octaves, its code
            ``max / 2^(2^3 - 1)``, which are 7, in 5 bits. That code takes the largest number with its sign, and clips
            nothing above it; here it is the largest magnitude.
        below: "stochastic" (pruning: alpha with probability |x| / alpha, else 0) or "flush" (to the nearer of 0 and
            alpha).
        above: "stochastic" (between neighbouring powers, unbiased) or "nearest" (power, by value).
        samples: of the errors of each weight gradient, averaged (SMP of the paper).
        hindsight: in training the largest magnitude is estimated from the steps before (:func:`maximum_in_hindsight`).
        momentum: of that.
    """

    exponents: int = 6
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
