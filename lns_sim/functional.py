"""The public functions on LNSTensors: quantize, matmul, conv2d. They check arguments and call the operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal, overload

import torch
from torch import Tensor

from lns_sim import contract
from lns_sim._compile import constant_result
from lns_sim.block_tensor import BlockTensor
from lns_sim.checks import check_choice, check_int
from lns_sim.contract import DATAPATH
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath, Counters, check_datapath
from lns_sim.format import LNSFormat
from lns_sim.policies import MOST_SHIFT, ROUNDINGS, UNDERFLOWS, check_thresholds
from lns_sim.random import random_state
from lns_sim.tensor import LNSTensor, known


def _without_gradient(name: str, x: torch.Tensor) -> None:
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name} requires grad, but quantize, matmul and conv2d have no gradients: give {name}.detach(), or use "
            "layers of lns_sim.convert or torch's functions inside lns_sim.simulate"
        )


def quantize(
    x: torch.Tensor,
    format: LNSFormat = LNSFormat(),
    dim: int | None = None,
    rounding: str = "nearest",
    underflow: str = "clamp",
    seed: int | None = None,
    step: int = 0,
    tensor_id: int = 0,
    thresholds: Sequence[int] | None = None,
    block: int | None = None,
    most: int = MOST_SHIFT,
) -> LNSTensor:
    """float32 to codes with a power-of-two scale chosen so that the largest magnitude does not clip (spec section 2).

    It has no gradient: training is that of converted models, or of products inside :class:`lns_sim.simulate`.

    Args:
        x: float32, any shape.
        format: the codes' format.
        dim: None for one scale, or the dimension along which each slice gets its own; with ``block`` along which blocks
            lie.
        rounding: "nearest" (in log space) or "stochastic" (between neighbouring codes, unbiased in value).
        underflow: magnitudes below code 1 "clamp" to it, "flush" to zero, or become it with probability
            |x| / (value of code 1) ("stochastic").
        seed, step, tensor_id: the random stream, read by the stochastic policies; without a seed one is drawn from
            torch's generator, so ``torch.manual_seed`` governs it.
        thresholds: of a converter that differs from the spec's (section 2), gamma integers t_j from 2^23 to 2^24 -
            1, at least 2^22 / gamma apart: a 24-bit mantissa rounds up past step j if it is larger than t_j. For
            rounding to nearest.
        block: elements along ``dim`` that share a shift: one scale is chosen for the tensor, and each block's codes are
            taken at 2^-s times it, s being the largest shift at which none of them clips (spec section 8).
        most: the largest shift, 0 to 127.

    Returns:
        LNSTensor of x's shape, a :class:`lns_sim.BlockTensor` with ``block``. If x holds NaN or Inf its scale (or the
        slice's) is NaN, and so is all made of it.

    Raises:
        TypeError: x is not a float32 tensor.
        ValueError: x requires grad, or another argument is out of range.
    """
    if not isinstance(x, torch.Tensor) or isinstance(x, LNSTensor) or x.dtype != torch.float32:
        got = x.dtype if isinstance(x, torch.Tensor) and not isinstance(x, LNSTensor) else type(x).__name__
        raise TypeError(f"x must be a float32 tensor, got {got}")
    _without_gradient("x", x)
    if not isinstance(format, LNSFormat):
        raise TypeError(f"format must be an LNSFormat, got {format!r}")
    if dim is not None:
        if x.dim() == 0:
            raise ValueError("dim must be None for a 0-d tensor")
        check_int("dim", dim, -x.dim(), x.dim() - 1)
        dim %= x.dim()
    check_choice("rounding", rounding, ROUNDINGS)
    check_choice("underflow", underflow, UNDERFLOWS)
    thresholds = check_thresholds(thresholds, format, rounding)
    rng = None
    if "stochastic" in (rounding, underflow):
        rng = random_state(seed, step, tensor_id, x.device)
    if block is not None:
        if dim is None:
            raise ValueError("block needs dim, the dimension along which the blocks lie")
        check_int("block", block, 1, None)
        check_int("most", most, 0, 127)
        policies = ROUNDINGS.index(rounding), UNDERFLOWS.index(underflow), rng, thresholds or ()
        of_blocks = torch.ops.lns_sim.quantize_blocks(x, format.bits, format.gamma, dim, block, most, *policies)
        return BlockTensor(of_blocks[0], of_blocks[1], format, of_blocks[2], dim, block)
    if most != MOST_SHIFT:
        raise ValueError("most is of the shifts of blocks, and would change nothing without block")
    codes, scale = torch.ops.lns_sim.quantize(
        x, format.bits, format.gamma, dim, ROUNDINGS.index(rounding), UNDERFLOWS.index(underflow), rng, thresholds or ()
    )
    return LNSTensor(codes, scale, format)


@cache
def _encoded_default(*formats: tuple[int, int]) -> tuple[int, ...]:
    return tuple(Datapath(LNSFormat.holding(*(LNSFormat(*f) for f in formats))).encode())


@constant_result
def _default_datapath(*formats: tuple[int, int]) -> list[int]:
    """The encoding of the default datapath of the smallest format that holds all of (bits, gamma)."""
    return list(_encoded_default(*formats))


def _check_scale(name: str, t: LNSTensor) -> None:
    """Raises ValueError for a scale that is neither 2^k nor NaN; a GPU would have to be waited for."""
    if torch.compiler.is_compiling() or not known(t) or t.scale.is_cuda:
        return
    for scale in set(t.scale.flatten().tolist()):
        mantissa, exponent = math.frexp(scale)
        if not math.isnan(scale) and (mantissa != 0.5 or not -126 < exponent <= 128):
            raise ValueError(f"the scale of {name} must hold powers of two from 2^-126 to 2^127, got {scale:g}")


def _check_operands(datapath: AnyDatapath | None, **operands: LNSTensor) -> list[int]:
    """The operators' encoding of the datapath that takes both operands."""
    (name_a, a), (name_b, b) = operands.items()
    for name, t in operands.items():
        if not isinstance(t, LNSTensor):
            raise TypeError(f"{name} must be an LNSTensor (see lns_sim.quantize), got {type(t).__name__}")
        _without_gradient(name, t)
        _check_scale(name, t)
    if datapath is None:
        encoded = _default_datapath((a.bits, a.gamma), (b.bits, b.gamma))
    else:
        check_datapath(datapath)
        encoded = datapath.encode()
    bits, gamma = encoded[1:3] if encoded[0] == contract.LOG_MARKER else encoded[:2]
    for name, t in operands.items():  # in integers, which torch.compile can follow
        if t.gamma > gamma or ((1 << t.bits - 1) - 1) * (gamma // t.gamma) >= 1 << bits - 1:
            LNSFormat(bits, gamma).check_holds(name, t.format)
    if a.device != b.device:
        raise ValueError(f"{name_a} is on {a.device}, but {name_b} is on {b.device}")
    return encoded


def _block_of(encoded: list[int], dims: dict[str, tuple[LNSTensor, int]]) -> int:
    """The length of the operands' blocks, 0 where neither has any; ``dims`` gives each operand's dimension of K."""
    found = {}
    for name, (t, dim) in dims.items():
        if isinstance(t, BlockTensor):
            if t.block_dim != dim:
                raise ValueError(f"{name} has blocks along dim {t.block_dim}, but K runs along dim {dim}")
            found[name] = t.block
    if not found:
        return 0
    if encoded[0] == contract.LOG_MARKER:
        raise ValueError(f"{next(iter(found))} has blocks along K, which a LogDatapath has no shifts for")
    blocks, vector_size = set(found.values()), encoded[DATAPATH.index("vector_size")]
    if len(blocks) > 1:
        raise ValueError(f"both operands' blocks must be equally long, got {' and '.join(map(str, found.values()))}")
    for block in blocks:
        if block % vector_size:
            raise ValueError(
                f"blocks of {block} elements along K are no multiple of the datapath's vector_size = {vector_size}"
            )
    return blocks.pop()


def _shifts(*operands: LNSTensor) -> list[torch.Tensor | None]:
    return [t.shifts if isinstance(t, BlockTensor) else None for t in operands]


def _scale_like(x: LNSTensor) -> torch.Tensor:
    return x.scale.reshape([1] * x.dim()) if x.scale.dim() == 0 else x.scale


def _results(out, macs: int, counters, datapath: AnyDatapath | None, count: bool):
    return (out, Counters.from_tensor(macs, counters, datapath or Datapath())) if count else out


@overload
def matmul(
    a: LNSTensor,
    b: LNSTensor,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    counters: Literal[False] = False,
) -> Tensor: ...


@overload
def matmul(
    a: LNSTensor,
    b: LNSTensor,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    *,
    counters: Literal[True],
) -> tuple[Tensor, Counters]: ...


@overload
def matmul(
    a: LNSTensor,
    b: LNSTensor,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    counters: bool = False,
) -> Tensor | tuple[Tensor, Counters]: ...


def matmul(
    a: LNSTensor,
    b: LNSTensor,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    counters: bool = False,
):
    """a @ b with every dot product on the datapath (spec sections 3 and 4), without gradients.

    Args:
        a: shape (..., M, K). Its scale must not vary along K, but for blocks along K, a multiple of the datapath's
            ``vector_size`` long.
        b: shape (..., K, N), batch dimensions broadcast with a's. Its scale, likewise.
        datapath: whose format holds both operands' (:meth:`lns_sim.LNSFormat.holds`); None for the default one of the
            smallest such format.
        return_accumulator: return the int32 accumulators instead of their float32 values.
        counters: also return a :class:`Counters`.

    Returns:
        float32 (or int32) of shape (..., M, N); with ``counters`` a pair of that and the counters.

    Raises:
        TypeError: an operand is not an LNSTensor.
        ValueError: an operand requires grad, or shapes, scales, formats or devices do not fit; the message says which
            and how.
    """
    encoded = _check_operands(datapath, a=a, b=b)
    for name, t in (("a", a), ("b", b)):
        if t.dim() < 2:
            raise ValueError(f"{name} must have at least 2 dimensions, got shape {tuple(t.shape)}")
    (m, k), (k_b, n) = a.shape[-2:], b.shape[-2:]
    if k != k_b:
        raise ValueError(f"a's last dimension K = {k} must be b's last but one, got b of shape {tuple(b.shape)}")
    if k == 0:
        raise ValueError("K is empty: a dot product needs at least one element")
    a_scale, b_scale = _scale_like(a), _scale_like(b)
    if a_scale.shape[-1] != 1 or b_scale.shape[-2] != 1:
        name = "a" if a_scale.shape[-1] != 1 else "b"
        raise ValueError(f"the scale of {name} varies along K; quantize with dim=None or another dim")
    try:
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"batch dimensions {tuple(a.shape[:-2])} of a and {tuple(b.shape[:-2])} of b do not broadcast"
        ) from None
    block = _block_of(encoded, {"a": (a, a.dim() - 1), "b": (b, b.dim() - 2)})
    shifts = [s if s is None else s.expand(*batch, *s.shape[-2:]) for s in _shifts(a, b)]
    out, counts = torch.ops.lns_sim.matmul(
        a.codes.expand(*batch, m, k),
        a_scale.expand(*batch, m, 1),
        b.codes.expand(*batch, k, n),
        b_scale.expand(*batch, 1, n),
        a.bits,
        b.bits,
        encoded,
        return_accumulator,
        counters,
        a.gamma,
        b.gamma,
        *shifts,
        block,
    )
    return _results(out, out.numel() * k, counts, datapath, counters)


