"""LNSTensor: codes, their scale and their format, as a tensor subclass."""

from __future__ import annotations

import copy

import torch

from lns_sim._compile import never_alone
from lns_sim.checks import check_choice, check_int
from lns_sim.float_memory import FloatMemory
from lns_sim.format import LNSFormat
from lns_sim.policies import UNDERFLOWS
from lns_sim.random import random_state

aten = torch.ops.aten


class LNSTensor(FloatMemory, torch.Tensor):
    """A float32 tensor that exists only as codes (spec section 1).

    Made by :func:`lns_sim.quantize`. To autograd and to modules it looks like float32; its memory is ``codes`` and
    ``scale``. Reshaping, transposing, indexing along unscaled dimensions, ``to``, ``clone``, ``detach``, ``copy_``
    and (de)serialization work on codes; arithmetic does not happen behind the user's back: it raises
    NotImplementedError and asks for ``dequantize()``.

    Written to (by ``copy_``, or as a view by ``x[2] = ...``) it quantizes anew: it keeps its scale where that holds all
    values exactly, else the quantizer chooses one. Views share codes and scale.

    Args:
        codes: uint8 (up to 8 bits) or int16 codes, any shape.
        scale: float32 powers of two 2^k (products on a CPU refuse others), 0-d for the whole tensor, or of the codes'
            rank with one dimension of the codes' size and ones elsewhere.
        format: the codes' format.
    """

    finite = False  # must its values be?
    shard = False  # is the scale other ranks', too?

    @staticmethod
    def __new__(cls, codes, scale, format, **kwargs):
        out = torch.Tensor._make_wrapper_subclass(
            cls, codes.shape, codes.stride(), dtype=torch.float32, device=codes.device, storage_size=0
        )
        torch._C._set_throw_on_mutable_data_ptr(out)  # an error for C++ that would read its null pointer
        return out

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
        """The float32 values, exactly rounded; NaN everywhere if the scale is NaN. Their gradient is this tensor's."""
        if self.requires_grad and torch.is_grad_enabled():
            return torch.ops.lns_sim.values(self)
        return decode(self)

    def decoded(self) -> torch.Tensor:
        """The float32 values, without autograd."""
        return torch.ops.lns_sim.dequantize(self.codes, self.scale, self.bits, self.gamma)

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
        power = (k.int() + 127 << 23).view(torch.float32)  # 2^k by its bits
        scale = torch.where(self.scale.isnan(), self.scale, power)
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

    @property
    def data(self) -> LNSTensor:
        """The same codes without autograd. Assigned to, it takes over another tensor's codes, or a float32 tensor's.

        Raises:
            ValueError: codes of another format are assigned.
        """
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, LNSTensor):
            value = encode(value, self)
        if value.format != self.format:
            raise ValueError(f"codes of {value.format!r} cannot be those of {self.format!r}; dequantize() them first")
        taken = self.with_inner(value.codes, value.scale)
        torch.Tensor.data.__set__(self, taken)  # sizes, strides, device
        for name in self.__tensor_flatten__()[0]:
            setattr(self, name, getattr(value, name, getattr(self, name)))

    # ---- Subclass protocol: what torch.compile, copies, pickling and dispatch need.

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

    def _attributes(self) -> dict:
        """What users and modules have written on it."""
        own = {"codes", "scale", "bits", "gamma", "recipe", "rng", "shard", *FloatMemory.ATTRIBUTES}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __reduce_ex__(self, protocol):
        names, context = self.__tensor_flatten__()
        inner = {name: getattr(self, name) for name in names}
        return rebuild, (type(self), inner, context, self.requires_grad, self._attributes())

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            raise RuntimeError("only leaves of a graph can be deep-copied; detach() the tensor first")
        if id(self) not in memo:
            copied = memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
            copied.__dict__.update(copy.deepcopy(self._attributes(), memo))
            copied.grad = copy.deepcopy(self.grad, memo)
        return memo[id(self)]

    def __repr__(self, *, tensor_contents=None):
        grad = ", requires_grad=True" if self.requires_grad else ""
        k = f"scale of {tuple(self.scale.shape)}"
        if known(self) and self.scale.dim() == 0:
            k = f"k={self.k.item()}" if self.scale.isfinite() else f"scale={self.scale.item()}, so that all is NaN"
        return (
            f"{type(self).__name__}(shape={tuple(self.shape)}, {self.format!r}, {k}, device={str(self.device)!r}{grad})"
        )

    def __format__(self, spec: str) -> str:
        """A single number takes a number's format, as of other tensors."""
        return format(self.item(), spec) if spec and not self.dim() else super().__format__(spec)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        handler, kwargs = _HANDLERS.get(func), kwargs or {}
        if handler is None:
            decomposed = func.decompose(*args, **kwargs)  # in inference mode nobody did before
            return cls.leave(func, args, kwargs) if decomposed is NotImplemented else decomposed
        if torch.is_inference_mode_enabled() and func.is_view and not args[0].is_inference():
            with torch.inference_mode(False):  # as torch has it, a view of an ordinary tensor is one
                out = handler(func, args, kwargs)
        else:
            out = handler(func, args, kwargs)
        x = args[0]
        if isinstance(x, LNSTensor) and (x.readable or x.shard):
            for y in out if isinstance(out, list) else [out]:
                if isinstance(y, LNSTensor):
                    y.readable, y.shard = x.readable, x.shard
        return out

    @classmethod
    def leave(cls, func, args, kwargs):
        """An operator that codes do not know.

        Raises:
            NotImplementedError: always; a weight has values for it.
        """
        raise NotImplementedError(
            f"{func} is not defined on the codes of an {cls.__name__}; call .dequantize() for float32 values"
        )


