"""LNSTensor: codes, their scale and their format, as a tensor subclass."""

from __future__ import annotations

import torch

from lns_sim.checks import check_choice, check_int
from lns_sim.format import LNSFormat
from lns_sim.policies import UNDERFLOWS
from lns_sim.random import random_state

aten = torch.ops.aten


class LNSTensor(torch.Tensor):
    """A float32 tensor that exists only as codes (spec section 1).

    Made by :func:`lns_sim.quantize`. To autograd and to modules it looks like float32; its memory is ``codes`` and
    ``scale``. Reshaping, transposing, indexing along unscaled dimensions, ``to``, ``clone``, ``detach``, ``copy_``
    and (de)serialization work on codes; arithmetic does not happen behind the user's back: it raises
    NotImplementedError and asks for ``dequantize()``.

    Args:
        codes: uint8 (up to 8 bits) or int16 codes, any shape.
        scale: float32 powers of two, 0-d for the whole tensor, or of the codes' rank with one dimension of the codes'
            size and ones elsewhere.
        format: the codes' format.
    """

    @staticmethod
    def __new__(cls, codes, scale, format, **kwargs):
        return torch.Tensor._make_wrapper_subclass(
            cls, codes.shape, strides=codes.stride(), dtype=torch.float32, device=codes.device, requires_grad=False
        )

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, format: LNSFormat):
        if codes.dtype != format.dtype:
            raise TypeError(f"codes of {format!r} must be {format.dtype}, got {codes.dtype}")
        if scale.dtype != torch.float32:
            raise TypeError(f"scale must be float32, got {scale.dtype}")
        if scale.device != codes.device:
            raise ValueError(f"scale is on {scale.device}, but codes are on {codes.device}")
        ranks_differ = scale.dim() not in (0, codes.dim())
        if ranks_differ or any(s not in (1, n) for s, n in zip(scale.shape, codes.shape)):
            raise ValueError(
                f"scale must be 0-d or {tuple(codes.shape)} with all but one dimension 1, got {tuple(scale.shape)}"
            )
        self.codes = codes
        self.scale = scale
        self.bits, self.gamma = format.bits, format.gamma  # as integers, torch.compile can follow them

    @property
    def format(self) -> LNSFormat:
        """The codes' format."""
        return LNSFormat(self.bits, self.gamma)

    def dequantize(self) -> torch.Tensor:
        """The float32 values, exactly rounded; NaN everywhere if the scale is NaN."""
        return torch.ops.lns_sim.dequantize(self.codes, self.scale, self.format.bits, self.format.gamma)

    def rescale(self, k, underflow: str = "clamp", seed: int | None = None) -> LNSTensor:
        """The same values at scale 2^k: exact integer exponent arithmetic, e + gamma * (k_old - k).

        Codes above e_max clip; codes below 1 follow ``underflow`` as in :func:`lns_sim.quantize`.

        Args:
            k: an integer from -126 to 127, or an integer tensor shaped like ``scale``.
            underflow: "clamp", "flush" or "stochastic".
            seed: see :func:`lns_sim.quantize`.

        Raises:
            ValueError: k is out of range.
        """
        check_choice("underflow", underflow, UNDERFLOWS)
        if not isinstance(k, torch.Tensor):
            check_int("k", k, -126, 127)
            k = torch.full_like(self.scale, k, dtype=torch.int32)
        elif k.shape != self.scale.shape or k.is_floating_point() or bool(((k < -126) | (k > 127)).any()):
            raise ValueError(f"k must hold integers from -126 to 127 in the scale's shape {tuple(self.scale.shape)}")
        scale = torch.where(self.scale.isnan(), self.scale, torch.ldexp(torch.ones_like(self.scale), k))
        rng = random_state(seed, device=self.codes.device) if underflow == "stochastic" else None
        f = self.format
        codes = torch.ops.lns_sim.rescale(
            self.codes, self.scale, scale, f.bits, f.gamma, UNDERFLOWS.index(underflow), rng
        )
        return LNSTensor(codes, scale, f)

    @property
    def k(self) -> torch.Tensor:
        """The scale exponents as int32, shaped like ``scale`` (undefined where the scale is NaN)."""
        return torch.frexp(self.scale).exponent - 1

    # ---- Subclass protocol: what torch.compile, pickling and dispatch need.

    def __tensor_flatten__(self):
        return ["codes", "scale"], (self.format,)

    @classmethod
    def __tensor_unflatten__(cls, inner, context, outer_size, outer_stride):
        return cls(inner["codes"], inner["scale"], *context)

    def _stable_hash_for_caching(self) -> str:
        return repr(self.format)

    def with_inner(self, codes: torch.Tensor, scale: torch.Tensor) -> LNSTensor:
        """A tensor of the same class and settings around other codes."""
        return LNSTensor(codes, scale, self.format)

    def map_inner(self, function, on_codes=None) -> LNSTensor:
        """The same tensor with ``function`` applied to each inner tensor (``on_codes`` to the codes, if given)."""
        return LNSTensor((on_codes or function)(self.codes), function(self.scale), self.format)

    def __repr__(self, *, tensor_contents=None):
        grad = ", requires_grad=True" if self.requires_grad else ""
        # Only a plain scale has a value to show: tracing prints tensors whose inner ones are symbolic.
        known = type(self.scale) is torch.Tensor and self.scale.dim() == 0
        k = f"k={self.k.item()}" if known else f"scale of shape {tuple(self.scale.shape)}"
        return (
            f"{type(self).__name__}(shape={tuple(self.shape)}, {self.format!r}, {k}, device={str(self.device)!r}{grad})"
        )

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        handler = _HANDLERS.get(func)
        if handler is None:
            raise NotImplementedError(
                f"{func} is not defined on the codes of an {cls.__name__}; call .dequantize() for float32 values"
            )
        return handler(func, args, kwargs or {})


