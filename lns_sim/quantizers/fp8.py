"""FP8: E4M3 or E5M2 (arXiv 2209.05433) in torch's own float8 types, a scale per tensor that puts its largest number at
the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lns_sim.checks import check_choice
from lns_sim.quantizers.quantizer import Quantizer, largest_magnitude, scale_to

_DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@dataclass(frozen=True)
class FP8(Quantizer):
    """Round to nearest even after scaling by the tensor's own largest magnitude (just-in-time scaling).

    Args:
        kind: "e4m3" (3 bits of mantissa, to 448) or "e5m2" (2, to 57344).
    """

    kind: str = "e4m3"
    bits: ClassVar[int] = 8
    hardware: ClassVar[str] = "FP8"

    def __post_init__(self):
        check_choice("kind", self.kind, _DTYPES)

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.kind]

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        scale = scale_to(largest_magnitude(x), torch.finfo(self.dtype).max)
        return (x / scale).to(self.dtype), scale

    def value(self, codes: Tensor, scale: Tensor) -> Tensor:
        return widen(codes).mul_(scale)


def widen(codes: Tensor) -> Tensor:
    """Finite float8 numbers in float32: their bits, moved to where float16 has them (torch converts one by one, seven
    times slower).
    """
    if codes.dtype == torch.float8_e5m2:  # the upper half of a float16
        return codes.view(torch.int8).to(torch.int16).bitwise_left_shift_(8).view(torch.float16).float()
    # One exponent bit fewer, and a bias smaller by 8; the sign fills bit 14, too, which is cleared.
    bits = codes.view(torch.int8).to(torch.int16).bitwise_left_shift_(7).bitwise_and_(~(1 << 14))
    return bits.view(torch.float16).float().mul_(256)
