"""Fake kernels: the shapes and dtypes of the compiled operators, for torch.compile and opcheck.

Each stands for one schema in csrc/ops/library.cpp.
"""

from __future__ import annotations

import functools

import torch

from lns_sim.contract import COUNTERS
from lns_sim.quantizers.quantizer import integer_dtype


def code_dtype(bits: int) -> torch.dtype:
    """The dtype that stores codes of so many bits."""
    return torch.uint8 if bits <= 8 else torch.int16


def on_one_device(kernel):
    """A fake kernel that refuses tensors of several devices, as the operators do.

    A meta tensor among others brings torch here, too: what came back would be memory that nobody wrote.
    """

    @functools.wraps(kernel)
    def checked(*args, **kwargs):
        devices = {str(t.device) for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)}
        if len(devices) > 1:
            raise ValueError(f"all tensors must be on one device, got {' and '.join(sorted(devices))}")
        return kernel(*args, **kwargs)

    return checked


def _register(name: str):
    return lambda kernel: torch.library.register_fake(f"lns_sim::{name}", on_one_device(kernel))


def _product(like: torch.Tensor, shape, accumulators: bool, count: bool):
    out = like.new_empty(shape, dtype=torch.int32 if accumulators else torch.float32)
    return out, like.new_empty((len(COUNTERS) if count else 0,), dtype=torch.int64)


def conv_out_size(size, kernel, stride, padding, dilation) -> list[int]:
    """Output extents of a convolution over the given input extents."""
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation)]


@_register("quantize")
def _(x, bits, gamma, dim, rounding, underflow, rng, thresholds=()):
    scale_shape = [] if dim is None else [n if d == dim else 1 for d, n in enumerate(x.shape)]
    return x.new_empty(x.shape, dtype=code_dtype(bits)), x.new_empty(scale_shape, dtype=torch.float32)


@_register("quantized_values")
def _(x, bits, gamma, rounding, underflow, rng, thresholds=()):
    return x.new_empty(x.shape), x.new_empty(())


@_register("dequantize")
def _(codes, scale, bits, gamma):
    return codes.new_empty(codes.shape, dtype=torch.float32)


def _shift_sizes(x, dim: int, block: int) -> list[int]:
    return [-(-n // block) if d == dim else n for d, n in enumerate(x.shape)]


@_register("quantize_blocks")
def _(x, bits, gamma, dim, block, most, rounding, underflow, rng, thresholds=()):
    codes = x.new_empty(x.shape, dtype=code_dtype(bits))
    return codes, x.new_empty(()), x.new_empty(_shift_sizes(x, dim, block), dtype=torch.uint8)


@_register("dequantize_blocks")
def _(codes, scale, shifts, dim, block, bits, gamma):
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_register("forward_blocks")
def _(codes, scale, update_bits, update_gamma, bits, gamma, dim, block, most):
    out = codes.new_empty(codes.shape, dtype=code_dtype(bits))
    return out, scale.new_empty(()), codes.new_empty(_shift_sizes(codes, dim, block), dtype=torch.uint8)


@_register("images_fastest")
def _(codes, above, beside):
    n, c, h, w = codes.shape
    return codes.new_empty((h + 2 * above, c, w + 2 * beside, n))


@_register("uniform")
def _(like, rng):
    return like.new_empty(like.shape, dtype=torch.float32)


@_register("round_to_powers")
def _(x, top, octaves, stochastic_below, stochastic_above, rng):
    return x.new_empty(x.shape)


@_register("largest_magnitude")
def _(x):
    return x.new_empty(())


@_register("scale_to_largest")
def _(x, largest):
    return x.new_empty(())


@_register("quantize_integers")
def _(x, dim, top, groups, zero_point, values, rng):
    dtype = torch.float32 if values else integer_dtype(top << (groups - 1))
    shifts = x.new_empty(1 if dim is None else x.shape[dim], dtype=torch.int32)
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(()), shifts


@_register("quantize_float8")
def _(x, scale, e5m2):
    return x.new_empty(x.shape, dtype=torch.uint8)


@_register("dequantize_float8")
def _(codes, scale, e5m2):
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_register("rescale")
def _(codes, scale, new_scale, bits, gamma, underflow, rng):
    return codes.new_empty(codes.shape)


@_register("forward_codes")
def _(codes, scale, update_bits, update_gamma, bits, gamma):
    return codes.new_empty(codes.shape, dtype=code_dtype(bits)), scale.new_empty(scale.shape)


@_register("matmul")
def _(
    a,
    a_scale,
    b,
    b_scale,
    a_bits,
    b_bits,
    datapath,
    accumulators,
    count,
    a_gamma=0,
    b_gamma=0,
    a_shifts=None,
    b_shifts=None,
    block=0,
):
    return _product(a, [*a.shape[:-1], b.shape[-1]], accumulators, count)


@_register("conv2d")
def _(
    x,
    x_scale,
    w,
    w_scale,
    x_bits,
    w_bits,
    stride,
    padding,
    dilation,
    groups,
    datapath,
    accumulators,
    count,
    x_gamma=0,
    w_gamma=0,
    x_shifts=None,
    w_shifts=None,
    block=0,
):
    size = conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return _product(x, [x.shape[0], w.shape[0], *size], accumulators, count)


@_register("conv2d_input_gradient")
def _(
    dy,
    dy_scale,
    w,
    w_scale,
    dy_bits,
    w_bits,
    input_size,
    stride,
    padding,
    dilation,
    groups,
    datapath,
    accumulators,
    count,
    dy_gamma=0,
    w_gamma=0,
    dy_shifts=None,
    w_shifts=None,
    block=0,
):
    return _product(dy, input_size, accumulators, count)


@_register("conv2d_weight_gradient")
def _(
    dy,
    dy_scale,
    x,
    x_scale,
    dy_bits,
    x_bits,
    kernel_size,
    stride,
    padding,
    dilation,
    groups,
    datapath,
    accumulators,
    count,
    dy_gamma=0,
    x_gamma=0,
    dy_shifts=None,
    x_shifts=None,
    block=0,
):
    return _product(dy, [dy.shape[1], x.shape[1] // groups, *kernel_size], accumulators, count)


@_register("madam_step")
def _(codes, moment, grad, scale, cap, hyper, bits, gamma, stochastic, rng):
    return None