# Where a compiler gives up a frame and runs it as it is, this would be compiled as a frame of its own, and break.
never_alone(LNSTensor.__torch_dispatch__.__func__)


def rebuild(cls, inner: dict, context: tuple, requires_grad: bool, attributes: dict) -> LNSTensor:
    """A tensor out of a pickle or file."""
    out = cls.__tensor_unflatten__(inner, context, None, None).requires_grad_(requires_grad)
    out.__dict__.update(attributes)
    out.readable = True
    return out


# ---- Codes and values.


def decode(x: LNSTensor) -> torch.Tensor:
    """The float32 values, without autograd."""
    return x.decoded()


def known(x: LNSTensor) -> bool:
    """Are there numbers? Tracing's tensors and the meta device's have none."""
    return type(x.scale) is torch.Tensor and not x.scale.is_meta


def encode(value: torch.Tensor, like: LNSTensor) -> LNSTensor:
    """float32 values in codes as those of ``like``, at its scale if that holds all of them exactly, else at their own.

    So the values of codes become the same codes again, whatever the largest among them is.

    Raises:
        ValueError: the values of a weight hold NaN or Inf.
    """
    value = value.detach().to(torch.float32)
    dims = [d for d, n in enumerate(like.scale.shape) if n > 1]
    codes, scale = torch.ops.lns_sim.quantize(value, like.bits, like.gamma, dims[0] if dims else None, 0, 0, None)
    new = like.with_inner(codes, scale)
    if like.finite and known(new) and bool(scale.isnan().any()):
        raise ValueError("a weight was given NaN or Inf, which have no codes")
    if not (known(new) and known(like)):
        return new
    own = like.scale.to(value.device)
    if own.shape != scale.shape or torch.equal(own, scale):
        return new
    kept = like.with_inner(torch.ops.lns_sim.rescale(codes, scale, own, like.bits, like.gamma, 0, None), own)
    return kept if torch.equal(decode(kept), value) else new


# ---- Operators that codes know; views are in lns_sim/views.py, collectives in lns_sim/collectives.py.

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
        raise TypeError(
            f"codes have no {kwargs['dtype']} form; call .dequantize() first (a model of codes stays in float32: "
            "torch.autocast narrows what is no product)"
        )
    moved = {k: v for k, v in kwargs.items() if k in ("device", "non_blocking", "pin_memory", "memory_format")}
    rest = {k: v for k, v in moved.items() if k != "memory_format"}
    return x.map_inner(lambda t: func(t, *args[1:], **rest), lambda codes: func(codes, *args[1:], **moved))


