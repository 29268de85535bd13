"""Processing elements that differ from the paper's: given constants, bounded products and bins, converters of their
own.
"""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from agreement import agree, every_isa_agrees
from helpers import everywhere, random_codes, to_reference, unsigned
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import datapaths, formats
from typer.testing import CliRunner

import lns_sim
from lns_sim import AccumulatorConverter, Datapath, LNSFormat, LNSTensor, recipes, reference, trace_dot
from lns_sim.command.app import app
from lns_sim.golden import WordLayout, make_vectors, read_vectors
from lns_sim.quantizers import LNS
from lns_sim.recipes import files as recipe_files
from lns_sim.studies import models

PE = Datapath(lut_entries=4, lut_constants=[128, 150, 180, 214], product_range=(90, 230), bin_bits=18)


@given(
    datapath=datapaths(foreign=True),
    m=st.integers(1, 40),
    n=st.integers(1, 20),
    k=st.integers(1, 70),
    seed=st.integers(0, 999),
)
@settings(max_examples=60)
def test_every_kernel_agrees_with_the_reference(datapath, m, n, k, seed):
    every_isa_agrees(min(m, 5), k, min(n, 5), datapath, seed)
    rng = np.random.default_rng(seed)
    a, b = random_codes((m, k), datapath.format, rng), random_codes((k, n), datapath.format, rng)
    out, counters = lns_sim.matmul(a, b, datapath, return_accumulator=True, counters=True)
    traces = [
        [trace_dot(x, y, datapath) for y in unsigned(b.codes, b.format).T] for x in unsigned(a.codes, a.format)[:3]
    ]
    assert out[:3].tolist() == [[t.accumulator for t in row] for row in traces]
    e_a, e_b = (reference.decode(x.codes, x.format)[1] for x in (a, b))
    nonzero = (e_a[:, :, None] > 0) & (e_b[None] > 0)
    p = e_a[:, :, None] + e_b[None] - datapath.product_offset
    low, high = datapath.product_range or (p.min(), p.max())
    flushed = (p < low) & (datapath.product_underflow == "flush")
    hidden = flushed | (np.clip(p, low, high) < datapath.format.gamma * datapath.lane_lsb)
    assert counters.vanished == (nonzero & hidden).sum() and counters.zero_lanes == (~nonzero).sum()


def test_arguments_without_effect_change_nothing(rng):
    """The general path and tables of given constants, against the fast kernels of the paper's PE."""
    d = Datapath()
    a, b = random_codes((70, 200), d.format, rng), random_codes((200, 30), d.format, rng)
    expected, counters = lns_sim.matmul(a, b, d, counters=True)
    for options in (
        dict(lut_constants=d.constants),
        dict(product_range=(0, 254)),
        dict(product_range=(2, 254), product_underflow="saturate"),
        dict(bin_bits=40),
        dict(bin_bits=62, bin_overflow="wrap"),
    ):
        other = Datapath(**options)
        assert torch.equal(lns_sim.matmul(a, b, other), expected)
        found = lns_sim.matmul(a, b, other, counters=True)[1]  # with bins more numbers could saturate
        assert replace(found, narrowed=counters.narrowed) == counters
    assert Datapath(bin_bits=40).path(300, 300) == "bins" and "bin_bits=40" in repr(Datapath(bin_bits=40))
    assert Datapath(lut_constants=[128, 181]).lut_entries == 2


def test_saturations_count_bins(rng):
    """Narrow bins, an accumulator that never overflows: each bin that does is counted."""
    d = Datapath(bin_bits=8, acc_bits=32, acc_lsb=14)
    a, b = random_codes((6, 64), d.format, rng), random_codes((64, 4), d.format, rng)
    _, counters = lns_sim.matmul(a, b, d, counters=True)
    exact = replace(d, bin_bits=None)
    sums = [
        v.bins
        for x in unsigned(a.codes, d.format)
        for y in unsigned(b.codes, d.format).T
        for v in trace_dot(x, y, exact).vectors
    ]
    assert counters.saturations == sum(not -128 <= p < 128 for bins in sums for p in bins) > 0
    assert counters.narrowed == counters.vectors * (1 + d.lut_entries)


