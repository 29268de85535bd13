"""FP8: E4M3 or E5M2 (arXiv 2209.05433) in torch's own float8 types, a scale per tensor that puts its largest number, or
that of the steps before, at the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lns_sim.checks import check_choice, check_int
from lns_sim.quantizers.operand import Operand
from lns_sim.quantizers.quantizer import Quantizer, largest_magnitude, scale_to

_DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@dataclass(frozen=True)
class FP8(Quantizer):
    """Round to nearest even after scaling by the largest magnitude: the tensor's own (just-in-time scaling), or with a
    history the largest of the steps before (delayed scaling, as of NVIDIA's Transformer Engine).

    With delayed scaling every operand of every product has a history of its own; a step is scaled by what it holds, 1
    while it holds nothing, and then puts its own largest magnitude in. What a scale cannot hold saturates.

    Args:
        kind: "e4m3" (3 bits of mantissa, to 448) or "e5m2" (2, to 57344).
        history: of so many steps; 0: none. Transformer Engine's is 1024 unless its user says otherwise.
        margin: octaves between the largest magnitude and the top.
    """

    kind: str = "e4m3"
    history: int = 0
    margin: int = 0
    bits: ClassVar[int] = 8
    hardware: ClassVar[str] = "FP8"

    def __post_init__(self):
        check_choice("kind", self.kind, _DTYPES)
        check_int("history", self.history, 0, 1 << 20)
        check_int("margin", self.margin, 0, 16)

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.kind]

    @property
    def keeps(self) -> str | None:
        return "history of maxima" if self.history else None

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        scale = torch.ops.lns_sim.scale_to_largest(x, self._top)
        return self._codes(x, scale), scale

    @property
    def _top(self) -> float:
        """Where the largest magnitude comes to lie."""
        return torch.finfo(self.dtype).max * 2.0**-self.margin

    def _codes(self, x: Tensor, scale: Tensor) -> Tensor:
        return torch.ops.lns_sim.quantize_float8(x, scale, self.kind == "e5m2").view(self.dtype)

    def remembered(self, x: Tensor, rng: Tensor | None, dim: int, memory: dict[str, Tensor], mode: str) -> Operand:
        own = largest_magnitude(x)
        maxima = memory.get("maxima", x.new_zeros(self.history)).to(own.device)[: self.history]
        scale = memory["scale"] if mode == "repeat" else scale_to(maxima.amax(), self._top)
        if mode == "learn":
            kept = maxima[: self.history - 1]
            memory["maxima"] = torch.cat([torch.where(own.isfinite(), own, 0.0).reshape(1), kept])
            memory["scale"] = scale
        scale = torch.where(own.isfinite(), scale, torch.nan)
        return Operand(self._codes(x, scale), scale, self)

    def error_operands(
        self, x: Tensor, rng: Tensor | None, dim: int, memory: dict[str, Tensor]
    ) -> tuple[Operand, Operand]:
        operand = self.remembered(x, rng, dim, memory, "learn") if self.history else self.operand(x, rng, dim)
        return operand, operand

    def value(self, codes: Tensor, scale: Tensor) -> Tensor:
        return torch.ops.lns_sim.dequantize_float8(codes.view(torch.uint8), scale, self.kind == "e5m2")