@implements(aten.is_pinned.default)
def _is_pinned(func, args, kwargs):
    return args[0].codes.is_pinned()


@implements(aten._local_scalar_dense.default)
def _item(func, args, kwargs):
    return decode(args[0]).item()


@implements(aten.copy_.default)
def _copy(func, args, kwargs):
    to, source = args[0], args[1]
    if not isinstance(to, LNSTensor):
        if isinstance(to, torch.nn.Parameter):
            raise TypeError(
                "a float32 Parameter takes no codes: convert the model before it loads them, load the state_dict of "
                "lns_sim.nn.to_float(model), or dequantize() them"
            )
        return to.copy_(decode(source))
    if not isinstance(source, LNSTensor):
        source = source.to(to.device)
    elif source.format != to.format:
        raise ValueError(f"cannot copy codes of {source.format!r} into {to.format!r}; dequantize() them first")
    if _is_part(to) and not to.shard:
        _write_part(to, source)
        return to
    if not isinstance(source, LNSTensor):
        if to.shard:
            raise ValueError(
                "a shard of a weight takes no float32 values, as its scale is all ranks': load them before fully_shard,"
                " or by set_model_state_dict with full_state_dict=True and without broadcast_from_rank0"
            )
        source = encode(source, to)
    for name in to.__tensor_flatten__()[0]:
        if getattr(source, name, None) is not None:
            getattr(to, name).copy_(getattr(source, name))
    return to


def _is_part(x: LNSTensor) -> bool:
    """Are there more codes of the same scale, of which x is a view?"""
    alone = x.codes.untyped_storage().nbytes() <= x.codes.numel() * x.codes.element_size()
    return known(x) and not alone and x.scale.untyped_storage().nbytes() == x.scale.element_size()


def _write_part(part: LNSTensor, source: torch.Tensor) -> None:
    """Writes into a view: the scale is the whole tensor's, whose other values stay."""
    if isinstance(source, LNSTensor):
        if torch.equal(source.scale, part.scale):
            part.codes.copy_(source.codes)
            return
        source = decode(source)
    codes = part.codes
    storage = torch.empty(0, dtype=codes.dtype, device=codes.device).set_(codes.untyped_storage())
    whole = LNSTensor(storage, part.scale.reshape(()), part.format)
    values = decode(whole)
    values.as_strided(codes.shape, codes.stride(), codes.storage_offset()).copy_(source)
    written = encode(values, part.with_inner(whole.codes, whole.scale))
    whole.codes.copy_(written.codes)
    whole.scale.copy_(written.scale)


# What makes a parameter's gradients and optimizer states: plain float32 tensors of its shape.
@implements(aten.zeros_like.default, aten.ones_like.default, aten.new_empty.default, aten.new_empty_strided.default)
def _like(func, args, kwargs):
    x = args[0]
    return func(torch.empty(x.shape, dtype=torch.float32, device=x.device), *args[1:], **kwargs)


@implements(aten.empty_like.default)
def _empty(func, args, kwargs):
    """Codes, which are to be written: Module.to_empty and distributed loading ask for them."""
    if kwargs.get("dtype") not in (None, torch.float32):
        return _like(func, args, kwargs)
    x = args[0]
    device = kwargs.get("device") or x.device
    move = lambda t: torch.ones_like(t, device=device) if t.is_meta else t.to(device, copy=True)  # noqa: E731
    return x.map_inner(move, lambda codes: torch.zeros_like(codes, device=device))


@implements(aten.new_zeros.default)
def _zero_codes(func, args, kwargs):
    """FSDP2 makes its shards of them, whose scale is that of the whole."""
    x, size = args[0], list(args[1])
    if x.scale.dim():
        raise TypeError("zeros of a tensor with a scale per slice have no scale; dequantize() it")
    zeros = x.with_inner(x.codes.new_zeros(size, device=kwargs.get("device")), x.scale.clone())
    zeros.shard = True
    return zeros


torch.serialization.add_safe_globals([LNSTensor, LNSFormat, rebuild])