def _several(name: str, value, n: int, low: int) -> list[int]:
    values = [value] * n if not isinstance(value, (tuple, list)) else list(value)
    if len(values) != n:
        raise ValueError(f"{name} must be an integer or {n} of them, got {value!r}")
    for v in values:
        check_int(name, v, low, None)
        if v >= 1 << 28:
            raise ValueError(f"{name} must be less than 2^28, got {v}")
    return values


def conv_geometry(x_shape, w_shape, stride, padding, dilation, groups):
    """Checked (stride, padding, dilation) of a convolution, one each per spatial dimension of w.

    Raises:
        TypeError, ValueError: anything that does not fit.
    """
    n = len(w_shape) - 2
    if len(x_shape) != n + 2:
        raise ValueError(f"x and w must have as many dimensions, got {tuple(x_shape)} and {tuple(w_shape)}")
    stride, padding, dilation = (
        _several(*of) for of in (("stride", stride, n, 1), ("padding", padding, n, 0), ("dilation", dilation, n, 1))
    )
    check_int("groups", groups, 1, None)
    if x_shape[1] != w_shape[1] * groups or w_shape[0] % groups:
        raise ValueError(
            f"groups = {groups} does not fit {x_shape[1]} input channels and a weight of shape {tuple(w_shape)}"
        )
    if 0 in w_shape[1:]:
        raise ValueError(f"K is empty: the weight's shape is {tuple(w_shape)}")
    for size, kernel, p, d in zip(x_shape[2:], w_shape[2:], padding, dilation):
        if size + 2 * p < d * (kernel - 1) + 1:
            raise ValueError(
                f"the kernel (size {kernel}, dilation {d}) is larger than the padded input ({size + 2 * p})"
            )
    return stride, padding, dilation


