"""The differentiable layers, as operators: quantize, multiply on the datapath, and the two gradients.

``lns_sim::linear`` and ``lns_sim::conv2d_layer`` take a float32 weight, which they quantize, or an ``LNSWeight``, whose
codes they use. Besides the product they return the codes of both operands: the backward pass multiplies those very
codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim import counting
from lns_sim.ops.fake import conv_out_size
from lns_sim.policies import ROUNDINGS, UNDERFLOWS
from lns_sim.recipes import Quantizer, Recipe

_ops = torch.ops.lns_sim
# Random streams of a weight's quantizers: added to its tensor id.
STREAMS = {"activation": 0, "error": 1, "gradient": 2, "update": 3}


def stream_of(rng: Tensor, stream: str) -> Tensor:
    """The random state of one of a weight's streams, made where the weight is."""
    rng = rng.clone()
    rng[2] += STREAMS[stream]
    return rng


def _quantize(x: Tensor, q: Quantizer, rng: Tensor | None, stream: str) -> tuple[Tensor, Tensor]:
    if q.stochastic:
        rng = stream_of(rng, stream)
    return _ops.quantize(
        x, q.format.bits, q.format.gamma, None, ROUNDINGS.index(q.rounding), UNDERFLOWS.index(q.underflow),
        rng if q.stochastic else None,
    )  # fmt: skip


def _value(codes: Tensor, scale: Tensor, format) -> Tensor:
    return _ops.dequantize(codes, scale, format.bits, format.gamma)


