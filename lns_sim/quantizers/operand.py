"""An operand of products: codes, their scale, and the quantizer that knows what they stand for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from lns_sim.format import LNSFormat


class Decoder(Protocol):
    """What an operand asks of its quantizer."""

    format: LNSFormat | None
    largest: int | None

    def value(self, codes: Tensor, scale: Tensor) -> Tensor: ...


class Operand(NamedTuple):
    """Codes of any shape, their 0-d scale, and their quantizer; without one, float32 numbers at scale 1."""

    codes: Tensor
    scale: Tensor
    quantizer: Decoder | None

    @property
    def format(self) -> LNSFormat | None:
        """The format of LNS codes, as datapaths take them; None of other codes."""
        return None if self.quantizer is None else self.quantizer.format

    @property
    def largest(self) -> int | None:
        """The largest magnitude of integer codes; None: they are none."""
        return None if self.quantizer is None else self.quantizer.largest

    @property
    def value(self) -> Tensor:
        """What the codes stand for, in float32."""
        return self.codes if self.quantizer is None else self.quantizer.value(self.codes, self.scale)

    def with_codes(self, codes: Tensor) -> Operand:
        """The same codes in another order."""
        return Operand(codes, self.scale, self.quantizer)

    @property
    def mT(self) -> Operand:
        """The last two dimensions exchanged."""
        return self.with_codes(self.codes.mT)
