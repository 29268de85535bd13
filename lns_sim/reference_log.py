"""Log-domain accumulation a second time: plain Python, written from docs/arithmetic.md, section 7.

As in ``lns_sim.reference``, nothing of the rest of lns_sim is imported. ``datapath`` is anything with the fields of
``lns_sim.LogDatapath``, its ``tables`` anything with those of ``lns_sim.LogTables``. A number is None for zero, else
the pair (negative, E).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from itertools import count, pairwise, takewhile

Number = tuple[bool, int] | None

# ---- Correction tables


@cache
def exact_corrections(d: int, G: int) -> tuple[int, int]:
    """What a distance d >= 1 adds to the larger of two numbers of equal signs, and takes off it otherwise."""
    wide = Context(prec=60)  # no value is half-way, or this near to it
    ratio = wide.power(Decimal(2), wide.divide(Decimal(-d), Decimal(G)))

    def steps(x: Decimal) -> int:
        log2 = wide.divide(wide.ln(x), wide.ln(Decimal(2)))
        return int((log2 * G).to_integral_value(context=wide))

    return steps(1 + ratio), -steps(wide.subtract(Decimal(1), ratio))


def line(points, d: int) -> int:
    """The floor of the straight lines between points (distance, entry), 0 behind the last."""
    for (d0, y0), (d1, y1) in pairwise(points):
        if d0 <= d <= d1:
            return y0 + (d - d0) * (y1 - y0) // (d1 - d0)
    return points[0][1] if d == points[0][0] else 0


def tables(datapath) -> tuple[list[int], list[int]]:
    """(plus, minus): the corrections by distance; minus[0] is 0 and not read."""
    t, G = datapath.tables, acc_gamma(datapath)
    return _tables(t.kind, t.drop, t.plus, t.minus, G)


@cache
def _tables(kind: str, drop, plus, minus, G: int) -> tuple[list[int], list[int]]:
    if kind == "shift":
        whole = [_from(lambda d: G >> d // G), _from(lambda d: 3 * G // 2 >> d // G)]
    elif kind == "coarse":

        def at(d: int) -> tuple[int, int]:
            return exact_corrections((d >> drop << drop) + 2 ** (drop - 1), G)

        whole = [_from(lambda d: at(d)[0]), _from(lambda d: at(d)[1])]
    elif kind == "exact":
        whole = [
            [G, *_from(lambda d: exact_corrections(d + 1, G)[0])],
            [0, *_from(lambda d: exact_corrections(d + 1, G)[1])],
        ]
    elif kind == "segments":
        last = max(plus[-1][0], minus[-1][0])
        whole = [[line(points, d) for d in range(last + 1)] for points in (plus, minus)]
    else:
        whole = [list(plus), list(minus)]
    return _until_zeros(whole[0]), _until_zeros([0, *whole[1][1:]])


def _from(correction: Callable[[int], int]) -> list[int]:
    """A falling correction from distance 0 to its last that is not 0."""
    return list(takewhile(bool, map(correction, count())))


def _until_zeros(entries: list[int]) -> list[int]:
    while entries and entries[-1] == 0:
        entries = entries[:-1]
    return entries


# ---- Numbers


def acc_gamma(datapath) -> int:
    """Steps of the accumulator per octave."""
    return datapath.acc_gamma or 2 ** (datapath.acc_bits - 7)


def e_limits(datapath) -> tuple[int, int]:
    """The lowest and the highest E."""
    half = 2 ** (datapath.acc_bits - 2)
    return -half + 1, half - 1


def offset(datapath) -> int:
    """What is taken off a product's exponent, in the accumulator's steps."""
    if datapath.offset is not None:
        return datapath.offset
    G, f = acc_gamma(datapath), datapath.format
    largest = 2 * (2 ** (f.bits - 1) - 1) * (G // f.gamma)
    return largest + datapath.headroom_bits * G - e_limits(datapath)[1]


@dataclass
class Fates:
    """How often what happened."""

    flushed: int = 0
    saturated: int = 0
    cancelled: int = 0


def in_range(negative: bool, E: int, datapath, fates: Fates) -> Number:
    """A number as the accumulator can hold it."""
    low, high = e_limits(datapath)
    if datapath.underflow == "flush" and low > E:
        fates.flushed += 1
        return None
    fates.saturated += not low <= E <= high
    return negative, min(max(E, low), high)


def multiply(code_a: int, code_b: int, datapath, fates: Fates) -> Number:
    """The product of two codes."""
    f = datapath.format
    top = 2 ** (f.bits - 1) - 1
    e_a, e_b = code_a & top, code_b & top
    if e_a == 0 or e_b == 0:
        return None
    E = (e_a + e_b) * (acc_gamma(datapath) // f.gamma) - offset(datapath)
    return in_range((code_a ^ code_b) > top, E, datapath, fates)


def add(x: Number, y: Number, datapath, fates: Fates) -> Number:
    """The sum of two numbers: the larger one, corrected by what their distance says."""
    if x is None or y is None:
        return y if x is None else x
    plus, minus = tables(datapath)
    (negative, E), (other, smaller) = max(x, y, key=lambda n: n[1]), min(y, x, key=lambda n: n[1])
    d = E - smaller
    if negative == other:
        return in_range(negative, E + (plus[d] if d < len(plus) else 0), datapath, fates)
    if d == 0:
        fates.cancelled += 1
        return None
    return in_range(negative, E - (minus[d] if d < len(minus) else 0), datapath, fates)


# ---- Dot products


@dataclass(frozen=True)
class LogVectorTrace:
    """What one vector of lanes did: every lane's product, then the additions in their order, and the accumulator.

    Products, sums and the accumulator stand as integers: 0, or +-(E - E_min + 1).
    """

    products: list[int]
    sums: list[int]
    acc: int
    flushed: int
    saturated: int
    cancelled: int


def as_integer(x: Number, datapath) -> int:
    """0, or +-(E - E_min + 1)."""
    if x is None:
        return 0
    negative, E = x
    n = E - e_limits(datapath)[0] + 1
    return -n if negative else n


def trace(a, b, datapath) -> Iterator[LogVectorTrace]:
    """One dot product of two lists of codes, vector by vector and addition by addition."""
    acc: Number = None
    size = datapath.vector_size
    for start in range(0, len(a), size):
        fates = Fates()
        sums: list[Number] = []

        def plus(x, y, fates=fates, sums=sums):
            sums.append(add(x, y, datapath, fates))
            return sums[-1]

        lanes = [multiply(*codes, datapath, fates) for codes in zip(a[start : start + size], b[start : start + size])]
        if datapath.order == "tree":
            level = lanes + [None] * (2 ** (size - 1).bit_length() - len(lanes))
            while len(level) > 1:
                level = [plus(*level[i : i + 2]) for i in range(0, len(level), 2)]
            acc = plus(acc, level[0])
        else:
            for p in lanes:
                acc = plus(acc, p)
        yield LogVectorTrace(
            [as_integer(p, datapath) for p in lanes],
            [as_integer(s, datapath) for s in sums],
            as_integer(acc, datapath),
            fates.flushed,
            fates.saturated,
            fates.cancelled,
        )


def dot(a, b, datapath) -> int:
    """The accumulator, as an integer, after one dot product of two lists of codes."""
    acc = 0
    for vector in trace(a, b, datapath):
        acc = vector.acc
    return acc
