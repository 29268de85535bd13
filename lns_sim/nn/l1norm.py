"""L1 normalization (arXiv 2411.10948): batch and layer norm by the mean magnitude, quantized, with its exact gradient.

``s = c mean|x - mu| + eps`` with ``c = sqrt(pi / 2)``, which is the standard deviation of a Gaussian (L1 batch norm,
arXiv 1802.09769); ``xh = (x - mu) / s``. Quantized are input, xh, gain, shift, and the gradients of xh and of the
input; means, s and running statistics are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lns_sim.checks import check_int, check_number
from lns_sim.quantizers.integer import nearest_values

C = math.sqrt(math.pi / 2)


def _rounded(x: Tensor, bits: int | None) -> Tensor:
    """x rounded to integers of so many bits, as their values; None leaves it."""
    return x if bits is None else nearest_values(x, bits)


class _Normalize(torch.autograd.Function):
    """xh and s over the dimensions ``dims``; input, output and gradients rounded to ``bits``."""

    @staticmethod
    def forward(ctx, x, dims, eps, bits):
        x = _rounded(x, bits)
        centered = x - x.mean(dims, keepdim=True)
        s = C * centered.abs().mean(dims, keepdim=True) + eps
        xh = centered / s
        ctx.save_for_backward(xh, centered.sign_(), s)
        ctx.dims, ctx.bits = dims, bits
        ctx.mark_non_differentiable(s)
        return _rounded(xh, bits), s

    @staticmethod
    def backward(ctx, dxh, _):
        xh, sign, s = ctx.saved_tensors
        dxh = _rounded(dxh, ctx.bits)
        d = torch.addcmul(dxh, sign, C * (dxh * xh).mean(ctx.dims, keepdim=True), value=-1).div_(s)
        return _rounded(d.sub_(d.mean(ctx.dims, keepdim=True)), ctx.bits), None, None, None


class _StraightThrough(torch.autograd.Function):
    """A gain or shift rounded to ``bits``; its gradient is that of the rounded one."""

    @staticmethod
    def forward(ctx, x, bits):
        return _rounded(x.clone(), bits)

    @staticmethod
    def backward(ctx, dx):
        return dx, None


class L1Norm(nn.Module):
    """What both have: a gain and a shift, stored in float32."""

    def __init__(self, shape: tuple[int, ...], eps: float, bits: int | None):
        super().__init__()
        check_number("eps", eps, 0.0, low_open=True)
        if bits is not None:
            check_int("bits", bits, 2, 8)
        self.eps, self.bits = eps, bits
        self.weight, self.bias = (
            nn.Parameter(torch.ones(shape, dtype=torch.float32)),
            nn.Parameter(torch.zeros(shape, dtype=torch.float32)),
        )

    def affine(self, xh: Tensor, shape: tuple[int, ...]) -> Tensor:
        """xh by the rounded gain and shift, which broadcast in that shape."""
        gain, shift = (_StraightThrough.apply(p, self.bits).view(shape) for p in (self.weight, self.bias))
        return xh * gain + shift


class L1BatchNorm(L1Norm):
    """Batch norm by mean magnitudes, of (N, C) or (N, C, *size); running mean and s for evaluation.

    Args:
        features: C.
        eps: added to s.
        momentum: of the running values.
        bits: of integers to which input, xh, gain, shift and gradients are rounded; None: not at all.

    Raises:
        ValueError: an argument out of range, or another number of channels.
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1, bits: int | None = 8):
        super().__init__((features,), eps, bits)
        check_number("momentum", momentum, 0.0, 1.0)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(features, dtype=torch.float32))
        self.register_buffer("running_s", torch.ones(features, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] != len(self.weight):
            raise ValueError(
                f"the input must have {len(self.weight)} channels in dimension 1, got shape {tuple(x.shape)}"
            )
        shape = (1, -1, *[1] * (x.dim() - 2))
        if self.training:
            dims = [d for d in range(x.dim()) if d != 1]
            xh, s = _Normalize.apply(x, dims, self.eps, self.bits)
            with torch.no_grad():
                self.running_mean.lerp_(x.mean(dims), self.momentum)
                self.running_s.lerp_(s.flatten(), self.momentum)
        else:
            xh = _rounded(
                (_rounded(x, self.bits) - self.running_mean.view(shape)) / self.running_s.view(shape), self.bits
            )
        return self.affine(xh, shape)


class L1LayerNorm(L1Norm):
    """Layer norm by mean magnitudes over the last dimensions.

    Args:
        shape: of the last dimensions, an integer or several.
        eps, bits: as of :class:`L1BatchNorm`.
    """

    def __init__(self, shape: int | tuple[int, ...], eps: float = 1e-5, bits: int | None = 8):
        super().__init__((shape,) if isinstance(shape, int) else tuple(shape), eps, bits)

    def forward(self, x: Tensor) -> Tensor:
        xh, _ = _Normalize.apply(x, list(range(-self.weight.dim(), 0)), self.eps, self.bits)
        return self.affine(xh, self.weight.shape)


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)


