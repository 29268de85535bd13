"""Convolutions, and transposed ones, of one, two and three dimensions, by torch's own functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lns_sim.checks import check_choice
from lns_sim.functional import conv_geometry, transposed_geometry
from lns_sim.nn.calling import call
from lns_sim.nn.functions import arithmetic, float32, handles, is_weight


def _several(value, n: int) -> list:
    return list(value) * (n if len(value) == 1 else 1) if isinstance(value, (tuple, list)) else [value] * n


def _named_padding(name: str, weight, stride, dilation) -> tuple[list[int], list[int]]:
    """The padding on both sides that "valid" or "same" stands for, and what is more at the end, as F.pad takes it."""
    check_choice("padding", name, ("valid", "same"))
    if name == "valid":
        return [0] * len(dilation), []
    if any(s != 1 for s in stride):
        raise ValueError(f"padding='same' takes no stride, got {stride}")
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
    return [t // 2 for t in total], [part for t in reversed(total) for part in (0, t % 2)]


def _convolution(simulation, n, input, weight, bias, stride, padding, dilation, groups, output_padding=None):
    """n spatial dimensions, transposed with an output padding; one dimension is two with a first one of size 1."""
    recipe, rng = arithmetic(simulation, weight)
    if recipe is None:
        return NotImplemented
    x = float32(input, "input")
    weight = weight if is_weight(weight) else float32(weight, "weight")
    x = x if x.dim() == n + 2 else x.unsqueeze(0)
    stride, dilation = _several(stride, n), _several(dilation, n)
    if isinstance(padding, str):
        padding, beyond = _named_padding(padding, weight, stride, dilation)
        x = F.pad(x, beyond) if any(beyond) else x
    padding = _several(padding, n)
    transposed = output_padding is not None
    if transposed:
        output_padding = _several(output_padding, n)
        transposed_geometry(x.shape, weight.shape, stride, padding, output_padding, dilation, groups)
    else:
        conv_geometry(x.shape, weight.shape, stride, padding, dilation, groups)
    if n == 1:
        x, weight = x.unsqueeze(-2), weight.unsqueeze(2)
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
        output_padding = [0, *output_padding] if transposed else None
    y = call(
        torch.ops.lns_sim.convolution,
        x,
        weight,
        rng,
        stride,
        padding,
        dilation,
        transposed,
        output_padding or [0] * len(stride),
        groups,
        recipe,
    )[0]
    y = y.squeeze(-2) if n == 1 else y
    if bias is not None:
        if bias.shape != (y.shape[1],):
            raise ValueError(f"the bias must have shape ({y.shape[1]},), got {tuple(bias.shape)}")
        y = y + bias.view(-1, *[1] * n)
    return y if input.dim() == n + 2 else y.squeeze(0)


def _register_convolutions():
    for n, plain, transposed in (
        (1, (F.conv1d, torch.conv1d), (F.conv_transpose1d, torch.conv_transpose1d)),
        (2, (F.conv2d, torch.conv2d), (F.conv_transpose2d, torch.conv_transpose2d)),
        (3, (F.conv3d, torch.conv3d), (F.conv_transpose3d, torch.conv_transpose3d)),
    ):

        def conv(simulation, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, n=n):
            return _convolution(simulation, n, input, weight, bias, stride, padding, dilation, groups)

        def conv_transpose(
            simulation, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, n=n
        ):
            return _convolution(simulation, n, input, weight, bias, stride, padding, dilation, groups, output_padding)

        handles(*plain)(conv)
        handles(*transposed)(conv_transpose)


_register_convolutions()
