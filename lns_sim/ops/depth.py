"""Three dimensions as two: the taps along depth stand beside the channels, in a plane for every depth of the result.

All functions are of codes, or of shifts of blocks of channels, which lie as codes do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Seen = list[list[int]]  # which slice each tap of each output sees; what is no slice is zero


def seen(taps: int, out: int, stride: int, padding: int, dilation: int) -> Seen:
    """By the outputs of a convolution."""
    return [[d * stride + t * dilation - padding for t in range(taps)] for d in range(out)]


def seen_from(taps: int, depth: int, out: int, stride: int, padding: int, dilation: int) -> Seen:
    """By its input: the outputs that its slices went to."""

    def at(d, t):
        p, rest = divmod(d + padding - t * dilation, stride)
        return p if rest == 0 and p < out else -1

    return [[at(d, t) for t in range(taps)] for d in range(depth)]


def windows(t: Tensor, seen: Seen, groups: int, depth_first: bool = False) -> Tensor:
    """(N, C, D, H, W) to planes (N * len(seen), taps * C, H, W), channels in the order (group, tap, channel).

    Planes are in the order (N, depth), or ``depth_first``.
    """
    n, c, depth, *plane = t.shape
    padded = F.pad(t, (0, 0, 0, 0, 0, 1))  # the last slice is zero
    index = torch.tensor([[p if 0 <= p < depth else depth for p in row] for row in seen], device=t.device)
    found = padded[:, :, index].reshape(n, groups, c // groups, *index.shape, *plane)
    order = (3, 0) if depth_first else (0, 3)
    return found.permute(*order, 1, 4, 2, 5, 6).reshape(n * len(seen), -1, *plane)


def planes(t: Tensor, depth_first: bool = False) -> Tensor:
    """(N, C, D, H, W) to (N * D, C, H, W), or ``depth_first`` (D * N, C, H, W)."""
    return (t.permute(2, 0, 1, 3, 4) if depth_first else t.transpose(1, 2)).flatten(0, 1).contiguous()


def weight_plane(t: Tensor) -> Tensor:
    """(O, C, kd, kh, kw) to (O, kd * C, kh, kw)."""
    return t.permute(0, 2, 1, 3, 4).flatten(1, 2)


def weight_plane_of_outputs(t: Tensor, groups: int) -> Tensor:
    """(O, C, kd, kh, kw) to (O * kd, C, kh, kw), out channels of a plane in the order (group, tap, channel)."""
    return t.unflatten(0, (groups, -1)).permute(0, 3, 1, 2, 4, 5).flatten(0, 2)


def with_depth(t: Tensor, depth: int) -> Tensor:
    """(N * D, C, H, W) to (N, C, D, H, W)."""
    return t.reshape(-1, depth, *t.shape[1:]).transpose(1, 2).contiguous()
