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
from lns_sim.ops import block_convolution, depth, int8, observer, sides
from lns_sim.ops.differentiable import differentiate
from lns_sim.ops.fake import conv_out_size, on_one_device
from lns_sim.ops.gemm import described, multiply
from lns_sim.ops.integer_gemm import integer_product
from lns_sim.ops.passes import backward_pass, outside_autocast
from lns_sim.ops.quantize import fake_operand, round_gradient
from lns_sim.ops.saved import save_operands, saved_sides
from lns_sim.ops.sides import Side
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

    @property
    def along_depth(self) -> tuple[int, int, int]:
        """Stride, padding and dilation of the first of three dimensions."""
        return self.stride[0], self.padding[0], self.dilation[0]


def _float32_convolutions():
    """cuDNN multiplies in TF32 unless told otherwise; a fake-quant product is float32."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False)


def _values(
    op, a: Operand, b: Operand, longest: int, g: Geometry, form: int8.Form, along: tuple[int, int] | None = None
) -> Tensor:
    """``op`` on both operands' values; on integers of other systems exactly, with dot products of up to ``longest``.

    ``form`` is the product of int8 operands, in two dimensions without groups.
    """
    with _float32_convolutions():
        if a.largest and b.largest:
            plain = len(g.stride) == 2 and g.groups == 1
            return integer_product(a, b, longest, op, along, form if plain else None)
        return op(a.value, b.value)


def _run(op, a: Operand, b: Operand, *rest) -> tuple[Tensor, Tensor]:
    """One of the compiled operators; ``rest`` ends with the datapath, and whether to count."""
    *geometry, encoded, count = rest
    bits, more = described(a, b)
    return op(a.codes, a.scale, b.codes, b.scale, *bits, *geometry, encoded, False, count, *more)


def _along(r: Recipe, *where: tuple[Side, int, int]) -> list[Operand]:
    """Sides as operands; with block scales each along a dimension that consists of so many groups."""
    if r.block is None:
        return [side.operand for side, *_ in where]
    return [block_convolution.channels(*at) for at in where]


def _run_weight_gradient(dy: Operand, x: Operand, kernel, plane, encoded, count) -> tuple[Tensor, Tensor]:
    return _run(_ops.conv2d_weight_gradient, dy, x, kernel, *plane, encoded, count)


def forward(pass_name: str, r: Recipe, left: Side, right: Side, g: Geometry) -> Tensor:
    """y (N, O, *out) of x (N, C, *size) and w (O, C / groups, *kernel)."""
    out = conv_out_size(left.shape[2:], right.shape[2:], *g[:3])
    x, w = _along(r, (left, 1, g.groups), (right, 1, 1))

    def in_float32():
        return _values(
            lambda a, b: torch.ops.aten.convolution(a, b, None, *g[:3], False, [0] * len(g.stride), g.groups),
            x,
            w,
            right.shape[1:].numel(),
            g,
            int8.Form(lambda a, b: int8.forward(a, b, *g[:3]), 0),
        )

    def on_datapath(encoded, count):
        a, b, encoded, filling = block_convolution.whole_blocks(x, w, encoded)
        if len(out) == 2:
            found = _run(_ops.conv2d, a, b, *g.plane, encoded, count)
        else:
            seen = depth.seen(right.shape[2], out[0], *g.along_depth)
            windows = a.mapped(lambda t: depth.windows(t, seen, g.groups))
            y, counts = _run(_ops.conv2d, windows, b.mapped(depth.weight_plane), *g.plane, encoded, count)
            found = depth.with_depth(y, out[0]), counts
        return block_convolution.as_hardware_counts(found, filling, right.shape[2:].numel(), count)

    macs = left.shape[0] * math.prod(out) * right.shape.numel()
    return multiply(pass_name, r, (x, w), lambda _: macs, on_datapath, in_float32)


def input_gradient(pass_name: str, r: Recipe, error: Side, right: Side, size: list[int], g: Geometry) -> Tensor:
    """dx of shape ``size`` (N, C, *size)."""
    dy, w = _along(r, (error, 1, g.groups), (right, 0, g.groups))

    def in_float32():
        def back(e, weight):
            x = e.new_empty(()).expand(size)
            return torch.ops.aten.convolution_backward(
                e, x, weight, None, *g[:3], False, [0] * len(g.stride), g.groups, [True, False, False]
            )[0]

        form = int8.Form(lambda e, weight: int8.input_gradient(e, weight, size[2:], *g[:3]), 0)
        return _values(back, dy, w, right.shape.numel() // right.shape[1], g, form)

    def on_datapath(encoded, count):
        a, b, encoded, filling = block_convolution.whole_blocks(dy, w, encoded)
        if len(size) == 4:
            found = _run(_ops.conv2d_input_gradient, a, b, list(size), *g.plane, encoded, count)
        else:
            n, c, deep, *plane = size
            seen = depth.seen_from(right.shape[2], deep, error.shape[2], *g.along_depth)
            windows = a.mapped(lambda t: depth.windows(t, seen, g.groups))
            weights = b.mapped(lambda t: depth.weight_plane_of_outputs(t, g.groups))
            planes = [n * deep, c, *plane]
            dx, counts = _run(_ops.conv2d_input_gradient, windows, weights, planes, *g.plane, encoded, count)
            found = depth.with_depth(dx, deep), counts
        return block_convolution.as_hardware_counts(found, filling, right.shape[2:].numel(), count)

    macs = math.prod(size) * (right.shape[0] // g.groups) * right.shape[2:].numel()
    return multiply(pass_name, r, (dy, w), lambda _: macs, on_datapath, in_float32)


def weight_gradient(pass_name: str, r: Recipe, error: Side, left: Side, kernel: list[int], g: Geometry) -> Tensor:
    """dw of shape (O, C / groups, *kernel)."""
    shape = [error.shape[1], left.shape[1] // g.groups, *kernel]
    dy, x = _along(r, (error, 0, 1), (left, 0, 1))
    positions = error.shape[0] * error.shape[2:].numel()

    def in_float32():
        def back(e, a):
            w = e.new_empty(()).expand(shape)
            return torch.ops.aten.convolution_backward(
                e, a, w, None, *g[:3], False, [0] * len(g.stride), g.groups, [False, True, False]
            )[1]

        form = int8.Form(lambda e, a: int8.weight_gradient(e, a, kernel, *g[:3]), 1)
        return _values(back, dy, x, positions, g, form, (0, 0))

    def on_datapath(encoded, count):
        a, b, encoded, filling = block_convolution.whole_blocks(dy, x, encoded)
        run = _run_weight_gradient if r.block is None else block_convolution.weight_gradient
        if len(kernel) == 2:
            found = run(a, b, list(kernel), g.plane, encoded, count)
        else:
            in_blocks = r.block is not None  # of images, which are then the fastest
            seen = depth.seen(kernel[0], error.shape[2], *g.along_depth)
            windows = b.mapped(lambda t: depth.windows(t, seen, g.groups, in_blocks))
            planes = a.mapped(lambda t: depth.planes(t, in_blocks))
            dw, counts = run(planes, windows, list(kernel[1:]), g.plane, encoded, count)
            dw = dw.reshape(shape[0], kernel[0], shape[1], *kernel[1:]).permute(0, 2, 1, 3, 4).contiguous()
            found = dw, counts
        return block_convolution.as_hardware_counts(found, filling, error.shape[2:].numel(), count)

    macs = math.prod(shape) * positions
    return multiply(pass_name, r, (dy, x), lambda _: macs, on_datapath, in_float32)


# ---- Output padding of a transposed convolution, as of the convolution that it runs backwards.


def _beyond(stride: list[int], output_padding: list[int]) -> list[int]:
    """Positions that the convolution has beyond x's, where the output padding holds whole strides."""
    return [e // s for e, s in zip(output_padding, stride)]


def _padded(x: Side, beyond: list[int]) -> Side:
    """x with zeros at those positions."""
    return x.mapped(lambda t: F.pad(t, [n for b in reversed(beyond) for n in (0, b)])) if any(beyond) else x


def _cropped(dx: Tensor, beyond: list[int]) -> Tensor:
    """Without what belongs to them."""
    return dx[(..., *[slice(n - b) for n, b in zip(dx.shape[2:], beyond)])].contiguous() if any(beyond) else dx


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
    left, w = sides.activation(x, r, rng), sides.weight(weight, r)
    if transposed:
        size = _output_shape(x, weight, stride, padding, dilation, True, output_padding, groups)
        y = input_gradient("forward", r, _padded(left, _beyond(stride, output_padding)), w, size, g)
    else:
        y = forward("forward", r, left, w, g)
    return y, *left.kept, *w.kept


convolution = torch.library.custom_op("lns_sim::convolution", convolution_forward, mutates_args=())


@convolution.register_fake
@on_one_device
def _(x, weight, rng, stride, padding, dilation, transposed, output_padding, groups, recipe):
    r = Recipe.decode(recipe)
    y = x.new_empty(_output_shape(x, weight, stride, padding, dilation, transposed, output_padding, groups))
    return y, *fake_operand(x, r, "activation"), *fake_operand(weight, r, "weight")


def _save(ctx, inputs, output):
    ctx.geometry, ctx.transposed, ctx.beyond = (
        Geometry(*inputs[3:6], inputs[8]),
        inputs[6],
        _beyond(inputs[3], inputs[7]),
    )
    # Positions beyond x are made of x itself.
    again = None if ctx.transposed and any(ctx.beyond) else lambda x: block_convolution.channels(x, 0, 1)
    save_operands(ctx, inputs, output, again=(again, None))


@backward_pass
def _backward(ctx, saved, dy, *_):
    x, w, rng, r = saved_sides(ctx, saved)
    g, kernel = ctx.geometry, w.shape[2:]
    error, for_weight = sides.errors(dy, r, rng, 1, ctx.place)
    dx = dw = None
    if ctx.needs_input_grad[0]:
        if ctx.transposed:
            dx = _cropped(forward("input_gradient", r, error, w, g), ctx.beyond)
        else:
            dx = input_gradient("input_gradient", r, error, w, list(x.shape), g)
    if ctx.needs_input_grad[1]:
        operands = (_padded(x, ctx.beyond), for_weight) if ctx.transposed else (for_weight, x)
        dw = round_gradient(weight_gradient("weight_gradient", r, *operands, list(kernel), g), r, rng)
    return dx, dw, *[None] * 8


differentiate(convolution, convolution_forward, _backward, _save)
