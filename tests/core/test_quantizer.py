"""The quantizer against the reference: every threshold, special values, random floats, both roundings, all policies."""

import decimal

import numpy as np
import pytest
import torch
from helpers import ISAS, everywhere, same_bits, unsigned
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import formats

import lns_sim
from lns_sim import LNSFormat, _extension, reference

core = _extension.load()


def agree(x, fmt, **kwargs):
    """Quantizes by both implementations and compares codes and scales."""
    q = everywhere(lns_sim.quantize, torch.from_numpy(x), fmt, **kwargs)
    codes, k = reference.quantize(x, fmt, **kwargs)
    if kwargs.get("dim") is None:
        assert q.scale.isnan() if k is None else q.k.item() == k
    else:
        assert q.k.shape == k.shape
        for got, nan, want in zip(q.k.flatten().tolist(), q.scale.isnan().flatten().tolist(), k.ravel()):
            assert nan if want is None else got == want
    np.testing.assert_array_equal(unsigned(q.codes, fmt), codes)


def test_the_example_of_the_specification(isa):
    x = everywhere(lns_sim.quantize, torch.tensor([1, -1, 0.5, 0.3, 1e-3, -2.7, 0, 1e-9]))
    assert x.codes.tolist() == [112, 240, 104, 98, 32, 251, 0, 1]
    assert x.k.item() == -14


def test_the_thresholds_of_the_specification():
    expected = [8760003, 9552851, 10417458, 11360318, 12388515, 13509772, 14732510, 16065917]
    assert core.QuantizerTables(8).thresholds == expected
    assert reference.thresholds(8).tolist() == expected


@pytest.mark.parametrize("gamma", [1 << i for i in range(16)])
def test_tables_equal_fifty_digit_decimals(gamma):
    tables = core.QuantizerTables(gamma)
    with decimal.localcontext(prec=50):
        root = decimal.Decimal(2) ** (decimal.Decimal(1) / (2 * gamma))
        power, powers = decimal.Decimal(1 << 23), []
        for _ in range(2 * gamma + 1):
            powers.append(power)
            power *= root
        assert tables.thresholds == [int(p) for p in powers[1::2]]
        assert tables.values == [int(p + decimal.Decimal("0.5")) for p in powers[::2]]


@pytest.mark.parametrize("gamma", [1, 2, 4, 8, 16, 64, 256])
def test_tables_equal_the_reference(gamma):
    tables = core.QuantizerTables(gamma)
    assert tables.thresholds == reference.thresholds(gamma).tolist()
    assert tables.values == reference.step_values(gamma).tolist()
    # 2^(-1/gamma) lies in [1/2, 1): 53 bits after the point, rounded to nearest.
    nearest = reference.round_pow2(gamma - 1, gamma, 52)
    assert tables.inverse_step == nearest / 2**53


@pytest.mark.parametrize("gamma", [1, 2, 4, 8, 16, 32, 64])
def test_every_threshold_and_its_neighbours_in_every_octave(gamma):
    tables = core.QuantizerTables(gamma)
    t = reference.thresholds(gamma)
    mantissas = np.unique(np.concatenate([t - 1, t, t + 1, [1 << 23, (1 << 24) - 1]]))
    bits = (np.arange(1, 255)[:, None] << 23 | (mantissas - (1 << 23))[None, :]).astype(np.uint32).ravel()
    expected = reference.log_code(bits.view(np.float32), gamma)
    assert [tables.log_code(int(b)) for b in bits] == expected.tolist()
    for isa in ISAS:  # the kernels, in a format wide enough for all octaves at one scale
        core.set_isa(isa)
        agree(bits.view(np.float32), LNSFormat(16, gamma))


@pytest.mark.parametrize("gamma", [1, 8, 64])
def test_subnormals(gamma):
    tables = core.QuantizerTables(gamma)
    t = reference.thresholds(gamma)
    bits = [1, 2, 3, 0x7FFFFF, 0x400000, 0x3FFFFF]
    bits += [int(m) >> s for m in t for s in range(1, 24)] + [(int(m) >> s) + 1 for m in t for s in range(1, 24)]
    bits = np.array([b for b in bits if 0 < b < 1 << 23], dtype=np.uint32)
    expected = reference.log_code(bits.view(np.float32), gamma)
    assert [tables.log_code(int(b)) for b in bits] == expected.tolist()


@pytest.mark.parametrize(
    "fmt",
    [LNSFormat(), LNSFormat(4, 2), LNSFormat(6, 16), LNSFormat(12, 64), LNSFormat(16, 2048)],
    ids=lambda f: f"{f.bits}-{f.gamma}",
)
@pytest.mark.parametrize("underflow", ["clamp", "flush"])
def test_a_million_random_floats(isa, fmt, underflow):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 0x7F800000, 1_000_000, dtype=np.uint32) | (rng.integers(0, 2, 1_000_000) << 31).astype(
        np.uint32
    )
    agree(bits.view(np.float32), fmt, underflow=underflow)  # all exponents: most underflow
    agree(rng.standard_normal(1_000_000).astype(np.float32), fmt, underflow=underflow)


SPECIAL = {
    "largest finite": [3.4028235e38, -3.4028235e38, 1.0],
    "subnormals": [1e-45, -1e-40, 1.1754942e-38],
    "subnormals beside normals": [1e-45, 1.0, -1e-40],
    "zeros": [0.0, -0.0, 0.0],
    "zeros beside values": [0.0, -0.0, 2.0],
    "nan": [1.0, float("nan")],
    "inf": [1.0, float("-inf")],
    "empty": [],
}