_HANDLERS = {}


def implements(*funcs):
    """Registers a handler ``(func, args, kwargs)`` for operators that meet an LNSTensor."""

    def register(handler):
        for func in funcs:
            _HANDLERS[func] = handler
        return handler

    return register


@implements(aten.detach.default, aten.alias.default)
def _same(func, args, kwargs):
    return args[0].map_inner(func)


@implements(aten.clone.default)
def _clone(func, args, kwargs):
    return args[0].map_inner(torch.clone, lambda codes: codes.clone(**kwargs))


@implements(aten._to_copy.default, aten._pin_memory.default)
def _to(func, args, kwargs):
    x = args[0]
    if kwargs.get("dtype", torch.float32) not in (None, torch.float32):
        raise TypeError(f"codes have no {kwargs['dtype']} form; call .dequantize() first")
    moved = {k: v for k, v in kwargs.items() if k in ("device", "non_blocking", "pin_memory", "memory_format")}
    rest = {k: v for k, v in moved.items() if k != "memory_format"}
    return x.map_inner(lambda t: func(t, *args[1:], **rest), lambda codes: func(codes, *args[1:], **moved))


@implements(aten.is_pinned.default)
def _is_pinned(func, args, kwargs):
    return args[0].codes.is_pinned()


# Operators that rearrange dimensions act on a full-rank scale as on the codes.
@implements(aten.t.default, aten.transpose.int, aten.permute.default, aten.unsqueeze.default)
def _rearrange(func, args, kwargs):
    x = args[0]
    scale = x.scale if x.scale.dim() == 0 else func(x.scale, *args[1:], **kwargs)
    return x.with_inner(func(x.codes, *args[1:], **kwargs), scale)


@implements(aten.view.default, aten._unsafe_view.default, aten.reshape.default)
def _view(func, args, kwargs):
    x = args[0]
    if x.scale.numel() > 1 and list(args[1]) != list(x.shape):
        raise TypeError("a tensor with a scale per slice keeps its shape; dequantize() it, or quantize after reshaping")
    return x.with_inner(func(x.codes, *args[1:]), x.scale if x.scale.dim() == 0 else x.scale.reshape(()))


@implements(aten.expand.default)
def _expand(func, args, kwargs):
    x, sizes = args[0], list(args[1])
    scale = x.scale
    if scale.dim():
        scale = scale.reshape([1] * (len(sizes) - scale.dim()) + list(scale.shape))
    return x.with_inner(func(x.codes, sizes, **kwargs), scale)


# Indexing one dimension also indexes the scale if it varies along it.
@implements(aten.slice.Tensor, aten.select.int)
def _index(func, args, kwargs):
    x = args[0]
    dim = args[1] if len(args) > 1 else 0
    codes = func(x.codes, *args[1:], **kwargs)
    scale = x.scale
    if scale.dim():
        if scale.shape[dim] > 1:
            scale = func(scale, *args[1:], **kwargs)
        elif func is aten.select.int:
            scale = scale.squeeze(dim)
        if scale.numel() == 1:
            scale = scale.reshape(())
    return x.with_inner(codes, scale)