@pytest.mark.parametrize(
    "foreign", [{}, {"bin_bits": 2, "bin_overflow": "wrap"}, {"bin_bits": 2, "bins": "signed", "bin_overflow": "wrap"}]
)
def test_no_more_saturates_than_could(rng, foreign):
    """Not even where nearly every bin and accumulator does, alone or beside another datapath."""
    d = Datapath(acc_bits=8, acc_lsb=-10, overflow="wrap", **foreign)
    x = torch.randn(4, 64)
    _, counters = lns_sim.matmul(*(lns_sim.quantize(t) for t in (x, x.T)), d, counters=True)
    assert 0.3 * counters.narrowed < counters.saturations <= counters.narrowed
    with lns_sim.count() as totals:
        for datapath in (d, Datapath(), lns_sim.LogDatapath(acc_bits=8, acc_gamma=8, offset=0)):
            with lns_sim.simulate(recipes.lns_madam(datapath=datapath)):
                x @ x.T
    assert totals["forward"].narrowed == counters.narrowed + counters.vectors + 2 * counters.macs
    assert totals["forward"].vectors > 0


def test_convolutions_and_training():
    """All three passes of a convolution, and a step of a network whose recipe has such a PE and converter."""
    rng = np.random.default_rng(0)
    d = PE
    x, w = random_codes((2, 3, 6, 5), d.format, rng), random_codes((4, 3, 3, 3), d.format, rng)
    y = everywhere(lns_sim.conv2d, x, w, padding=1, stride=2, datapath=d)
    expected = reference.conv2d(to_reference(x), to_reference(w), 2, 1, 1, 1, d)
    assert (y.numpy() == expected).all()
    mitchell = [int(2**23 * (1 + (2 * j + 1) / 16)) for j in range(8)]
    own = LNS(thresholds=mitchell)
    recipe = replace(recipes.lns_madam(datapath=PE), activation=own, error=own, gradient=own)
    torch.manual_seed(0)
    model = lns_sim.convert(models.build("cnn", (1, 8, 8), 10), recipe)
    with lns_sim.count() as totals:
        model(torch.rand(4, 1, 8, 8)).square().mean().backward()
    assert all(totals[name].macs for name in recipes.PASSES)
    assert recipes.Recipe.decode(recipe.encode()) == recipe
    text = recipe_files.dump(recipe)
    assert recipe_files.parse(text).default == recipe
    undone = recipes.ModelRecipe(recipe, (("*", recipes.lns_madam()),))
    assert recipe_files.parse(recipe_files.dump(undone)) == undone


CONVERTERS = {
    "linear": lambda j, g: int((1 + (j + 0.5) / g) * 2**23),
    "truncating": lambda j, g: min(2**24, reference.floor_pow2(j + 1, g, 23) + 1) - 1,
    "the format's own": lambda j, g: int(reference.thresholds(g)[j]),
}


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("bits, gamma", [(8, 8), (6, 4), (12, 64), (5, 1)])
def test_converters(name, bits, gamma):
    f = LNSFormat(bits, gamma)
    thresholds = [CONVERTERS[name](j, gamma) for j in range(gamma)]
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(4000) * np.exp(3 * rng.standard_normal(4000))).astype(np.float32)
    for i, t in enumerate(thresholds):  # beside each threshold
        x[2 * i], x[2 * i + 1] = t / 2**23, min(t + 1, 2**24 - 1) / 2**23
    x = x.reshape(40, 100)
    for underflow in ("clamp", "flush", "stochastic"):
        for dim in (None, 0):
            q = everywhere(
                lns_sim.quantize, torch.from_numpy(x), f, dim=dim, underflow=underflow, thresholds=thresholds, seed=3
            )
            codes, k = reference.quantize(x, f, dim, underflow=underflow, thresholds=thresholds, seed=3)
            assert (unsigned(q.codes, f) == codes).all() and (q.k.numpy() == k).all()
            own = lns_sim.quantize(torch.from_numpy(x), f, dim=dim, underflow=underflow, seed=3)
            assert torch.equal(q.codes, own.codes) == (name == "the format's own")
    if name == "truncating":
        powers = lns_sim.quantize(torch.tensor([1.0, 2.0**-1, 1.999999]), f, thresholds=thresholds)
        assert (
            unsigned(powers.codes, f)[2] - unsigned(powers.codes, f)[0] == gamma - 1
        )  # just below 2: the last code below it


