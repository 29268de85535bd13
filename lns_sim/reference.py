"""The arithmetic a second time: plain Python integers and NumPy, written from docs/arithmetic.md, to be read and
believed.

Slow on purpose, and independent: nothing of the extension, of torch or of the rest of lns_sim is imported. ``format``
is anything with ``bits`` and ``gamma``, ``datapath`` anything with the fields of ``lns_sim.Datapath``, or of
``lns_sim.LogDatapath``, whose dot products are in ``lns_sim.reference_log``. Codes are
integer arrays (sign bit over exponent), scale exponents are integers ``k``; a tensor is the pair ``(codes, k)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from lns_sim import reference_log

# ---- Powers of two, exactly


@cache
def floor_pow2(a: int, b: int, s: int) -> int:
    """floor(2^(a/b) * 2^s), b a power of two: the b-th root of 2^(a + s*b) by nested integer square roots."""
    n = 1 << (a + s * b)
    while b > 1:
        n, b = math.isqrt(n), b // 2
    return n


def round_pow2(a: int, b: int, s: int) -> int:
    """2^(a/b) * 2^s rounded to the nearest integer (never half-way, unless it is an integer)."""
    return (floor_pow2(a, b, s + 1) + 1) // 2


@cache
def thresholds(gamma: int) -> np.ndarray:
    """t_j: a 24-bit mantissa M rounds up past step j, in log space, when M > t_j."""
    return np.array([floor_pow2(2 * j + 1, 2 * gamma, 23) for j in range(gamma)], dtype=np.int64)


@cache
def step_values(gamma: int) -> np.ndarray:
    """B_j: 2^(j/gamma) as a 24-bit mantissa, j = 0 .. gamma."""
    return np.array([round_pow2(j, gamma, 23) for j in range(gamma + 1)], dtype=np.int64)


# ---- Codes


def e_max(format) -> int:
    """The largest exponent."""
    return 2 ** (format.bits - 1) - 1


def decode(codes, format) -> tuple[np.ndarray, np.ndarray]:
    """(sign in {+1, -1}, exponent) of codes."""
    codes = np.asarray(codes).astype(np.int64)
    return np.where(codes & (e_max(format) + 1), -1, 1), codes & e_max(format)


def encode(negative, e, format) -> np.ndarray:
    """Codes from a sign and an exponent; zero is +0."""
    return np.where((e > 0) & negative, e | (e_max(format) + 1), e)


def recode(codes, format, wider) -> np.ndarray:
    """Codes as operands of a datapath of a wider format, in whose finer steps their exponents are counted."""
    sign, e = decode(codes, format)
    return encode(sign < 0, e * (wider.gamma // format.gamma), wider)


def dequantize(codes, k, format) -> np.ndarray:
    """float32 values: 2^(e/gamma) to 24 bits, times a power of two, rounded once."""
    sign, e = decode(codes, format)
    mantissa = step_values(format.gamma)[e % format.gamma].astype(np.float64)
    exponent = np.clip(e // format.gamma + np.asarray(k) - 23, -1000, 1000)
    with np.errstate(over="ignore"):
        value = np.ldexp(mantissa, exponent).astype(np.float32)
    return np.where(e == 0, np.float32(0), sign.astype(np.float32) * value)


# ---- Random bits (Philox4x32-10)


def philox(seed: int, step: int, tensor_id: int, element: int) -> int:
    """The first 32-bit output word for one element."""
    mask = 0xFFFFFFFF
    c = [element & mask, element >> 32, step, tensor_id]
    key = [seed & mask, seed >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ key[0], p1 & mask, (p0 >> 32) ^ c[3] ^ key[1], p0 & mask]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return c[0]


def random_u24(shape, seed: int, step: int = 0, tensor_id: int = 0) -> np.ndarray:
    """24 random bits for every element of a tensor, by its index in row-major order."""
    words = [philox(seed, step, tensor_id, i) >> 8 for i in range(math.prod(shape))]
    return np.array(words, dtype=np.int64).reshape(shape)


# ---- Quantizer


def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, exponent) with |x| = M * 2^(exponent - 23), M a 24-bit integer with its top bit set. x finite, not zero."""
    fraction, exponent = np.frexp(np.abs(x.astype(np.float64)))
    return (fraction * 2**24).astype(np.int64), exponent.astype(np.int64) - 1


