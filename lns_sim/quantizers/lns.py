"""LNS codes: logarithms with a sign, at a power-of-two scale (spec sections 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lns_sim.checks import check_choice
from lns_sim.format import LNSFormat
from lns_sim.policies import MOST_SHIFT, ROUNDINGS, UNDERFLOWS, check_thresholds
from lns_sim.quantizers.operand import lies_transposed
from lns_sim.quantizers.quantizer import Quantizer


@dataclass(frozen=True)
class LNS(Quantizer):
    """Codes that datapaths multiply: see :func:`lns_sim.quantize` for the meaning of the fields.

    Raises:
        TypeError, ValueError: a field is of the wrong type or not among the allowed values.
    """

    format: LNSFormat = LNSFormat()
    rounding: str = "nearest"
    underflow: str = "clamp"
    thresholds: tuple[int, ...] | None = None
    hardware = "LNS"

    def __post_init__(self):
        if not isinstance(self.format, LNSFormat):
            raise TypeError(f"format must be an LNSFormat, got {self.format!r}")
        object.__setattr__(self, "thresholds", check_thresholds(self.thresholds, self.format, self.rounding))
        check_choice("rounding", self.rounding, ROUNDINGS)
        check_choice("underflow", self.underflow, UNDERFLOWS)

    @property
    def bits(self) -> int:
        return self.format.bits

    @property
    def dtype(self) -> torch.dtype:
        return self.format.dtype

    @property
    def stochastic(self) -> bool:
        return "stochastic" in (self.rounding, self.underflow)

    @property
    def label(self) -> str:
        return f"{self.bits}-bit gamma {self.format.gamma}"

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        f, policies = self.format, (ROUNDINGS.index(self.rounding), UNDERFLOWS.index(self.underflow))
        return torch.ops.lns_sim.quantize(x, f.bits, f.gamma, None, *policies, rng, self.thresholds or ())

    def quantized_values(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        f, policies = self.format, (ROUNDINGS.index(self.rounding), UNDERFLOWS.index(self.underflow))
        return torch.ops.lns_sim.quantized_values(x, f.bits, f.gamma, *policies, rng, self.thresholds or ())

    def quantize_blocks(self, x: Tensor, rng: Tensor | None, dim: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
        f, policies = self.format, (ROUNDINGS.index(self.rounding), UNDERFLOWS.index(self.underflow))
        return torch.ops.lns_sim.quantize_blocks(
            x, f.bits, f.gamma, dim, block, MOST_SHIFT, *policies, rng, self.thresholds or ()
        )

    def value_of_blocks(self, codes: Tensor, scale: Tensor, shifts: Tensor, dim: int, block: int) -> Tensor:
        f = self.format
        return torch.ops.lns_sim.dequantize_blocks(codes, scale, shifts, dim, block, f.bits, f.gamma)

    def value(self, codes: Tensor, scale: Tensor) -> Tensor:
        bits, gamma = self.format.bits, self.format.gamma
        # As they lie: a GPU copies transposed bytes slowly, and products take transposed values.
        if codes.is_cuda and lies_transposed(codes):
            return torch.ops.lns_sim.dequantize(codes.mT, scale, bits, gamma).mT
        return torch.ops.lns_sim.dequantize(codes, scale, bits, gamma)