# A public PE (harpo): words of 16 bits, of which the exponent stands there twice; bins of its own for either sign.
HARPO = Datapath(
    LNSFormat(9, 8),
    vector_size=8,
    lut_bits=9,
    lut_constants=(256, 279, 304, 332, 362, 394, 431, 470),
    product_offset=130,  # codes are exponents -64 .. 63 and 65
    product_range=(-64, 63),
    bins="signed",
    bin_bits=20,
    bin_overflow="wrap",
    acc_bits=32,
    acc_lsb=-16,
    keep_fraction=True,
)
HARPO_CONVERTER = AccumulatorConverter(
    LNSFormat(9, 8),
    underflow="flush",
    exponents=(1, 128),
    offset=65,
    mantissa_bits=9,
    rounding="truncate",
    thresholds=(267, 291, 318, 347, 378, 412, 450, 491),
)


def harpo(a, b):
    """What it makes of words: its sum in units of 2^-16, and the sum's word. From its description, by itself."""
    bins = Counter()
    for x, y in zip(a, b):
        e = min(sum((word >> 7 & 63) - (word >> 7 & 64) for word in (x, y)), 63)
        if not (x | y) >> 14 & 1 and e >= -64:
            bins[(x ^ y) >> 15, e % 8] += 1 << (e // 8 + 8)
    constants = {0: 256, 1: 279, 2: 304, 3: 332, 4: 362, 5: 394, 6: 431, 7: 470}
    total = sum((-1) ** minus * (n % 2**20) * constants[r] for (minus, r), n in bins.items())
    if total == 0:
        return 0, 1 << 14
    top = abs(total).bit_length() - 1
    mantissa = int(f"{abs(total):b}"[:9].ljust(9, "0"), 2)
    e = 8 * (top - 16) + sum(mantissa > t for t in (267, 291, 318, 347, 378, 412, 450, 491))
    if e < -64:
        return total, 1 << 14
    return total, (total < 0) << 15 | (min(e, 63) & 127) << 7 | min(e, 63) & 127


def harpo_words(count, seed):
    """Of all values, rows of small and of large ones, and some zeros."""
    rng = np.random.default_rng(seed)
    low = rng.choice([-64, -40, 0, 20], (count, 1))
    e = rng.integers(low, low + 44, (count, 8)) & 127
    words = rng.integers(0, 2, (count, 8)) << 15 | e << 7 | e
    return np.where(rng.random((count, 8)) < 0.1, 1 << 14, words)


def test_a_public_pe():
    """A signed exponent with a zero of its own, an odd bias, bins by sign, no alignment, a converter of its own."""
    a, b = harpo_words(5000, 0), harpo_words(5000, 1)
    a[0], b[0] = 63 << 7 | 63, 63 << 7 | 63
    expected = [harpo(x, y) for x, y in zip(a.tolist(), b.tolist())]
    words = [w for _, w in expected]
    assert len(set(words)) > 200 and words.count(1 << 14) > 20 and words.count(63 << 7 | 63) > 20
    layout = WordLayout("s,z,e7,e7", bias=65)
    f = HARPO.format
    codes = [np.array([[layout.code(w, f) for w in row] for row in x.tolist()]) for x in (a, b)]
    tensors = [LNSTensor(torch.from_numpy(c.astype(np.int16)), torch.tensor(1.0), f) for c in codes]
    x, y = tensors[0].unsqueeze(1), tensors[1].unsqueeze(2)
    acc = lns_sim.matmul(x, y, HARPO, return_accumulator=True).reshape(-1)
    assert acc.tolist() == [total for total, _ in expected]
    found = unsigned(HARPO_CONVERTER.convert(acc, HARPO.lsb), f)
    assert [layout.word(int(code), f) for code in found] == words
    for i in range(50):
        assert trace_dot(codes[0][i], codes[1][i], HARPO).accumulator == acc[i]
        assert reference.accumulator_code(int(acc[i]), HARPO_CONVERTER, HARPO.lsb) == found[i]
    # float32 results are those of the operands' values, 2^(65/8) times the design's each.
    values = lns_sim.matmul(x, y, HARPO).reshape(-1)
    assert values.tolist() == pytest.approx((acc * 2.0 ** (130 / 8 - 16)).tolist(), rel=1e-6)


@given(st.data())
def test_converters_of_accumulators(data):
    f = data.draw(formats(16))
    bits = data.draw(st.integers(2, 24))
    values = st.integers(1 << (bits - 1), (1 << bits) - 1)
    converter = AccumulatorConverter(
        f,
        data.draw(st.sampled_from(["clamp", "flush"])),
        data.draw(st.none() | st.tuples(*2 * [st.integers(1, f.e_max)]).map(sorted)),
        data.draw(st.integers(-200, 200)),
        bits,
        data.draw(st.sampled_from(["nearest", "truncate"])),
        data.draw(st.none() | st.lists(values, min_size=f.gamma, max_size=f.gamma).map(sorted)),
    )
    acc = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-300, 300), min_size=1, max_size=20))
    acc += [-(2**31), 2**31 - 1, 0]
    scale = data.draw(st.integers(-50, 50))
    codes = unsigned(everywhere(lambda x: converter.convert(x, scale), torch.tensor(acc, dtype=torch.int32)), f)
    assert codes.tolist() == [reference.accumulator_code(a, converter, scale) for a in acc]


