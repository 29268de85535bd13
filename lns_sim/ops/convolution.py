"""Convolutions of two and three dimensions, and transposed ones, as one differentiable operator.

All of them are the three passes of a convolution, each in its own role: a transposed one's forward pass is a
convolution's input gradient. Three dimensions are two, with the taps along depth beside the channels; a dot product
then runs over (kh, kw, kd, channel), channel fastest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.functional import conv_geometry, transposed_geometry
from lns_sim.ops import observer
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import conv_out_size, on_one_device
from lns_sim.ops.gemm import multiply
from lns_sim.ops.integer_gemm import integer_product
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import error_operands, fake_operand, quantize_batch, round_gradient, weight_operand
from lns_sim.ops.saved import save_operands, saved_operands
from lns_sim.quantizers import Operand
from lns_sim.recipes import Recipe

_ops = torch.ops.lns_sim


class Geometry(NamedTuple):
    """A convolution's geometry, a value per spatial dimension, also where the convolution's roles are exchanged."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @property
    def plane(self) -> tuple:
        """The geometry of the last two dimensions."""
        return self.stride[-2:], self.padding[-2:], self.dilation[-2:], self.groups


def _float32_convolutions():
    """cuDNN multiplies in TF32 unless told otherwise; a fake-quant product is float32."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False)


def _values(op, a: Operand, b: Operand, depth: int, along: tuple[int, int] | None = None) -> Tensor:
    """``op`` on both operands' values; on integers of other systems exactly, with dot products of up to ``depth``."""
    with _float32_convolutions():
        if a.largest and b.largest:
            return integer_product(a, b, depth, op, along)
        return op(a.value, b.value)


def _run(op, a: Operand, b: Operand, *rest) -> tuple[Tensor, Tensor]:
    """One of the compiled operators; ``rest`` ends with the datapath, and whether to count."""
    *geometry, encoded, count = rest
    bits, gammas = zip(*((x.format.bits, x.format.gamma) for x in (a, b)))
    return op(a.codes, a.scale, b.codes, b.scale, *bits, *geometry, encoded, False, count, *gammas)


def forward(pass_name: str, r: Recipe, x: Operand, w: Operand, g: Geometry) -> Tensor:
    """y (N, O, *out) of x (N, C, *size) and w (O, C / groups, *kernel)."""
    out = conv_out_size(x.codes.shape[2:], w.codes.shape[2:], *g[:3])

    def in_float32():
        return _values(
            lambda a, b: torch.ops.aten.convolution(a, b, None, *g[:3], False, [0] * len(g.stride), g.groups),
            x,
            w,
            w.codes[0].numel(),
        )

    def on_datapath(encoded, count):
        if len(out) == 2:
            return _run(_ops.conv2d, x, w, *g.plane, encoded, count)
        windows = _depth_windows(x, _seen(w.codes.shape[2], out[0], g), g)
        y, counts = _run(_ops.conv2d, windows, _weight_plane(w), *g.plane, encoded, count)
        return _with_depth(y, out[0]), counts

    macs = x.codes.shape[0] * math.prod(out) * w.codes.numel()
    return multiply(pass_name, r, (x, w), lambda _: macs, on_datapath, in_float32)