@implements(aten.copy_.default)
def _copy(func, args, kwargs):
    to, source = args[0], args[1]
    if not isinstance(to, LNSTensor):  # float32 <- codes
        return to.copy_(source.dequantize())
    if not isinstance(source, LNSTensor):  # codes <- float32: the quantizer decides the scale anew
        dims = [d for d, n in enumerate(to.scale.shape) if n > 1]
        value = source.to(to.device, torch.float32)
        codes = torch.ops.lns_sim.quantize(value, to.bits, to.gamma, dims[0] if dims else None, 0, 0, None)
        source = LNSTensor(*codes, to.format)
    if source.format != to.format:
        raise ValueError(f"cannot copy codes of {source.format!r} into {to.format!r}; dequantize() them first")
    for name in to.__tensor_flatten__()[0]:
        if getattr(source, name, None) is not None:
            getattr(to, name).copy_(getattr(source, name))
    return to


# What makes a parameter's gradients and optimizer states: plain float32 tensors of its shape.
@implements(
    aten.zeros_like.default,
    aten.empty_like.default,
    aten.ones_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)
def _like(func, args, kwargs):
    x = args[0]
    return func(torch.empty(x.shape, dtype=torch.float32, device=x.device), *args[1:], **kwargs)


# Sharded training (FSDP2) cuts a parameter along a dimension, pads the shards, and sees what it gathered by strides.
@implements(aten.split.Tensor)
def _split(func, args, kwargs):
    x, _, dim = args[0], args[1], args[2] if len(args) > 2 else kwargs.get("dim", 0)
    codes = func(x.codes, *args[1:], **kwargs)
    varies = x.scale.dim() > 0 and x.scale.shape[dim] > 1
    return [
        x.with_inner(c, s)
        for c, s in zip(codes, func(x.scale, *args[1:], **kwargs) if varies else [x.scale] * len(codes))
    ]


@implements(aten.new_zeros.default)
def _zero_codes(func, args, kwargs):
    x, size = args[0], list(args[1])
    if x.scale.dim():
        raise TypeError("zeros of a tensor with a scale per slice have no scale; dequantize() it")
    return x.with_inner(x.codes.new_zeros(size, device=kwargs.get("device")), x.scale)


@implements(aten.as_strided.default, aten.constant_pad_nd.default)
def _as_strided(func, args, kwargs):
    x = args[0]
    if x.scale.dim():
        raise TypeError("a tensor with a scale per slice cannot be padded or seen by strides; dequantize() it")
    if func is aten.constant_pad_nd.default and len(args) > 2 and args[2]:
        raise ValueError(f"codes can be padded with zeros only, got {args[2]}")
    return x.with_inner(func(x.codes, *args[1:], **kwargs), x.scale)


def _gather(func, args, kwargs):
    """Of a sharded parameter's codes; the scale is every rank's."""
    x = args[0]
    moved = x.codes if x.codes.dtype == torch.uint8 else x.codes.view(torch.bfloat16)  # which every backend moves
    gathered = torch.ops._c10d_functional.wait_tensor(func(moved, *args[1:], **kwargs))
    return x.with_inner(gathered.view(x.codes.dtype), x.scale)


if torch.distributed.is_available():
    import torch.distributed._functional_collectives  # which registers what a gather calls

    _collectives = torch.ops._c10d_functional
    implements(_collectives.all_gather_into_tensor.default)(_gather)
    implements(_collectives.wait_tensor.default)(lambda func, args, kwargs: args[0])
    if hasattr(_collectives, "_wrap_tensor_autograd"):  # newer versions of torch have it
        implements(_collectives._wrap_tensor_autograd.default)(lambda func, args, kwargs: args[0])


# Data-parallel training flattens parameters into float32 buckets to broadcast them: exact, as every code's value
# quantizes back to it.
@implements(aten.cat.default)
def _cat(func, args, kwargs):
    return func([t.dequantize() if isinstance(t, LNSTensor) else t for t in args[0]], *args[1:], **kwargs)


torch.serialization.add_safe_globals([LNSTensor, LNSFormat])