def test_vectors_of_a_public_pe(tmp_path):
    options = {
        "bits": 9, "vector-size": 8, "k": 8, "lut-bits": 9, "lut-constants": "256,279,304,332,362,394,431,470",
        "product-offset": 130, "product-range": "-64:63", "bins": "signed", "bin-bits": 20, "bin-overflow": "wrap",
        "acc-bits": 32, "acc-lsb": -16, "scale": -16, "code-underflow": "flush", "code-mantissa-bits": 9,
        "code-rounding": "truncate", "code-thresholds": "267,291,318,347,378,412,450,491", "word": "s,z,e7,e7",
    }  # fmt: skip
    given = [f"--{name}={value}" for name, value in options.items()]
    for source in ("random", "corner"):
        command = ["vectors", str(tmp_path), f"--source={source}", "--force", "--keep-fraction", *given]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        made = read_vectors(tmp_path)
        assert made.datapath == HARPO and made.converter == HARPO_CONVERTER
        lines = [(tmp_path / f"{name}.hex").read_text().split() for name in ("a", "b", "acc", "code")]
        for a, b, acc, code in zip(*lines):
            lanes = [[int(word, 16) >> 16 * i & 0xFFFF for i in range(8)] for word in (a, b)]
            total, word = harpo(*lanes)
            assert (int(acc, 16), int(code, 16)) == (total % 2**32, word)
    assert len(lines[0]) == len(made.names) > 30


