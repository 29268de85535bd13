"""Corner cases that every datapath has."""

from __future__ import annotations

import numpy as np


def extremes(low: int, top: int, sign: int, lanes: np.ndarray) -> dict[str, tuple]:
    """The (a, b) by name that every datapath has: the lowest and the largest exponent, zeros and signs."""
    return {
        "all zero": (0, 0),
        "negative zeros times the largest": (sign, top),
        "largest times largest: to the upper limit": (top, top),
        "largest times minus largest: to the lower limit": (top, sign | top),
        "minus times minus": (sign | top, sign | top),
        "smallest times smallest": (low, low),
        "signs in turn: cancels": (top, np.where(lanes % 2, sign | top, top)),
    }
