"""What golden vectors of datapaths that add logarithms have of their own: corner cases, coverage, intermediates."""

from __future__ import annotations

import numpy as np

from lns_sim.datapaths import Counters
from lns_sim.golden.corners import extremes
from lns_sim.golden.words import hex_words
from lns_sim.log_datapath import LogDatapath
from lns_sim.reference_log import LogVectorTrace

MOST_DISTANCES = 512


def corner_cases(d: LogDatapath, k: int) -> dict[str, tuple]:
    """(a, b) by name: extremes, zeros, cancellation, single lanes, distances of either sign, the range's edges."""
    top, sign, lanes = d.format.e_max, d.format.e_max + 1, np.arange(k)
    cases: dict[str, tuple] = {
        **extremes(1, top, sign, lanes),
        "exponents ascending": (lanes % sign, lanes % sign),
        "one largest, the rest smallest": (np.where(lanes == 0, top, 1), np.where(lanes == 0, top, 1)),
    }
    for lane in sorted({0, 1, d.vector_size - 1, d.vector_size, k - 1} & set(range(k))):
        cases[f"lane {lane} only"] = (np.where(lanes == lane, top, 0), top)

    def pair(p: int) -> tuple[int, int]:
        """Two exponents whose sum is p."""
        return max(1, p - top), p - max(1, p - top)

    for p in range(2, 2 * top + 1, -(-2 * top // MOST_DISTANCES)) if k > 1 else ():
        x, y = pair(p)
        for name, s in (("", 0), ("minus ", sign)):
            a, b = np.where(lanes == 0, top, 0), np.where(lanes == 0, top, y)
            a[1] = s | x
            cases[f"the largest product, then {name}exponent {p}"] = (a, b)
    for limit in d.e_limits:
        edge = (limit + d.product_offset) // (d.octave // d.format.gamma)
        for p in range(max(2, edge - 1), min(2 * top, edge + 2) + 1):
            cases[f"product of exponent {p}, about E = {limit}"] = pair(p)
    return cases


def coverage(d: LogDatapath, a: np.ndarray, b: np.ndarray, accumulators: np.ndarray, counters: Counters):
    """How many dot products and operations meet which fate."""
    e_a, e_b = a & d.format.e_max, b & d.format.e_max
    some = (e_a > 0) & (e_b > 0)
    low, high = d.e_limits
    E = (e_a + e_b) * (d.octave // d.format.gamma) - d.product_offset
    seen = (some & ((low <= E) | (d.underflow == "saturate"))).any(1)
    return {
        "saturated": int((np.abs(accumulators) == high - low + 1).sum()),
        "cancelled": int((seen & (accumulators == 0)).sum()),
        "vanished": int((some.any(1) & ~seen).sum()),
        "zero": int((~some.any(1)).sum()),
        "saturated_operations": counters.saturations,
        "flushed_operations": counters.vanished,
        "cancelled_additions": counters.cancelled,
        "accumulations": counters.vectors,
        "zero_products": counters.zero_lanes,
        "products": counters.macs,
    }


def files_of(d: LogDatapath, accumulators: np.ndarray) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Files of results and of the correction tables, and what they hold."""
    plus, minus = d.corrections
    width = max([d.acc_bits, *(n.bit_length() for n in (*plus, *minus))])
    files = {
        "acc": hex_words(accumulators, d.acc_bits),
        "plus": hex_words(plus, width),
        "minus": hex_words(minus, width),
    }
    return files, {
        "acc.hex": f"a line is the accumulator after a dot product, {d.acc_bits} bits two's complement: 0, or "
        f"E - E_min + 1 with the sign of the number, E_min = {d.e_limits[0]}",
        "plus.hex, minus.hex": f"a line is an entry of a correction table, by distance, {width} bits; 0 behind the end",
    }


def intermediates(d: LogDatapath, traces: list[LogVectorTrace]) -> tuple[dict[str, list[str]], str]:
    """Files of what happened in every vector, and what they hold."""
    files = {name: [" ".join(hex_words(getattr(v, name), d.acc_bits)) for v in traces] for name in ("products", "sums")}
    return (
        files,
        f"a line is of one vector: every product, and every sum in its order, as in acc.hex: {d.acc_bits} bits",
    )
