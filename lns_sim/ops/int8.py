"""Products of integers of 8 bits, exact, on a GPU's int8 tensor cores: matrices, and convolutions as matrices of
patches, of a share of the batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LONGEST = ((1 << 31) - 1) // (127 * 128)  # sum that int32 holds: one operand may be -128
PATCH_BYTES = 1 << 28
_WIDEST = 127 * 128  # integers of two parts


class Form(NamedTuple):
    """A product of int8 operands.

    Attributes:
        run: from both to the result, in int32, or in float64 where sums leave that.
        stack: along which dimension several first operands may lie behind each other, whose results then do along 0.
    """

    run: Callable[[Tensor, Tensor], Tensor]
    stack: int


def multiplies(x: Tensor) -> bool:
    """Are there such tensor cores where x is?"""
    return x.device.type == "cuda"


def product(form: Form, x: Tensor, y: Tensor, largest: tuple[int, int], depth: int) -> Tensor | None:
    """``form`` on integers of any width, exactly, in int32 or float64; None where they are too wide.

    Args:
        form: the product.
        x, y: integers.
        largest: their largest magnitudes.
        depth: products in a sum, at most.
    """
    if max(largest) > _WIDEST:
        return None
    fits = depth * largest[0] * largest[1] < 1 << 31
    first = _bytes(x, largest[0])
    second = _bytes(y, largest[1]) if len(first) == 1 else _halves(y, largest[1])
    units = 256, 256 if len(first) == 1 else 128
    stacked = first[0] if len(first) == 1 else torch.cat(first, form.stack)

    def joined(results: tuple[Tensor, ...], unit: int) -> Tensor:
        if len(results) == 1:
            return results[0]
        high, low = results if fits else (r.to(torch.float64) for r in results)
        return torch.add(low, high, alpha=unit)

    return joined(tuple(joined(form.run(stacked, y).chunk(len(first)), units[0]) for y in second), units[1])


def _bytes(x: Tensor, largest: int) -> list[Tensor]:
    """As int8, or two of them, multiples of 256 and the rest, which may be -128."""
    if largest <= 127:
        return [x.to(torch.int8)]
    x = x.contiguous()
    return [(x + 128).view(torch.int8)[..., 1::2], x.view(torch.int8)[..., ::2]]


def _halves(x: Tensor, largest: int) -> list[Tensor]:
    """As int8, or two of them, multiples of 128 and the rest, neither of which is -128."""
    if largest <= 127:
        return [x.to(torch.int8)]
    high = (x + 64) >> 7
    return [high.to(torch.int8), (x - high * 128).to(torch.int8)]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) x b (N, K)^T."""
    if a.shape[1] > LONGEST:
        parts = zip(a.split(LONGEST // 8 * 8, 1), b.split(LONGEST // 8 * 8, 1))
        return sum(dot(*part).to(torch.float64) for part in parts)
    (m, k), n = a.shape, len(b)
    a, b = _padded(a, max(m, 32), -(-k // 8) * 8), _padded(b, -(-n // 8) * 8, -(-k // 8) * 8)
    return torch.ops.aten._int_mm(a, b.t())[:m, :n]


def _padded(x: Tensor, rows: int, columns: int) -> Tensor:
    if x.shape == (rows, columns):
        return x.contiguous()
    return F.pad(x, (0, columns - x.shape[1], 0, rows - x.shape[0]))


MATMUL = Form(lambda a, b: dot(a, b.mT), 0)  # a (M, K) x b (K, N)


# ---- Convolutions of two dimensions without groups; a geometry is stride, padding, dilation, a pair each.


def _patches(x: Tensor, kernel, stride, dilation) -> Tensor:
    """Of x (N, H, W, C), padded: (positions, kh * kw * C)."""
    x = x.contiguous()
    if x.shape[3] % 8 == 0:  # copied eight at a time
        x = x.view(torch.int64)
    (n, *size, c), (of_n, *of, _) = x.shape, x.stride()
    out = [(h - d * (k - 1) - 1) // s + 1 for h, k, s, d in zip(size, kernel, stride, dilation)]
    steps = [o * s for o, s in zip(of, stride)], [o * d for o, d in zip(of, dilation)]
    patches = x.as_strided((n, *out, *kernel, c), (of_n, *steps[0], *steps[1], 1))
    return patches.reshape(-1, c * kernel[0] * kernel[1]).view(torch.int8)


def _by_images(x: Tensor, patches: int) -> tuple[Tensor, ...]:
    """Shares of a batch whose matrices are not too large, each image's being so many bytes."""
    return x.split(max(PATCH_BYTES // max(patches, 1), 1))


def forward(x: Tensor, w: Tensor, stride, padding, dilation) -> Tensor:
    """y (N, O, H', W') of x (N, C, H, W) and w (O, C, kh, kw)."""
    kernel, found = w.shape[2:], []
    matrix = w.permute(0, 2, 3, 1).reshape(len(w), -1)
    pad = (0, 0, padding[1], padding[1], padding[0], padding[0])
    size = [
        (h + 2 * p - d * (k - 1) - 1) // s + 1 for h, p, k, s, d in zip(x.shape[2:], padding, kernel, stride, dilation)
    ]
    for images in _by_images(x, size[0] * size[1] * matrix.shape[1]):
        y = dot(matrix, _patches(F.pad(images.permute(0, 2, 3, 1), pad), kernel, stride, dilation))
        found.append(y.view(len(w), len(images), *size).transpose(0, 1))
    return found[0] if len(found) == 1 else torch.cat(found)


def input_gradient(dy: Tensor, w: Tensor, size, stride, padding, dilation) -> Tensor:
    """dx (N, C, H, W), (H, W) being ``size``, of dy (N, O, H', W') and w (O, C, kh, kw)."""
    kernel, found = w.shape[2:], []
    matrix = w.flip(2, 3).permute(1, 2, 3, 0).reshape(w.shape[1], -1)
    # Output gradients a stride apart, zeros between them, as a convolution with stride 1 sees them.
    spread = [n + d * (k - 1) for n, d, k in zip(size, dilation, kernel)]
    places = [
        _places(m, n, s, d * (k - 1) - p)
        for m, n, s, d, k, p in zip(dy.shape[2:], spread, stride, dilation, kernel, padding)
    ]
    (rows, to_rows), (columns, to_columns) = places
    for images in _by_images(dy, size[0] * size[1] * matrix.shape[1]):
        apart = images.new_zeros(len(images), *spread, dy.shape[1])
        apart[:, to_rows, to_columns] = images.permute(0, 2, 3, 1)[:, rows, columns]
        dx = dot(matrix, _patches(apart, kernel, (1, 1), dilation))
        found.append(dx.view(len(matrix), len(images), *size).transpose(0, 1))
    return found[0] if len(found) == 1 else torch.cat(found)


def _places(count: int, size: int, step: int, first: int) -> tuple[slice, slice]:
    """Which of ``count`` things, ``step`` apart from place ``first`` on, lie within ``size`` places, and where."""
    begin = max(0, -(first // step))
    end = max(begin, min(count, (size - 1 - first) // step + 1))
    at = first + begin * step
    return slice(begin, end), slice(at, at + (end - begin - 1) * step + 1 if end > begin else at, step)


def _segments(images: int, rows: int) -> int:
    """Into how many a long sum is cut where the result has few rows.

    Matrices have no batch here: all segments of one operand meet all of the other, and those that belong together are
    added. A sum of few rows keeps a few multiprocessors busy for long; this takes more products, but many of them.
    """
    segments = 1
    while images % (2 * segments) == 0 and 2 * segments * rows <= 256:
        segments *= 2
    return segments


def weight_gradient(dy: Tensor, x: Tensor, kernel, stride, padding, dilation) -> Tensor:
    """dw (O, C, kh, kw) of dy (N, O, H', W') and x (N, C, H, W)."""
    (_, o, *out), c, total = dy.shape, x.shape[1], None
    share = max(min(PATCH_BYTES // (c * kernel[0] * kernel[1]), LONGEST) // (out[0] * out[1]), 1)
    share -= share % 16 if share > 16 else 0  # for many segments
    for errors, images in zip(dy.split(share), x.split(share)):
        images = F.pad(images, (padding[1], padding[1], padding[0], padding[0])).contiguous()
        of_n, of_c, *of = images.stride()
        steps = [s * d for s, d in zip(of, dilation)], [s * t for s, t in zip(of, stride)]
        segments = _segments(len(images), o)
        each = len(images) // segments
        shape, strides = (segments, c, *kernel, each, *out), (each * of_n, of_c, *steps[0], of_n, *steps[1])
        patches = images.as_strided(shape, strides).reshape(segments * c * kernel[0] * kernel[1], -1)
        rows = errors.unflatten(0, (segments, each)).transpose(1, 2).reshape(segments * o, -1)
        part = dot(rows, patches)
        if segments > 1:
            part = part.unflatten(0, (segments, o)).unflatten(2, (segments, -1))
            part = part.diagonal(dim1=0, dim2=2).sum(-1, dtype=torch.int32)
        if len(dy) * out[0] * out[1] > LONGEST:
            part = part.to(torch.float64)
        total = part if total is None else total + part
    return total.view(o, c, *kernel)
