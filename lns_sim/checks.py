"""Argument checks shared by the public classes: each error names the argument, what was given, what is allowed."""

from __future__ import annotations

import difflib
import math
import numbers


def check_int(name: str, value, low: int | None, high: int | None) -> None:
    """Raises TypeError for a non-integer and ValueError outside [low, high]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if (low is not None and value < low) or (high is not None and value > high):
        if high is None:
            allowed = f"at least {low}"
        elif low is None:
            allowed = f"at most {high}"
        else:
            allowed = f"between {low} and {high}"
        raise ValueError(f"{name} must be {allowed}, got {value}")


def check_number(name: str, value, low: float, high: float = math.inf, low_open: bool = False) -> None:
    """Raises ValueError unless value is a finite number in [low, high] (or (low, high] with low_open)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or value > high or value < low or (low_open and value == low):
        opening = "(" if low_open else "["
        raise ValueError(f"{name} must be a finite number in {opening}{low:g}, {high:g}], got {value}")


def check_choice(name: str, value, choices) -> None:
    """Raises ValueError with the nearest allowed name."""
    choices = list(choices)
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.0)
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}; did you mean {near[0]!r}?")
