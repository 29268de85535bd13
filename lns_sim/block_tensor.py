"""BlockTensor: codes with a scale for the whole tensor and a small shift for every block along one dimension."""

from __future__ import annotations

import torch

from lns_sim.checks import check_int
from lns_sim.format import LNSFormat
from lns_sim.tensor import LNSTensor

aten = torch.ops.aten


class BlockTensor(LNSTensor):
    """An :class:`lns_sim.LNSTensor` with block scales (spec section 8): ``lns_sim.quantize(x, dim=d, block=B)``.

    A code of block i along ``block_dim`` is worth ``(-1)^s * 2^(e / gamma) * 2^(k - shifts[i])``. Dimensions may be
    rearranged, and indexed or sliced where no blocks lie; ``to``, ``clone``, ``detach``, pickles and ``torch.save``
    keep it whole. All else is refused: ``dequantize()`` it.

    Args:
        codes: uint8 (up to 8 bits) or int16 codes, any shape.
        scale: 0-d float32, a power of two.
        format: the codes' format.
        shifts: uint8 of the codes' shape, but ``ceil(n / block)`` for ``block_dim``'s n: octaves under the scale.
        block_dim: along which blocks lie.
        block: elements of a block; the last may have fewer.

    Raises:
        TypeError, ValueError: dtypes, shapes or devices do not fit.
    """

    @staticmethod
    def __new__(cls, codes, scale, format, shifts, block_dim, block):
        return LNSTensor.__new__(cls, codes, scale, format)

    def __init__(
        self,
        codes: torch.Tensor,
        scale: torch.Tensor,
        format: LNSFormat,
        shifts: torch.Tensor,
        block_dim: int,
        block: int,
    ):
        super().__init__(codes, scale, format)
        if scale.dim():
            raise ValueError(f"a tensor with blocks has one scale, got {tuple(scale.shape)}")
        check_int("block", block, 1, None)
        check_int("block_dim", block_dim, 0, codes.dim() - 1)
        expected = list(codes.shape)
        expected[block_dim] = -(-expected[block_dim] // block)
        if shifts.dtype != torch.uint8 or list(shifts.shape) != expected or shifts.device != codes.device:
            raise ValueError(
                f"shifts must be uint8 of shape {tuple(expected)} on {codes.device}, got {shifts.dtype} of "
                f"{tuple(shifts.shape)} on {shifts.device}"
            )
        self.shifts, self.block_dim, self.block = shifts, block_dim, block

    def decoded(self) -> torch.Tensor:
        f = self.bits, self.gamma
        return torch.ops.lns_sim.dequantize_blocks(self.codes, self.scale, self.shifts, self.block_dim, self.block, *f)

    def rescale(self, k, underflow: str = "clamp", seed: int | None = None) -> LNSTensor:
        """Refused: each block has its own scale.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a tensor with block scales keeps them: dequantize() it and quantize anew")

    def __tensor_flatten__(self):
        return ["codes", "scale", "shifts"], (self.format, self.block_dim, self.block)

    @classmethod
    def __tensor_unflatten__(cls, inner, context, outer_size, outer_stride):
        format, block_dim, block = context
        return cls(inner["codes"], inner["scale"], format, inner["shifts"], block_dim, block)

    def _stable_hash_for_caching(self) -> str:
        return repr(self.__tensor_flatten__()[1])

    def with_inner(self, codes: torch.Tensor, scale: torch.Tensor) -> LNSTensor:
        raise NotImplementedError("a tensor with block scales is written to as a whole: quantize anew")

    def map_inner(self, function, on_codes=None) -> LNSTensor:
        codes = (on_codes or function)(self.codes)
        return self._with(codes, function(self.shifts), self.block_dim, function(self.scale))

    def _with(self, codes, shifts, block_dim: int, scale=None) -> BlockTensor:
        scale = self.scale if scale is None else scale
        return BlockTensor(codes, scale, self.format, shifts, block_dim, self.block)

    def _attributes(self) -> dict:
        own = {"shifts", "block_dim", "block"}
        return {name: value for name, value in super()._attributes().items() if name not in own}

    def __repr__(self, *, tensor_contents=None):
        return super().__repr__()[:-1] + f", blocks of {self.block} along dim {self.block_dim})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in _KEPT:
            return super().__torch_dispatch__(func, types, args, kwargs)
        place = _PLACES.get(func)
        if place is None or not isinstance(args[0], BlockTensor):
            decomposed = func.decompose(*args, **(kwargs or {}))
            return cls.leave(func, args, kwargs) if decomposed is NotImplemented else decomposed
        x, rest = args[0], args[1:]
        dim = place(x, *rest, **(kwargs or {}))
        if dim is None:
            raise NotImplementedError(
                f"{func} would cut the blocks along dim {x.block_dim}: dequantize() the tensor, and quantize its parts"
            )
        return x._with(func(x.codes, *rest, **(kwargs or {})), func(x.shifts, *rest, **(kwargs or {})), dim)

    @classmethod
    def leave(cls, func, args, kwargs):
        raise NotImplementedError(
            f"{func} is not defined on codes with block scales; call .dequantize() for float32 values"
        )


_KEPT = {
    aten.detach.default,
    aten.alias.default,
    aten.clone.default,
    aten._to_copy.default,
    aten._pin_memory.default,
    aten.is_pinned.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}


# Where the blocks' dimension goes; None: it would be cut.


def _exchanged(x, a=0, b=1):
    a, b = a % x.dim(), b % x.dim()
    return {a: b, b: a}.get(x.block_dim, x.block_dim)


def _turned(x):
    return x.block_dim if x.dim() < 2 else 1 - x.block_dim


def _permuted(x, dims):
    return [d % x.dim() for d in dims].index(x.block_dim)


def _widened(x, dim):
    return x.block_dim + (dim % (x.dim() + 1) <= x.block_dim)


def _sliced(x, dim=0, start=None, end=None, step=1):
    whole = (start or 0) == 0 and (end is None or end >= x.shape[dim]) and step == 1
    return x.block_dim if dim % x.dim() != x.block_dim or whole else None


def _selected(x, dim, index):
    dim %= x.dim()
    return None if dim == x.block_dim else x.block_dim - (dim < x.block_dim)


_PLACES = {
    aten.t.default: _turned,
    aten.transpose.int: _exchanged,
    aten.permute.default: _permuted,
    aten.unsqueeze.default: _widened,
    aten.slice.Tensor: _sliced,
    aten.select.int: _selected,
}

torch.serialization.add_safe_globals([BlockTensor])