def forward_codes(codes: Tensor, scale: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Q_W: forward codes of a weight's update codes."""
    u, f = recipe.update, recipe.weight
    return _ops.forward_codes(codes, scale, u.bits, u.gamma, f.bits, f.gamma)


def _weight_codes(weight: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    return _quantize(weight, Quantizer(recipe.weight), None, "update")


def _round_gradient(dw: Tensor, recipe: Recipe, rng: Tensor | None) -> Tensor:
    """Q_G: the weight gradient as the optimizer sees it."""
    if recipe.gradient is None:
        return dw
    return _value(*_quantize(dw, recipe.gradient, rng, "gradient"), recipe.gradient.format)


def _matmul(pass_name: str, recipe: Recipe, a, a_scale, a_format, b, b_scale, b_format) -> Tensor:
    """One pass's product of 2-d codes with one scale each: on its datapath, or in float32."""
    datapath = getattr(recipe, pass_name)
    if datapath is None:
        return _value(a, a_scale, a_format) @ _value(b, b_scale, b_format)
    out, counts = _ops.matmul(
        a, a_scale.expand(a.shape[0], 1), b, b_scale.expand(1, b.shape[1]), a_format.bits, b_format.bits,
        datapath.encode(), False, counting.active(),
    )  # fmt: skip
    counting.record(pass_name, out.numel() * a.shape[1], counts)
    return out


# ---- Linear


def linear_forward(x: Tensor, w: Tensor, w_scale: Tensor, rng: Tensor | None, recipe: Recipe):
    """(y, x codes, x scale, w codes, w scale) of y = x w^T, given forward codes of w."""
    xq, x_scale = _quantize(x, recipe.activation, rng, "activation")
    rows = xq.reshape(-1, x.shape[-1])
    y = _matmul("forward", recipe, rows, x_scale, recipe.activation.format, w.t(), w_scale, recipe.weight)
    return y.reshape(*x.shape[:-1], w.shape[0]), xq, x_scale, w, w_scale


@torch.library.custom_op("lns_sim::linear", mutates_args=())
def linear(x: Tensor, weight: Tensor, rng: Tensor | None, recipe: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y = x weight^T by the recipe, x (..., in) and weight (out, in) float32; also the operands' codes and scales."""
    r = Recipe.decode(recipe)
    return linear_forward(x, *_weight_codes(weight, r), rng, r)


@linear.register_fake
def _(x, weight, rng, recipe):
    r = Recipe.decode(recipe)
    scale = x.new_empty(())
    return (
        x.new_empty(*x.shape[:-1], weight.shape[0]), x.new_empty(x.shape, dtype=r.activation.format.dtype), scale,
        x.new_empty(weight.shape, dtype=r.weight.dtype), torch.empty_like(scale),
    )  # fmt: skip


def _save(ctx, inputs, output):
    ctx.recipe = inputs[-1]
    ctx.save_for_backward(*output[1:], inputs[2])
    ctx.mark_non_differentiable(*output[1:])


def _linear_backward(ctx, dy, *_):
    xq, x_scale, wq, w_scale, rng = ctx.saved_tensors
    r = Recipe.decode(ctx.recipe)
    dyq, dy_scale = _quantize(dy.reshape(-1, wq.shape[0]), r.error, rng, "error")
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = _matmul("input_gradient", r, dyq, dy_scale, r.error.format, wq, w_scale, r.weight)
        dx = dx.reshape(xq.shape)
    if ctx.needs_input_grad[1]:
        rows = xq.reshape(-1, xq.shape[-1])
        dw = _matmul("weight_gradient", r, dyq.t(), dy_scale, r.error.format, rows, x_scale, r.activation.format)
        dw = _round_gradient(dw, r, rng)
    return dx, dw, None, None


linear.register_autograd(_linear_backward, setup_context=_save)


# ---- Convolution


def _float32_convolutions():
    """cuDNN multiplies in TF32 unless told otherwise; a fake-quant product is float32."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False)


def conv2d_forward(x, w, w_scale, rng, stride, padding, dilation, groups, recipe: Recipe):
    """(y, x codes, x scale, w codes, w scale) of a 2-d convolution, given forward codes of w."""
    xq, x_scale = _quantize(x, recipe.activation, rng, "activation")
    if recipe.forward is None:
        value = _value(xq, x_scale, recipe.activation.format)
        with _float32_convolutions():
            y = F.conv2d(value, _value(w, w_scale, recipe.weight), None, stride, padding, dilation, groups)
    else:
        y, counts = _ops.conv2d(
            xq, x_scale, w, w_scale, recipe.activation.format.bits, recipe.weight.bits, stride, padding, dilation,
            groups, recipe.forward.encode(), False, counting.active(),
        )  # fmt: skip
        counting.record("forward", y.numel() * w[0].numel(), counts)
    return y, xq, x_scale, w, w_scale


@torch.library.custom_op("lns_sim::conv2d_layer", mutates_args=())
def conv2d_layer(
    x: Tensor, weight: Tensor, rng: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    groups: int, recipe: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """2-d convolution by the recipe, x (N, C, H, W) and weight (O, C/groups, kh, kw) float32; also codes and scales."""
    r = Recipe.decode(recipe)
    return conv2d_forward(x, *_weight_codes(weight, r), rng, stride, padding, dilation, groups, r)


@conv2d_layer.register_fake
def _(x, weight, rng, stride, padding, dilation, groups, recipe):
    r = Recipe.decode(recipe)
    size = conv_out_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    scale = x.new_empty(())
    return (
        x.new_empty(x.shape[0], weight.shape[0], *size), x.new_empty(x.shape, dtype=r.activation.format.dtype), scale,
        x.new_empty(weight.shape, dtype=r.weight.dtype), torch.empty_like(scale),
    )  # fmt: skip


def _save_conv(ctx, inputs, output):
    _save(ctx, inputs, output)
    ctx.geometry = inputs[3:7]


def _conv_backward(ctx, dy, *_):
    xq, x_scale, wq, w_scale, rng = ctx.saved_tensors
    stride, padding, dilation, groups = ctx.geometry
    r = Recipe.decode(ctx.recipe)
    dyq, dy_scale = _quantize(dy, r.error, rng, "error")
    dx = dw = None
    if ctx.needs_input_grad[0]:
        if r.input_gradient is None:
            dy_value, w = _value(dyq, dy_scale, r.error.format), _value(wq, w_scale, r.weight)
            with _float32_convolutions():
                dx = torch.nn.grad.conv2d_input(xq.shape, w, dy_value, stride, padding, dilation, groups)
        else:
            dx, counts = _ops.conv2d_input_gradient(
                dyq, dy_scale, wq, w_scale, r.error.format.bits, r.weight.bits, list(xq.shape), stride, padding,
                dilation, groups, r.input_gradient.encode(), False, counting.active(),
            )  # fmt: skip
            macs = xq.numel() * (wq.shape[0] // groups) * wq.shape[2] * wq.shape[3]
            counting.record("input_gradient", macs, counts)
    if ctx.needs_input_grad[1]:
        if r.weight_gradient is None:
            dy_value, x = _value(dyq, dy_scale, r.error.format), _value(xq, x_scale, r.activation.format)
            with _float32_convolutions():
                dw = torch.nn.grad.conv2d_weight(x, wq.shape, dy_value, stride, padding, dilation, groups)
        else:
            dw, counts = _ops.conv2d_weight_gradient(
                dyq, dy_scale, xq, x_scale, r.error.format.bits, r.activation.format.bits, list(wq.shape[2:]), stride,
                padding, dilation, groups, r.weight_gradient.encode(), False, counting.active(),
            )  # fmt: skip
            counting.record("weight_gradient", wq.numel() * dyq[:, 0].numel(), counts)
        dw = _round_gradient(dw, r, rng)
    return dx, dw, None, None, None, None, None, None


conv2d_layer.register_autograd(_conv_backward, setup_context=_save_conv)
