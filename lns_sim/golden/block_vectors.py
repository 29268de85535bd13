"""What golden vectors of operands with block scales have of their own: corner cases, and shifts as files hold them."""

from __future__ import annotations

import numpy as np

from lns_sim.datapath import Datapath
from lns_sim.policies import MOST_SHIFT

SHIFT_BITS = 8
MOST = (1 << SHIFT_BITS) - 1


def blocks(k: int, block: int | None) -> int:
    """Of a dot product, of which the last may be short; 0 without blocks."""
    return 0 if block is None else -(-k // block)


def of_vectors(shifts: np.ndarray, block: int, size: int, k: int) -> np.ndarray:
    """Shifts (dot products, blocks) for each vector of ``size`` lanes: (dot products, vectors)."""
    return np.repeat(shifts, block // size, 1)[:, : -(-k // size)]


def of_blocks(name: str, shifts: np.ndarray, block: int, size: int, k: int) -> np.ndarray:
    """What :func:`of_vectors` spread.

    Raises:
        ValueError: vectors of one block have different shifts.
    """
    found = shifts[:, :: block // size]
    if not np.array_equal(of_vectors(found, block, size, k), shifts):
        raise ValueError(f"{name} changes within a block of {block}")
    return found


def corner_cases(d: Datapath, k: int, exponents: tuple[int, int], block: int) -> dict[str, tuple]:
    """(a, b, a's shifts, b's shifts) by name: every shift with sums of either sign that may saturate before and behind
    it, rounding at every sum of shifts, shifts that change from block to block, blocks of zeros, blocks' first and last
    lanes.
    """
    (low, top), sign, most = exponents, 1 << (d.format.bits - 1), MOST_SHIFT
    lanes, of, at = np.arange(k), np.arange(k) // block, np.arange(blocks(k, block))
    cases: dict[str, tuple] = {}
    for s in range(1, most + 1):
        for s_a, s_b in ((s, 0), (0, s), (s, s)):
            for name, b in (("largest", top), ("minus largest", sign | top)):
                cases[f"largest times {name} at shifts {s_a} + {s_b}"] = (top, b, s_a, s_b)

    def single(exponent: int, negative: bool) -> tuple | None:
        """A lane with this product, if codes have one."""
        e = (exponent + d.product_offset + 1) // 2
        other = exponent + d.product_offset - e
        if not (low <= other and e <= top):
            return None
        return np.where(lanes == 0, negative * sign | e, 0), np.where(lanes == 0, other, 0)

    for s in range(1, 2 * most + 1):
        s_a, s_b = (s + 1) // 2, s // 2
        for name, octaves in (("one unit of the lanes", 0), ("about half a unit", s - 1), ("about a unit", s)):
            for minus, negative in (("", False), ("minus ", True)):
                if codes := single(d.format.gamma * (d.lane_lsb + octaves), negative):
                    cases[f"{minus}{name} at shifts {s_a} + {s_b}"] = (*codes, s_a, s_b)
    first = at == 0
    up_and_down = np.where(of == 0, top, sign | top)
    ascending = at % (most + 1)
    cases |= {
        "the first block to the limit, then down by shifted ones": (top, up_and_down, 0, np.where(first, 0, most)),
        "a shifted block, then down to the limit": (top, up_and_down, np.where(first, most, 0), 0),
        "shifts ascending and descending": (top, top, ascending, most - ascending),
        "shifts in turn, of either side": (top, top, np.where(at % 2, most, 0), np.where(at % 2, 0, most)),
    }
    for i in sorted({0, len(at) // 2, len(at) - 1}):
        elsewhere, here = np.where(of == i, 0, top), np.where(of == i, top, 0)
        cases |= {
            f"block {i} of zeros without a shift": (elsewhere, top, np.where(at == i, 0, most), 0),
            f"block {i} of zeros with a shift, which does nothing": (elsewhere, top, np.where(at == i, most, 0), 0),
            f"block {i} only": (here, top, np.where(at == i, 3, most), 0),
        }
        for lane in sorted({i * block, min((i + 1) * block, k) - 1}):
            one = np.where(lanes == lane, top, 0)
            cases[f"lane {lane} only, of block {i}"] = (
                one,
                top,
                np.where(at == i, 2, most),
                np.where(at == i, 1, most),
            )
    return cases
