"""Where the codes of golden vectors come from: chance, corner cases, or a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.format import LNSFormat
from lns_sim.golden import block_vectors, log_vectors
from lns_sim.golden.corners import extremes
from lns_sim.log_datapath import LogDatapath
from lns_sim.npz import read_npz
from lns_sim.policies import MOST_SHIFT

Shifts = tuple[np.ndarray, np.ndarray]  # a's and b's
Operands = tuple[list[str], np.ndarray, np.ndarray, Shifts | None]  # names or none, a, b


def operands(
    datapath: AnyDatapath,
    source: str,
    count: int,
    k: int,
    rng: np.random.Generator,
    exponents: tuple[int, int],
    formats: tuple[LNSFormat, LNSFormat] | None = None,
    block: int | None = None,
) -> Operands:
    """Operands of a source, see :func:`lns_sim.golden.make_vectors`; exponents are those that codes may have, where
    ``formats`` does not say others for a and b.
    """
    f = datapath.format
    own = [(f, exponents)] * 2 if formats is None else [(o, (1, o.e_max)) for o in formats]
    if source == "random":
        a, b = (_random(rng, (count, k), *o) for o in own)
        shape = count, block_vectors.blocks(k, block)
        return [], a, b, block and tuple(rng.integers(0, MOST_SHIFT + 1, shape) for _ in "ab")
    if source == "corner":
        cases = (
            log_vectors.corner_cases(datapath, k)
            if isinstance(datapath, LogDatapath)
            else corner_cases(datapath, k, exponents)
        )
        if block is not None:
            cases = {name: (*case, 0, 0) for name, case in cases.items()}
            cases |= block_vectors.corner_cases(datapath, k, exponents, block)
        lengths = (k, k) if block is None else (k, k, *[block_vectors.blocks(k, block)] * 2)
        a, b, *shifts = (
            np.stack([np.broadcast_to(case[i], (n,)) for case in cases.values()]).astype(np.int64)
            for i, n in enumerate(lengths)
        )
        return list(cases), a, b, tuple(shifts) or None
    if source.startswith("npz:"):
        path = Path(source[4:])
        a, b = _load(path, own)
        if block is not None:
            return [], a, b, _load_shifts(path, (len(a), block_vectors.blocks(a.shape[1], block)))
        with np.load(path) as held:
            if not {"a_shifts", "b_shifts"}.isdisjoint(held.files):
                raise ValueError(f"{path} holds shifts of blocks: say how long a block is")
        return [], a, b, None
    raise ValueError(f"source must be 'random', 'corner' or 'npz:PATH', got {source!r}")


def _random(rng: np.random.Generator, shape: tuple[int, int], f: LNSFormat, exponents: tuple[int, int]) -> np.ndarray:
    """Uniform codes, of all that the exponents allow, and zeros of both signs."""
    low, high = exponents
    if exponents == (1, f.e_max):
        return rng.integers(0, 1 << f.bits, shape)
    e = rng.integers(low - 1, high + 1, shape)
    return np.where(e < low, 0, e) | rng.integers(0, 2, shape) << (f.bits - 1)


def _load(path: Path, own: list[tuple[LNSFormat, tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray]:
    a, b = read_npz(path, ("a", "b"))
    for name, codes, (f, exponents) in zip("ab", (a, b), own):
        if codes.ndim != 2 or codes.size == 0 or codes.dtype.kind not in "iu":
            raise ValueError(
                f"{name} in {path} must be integer codes of shape (dot products, K), got {codes.dtype} {codes.shape}"
            )
        if codes.min() < 0 or codes.max() >= 1 << f.bits:
            raise ValueError(f"{name} in {path} holds codes outside 0 .. {(1 << f.bits) - 1}")
        e = codes.astype(np.int64) & f.e_max
        if ((e > 0) & ((e < exponents[0]) | (e > exponents[1]))).any():
            raise ValueError(f"{name} in {path} holds exponents outside {exponents[0]} .. {exponents[1]}")
    if a.shape != b.shape:
        raise ValueError(f"a and b in {path} must be of one shape, got {a.shape} and {b.shape}")
    return a.astype(np.int64), b.astype(np.int64)


def _load_shifts(path: Path, shape: tuple[int, int]) -> Shifts:
    a, b = read_npz(path, ("a_shifts", "b_shifts"))
    for name, shifts in (("a_shifts", a), ("b_shifts", b)):
        if shifts.shape != shape or shifts.dtype.kind not in "iu":
            raise ValueError(
                f"{name} in {path} must be integers of shape (dot products, blocks) = {shape}, got {shifts.dtype} "
                f"{shifts.shape}"
            )
        if shifts.min() < 0 or shifts.max() > block_vectors.MOST:
            raise ValueError(f"{name} in {path} holds shifts outside 0 .. {block_vectors.MOST}")
    return a.astype(np.int64), b.astype(np.int64)


def corner_cases(datapath: Datapath, k: int, exponents: tuple[int, int]) -> dict[str, tuple]:
    """(a, b) by name: extremes, zeros of both signs, cancellation, single lanes, every remainder, the LSB's edge."""
    f, size, offset = datapath.format, datapath.vector_size, datapath.product_offset
    (low, top), sign = exponents, 1 << (f.bits - 1)
    lanes = np.arange(k)
    middle = max(top // 2 + 1, low)
    cases: dict[str, tuple] = {
        **extremes(low, top, sign, lanes),
        "up in even vectors, down in odd ones": (top, np.where(lanes // size % 2, sign | top, top)),
        "up to the end, then one down": (top, np.where(lanes == k - 1, sign | top, top)),
        "exponents ascending": 2 * (_ascending(lanes, low, top),),
        "one largest, the rest smallest": (np.where(lanes == 0, top, low), np.where(lanes == 0, top, low)),
    }
    half = int(np.clip(f.gamma * datapath.lane_lsb + offset - middle, low, top))
    cases["minus one unit of Y: truncation rounds down"] = (_only(lanes, 0, sign | half), middle)
    for lane in sorted({0, 1, size // 2, size - 1, size, k - 1} & set(range(k))):
        cases[f"lane {lane} only"] = (_only(lanes, lane, top), top)

    def pair(p: int) -> tuple[int, int]:
        """Two exponents whose product is p."""
        first = min(max((p + offset + 1) // 2, low), top)
        return first, p + offset - first

    first, last = 2 * low - offset, 2 * top - offset
    for r in range(f.gamma):
        for p in {first + (r - first) % f.gamma, last - (last - r) % f.gamma}:
            if first <= p <= last:
                a, b = pair(p)
                cases[f"product {p}, remainder {r}"] = (_only(lanes, 0, a), b)
    edges = {"vanishing": f.gamma * datapath.lane_lsb}  # products below vanish
    if datapath.product_range:
        edges |= dict(zip(("the product's lower limit", "the product's upper limit"), datapath.product_range))
    for name, edge in edges.items():
        for p in range(max(first, edge - 2), min(last, edge + 2) + 1):
            cases[f"product {p} at the edge of {name}"] = pair(p)
    if datapath.bin_bits is not None:
        cases["up in one bin, down in the next"] = (top, np.where(lanes % 2, sign | max(top - 1, low), top))
    return cases


def _ascending(lanes: np.ndarray, low: int, top: int) -> np.ndarray:
    """Zero, then every exponent, over and over."""
    at = lanes % (top - low + 2)
    return np.where(at == 0, 0, at + low - 1)


def _only(lanes: np.ndarray, lane: int, code: int) -> np.ndarray:
    return np.where(lanes == lane, code, 0)