def replace_norms(model: nn.Module, chosen: Iterable[str] | None = None, bits: int | None = 8) -> nn.Module:
    """Batch and layer norms inside a model replaced by their :func:`l1_form`, in place; the model itself. Shared ones
    stay shared.

    Args:
        model: any module.
        chosen: names of modules that may be replaced; None: all.
        bits: as of :class:`L1BatchNorm`.

    Raises:
        ValueError: one of them has no such form, or is the model itself; then none is replaced.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    chosen = set(modules if chosen is None else chosen)
    norms = {name: norm for name, norm in modules.items() if isinstance(norm, _NORMS)}
    made = {}
    for name, norm in norms.items():
        if name not in chosen:
            continue
        if not name:
            raise ValueError(
                "a norm that is the model itself cannot be replaced in place; use lns_sim.nn.l1norm.l1_form"
            )
        apart = [other for other, same in norms.items() if same is norm and other not in chosen]
        if apart:
            raise ValueError(f"{name} and {apart[0]} are one norm, so one recipe must hold for both")
        if norm not in made:
            try:
                made[norm] = l1_form(norm, bits)
            except ValueError as error:
                raise ValueError(f"{name} has no L1 form: {error}; skip it to leave it as it is") from None
    for name in chosen & norms.keys():
        parent, _, own = name.rpartition(".")
        setattr(modules[parent], own, made[norms[name]])
    return model


def l1_form(norm: nn.Module, bits: int | None = 8) -> L1Norm:
    """The L1 form of a batch or layer norm, with its weight, bias, hooks, device, dtype and mode.

    Running means are taken over, running standard deviations as the running s, which they are of Gaussians. What a norm
    does not learn, its L1 form does not either.

    Raises:
        ValueError: its type is a subclass, whose own forward would be lost, or it keeps no running statistics, or
            cumulative ones (``momentum=None``).
    """
    if type(norm) not in _NORMS:
        raise ValueError(f"a {type(norm).__name__} may do more than normalize")
    if isinstance(norm, nn.LayerNorm):
        new = L1LayerNorm(tuple(norm.normalized_shape), norm.eps, bits)
    else:
        if norm.running_mean is None:
            raise ValueError("it keeps no running statistics")
        if norm.momentum is None:
            raise ValueError("its running statistics are cumulative (momentum=None)")
        new = L1BatchNorm(norm.num_features, norm.eps, norm.momentum, bits)
    known = {key: value.detach() for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    if "running_var" in known:
        known["running_s"] = known.pop("running_var").sqrt() + norm.eps
    if known:
        like = next(iter(known.values()))
        new.to(like.device, like.dtype).load_state_dict(known, strict=False)
    for key, parameter in new.named_parameters():
        learned = getattr(norm, key)
        parameter.requires_grad_(learned is not None and learned.requires_grad)
    for key, hooks in vars(norm).items():
        if "_hook" in key:
            setattr(new, key, hooks)
    return new.train(norm.training)