def transposed_geometry(x_shape, w_shape, stride, padding, output_padding, dilation, groups) -> None:
    """Checks a transposed convolution of x (N, C, *size) with w (C, O / groups, *kernel).

    Raises:
        TypeError, ValueError: anything that does not fit.
    """
    n = len(w_shape) - 2
    lists = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    for name, values in lists.items():
        _several(name, values, n, 1 if name in ("stride", "dilation") else 0)
    check_int("groups", groups, 1, None)
    if len(x_shape) != n + 2 or x_shape[1] != w_shape[0] or w_shape[0] % groups:
        raise ValueError(
            f"groups = {groups} and a weight of shape {tuple(w_shape)} do not fit an input of shape {tuple(x_shape)}"
        )
    for size, kernel, s, p, e, d in zip(x_shape[2:], w_shape[2:], stride, padding, output_padding, dilation):
        if e >= max(s, d):
            raise ValueError(f"output_padding must be smaller than stride or dilation, got {e}")
        if (size - 1) * s - 2 * p + d * (kernel - 1) + e + 1 < 1:
            raise ValueError(f"an input of size {size} leaves no output (kernel {kernel}, padding {p})")


_Pair = int | Sequence[int]


@overload
def conv2d(
    x: LNSTensor,
    w: LNSTensor,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    counters: Literal[False] = False,
) -> Tensor: ...


