"""Formats: every value of every format, and what formats say of themselves."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import same_bits

import lns_sim
from lns_sim import LNSFormat, LNSTensor, reference

ALL = [LNSFormat(bits, 1 << g) for bits in range(2, 17) for g in range(0, min(bits, 9))]


@pytest.mark.parametrize("fmt", ALL, ids=lambda f: f"{f.bits}-{f.gamma}")
def test_every_value_of_every_format(fmt):
    codes = np.arange(1 << fmt.bits)
    expected = reference.dequantize(codes, 0, fmt)
    assert same_bits(fmt.values(), expected)
    # and by its meaning: (-1)^s 2^(e/gamma), zero for e = 0
    e, negative = codes & fmt.e_max, codes > fmt.e_max
    with np.errstate(over="ignore"):
        meant = np.where(e == 0, 0, np.where(negative, -1, 1) * np.exp2(np.minimum(e / fmt.gamma, 1000.0)))
        np.testing.assert_allclose(expected, meant.astype(np.float32), rtol=2e-7)


@pytest.mark.parametrize("k", [-126, -14, 0, 3, 127])
def test_values_at_a_scale(k):
    fmt = LNSFormat()
    x = LNSTensor(torch.arange(256).to(torch.uint8), torch.tensor(2.0**k), fmt)
    assert same_bits(x.dequantize(), reference.dequantize(np.arange(256), k, fmt))
    assert x.k.item() == k


def test_a_format_describes_itself():
    fmt = LNSFormat(8, 8)
    assert (fmt.e_max, fmt.dynamic_range, fmt.dtype) == (127, 127 / 8, torch.uint8)
    assert "9.05 %" in repr(fmt) and "octaves" in repr(fmt)
    assert LNSFormat(9, 8).dtype == torch.int16
    with pytest.raises(dataclasses.FrozenInstanceError):
        fmt.bits = 4


def test_nan_scale_makes_every_value_nan():
    x = lns_sim.quantize(torch.tensor([1.0, float("inf"), 0.0]))
    assert x.scale.isnan() and x.dequantize().isnan().all()