def input_gradient(pass_name: str, r: Recipe, dy: Operand, w: Operand, size: list[int], g: Geometry) -> Tensor:
    """dx of shape ``size`` (N, C, *size)."""

    def in_float32():
        def back(e, weight):
            x = e.new_empty(()).expand(size)
            return torch.ops.aten.convolution_backward(
                e, x, weight, None, *g[:3], False, [0] * len(g.stride), g.groups, [True, False, False]
            )[0]

        return _values(back, dy, w, w.codes.numel() // w.codes.shape[1])

    def on_datapath(encoded, count):
        if len(size) == 4:
            return _run(_ops.conv2d_input_gradient, dy, w, list(size), *g.plane, encoded, count)
        n, c, depth, *plane = size
        seen = _seen_from(w.codes.shape[2], depth, dy.codes.shape[2], g)
        o, in_group, kd, *kernel = w.codes.shape
        # Out channels of a plane: (group, tap, channel).
        weights = w.codes.reshape(g.groups, o // g.groups, in_group, kd, *kernel).permute(0, 3, 1, 2, 4, 5)
        weights = w.with_codes(weights.reshape(o * kd, in_group, *kernel))
        planes = [n * depth, c, *plane]
        dx, counts = _run(
            _ops.conv2d_input_gradient, _depth_windows(dy, seen, g), weights, planes, *g.plane, encoded, count
        )
        return _with_depth(dx, depth), counts

    macs = math.prod(size) * (w.codes.shape[0] // g.groups) * w.codes.shape[2:].numel()
    return multiply(pass_name, r, (dy, w), lambda _: macs, on_datapath, in_float32)


def weight_gradient(pass_name: str, r: Recipe, dy: Operand, x: Operand, kernel: list[int], g: Geometry) -> Tensor:
    """dw of shape (O, C / groups, *kernel)."""
    shape = [dy.codes.shape[1], x.codes.shape[1] // g.groups, *kernel]

    def in_float32():
        def back(e, a):
            w = e.new_empty(()).expand(shape)
            return torch.ops.aten.convolution_backward(
                e, a, w, None, *g[:3], False, [0] * len(g.stride), g.groups, [False, True, False]
            )[1]

        return _values(back, dy, x, dy.codes[:, 0].numel(), (0, 0))

    def on_datapath(encoded, count):
        if len(kernel) == 2:
            return _run(_ops.conv2d_weight_gradient, dy, x, list(kernel), *g.plane, encoded, count)
        windows = _depth_windows(x, _seen(kernel[0], dy.codes.shape[2], g), g)
        planes = dy.with_codes(dy.codes.transpose(1, 2).flatten(0, 1).contiguous())
        dw, counts = _run(_ops.conv2d_weight_gradient, planes, windows, list(kernel[1:]), *g.plane, encoded, count)
        return dw.reshape(shape[0], kernel[0], shape[1], *kernel[1:]).permute(0, 2, 1, 3, 4).contiguous(), counts

    macs = math.prod(shape) * dy.codes[:, 0].numel()
    return multiply(pass_name, r, (dy, x), lambda _: macs, on_datapath, in_float32)


# ---- Output padding of a transposed convolution, as of the convolution that it runs backwards.


def _beyond(stride: list[int], output_padding: list[int]) -> list[int]:
    """Positions that the convolution has beyond x's, where the output padding holds whole strides."""
    return [e // s for e, s in zip(output_padding, stride)]


def _padded(x: Operand, beyond: list[int]) -> Operand:
    """x with zeros at those positions."""
    return x.with_codes(F.pad(x.codes, [n for b in reversed(beyond) for n in (0, b)])) if any(beyond) else x


def _cropped(dx: Tensor, beyond: list[int]) -> Tensor:
    """Without what belongs to them."""
    return dx[(..., *[slice(n - b) for n, b in zip(dx.shape[2:], beyond)])].contiguous() if any(beyond) else dx


# ---- Depth: which slice each tap of each output sees; -1 for zeros.


def _seen(taps: int, out: int, g: Geometry) -> list[list[int]]:
    at = lambda d, t: d * g.stride[0] + t * g.dilation[0] - g.padding[0]  # noqa: E731
    return [[at(d, t) for t in range(taps)] for d in range(out)]


def _seen_from(taps: int, depth: int, out: int, g: Geometry) -> list[list[int]]:
    """Seen from the input: the outputs that its slices went to."""

    def at(d, t):
        p, rest = divmod(d + g.padding[0] - t * g.dilation[0], g.stride[0])
        return p if rest == 0 and p < out else -1

    return [[at(d, t) for t in range(taps)] for d in range(depth)]


def _depth_windows(x: Operand, seen: list[list[int]], g: Geometry) -> Operand:
    """(N, C, D, H, W) to planes (N * len(seen), taps * C, H, W), channels in the order (group, tap, channel)."""
    n, c, depth, *plane = x.codes.shape
    padded = F.pad(x.codes, (0, 0, 0, 0, 0, 1))  # the last slice is zero
    index = torch.tensor([[p if 0 <= p < depth else depth for p in row] for row in seen], device=x.codes.device)
    windows = padded[:, :, index].reshape(n, g.groups, c // g.groups, *index.shape, *plane)
    return x.with_codes(windows.permute(0, 3, 1, 4, 2, 5, 6).reshape(n * len(seen), -1, *plane))


def _weight_plane(w: Operand) -> Operand:
    """(O, C, kd, kh, kw) to (O, kd * C, kh, kw)."""
    o, c, kd, *kernel = w.codes.shape
    return w.with_codes(w.codes.permute(0, 2, 1, 3, 4).reshape(o, kd * c, *kernel))


def _with_depth(planes: Tensor, depth: int) -> Tensor:
    """(N * D, C, H, W) to (N, C, D, H, W)."""
    return planes.reshape(-1, depth, *planes.shape[1:]).transpose(1, 2).contiguous()


# ---- The operator.


def _output_shape(x, weight, stride, padding, dilation, transposed, output_padding, groups) -> list[int]:
    size, kernel = x.shape[2:], weight.shape[2:]
    if not transposed:
        return [x.shape[0], weight.shape[0], *conv_out_size(size, kernel, stride, padding, dilation)]
    out = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, d, e in zip(size, kernel, stride, padding, dilation, output_padding)
    ]
    return [x.shape[0], weight.shape[1] * groups, *out]


@outside_autocast
def convolution_forward(
    x: Tensor,
    weight: Tensor,
    rng: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    recipe: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A convolution by the recipe; also the operands' codes and scales.

    x is float32 (N, C, H, W) or (N, C, D, H, W); weight (O, C / groups, *kernel), transposed (C, O / groups, *kernel).
    """
    geometry = (stride, padding, output_padding, dilation) if transposed else (stride, padding, dilation)
    (transposed_geometry if transposed else conv_geometry)(x.shape, weight.shape, *geometry, groups)
    observer.enter()
    r, g = Recipe.decode(recipe), Geometry(stride, padding, dilation, groups)
    xq, w = quantize_batch(x, r.activation, rng, "activation"), weight_operand(weight, r)
    if transposed:
        size = _output_shape(x, weight, stride, padding, dilation, True, output_padding, groups)
        y = input_gradient("forward", r, _padded(xq, _beyond(stride, output_padding)), w, size, g)
    else:
        y = forward("forward", r, xq, w, g)
    return y, xq.codes, xq.scale, w.codes, w.scale


convolution = torch.library.custom_op("lns_sim::convolution", convolution_forward, mutates_args=())


@convolution.register_fake
@on_one_device
def _(x, weight, rng, stride, padding, dilation, transposed, output_padding, groups, recipe):
    r = Recipe.decode(recipe)
    y = x.new_empty(_output_shape(x, weight, stride, padding, dilation, transposed, output_padding, groups))
    return y, *fake_operand(x, r, "activation"), *fake_operand(weight, r, "weight")


def _save(ctx, inputs, output):
    save_operands(ctx, inputs, output)
    ctx.geometry, ctx.transposed, ctx.beyond = (
        Geometry(*inputs[3:6], inputs[8]),
        inputs[6],
        _beyond(inputs[3], inputs[7]),
    )


@backward_pass
def _backward(ctx, saved, dy, *_):
    x, w, rng, r = saved_operands(ctx, saved)
    g, kernel = ctx.geometry, w.codes.shape[2:]
    error, for_weight = error_operands(dy, r, rng, 1, ctx.place)
    dx = dw = None
    if ctx.needs_input_grad[0]:
        if ctx.transposed:
            dx = _cropped(forward("input_gradient", r, error, w, g), ctx.beyond)
        else:
            dx = input_gradient("input_gradient", r, error, w, list(x.codes.shape), g)
    if ctx.needs_input_grad[1]:
        operands = (_padded(x, ctx.beyond), for_weight) if ctx.transposed else (for_weight, x)
        dw = round_gradient(weight_gradient("weight_gradient", r, *operands, list(kernel), g), r, rng)
    return dx, dw, *[None] * 8


differentiate(convolution, convolution_forward, _backward, _save)
