"""Searches of a learning rate that go on until the best one lies inside those tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Tried = dict[float, "float | None"]  # result by rate; None: training diverged


def search(
    attempt: Callable[[float], float | None], base: float, factors: Sequence[float], best: Callable, extend: int
) -> Tried:
    """Tries ``base`` times the factors, and more of the same ratio beyond the end where the best lies (below, where all
    diverged), until it lies inside.

    Args:
        attempt: from a rate to what it came to; None: it diverged.
        base: the rate at a factor of one.
        factors: two or more, the smallest first.
        best: max or min, of results.
        extend: at most so many more.

    Returns:
        What was tried, the smallest rate first.
    """
    factors = list(factors)
    tried = {factor * base: attempt(factor * base) for factor in factors}
    for _ in range(extend):
        lr, end = best_of(tried, best)
        if end is None and lr is not None:
            break
        if end == "largest":
            factors.append(factors[-1] ** 2 / factors[-2])
            tried[factors[-1] * base] = attempt(factors[-1] * base)
        else:
            factors.insert(0, factors[0] ** 2 / factors[1])
            tried[factors[0] * base] = attempt(factors[0] * base)
    return dict(sorted(tried.items()))


def best_of(tried: Tried, best: Callable) -> tuple[float | None, str | None]:
    """The best rate, of equals one inside, and whether it is the "smallest" or "largest" of all; None: all diverged."""
    known = {lr: value for lr, value in sorted(tried.items()) if value is not None}
    if not known:
        return None, None
    ends = {min(tried): "smallest", max(tried): "largest"}
    top = best(known.values())
    equals = sorted((lr in ends, lr) for lr, value in known.items() if value == top)
    return equals[0][1], ends.get(equals[0][1])