def log_code(x: np.ndarray, gamma: int, given=None) -> np.ndarray:
    """L(x): the integer nearest to gamma * log2|x|, or by a converter's own thresholds."""
    M, exponent = split(x)
    return gamma * exponent + np.searchsorted(
        thresholds(gamma) if given is None else given, M, side="left"
    )  # counts t_j < M


def log_code_stochastic(x: np.ndarray, gamma: int, u24: np.ndarray) -> np.ndarray:
    """The lower code, or the upper one with probability linear in the value between the two."""
    M, exponent = split(x)
    B = step_values(gamma)
    j = np.searchsorted(B, M, side="right") - 1
    up = u24 * (B[j + 1] - B[j]) < (M - B[j]) * 2**24
    return gamma * exponent + j + up


def scale_exponent(x: np.ndarray, format, given=None) -> int:
    """k: the largest magnitude's code is at most e_max; 0 for an all-zero tensor."""
    top = np.abs(x).max(initial=0)
    if top == 0:
        return 0
    L = int(log_code(np.array([top], dtype=np.float32), format.gamma, given)[0])
    return min(max(-((e_max(format) - L) // format.gamma), -126), 127)


def apply_underflow(e, ratio, format, underflow: str, u24):
    """Exponents below 1 by policy. ``ratio`` is |x| * 2^-k in double, exact."""
    if underflow == "clamp":
        low = 1
    elif underflow == "flush":
        low = 0
    else:
        inverse_step = round_pow2(format.gamma - 1, format.gamma, 52) / 2**53  # 2^(-1/gamma), the nearest double
        low = (u24 * 2.0**-24 < ratio * inverse_step).astype(np.int64)
    return np.where(e < 1, low, np.minimum(e, e_max(format)))


def quantize(
    x, format, dim=None, rounding="nearest", underflow="clamp", seed=None, step=0, tensor_id=0, thresholds=None
):
    """Codes and scale exponents of a float32 array.

    Returns:
        (codes, k): int64 codes of x's shape; k an integer, or with ``dim`` an array of x's rank, or None where x (or a
        slice) holds NaN or Inf, whose codes are then zero.
    """
    x = np.asarray(x, dtype=np.float32)
    u24 = random_u24(x.shape, seed, step, tensor_id) if "stochastic" in (rounding, underflow) else np.zeros(x.shape)
    if dim is not None:
        parts = [
            _quantize(np.take(x, [i], dim), format, rounding, underflow, np.take(u24, [i], dim), thresholds)
            for i in range(x.shape[dim])
        ]
        shape = [x.shape[d] if d == dim % x.ndim else 1 for d in range(x.ndim)]
        ks = np.array([k for _, k in parts], dtype=object if any(k is None for _, k in parts) else np.int64)
        return np.concatenate([codes for codes, _ in parts], axis=dim), ks.reshape(shape)
    return _quantize(x, format, rounding, underflow, u24, thresholds)


def _quantize(x, format, rounding, underflow, u24, given):
    if not np.isfinite(x).all():
        return np.zeros(x.shape, dtype=np.int64), None
    k = scale_exponent(x, format, given)
    safe = np.where(x == 0, np.float32(1), x)
    if rounding == "nearest":
        L = log_code(safe, format.gamma, given)
    else:
        L = log_code_stochastic(safe, format.gamma, u24.astype(np.int64))
    ratio = np.ldexp(np.abs(x.astype(np.float64)), -k)
    e = apply_underflow(L - format.gamma * k, ratio, format, underflow, u24)
    return np.where(x == 0, 0, encode(x < 0, e, format)), k


def rescale(codes, k_old, k_new, format, underflow="clamp", seed=None):
    """Codes of the same values at another scale: e + gamma * (k_old - k_new)."""
    sign, e = decode(codes, format)
    octaves = np.asarray(k_old) - np.asarray(k_new)
    u24 = random_u24(e.shape, seed) if underflow == "stochastic" else np.zeros(e.shape)
    mantissa = step_values(format.gamma)[e % format.gamma].astype(np.float64)
    ratio = np.ldexp(mantissa, np.minimum(e // format.gamma + octaves - 23, 900))
    moved = apply_underflow(e + format.gamma * octaves, ratio, format, underflow, u24)
    return np.where(e == 0, 0, encode(sign < 0, moved, format))


# ---- Datapath


def acc_lsb(datapath) -> int:
    """log2 of the accumulator's unit."""
    if datapath.acc_lsb is not None:
        return datapath.acc_lsb
    f = datapath.format
    largest = 2 * e_max(f) - datapath.product_offset
    return math.ceil(largest / f.gamma) + datapath.headroom_bits - (datapath.acc_bits - 1)


def floor_shift(n: int, s: int) -> int:
    """floor(n * 2^s)."""
    return n << s if s >= 0 else n >> -s


def narrow(n: int, bits: int, overflow: str) -> int:
    """n in so many bits of two's complement, saturated or wrapped."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return min(max(n, low), high) if overflow == "saturate" else (n - low) % (1 << bits) + low


def narrow_bin(P: int, datapath) -> int:
    """A bin's sum as it is kept; bins of one sign hold magnitudes."""
    bits, overflow = datapath.bin_bits, datapath.bin_overflow
    if bits is None:
        return P
    if datapath.bins == "joint":
        return narrow(P, bits, overflow)
    return min(P, (1 << bits) - 1) if overflow == "saturate" else P % (1 << bits)


@dataclass(frozen=True)
class VectorTrace:
    """What one vector of lanes did: p, q, r and the signed lane integer of every lane, then bins, Y, Z and acc.

    Where bins are signed, those of negative products stand behind the others.
    """

    p: list[int]
    q: list[int]
    r: list[int]
    lanes: list[int]
    bins: list[int]
    Y: int
    Z: int
    acc: int
    overflowed: bool


def trace(a, b, datapath, shifts=None) -> Iterator[VectorTrace]:
    """One dot product of two lists of codes, vector by vector and step by step as the hardware does it.

    ``shifts`` holds, for each vector, the octaves by which its blocks' scales lie under their tensors'; None: no
    blocks.
    """
    f = datapath.format
    g, n, frac = f.gamma, datapath.lut_entries, datapath.lut_bits - 1
    lsb, top, log2_g = acc_lsb(datapath), e_max(f), int(math.log2(g))
    C = datapath.lut_constants or [round_pow2(j, n, frac) for j in range(n)]
    offset, signed = datapath.product_offset, datapath.bins == "signed"
    p_low, p_high = datapath.product_range or (-offset, 2 * top - offset)
    lane_lsb = lsb + frac if datapath.keep_fraction else lsb
    weights = [*C, *(-c for c in C)] if signed else C
    acc = 0
    for start in range(0, len(a), datapath.vector_size):
        v = VectorTrace([], [], [], [], [0] * len(weights), 0, 0, 0, False)
        for code_a, code_b in zip(a[start : start + datapath.vector_size], b[start : start + datapath.vector_size]):
            e_a, e_b = code_a & top, code_b & top
            p = e_a + e_b - offset  # multiply as add
            flushed = p < p_low and datapath.product_underflow == "flush"
            p = min(max(p, p_low), p_high)
            q, r = divmod(p, g)  # split
            r_M, r_L = divmod(r, g // n)
            t = 0
            if e_a != 0 and e_b != 0 and not flushed:
                t = floor_shift(g + r_L, q - lane_lsb - log2_g)  # floor((g + r_L) * 2^q / (g * 2^lsb))
                if (code_a ^ code_b) > top:  # signs differ
                    t = -t
            if signed and t < 0:
                v.bins[n + r_M] -= t
            else:
                v.bins[r_M] += t
            for values, value in ((v.p, p), (v.q, q), (v.r, r), (v.lanes, t)):
                values.append(value)
        bins = [narrow_bin(P, datapath) for P in v.bins]
        Y = sum(P * c for P, c in zip(bins, weights))
        drop = (0 if datapath.keep_fraction else frac) + (shifts[start // datapath.vector_size] if shifts else 0)
        Z = (Y + (1 << (drop - 1))) >> drop if datapath.rounding == "nearest" else Y >> drop
        exact = acc + Z
        acc = narrow(exact, datapath.acc_bits, datapath.overflow)
        yield replace(v, bins=bins, Y=Y, Z=Z, acc=acc, overflowed=acc != exact or bins != v.bins)


def dot(a, b, datapath) -> int:
    """The accumulator after one dot product of two lists of codes."""
    if hasattr(datapath, "acc_gamma"):
        return reference_log.dot(a, b, datapath)
    acc = 0
    for vector in trace(a, b, datapath):
        acc = vector.acc
    return acc


def read_out(acc, datapath, k) -> np.ndarray:
    """acc * 2^(acc_lsb + k + product_offset / gamma) as float32. k = k_a + k_b, None for NaN."""
    if k is None:
        return np.full(np.shape(acc), np.nan, dtype=np.float32)
    if hasattr(datapath, "acc_gamma"):
        return _read_out_log(np.asarray(acc), datapath, k)
    octaves, r = divmod(datapath.product_offset, datapath.format.gamma)
    exponent = np.clip(acc_lsb(datapath) + octaves + np.asarray(k), -1000, 900)
    mantissa = step_values(datapath.format.gamma)[r] / 2**23
    with np.errstate(over="ignore"):
        return np.ldexp(np.asarray(acc, dtype=np.float64) * mantissa, exponent).astype(np.float32)


def _read_out_log(acc, datapath, k) -> np.ndarray:
    """+-2^((E + offset) / G + k) as float32, of log-domain accumulators 0 or +-(E - E_min + 1)."""
    G = reference_log.acc_gamma(datapath)
    E = np.abs(acc) - 1 + reference_log.e_limits(datapath)[0] + reference_log.offset(datapath)
    mantissa = np.sign(acc) * step_values(G)[E % G].astype(np.float64)
    with np.errstate(over="ignore"):
        return np.ldexp(mantissa, np.clip(E // G + np.asarray(k) - 23, -1000, 900)).astype(np.float32)


def accumulator_code(acc: int, converter, scale: int) -> int:
    """The code that a converter (with the fields of ``lns_sim.AccumulatorConverter``) makes of acc * 2^scale."""
    if acc == 0:
        return 0
    f, bits = converter.format, converter.mantissa_bits
    low, high = converter.exponents or (1, e_max(f))
    t = converter.thresholds or [floor_pow2(2 * j + 1, 2 * f.gamma, bits - 1) for j in range(f.gamma)]
    position = abs(acc).bit_length() - 1
    M, rest = divmod(abs(acc) << bits, 2 << position)  # bits of the mantissa, and what lies below, in 2 << position
    if converter.rounding == "nearest":
        M += rest > 1 << position or (rest == 1 << position and M % 2 == 1)
    e = f.gamma * (position + scale) + sum(t_j < M for t_j in t) + converter.offset
    if e < low:
        e = low if converter.underflow == "clamp" else 0
    return int(encode(acc < 0, min(e, high), f))


def _add_scales(k_a, k_b):
    return None if k_a is None or k_b is None else np.asarray(k_a) + np.asarray(k_b)


def matmul(a, b, datapath, return_accumulator=False):
    """a @ b for tensors (codes, k) of shapes (..., M, K) and (..., K, N), broadcasting batch dimensions."""
    (a, k_a), (b, k_b) = a, b
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    A = np.broadcast_to(a, batch + a.shape[-2:])
    B = np.swapaxes(np.broadcast_to(b, batch + b.shape[-2:]), -1, -2)
    acc = np.zeros((*batch, A.shape[-2], B.shape[-2]), dtype=np.int64)
    for i in np.ndindex(*batch):
        rows, columns = A[i].tolist(), B[i].tolist()
        for m, row in enumerate(rows):
            for n, column in enumerate(columns):
                at = (*i, m, n)
                acc[at] = dot(row, column, datapath)
    return acc if return_accumulator else read_out(acc, datapath, _add_scales(k_a, k_b))


def _gather(x, n, c0, channels, taps, y0, x0, dy, dx, shrink=(1, 1)):
    """Codes that one output sees: over (tap row, tap column, channel), zero outside x or between strided positions."""
    row = []
    for i, j in np.ndindex(*taps):
        y, z = y0 + i * dy, x0 + j * dx
        inside = y % shrink[0] == 0 and z % shrink[1] == 0
        y, z = y // shrink[0], z // shrink[1]
        inside = inside and 0 <= y < x.shape[2] and 0 <= z < x.shape[3]
        row += x[n, c0 : c0 + channels, y, z].tolist() if inside else [0] * channels
    return row


def _pair(v):
    return (v, v) if isinstance(v, int) else tuple(v)


def conv2d(x, w, stride=1, padding=0, dilation=1, groups=1, datapath=None, return_accumulator=False):
    """2-D convolution of (codes, k) tensors; each output is a dot product over (kh, kw, channel), channel fastest."""
    (x, k_x), (w, k_w) = x, w
    (sy, sx), (py, px), (dy, dx) = _pair(stride), _pair(padding), _pair(dilation)
    O, C, kh, kw = w.shape
    H = (x.shape[2] + 2 * py - dy * (kh - 1) - 1) // sy + 1
    W = (x.shape[3] + 2 * px - dx * (kw - 1) - 1) // sx + 1
    acc = np.zeros((x.shape[0], O, H, W), dtype=np.int64)
    for n, o, i, j in np.ndindex(*acc.shape):
        group = o // (O // groups)
        seen = _gather(x, n, group * C, C, (kh, kw), i * sy - py, j * sx - px, dy, dx)
        acc[n, o, i, j] = dot(seen, w[o].transpose(1, 2, 0).reshape(-1).tolist(), datapath)
    if return_accumulator:
        return acc
    k_w = None if k_w is None else np.asarray(k_w).reshape(-1)[None, :, None, None]
    return read_out(acc, datapath, _add_scales(k_x, k_w))


def conv2d_input_gradient(dy, w, input_size, stride=1, padding=0, dilation=1, groups=1, datapath=None):
    """dx: each element is a dot product over (kh, kw, output channel), channel fastest; unused taps are zero codes."""
    (g, k_g), (w, k_w) = dy, w
    (sy, sx), (py, px), (ty, tx) = _pair(stride), _pair(padding), _pair(dilation)
    O, C, kh, kw = w.shape
    per_group = O // groups
    acc = np.zeros(tuple(input_size), dtype=np.int64)
    for n, c, i, j in np.ndindex(*acc.shape):
        o0 = c // C * per_group
        seen = _gather(g, n, o0, per_group, (kh, kw), i + py, j + px, -ty, -tx, (sy, sx))
        weights = w[o0 : o0 + per_group, c % C].transpose(1, 2, 0).reshape(-1).tolist()
        acc[n, c, i, j] = dot(seen, weights, datapath)
    return read_out(acc, datapath, _add_scales(k_g, k_w))


def conv2d_weight_gradient(dy, x, kernel_size, stride=1, padding=0, dilation=1, groups=1, datapath=None):
    """dw: each element is a dot product over (image, output row, output column), column fastest."""
    (g, k_g), (x, k_x) = dy, x
    (sy, sx), (py, px), (ty, tx) = _pair(stride), _pair(padding), _pair(dilation)
    _, O, H, W = g.shape
    C = x.shape[1] // groups
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    acc = np.zeros((O, C, *kernel_size), dtype=np.int64)
    for o, c, i, j in np.ndindex(*acc.shape):
        seen = padded[:, o // (O // groups) * C + c, i * ty :, j * tx :][:, : H * sy : sy, : W * sx : sx]
        acc[o, c, i, j] = dot(g[:, o].reshape(-1).tolist(), seen.reshape(-1).tolist(), datapath)
    return read_out(acc, datapath, _add_scales(k_g, k_x))


# ---- Weights and LNS-Madam


def forward_codes(codes, k, update, forward):
    """(codes, k) in the forward format of a weight's (codes, k) in the update format."""
    sign, e = decode(codes, update)
    d = int(math.log2(update.gamma // forward.gamma))
    coarse = (e + (1 << d >> 1)) >> d
    if e_max(forward) + 1 < (e_max(update) + 1) >> d:  # fewer octaves: the quantizer's scale rule on the largest code
        top = int(coarse.max(initial=0)) if e.any() else None
        k_new = 0 if top is None else -((e_max(forward) - top - forward.gamma * k) // forward.gamma)
        k_new = min(max(k_new, -126), 127)
        coarse, k = coarse + forward.gamma * (k - k_new), k_new
    coarse = np.clip(coarse, 1, e_max(forward))
    return np.where(e == 0, 0, encode(sign < 0, coarse, forward)), k


def weight_cap(codes, k, format, p_scale: float) -> np.float32:
    """p_scale * rms of a weight's values, summed exactly per exponent; infinite where none is above the
    smallest code.
    """
    _, e = decode(codes, format)
    counts = np.bincount(e.reshape(-1), minlength=1)
    if not counts[2:].any():
        return np.float32(np.inf)
    squares = math.fsum(int(n) * 4.0 ** (i / format.gamma) for i, n in enumerate(counts) if i and n)
    return np.float32(math.ldexp(p_scale * math.sqrt(squares / max(e.size, 1)), k))


def madam_step(
    codes,
    k,
    v,
    grad,
    t,
    format,
    lr=1 / 128,
    beta=0.999,
    g_bound=10.0,
    cap=np.inf,
    rounding="nearest",
    seed=None,
    step=0,
    tensor_id=0,
):
    """One LNS-Madam step: (new codes, new v). ``t`` counts from 1; ``cap`` is the largest magnitude allowed."""
    f32 = np.float32
    v, g = np.asarray(v, dtype=f32), np.asarray(grad, dtype=f32)
    with np.errstate(all="ignore"):
        v = f32(beta) * v + (f32(1 - beta) * g) * g
        ghat = np.where(g == 0, f32(0), g / np.sqrt(v / f32(1 - beta**t)))
        ghat = np.clip(ghat, f32(-g_bound), f32(g_bound))
        x = np.clip(f32(lr * format.gamma) * ghat, f32(-65536), f32(65536))
        if rounding == "nearest":
            steps = np.rint(x)
        else:
            u = random_u24(g.shape, seed, step, tensor_id).astype(f32) * f32(2.0**-24)
            steps = np.floor(x + u)
        steps = np.where(np.isnan(steps), 0, steps).astype(np.int64)
    sign, e = decode(codes, format)
    e_cap = e_max(format)
    if np.isfinite(cap):
        L = int(log_code(np.array([cap], dtype=f32), format.gamma)[0]) if cap > 0 else 1 - 2**40
        e_cap = min(max(L - format.gamma * k, 1), e_max(format))
    moved = np.clip(e - sign * steps, 1, e_cap)
    return np.where(e == 0, 0, encode(sign < 0, moved, format)), v