def test_bins_by_sign_overflow_on_their_own(rng):
    """Cancellation saves no bin of magnitudes; only a vector's sum, not its order, decides."""
    d = Datapath(LNSFormat(6, 4), vector_size=8, bins="signed", bin_bits=6, acc_bits=24, acc_lsb=0)
    top = d.format.e_max
    for overflow in ("saturate", "wrap"):
        d = replace(d, bin_overflow=overflow)
        t = trace_dot([top, top, top - 3, 32 | top], [2, 2, 5, 2], d).vectors[0]
        ones = 2 ** ((top + 2) // 4)
        assert t.bins == [min(n, 63) if overflow == "saturate" else n % 64 for n in (0, 3 * ones, 0, 0, 0, ones, 0, 0)]
        assert t.overflowed == (3 * ones > 63)
        a, b = random_codes((9, 40), d.format, rng), random_codes((40, 5), d.format, rng)
        agree(a, b, d)


def test_vectors_for_such_a_design(tmp_path):
    options = [
        "--lut-constants",
        "128,150,180,214",
        "--lut-entries",
        "4",
        "--product-range",
        "90:230",
        "--bin-bits",
        "18",
    ]
    result = CliRunner().invoke(app, ["vectors", str(tmp_path), "--source", "corner", "--k", "64", *options])
    assert result.exit_code == 0, result.stderr
    found = read_vectors(tmp_path)
    assert found.datapath == replace(PE, acc_lsb=PE.lsb)
    assert json.loads((tmp_path / "vectors.json").read_text())["constants"] == [128, 150, 180, 214]
    for a, b, acc in zip(found.a, found.b, found.accumulators):
        assert reference.dot(a.tolist(), b.tolist(), PE) == acc
    assert any("upper limit" in name for name in found.names) and "up in one bin, down in the next" in found.names
    papers = make_vectors(Datapath(lut_entries=4), "random", 100, 64).accumulators
    assert (make_vectors(PE, "random", 100, 64).accumulators != papers).all()
    for option, message in [("--product-range=1:x", "takes integers"), ("--lut-constants=1,2,3", "power of two")]:
        result = CliRunner().invoke(app, ["vectors", str(tmp_path), option])
        assert result.exit_code == 1 and message in result.stderr


def test_errors():
    for options, error, message in [
        (dict(lut_constants=[1, 2, 3]), ValueError, "power of two"),
        (dict(lut_entries=8, lut_constants=[1, 2]), ValueError, "must hold lut_entries = 8 integers, got 2"),
        (dict(lut_constants=[128, 256]), ValueError, "between 1 and 2\\^lut_bits - 1 = 255, got 256"),
        (dict(lut_constants=[0, 2]), ValueError, "between 1 and"),
        (dict(lut_constants="12"), TypeError, "sequence of integers"),
        (dict(format=LNSFormat(12, 128), lut_constants=[1] * 128), ValueError, "up to 64 LUT constants"),
        (dict(product_range=(5, 4)), ValueError, "the lower first"),
        (dict(product_range=(0, 255)), ValueError, "from 0 to 254"),
        (dict(product_range=(1, 2, 3)), ValueError, "two exponents"),
        (dict(product_underflow="clamp"), ValueError, "one of 'flush', 'saturate'"),
        (dict(bin_bits=1), ValueError, "bin_bits must be between 2 and 62"),
        (dict(bin_overflow="trap"), ValueError, "one of 'saturate', 'wrap'"),
        (dict(bin_overflow="wrap"), ValueError, "bin_overflow = 'wrap' has no effect .* it needs bin_bits"),
        (
            dict(product_underflow="saturate"),
            ValueError,
            "product_underflow = 'saturate' has no effect .* product_range",
        ),
        (dict(bins="apart", bin_bits=8), ValueError, "one of 'joint', 'signed'"),
        (dict(bins="signed"), ValueError, "they need bin_bits"),
        (dict(product_offset=255), ValueError, "between -254 and 254"),
        (dict(product_offset=20, product_range=(-21, 30)), ValueError, "from -20 to 234"),
        (dict(keep_fraction=1), TypeError, "true or false"),
        (dict(keep_fraction=True, rounding="nearest"), ValueError, "rounding must be truncate"),
    ]:
        with pytest.raises(error, match=message):
            Datapath(**options)
    for thresholds, message in [
        ([1, 2], "gamma = 8 mantissas, got 2"),
        ([2**23] * 8, "ascend by at least"),
        ([2**24 + j * 2**20 for j in range(8)], "mantissas from"),
    ]:
        with pytest.raises(ValueError, match=message):
            lns_sim.quantize(torch.ones(2), thresholds=thresholds)
    for options, message in [
        (dict(exponents=(0, 5)), "two from 1 to 127"),
        (dict(underflow="stochastic"), "one of 'clamp', 'flush'"),
        (dict(mantissa_bits=25), "between 2 and 24"),
        (dict(mantissa_bits=9, thresholds=[2**23 + j for j in range(8)]), "ascending integers from 256 to 511"),
        (dict(thresholds=[2**23]), "gamma = 8 ascending"),
    ]:
        with pytest.raises(ValueError, match=message):
            AccumulatorConverter(**options)
    with pytest.raises(TypeError, match="must hold integers"):
        AccumulatorConverter().convert(torch.ones(2), 0)
    for fields in ("s,e7", "s,z,e0", "s,z,e17", "s,z,e7,x", ""):
        with pytest.raises(ValueError, match="a word has fields"):
            WordLayout(fields, 3)
    with pytest.raises(ValueError, match="hold no code"):
        WordLayout("s,z,e3", 200).exponents(LNSFormat())
    with pytest.raises(ValueError, match="is no word"):
        WordLayout("s,z,e7,e7", 65).code(1, LNSFormat(9, 8))
    with pytest.raises(ValueError, match="rounding to nearest"):
        LNS(rounding="stochastic", thresholds=[2**23 + j * 2**20 for j in range(8)])
