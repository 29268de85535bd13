"""What all quantizers have in common: a tensor kind becomes codes, which with one scale are values again."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lns_sim import _caches
from lns_sim.format import LNSFormat
from lns_sim.quantizers.operand import Operand
from lns_sim.registry import QUANTIZERS


class Quantizer:
    """How one kind of tensor becomes codes, in a :class:`lns_sim.recipes.Recipe`.

    Subclasses are frozen dataclasses of plain fields. A recipe file, a checkpoint and a report know them by their
    class' name, under which each registers itself. A subclass gives ``bits``, ``dtype`` and :meth:`quantize`, and
    overrides what else differs.

    Attributes:
        bits: of a code.
        dtype: of the codes.
        format: the LNS format of codes that datapaths take; None: products run on the codes' values.
        largest: the largest magnitude of integer codes, whose products are exact; None: the values are multiplied
            in float32.
        stochastic: does it draw random bits?
        keeps: what it keeps from step to step for each product, as an error message calls it; None: nothing.
        hardware: the energy model's name of such products' hardware (:data:`lns_sim.studies.energy.FORMATS`); None:
            none.
    """

    bits: int
    dtype: ClassVar[torch.dtype]
    format: LNSFormat | None = None
    largest: int | None = None
    stochastic: bool = False
    keeps: str | None = None
    hardware: str | None = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        QUANTIZERS.register(cls.__name__, cls)
        torch.serialization.add_safe_globals([cls])
        if cls.__module__.partition(".")[0] != "lns_sim":  # whose own sources are known
            _caches.follow_module(cls.__module__)

    @property
    def label(self) -> str:
        """How tables call its codes."""
        return f"{self.bits}-bit {type(self).__name__}"

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        """Codes of x's shape and a 0-d float32 scale.

        Args:
            x: float32.
            rng: the random state, where it is stochastic.
            dim: along which channels lie.
        """
        raise NotImplementedError

    def value(self, codes: Tensor, scale: Tensor) -> Tensor:
        """What the codes stand for, in float32."""
        return codes.to(torch.float32) * scale

    def quantized_values(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        """What the codes of :meth:`quantize` stand for instead of them, and the scale."""
        operand = self.operand(x, rng, dim)
        return operand.value, operand.scale

    def quantize_blocks(self, x: Tensor, rng: Tensor | None, dim: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, the tensor's scale, and the octaves by which that of every block along ``dim`` lies under it (uint8).

        A quantizer that does not override it knows no block scales.

        Args:
            x, rng: as of :meth:`quantize`.
            dim: along which blocks lie, counted from the first.
            block: elements that share a scale.
        """
        raise NotImplementedError

    def value_of_blocks(self, codes: Tensor, scale: Tensor, shifts: Tensor, dim: int, block: int) -> Tensor:
        """What the codes of :meth:`quantize_blocks` stand for, in float32."""
        own = (scale.to(torch.float64) * torch.exp2(-shifts.to(torch.float64))).to(torch.float32)
        return self.value(codes, own.repeat_interleave(block, dim).narrow(dim, 0, codes.shape[dim]))

    def operand(self, x: Tensor, rng: Tensor | None, dim: int) -> Operand:
        """:meth:`quantize`, as an operand of products."""
        return Operand(*self.quantize(x, rng, dim), self)

    def remembered(self, x: Tensor, rng: Tensor | None, dim: int, memory: dict[str, Tensor], mode: str) -> Operand:
        """:meth:`operand` of an activation or a weight, of a quantizer that keeps something of them between steps.

        Args:
            x, rng, dim: as of :meth:`quantize`.
            memory: what this operand of the product left in the steps before, and may leave. It is kept in checkpoints.
            mode: "learn" in training; "read": leaves nothing; "repeat": leaves nothing, and quantizes as the last time.
        """
        raise NotImplementedError

    def error_operands(
        self, x: Tensor, rng: Tensor | None, dim: int, memory: dict[str, Tensor]
    ) -> tuple[Operand, Operand]:
        """An error (the gradient of a layer's output) as the input gradient multiplies it, and as the weight gradient
        does.

        Args:
            x, rng, dim: as of :meth:`quantize`. The random bits of elements beyond x's are free to draw from, too.
            memory: where ``keeps`` says so: what the product's errors left here in the steps before, and may leave.
                It is kept in checkpoints.
        """
        operand = self.operand(x, rng, dim)
        return operand, operand


def largest_magnitude(x: Tensor) -> Tensor:
    """max|x|, 0-d; 0 of nothing, NaN where x has one."""
    return torch.ops.lns_sim.largest_magnitude(x)


def integer_dtype(largest: int) -> torch.dtype:
    """Of integer codes up to that magnitude."""
    return torch.int8 if largest < 128 else torch.int16


# No scale is smaller: a subnormal one holds too few bits to bring the largest magnitude to where codes end.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
# Of a scale times the largest code: at most this before rounding, so that float32 holds it.
LARGEST_VALUE = 2.0**128 - 2.0**105


def scale_to(top: Tensor, largest: float) -> Tensor:
    """The scale at which ``top`` is ``largest``, 2^-126 at least; 1 for an all-zero tensor, NaN where top is not
    finite.
    """
    scale = (top / largest).clamp(SMALLEST_SCALE, LARGEST_VALUE / largest)
    return torch.where(top == 0, 1.0, torch.where(top.isfinite(), scale, torch.nan))