@pytest.mark.parametrize("values", SPECIAL.values(), ids=SPECIAL.keys())
@pytest.mark.parametrize("fmt", [LNSFormat(), LNSFormat(2, 1), LNSFormat(16, 1)], ids=lambda f: f"{f.bits}-{f.gamma}")
def test_special_values(isa, values, fmt):
    for underflow in ("clamp", "flush", "stochastic"):
        for rounding in ("nearest", "stochastic"):
            agree(np.array(values, dtype=np.float32), fmt, underflow=underflow, rounding=rounding, seed=5)


@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=4, max_side=5),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    fmt=formats(16),
    rounding=st.sampled_from(["nearest", "stochastic"]),
    underflow=st.sampled_from(["clamp", "flush", "stochastic"]),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_tensor_any_policy(x, fmt, rounding, underflow, seed, step, data):
    dim = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    agree(x, fmt, dim=dim, rounding=rounding, underflow=underflow, seed=seed, step=step, tensor_id=7)


def test_strides_and_threads_do_not_matter(isa):
    x = torch.randn(300, 257)
    expected = everywhere(lns_sim.quantize, x.t().contiguous(), rounding="stochastic", seed=1)
    threads = torch.get_num_threads()
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        got = everywhere(lns_sim.quantize, x.t(), rounding="stochastic", seed=1)
        assert torch.equal(got.codes, expected.codes)
    torch.set_num_threads(threads)


def test_philox_equals_the_reference():
    rng = np.random.default_rng(3)
    for _ in range(200):
        seed, element = (int(v) for v in rng.integers(0, 1 << 63, 2))
        step, tensor = (int(v) for v in rng.integers(0, 1 << 32, 2))
        assert core.philox_word(seed, step, tensor, element) == reference.philox(seed, step, tensor, element)
    # Known answer of Random123: counter and key all ones.
    ones = 2**32 - 1
    assert core.philox_word(2**64 - 1, ones, ones, 2**64 - 1) == 0x408F276D


def test_stochastic_rounding_is_unbiased():
    x = torch.full((200_000,), 1.03)
    x[0] = 4.0
    values = everywhere(lns_sim.quantize, x, rounding="stochastic", seed=11).dequantize()[1:]
    assert abs(values.mean().item() - 1.03) < 4 * values.std().item() / len(values) ** 0.5


def test_stochastic_underflow_is_unbiased():
    fmt = LNSFormat(4, 1)
    x = torch.full((200_000,), 0.4)
    x[0] = 100.0  # k = 0: the smallest value is 2
    q = everywhere(lns_sim.quantize, x, fmt, underflow="stochastic", seed=12)
    values = q.dequantize()[1:]
    assert q.k.item() == 0 and set(values.unique().tolist()) == {0.0, 2.0}
    assert abs(values.mean().item() - 0.4) < 4 * values.std().item() / len(values) ** 0.5


@pytest.mark.parametrize("before", [0, 3, 40, (1 << 32) - 20])
def test_a_shard_draws_the_whole_tensors_bits(isa, before):
    """Of elements before.., where the upper half of the index changes, too: as the reference does one by one."""
    x = torch.full((100,), 1.04)
    x[-1] = 4.0
    state = lns_sim.random.random_state(5, 1, 2)
    state[3] = before
    codes, _ = everywhere(torch.ops.lns_sim.quantize, x, 8, 8, None, 1, 0, state)
    fraction = 1.04 * 2**23  # between B_0 and B_1
    up = [
        (reference.philox(5, 1, 2, before + i) >> 8) * (round(2 ** (1 / 8) * 2**23) - 2**23)
        < (int(fraction) - 2**23) * 2**24
        for i in range(99)
    ]
    assert (codes[:-1] - codes[:-1].min() == torch.tensor(up)).all() and any(up) and not all(up)


def test_without_a_seed_torchs_generator_decides():
    x = torch.randn(1000)
    torch.manual_seed(0)
    first = lns_sim.quantize(x, rounding="stochastic").codes
    other = lns_sim.quantize(x, rounding="stochastic").codes
    torch.manual_seed(0)
    again = lns_sim.quantize(x, rounding="stochastic").codes
    assert torch.equal(first, again) and not torch.equal(first, other)


@given(
    fmt=formats(16),
    k_old=st.integers(-126, 127),
    k_new=st.integers(-126, 127),
    underflow=st.sampled_from(["clamp", "flush", "stochastic"]),
)
def test_rescale_equals_the_reference(fmt, k_old, k_new, underflow):
    codes = torch.arange(1 << min(fmt.bits, 10)).to(fmt.dtype)
    x = lns_sim.LNSTensor(codes, torch.tensor(2.0).pow(k_old) if k_old > -126 else torch.tensor(2.0**-126), fmt)
    y = everywhere(lns_sim.LNSTensor.rescale, x, k_new, underflow=underflow, seed=9)
    expected = reference.rescale(unsigned(codes, fmt), k_old, k_new, fmt, underflow, seed=9)
    np.testing.assert_array_equal(unsigned(y.codes, fmt), expected)
    assert y.k.item() == k_new


def test_rescale_up_and_back_is_exact():
    x = everywhere(lns_sim.quantize, torch.rand(100) + 1)
    there = x.rescale(int(x.k) + 3)
    assert same_bits(there.dequantize(), x.dequantize())
    assert torch.equal(there.rescale(int(x.k)).codes, x.codes)
