"""Tensors of any magnitude: what comes back is finite, and NaN or Inf is never another number."""

import dataclasses

import pytest
import torch

from lns_sim.quantizers import LNS
from lns_sim.random import random_state
from lns_sim.registry import QUANTIZERS

RNG = random_state(0)


def variants(name):
    """A quantizer as it is, and with each of its fields that has other choices."""
    kind = QUANTIZERS[name]
    known = {f.name: f.default for f in dataclasses.fields(kind)}
    other = {"bits": 2, "kind": "e5m2", "rounding": "stochastic", "exponents": 126, "below": "flush", "groups": 8}
    return [kind(), *(kind(**{key: other[key]}) for key in known if key in other)]


def round_trip(q, x):
    return q.operand(x, RNG if q.stochastic else None, -1).value


@pytest.mark.parametrize("q", [q for name in QUANTIZERS for q in variants(name)], ids=str)
def test_every_magnitude(q):
    for e in range(-149, 128):
        for mantissa in (1.0, 1.5, 2 - 2.0**-23):
            top = torch.tensor(mantissa * 2.0**e, dtype=torch.float64).float()
            if isinstance(q, LNS) and e == 127 and mantissa > 1.9:
                continue  # the nearest code is 2^128
            x = torch.stack([top, -top, top / 3, top / 1000, torch.tensor(0.0)])[:, None]
            y = round_trip(q, x)
            assert y.isfinite().all(), (q, float(top))
            assert (y[0] >= 0).all() and (y[1] <= 0).all() and y[4] == 0
            if e >= 0:
                assert (y[:2].abs() - top).abs().max() <= 0.51 * top


@pytest.mark.parametrize("q", [q for name in QUANTIZERS for q in variants(name)], ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite(q, bad):
    x = torch.tensor([[1.0], [bad], [-2.0], [0.0]])
    y = round_trip(q, x)
    assert y[1].isnan() or y[1] == bad
