"""The vectors that the PE is compared with compute what they should, gate by gate, against exact integers."""

from functools import reduce

import numpy as np
import pytest
import torch
from icarus import icarus_lint

from csrc.rtl.design import E3M0, E4M3, E5M10, INT4, INT8, fixed_vector, float_vector
from csrc.rtl.simulation import verilate
from csrc.rtl.synthesis import gates

LANES, ACC_BITS, CLOCKS, STREAMS = 4, 16, 60, 128


def value(codes, number):
    """Python integers, in units of the format's smallest number; by torch where it knows the format."""
    codes = codes.astype(np.int64)
    if number.exponent == 0:
        half = 1 << (number.bits - 1)
        return (((codes + half) % (2 * half)) - half).astype(object)
    if number == E3M0:
        return (np.where(codes & 7, 1 << np.maximum((codes & 7) - 1, 0), 0) * np.where(codes & 8, -1, 1)).astype(object)
    if number == E4M3:
        exact = torch.from_numpy(codes.astype(np.uint8)).view(torch.float8_e4m3fn).double() * 2.0**9
    else:
        exact = torch.from_numpy(codes.astype(np.uint16)).view(torch.float16).double() * 2.0**24
    return np.vectorize(int, otypes=[object])(exact.numpy())


def operands(number, rng):
    """Codes of all sizes, small exponents and zeros among them; no NaN and no infinities."""
    codes = rng.integers(0, 1 << number.bits, (CLOCKS, STREAMS, LANES))
    if number.exponent:
        top = (1 << number.bits - 1) - 1
        special = top if number == E4M3 else (31 << 10 if number == E5M10 else top + 1)
        codes = np.where((codes & top) >= special, 0, codes)
    return np.where(rng.integers(0, 8, codes.shape) == 0, 0, codes)


def ports(a, b, numbers, entry, first):
    def bits(x, n):
        return (x[..., None] >> np.arange(n) & 1).astype(bool).reshape(*x.shape[:2], -1)

    one = np.ones((CLOCKS, STREAMS, 1), bool)
    found = {"in_a": bits(a, numbers[0].bits), "in_b": bits(b, numbers[1].bits), "in_entry": bits(entry[..., None], 4)}
    return found | {"in_first": first[..., None], "in_last": one, "in_valid": one, "out_ready": one}


def stimulus(a, b):
    rng = np.random.default_rng(0)
    x, y = operands(a, rng), operands(b, rng)
    entry, first = rng.integers(0, 16, (CLOCKS, STREAMS)), rng.integers(0, 4, (CLOCKS, STREAMS)) == 0
    for clock in range(CLOCKS):  # entries begin with a vector of their own
        seen = (entry[:clock] == entry[clock]).any(0) if clock else np.zeros(STREAMS, bool)
        first[clock] |= ~seen
    return x, y, entry, first


def accumulate(sums, entry, first, add):
    """Every accumulator after its vector."""
    held, out = np.zeros((16, STREAMS), object), np.empty((CLOCKS, STREAMS), object)
    at = np.arange(STREAMS)
    for clock in range(CLOCKS):
        before = np.where(first[clock], 0, held[entry[clock], at])
        out[clock] = held[entry[clock], at] = [add(int(x), int(y)) for x, y in zip(before, sums[clock])]
    return out


def run(design, a, b):
    """Of :func:`stimulus`: the bits of the design's accumulators, exact products, entries and who clears them."""
    x, y, entry, first = stimulus(a, b)
    netlist = gates.netlist(design)
    inputs = {k: v for k, v in ports(x, y, (a, b), entry, first).items() if k in netlist.ports}
    return netlist.run(inputs, "out_acc").seen, value(x, a) * value(y, b), entry, first


def integer(bits):
    return (bits.astype(object) << np.arange(bits.shape[-1])).sum(-1)


FIXED = {
    "INT8": (INT8, INT8, 0, True),
    "INT4": (INT4, INT4, 0, False),
    "FP4 x INT4": (E3M0, INT4, 0, True),
    "INT4 x FP4": (INT4, E3M0, 0, True),
    "FP8": (E4M3, E4M3, 0, True),
    "FP8, 7 fraction bits": (E4M3, E4M3, 7, False),
    "FP16, 7 fraction bits": (E5M10, E5M10, 7, True),
}


@pytest.mark.usefixtures("yosys")
@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED)
def test_products_summed_in_fixed_point(name):
    a, b, fraction, handshake = FIXED[name]
    design = fixed_vector(name, a, b, fraction, handshake, LANES, ACC_BITS)
    found, products, entry, first = run(design, a, b)
    drop = dict(design.parameters)["UNIT"] - fraction
    cut = np.where(products < 0, -1, 1) * (abs(products) >> drop)  # magnitudes
    sums = cut.sum(-1) >> fraction
    limit = 1 << (ACC_BITS - 1)
    expected = accumulate(sums, entry, first, lambda x, y: max(-limit, min(limit - 1, x + y)))
    signed = integer(found) - 2 * limit * found[..., -1].astype(object)
    assert (signed[3:] == expected[:-3]).all()
    assert name in ("INT4", "FP4 x INT4", "INT4 x FP4") or {limit - 1, -limit} <= set(expected.ravel())
    assert not name.startswith(("FP8", "FP16")) or (cut << drop != products).any()


def rounded(x, bits):
    """The nearest integer of so many significant bits, half to even."""
    extra = max(abs(x).bit_length() - bits, 0)
    down, rest = abs(x) >> extra, abs(x) & ((1 << extra) - 1)
    half = (1 << extra) >> 1
    up = extra > 0 and (rest > half or (rest == half and down & 1))
    return (-1 if x < 0 else 1) * (down + up << extra)


FLOAT = {"FP8, 11 bits": (E4M3, 11, True), "FP8, 24 bits": (E4M3, 24, False), "FP16, 24 bits": (E5M10, 24, True)}


@pytest.mark.usefixtures("yosys")
@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT)
def test_products_added_in_floating_point(name):
    number, significand, handshake = FLOAT[name]
    found, products, entry, first = run(
        float_vector(name, number, number, significand, handshake, LANES), number, number
    )

    def add(x, y):
        return rounded(x + y, significand)

    pairs = np.vectorize(add, otypes=[object])
    sums = pairs(pairs(products[..., 0], products[..., 1]), pairs(products[..., 2], products[..., 3]))
    expected = accumulate(sums, entry, first, add)
    place, magnitude = integer(found[..., significand:-1]), integer(found[..., :significand])
    signed = np.where(found[..., -1], -1, 1) * ((magnitude << place) >> significand - 1)
    late = 5  # products, terms, two levels, accumulator
    assert (signed[late:] == expected[:-late]).all()
    exact = reduce(np.add, np.moveaxis(products, -1, 0))
    assert (sums != exact).any()


@pytest.mark.usefixtures("verilator")
@pytest.mark.parametrize("name", [*FIXED, *FLOAT])
def test_lint_is_clean(name, icarus):
    """Of Verilator and of Icarus."""
    if name in FLOAT:
        number, significand, handshake = FLOAT[name]
        design = float_vector(name, number, number, significand, handshake, LANES)
    else:
        a, b, fraction, handshake = FIXED[name]
        design = fixed_vector(name, a, b, fraction, handshake, LANES, ACC_BITS)
    assert verilate.lint(design) == icarus_lint(icarus, design) == ""
