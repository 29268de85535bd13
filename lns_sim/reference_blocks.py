"""Block scales along K a second time: plain Python integers and NumPy, written from docs/arithmetic.md, section 8.

Independent as ``lns_sim.reference`` is. A tensor with blocks is (codes, k, shifts): ``shifts`` has the codes' shape,
but an entry for each block along the dimension of the blocks, whose codes are those at scale ``2^(k - s)``.
"""

from __future__ import annotations

import numpy as np

from lns_sim import reference
from lns_sim.reference import decode, e_max, encode, log_code, scale_exponent


def block_shift(L: int | None, k: int, format, s_max: int) -> int:
    """The largest s at which no code of a block clips; L is its largest magnitude's log code, None for all zeros."""
    s = 0
    while L is not None and s < s_max and L - format.gamma * (k - (s + 1)) <= e_max(format):
        s += 1
    return s


def _parts(array, dim: int, block: int):
    """Blocks along ``dim``, as index tuples of the whole array and of the array of shifts."""
    shape = list(array.shape)
    n = shape[dim]
    shape[dim] = -(-n // block)
    for at in np.ndindex(*shape):
        begin = at[dim] * block
        yield (*at[:dim], slice(begin, min(begin + block, n)), *at[dim + 1 :]), at


def _shifts(array, dim: int, block: int) -> np.ndarray:
    shape = list(array.shape)
    shape[dim] = -(-shape[dim] // block)
    return np.zeros(shape, dtype=np.int64)


def quantize(
    x,
    format,
    dim,
    block,
    s_max=15,
    rounding="nearest",
    underflow="clamp",
    seed=None,
    step=0,
    tensor_id=0,
    thresholds=None,
):
    """(codes, k, shifts) of a float32 array; k is None, and all else zero, where it holds NaN or Inf."""
    x = np.asarray(x, dtype=np.float32)
    dim %= x.ndim
    codes, shifts = np.zeros(x.shape, dtype=np.int64), _shifts(x, dim, block)
    if not np.isfinite(x).all():
        return codes, None, shifts
    draws = "stochastic" in (rounding, underflow)
    u24 = reference.random_u24(x.shape, seed, step, tensor_id) if draws else np.zeros(x.shape, dtype=np.int64)
    k = scale_exponent(x, format, thresholds)
    for part, at in _parts(x, dim, block):
        values, u = x[part], u24[part]
        top = np.abs(values).max()
        L = None if top == 0 else int(log_code(np.array([top]), format.gamma, thresholds)[0])
        s = shifts[at] = block_shift(L, k, format, s_max)
        safe = np.where(values == 0, np.float32(1), values)
        if rounding == "nearest":
            logs = log_code(safe, format.gamma, thresholds)
        else:
            logs = reference.log_code_stochastic(safe, format.gamma, u)
        ratio = np.ldexp(np.abs(values.astype(np.float64)), s - k)
        e = reference.apply_underflow(logs - format.gamma * (k - s), ratio, format, underflow, u)
        codes[part] = np.where(values == 0, 0, encode(values < 0, e, format))
    return codes, k, shifts


def forward_codes(codes, k, update, forward, dim, block, s_max=15):
    """(codes, k, shifts) in the forward format of a weight's (codes, k) in the update format."""
    sign, e = decode(codes, update)
    d = int(np.log2(update.gamma // forward.gamma))
    log = ((e + (1 << d >> 1)) >> d) + forward.gamma * k
    _, k_new = reference.forward_codes(codes, k, update, forward)
    out, shifts = np.zeros(e.shape, dtype=np.int64), _shifts(e, dim % e.ndim, block)
    for part, at in _parts(e, dim % e.ndim, block):
        some = e[part] > 0
        L = int(log[part][some].max()) if some.any() else None
        s = shifts[at] = block_shift(L, k_new, forward, s_max)
        kept = np.clip(log[part] - forward.gamma * (k_new - s), 1, e_max(forward))
        out[part] = np.where(some, encode(sign[part] < 0, kept, forward), 0)
    return out, k_new, shifts


def spread(shifts, dim: int, block: int, n: int) -> np.ndarray:
    """A block's shift for each of its elements."""
    return np.take(np.repeat(shifts, block, dim), range(n), dim)


def dequantize(codes, k, shifts, dim, block, format) -> np.ndarray:
    """float32 values; NaN everywhere if k is None."""
    if k is None:
        return np.full(codes.shape, np.nan, dtype=np.float32)
    return reference.dequantize(codes, k - spread(shifts, dim, block, codes.shape[dim]), format)


def dot(a, b, datapath, shifts) -> int:
    """The accumulator after one dot product; ``shifts`` is s_a + s_b of every vector."""
    acc = 0
    for vector in reference.trace(a, b, datapath, shifts):
        acc = vector.acc
    return acc


def _of_vectors(s_a, s_b, k: int, block: int, size: int) -> list[int]:
    """s_a + s_b for the vectors of a dot product of k lanes, from both sides' blocks (None: no blocks)."""
    found = [0] * -(-k // size)
    for s in (s_a, s_b):
        if s is not None:
            found = [n + int(s[i * size // block]) for i, n in enumerate(found)]
    return found


def matmul(a, b, datapath, block, return_accumulator=False):
    """a @ b of (codes, k, shifts), shapes (M, K) and (K, N); shifts are None for a side without blocks."""
    (A, k_a, s_a), (B, k_b, s_b) = a, b
    acc = np.zeros((A.shape[0], B.shape[1]), dtype=np.int64)
    for m, n in np.ndindex(*acc.shape):
        rows, columns = None if s_a is None else s_a[m], None if s_b is None else s_b[:, n]
        shifts = _of_vectors(rows, columns, A.shape[1], block, datapath.vector_size)
        acc[m, n] = dot(A[m].tolist(), B[:, n].tolist(), datapath, shifts)
    k = None if k_a is None or k_b is None else k_a + k_b
    return acc if return_accumulator else reference.read_out(acc, datapath, k)


def _padded(t, dim: int, block: int):
    """Codes filled up with zeros along ``dim`` to whole blocks; shifts stay."""
    codes, k, shifts = t
    fill = [(0, 0)] * codes.ndim
    fill[dim] = (0, -codes.shape[dim] % block)
    return np.pad(codes, fill), k, shifts


def _product(left, right, k, datapath, block, shape):
    """Of rows (codes, shifts) against rows, each already in the order of K, in a result of ``shape``."""
    acc = np.zeros(shape, dtype=np.int64)
    for at in np.ndindex(*shape):
        (a, s_a), (b, s_b) = left(*at), right(*at)
        acc[at] = dot(a, b, datapath, _of_vectors(s_a, s_b, len(a), block, datapath.vector_size))
    return reference.read_out(acc, datapath, k)


def conv2d(x, w, stride, padding, dilation, datapath, block):
    """y of x (N, C, H, W) and w (O, C, kh, kw), both with blocks along channels, which are filled up to whole blocks;
    each output is a dot product over (kh, kw, channel), channel fastest.
    """
    (X, k_x, s_x), (W, k_w, s_w) = _padded(x, 1, block), _padded(w, 1, block)
    outputs, C, kh, kw = W.shape
    H = (X.shape[2] + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    V = (X.shape[3] + 2 * padding - dilation * (kw - 1) - 1) // stride + 1

    def left(n, o, i, j):
        where = ((kh, kw), i * stride - padding, j * stride - padding, dilation, dilation)
        return reference._gather(X, n, 0, C, *where), reference._gather(s_x, n, 0, C // block, *where)

    def right(n, o, i, j):
        return tuple(t[o].transpose(1, 2, 0).reshape(-1).tolist() for t in (W, s_w))

    return _product(left, right, k_x + k_w, datapath, block, (X.shape[0], outputs, H, V))


def conv2d_input_gradient(dy, w, input_size, stride, padding, dilation, datapath, block):
    """dx of dy (N, O, H', W') and w (O, C, kh, kw), both with blocks along output channels, filled up likewise."""
    (G, k_g, s_g), (W, k_w, s_w) = _padded(dy, 1, block), _padded(w, 0, block)
    outputs, _, kh, kw = W.shape

    def left(n, c, i, j):
        where = ((kh, kw), i + padding, j + padding, -dilation, -dilation, (stride, stride))
        return reference._gather(G, n, 0, outputs, *where), reference._gather(s_g, n, 0, outputs // block, *where)

    def right(n, c, i, j):
        return tuple(t[:, c].transpose(1, 2, 0).reshape(-1).tolist() for t in (W, s_w))

    return _product(left, right, k_g + k_w, datapath, block, tuple(input_size))


def conv2d_weight_gradient(dy, x, kernel_size, stride, padding, dilation, datapath, block):
    """dw of dy (N, O, H', W') and x (N, C, H, W), both with blocks along images, filled up likewise; each element is a
    dot product over (output row, output column, image), image fastest.
    """
    (G, k_g, s_g), (X, k_x, s_x) = _padded(dy, 0, block), _padded(x, 0, block)
    _, outputs, H, V = G.shape
    around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    X, s_x = np.pad(X, around), np.pad(s_x, around)

    def seen(t, c, i, j):
        part = t[:, c, i * dilation :, j * dilation :][:, : H * stride : stride, : V * stride : stride]
        return part.transpose(1, 2, 0).reshape(-1).tolist()

    def left(o, c, i, j):
        return tuple(t[:, o].transpose(1, 2, 0).reshape(-1).tolist() for t in (G, s_g))

    def right(o, c, i, j):
        return seen(X, c, i, j), seen(s_x, c, i, j)

    return _product(left, right, k_g + k_x, datapath, block, (outputs, X.shape[1], *kernel_size))