@overload
def conv2d(
    x: LNSTensor,
    w: LNSTensor,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    *,
    counters: Literal[True],
) -> tuple[Tensor, Counters]: ...


@overload
def conv2d(
    x: LNSTensor,
    w: LNSTensor,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    counters: bool = False,
) -> Tensor | tuple[Tensor, Counters]: ...


def conv2d(
    x: LNSTensor,
    w: LNSTensor,
    stride=1,
    padding=0,
    dilation=1,
    groups: int = 1,
    datapath: AnyDatapath | None = None,
    return_accumulator: bool = False,
    counters: bool = False,
):
    """2-D convolution with every output a dot product on the datapath over (kh, kw, channel), channel fastest; without
    gradients.

    Args:
        x: shape (N, C, H, W); one scale, or one per image (dim 0), or blocks along channels (dim 1).
        w: shape (O, C / groups, kh, kw); one scale, or one per output channel (dim 0), or blocks along channels (dim
            1). With blocks C / groups is a multiple of their length: fill up channels with zeros.
        stride, padding, dilation: integers or pairs; padding is zero codes.
        groups: blocked connections from input to output channels.
        datapath, return_accumulator, counters: as in :func:`matmul`.

    Returns:
        float32 (or int32) of shape (N, O, H', W'); with ``counters`` a pair of that and the counters.

    Raises:
        TypeError, ValueError: as :func:`matmul`.
    """
    encoded = _check_operands(datapath, x=x, w=w)
    if x.dim() != 4 or w.dim() != 4:
        raise ValueError(f"x and w must have 4 dimensions, got {tuple(x.shape)} and {tuple(w.shape)}")
    stride, padding, dilation = conv_geometry(x.shape, w.shape, stride, padding, dilation, groups)
    for name, t in (("x", x), ("w", w)):
        if any(n > 1 for n in t.scale.shape[1:]):
            raise ValueError(f"the scale of {name} varies along K; quantize with dim=None or dim=0")
    block = _block_of(encoded, {"x": (x, 1), "w": (w, 1)})
    if block and w.shape[1] % block:
        raise ValueError(
            f"a group's {w.shape[1]} channels are no multiple of blocks of {block}: fill both sides up with zeros"
        )
    out, counts = torch.ops.lns_sim.conv2d(
        x.codes,
        x.scale,
        w.codes,
        w.scale,
        x.bits,
        w.bits,
        stride,
        padding,
        dilation,
        groups,
        encoded,
        return_accumulator,
        counters,
        x.gamma,
        w.gamma,
        *_shifts(x, w),
        block,
    )
    return _results(out, out.numel() * w.shape[1:].numel(), counts, datapath, counters)
