"""Traces and golden vectors: what is written can be read by other means, and a wrong result is found and explained."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from command import lns_sim as command
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import datapaths

import lns_sim
from lns_sim import AccumulatorConverter, Datapath, LNSFormat, LogDatapath, reference, reference_blocks
from lns_sim.golden import check_results, make_vectors, read_vectors, trace_dot
from lns_sim.golden.words import read_words

CONFIGURATIONS = [
    Datapath(),
    Datapath(lut_entries=1),
    Datapath(lut_entries=4, rounding="nearest"),
    Datapath(acc_bits=16, overflow="wrap"),
    Datapath(LNSFormat(5, 4), vector_size=7, acc_bits=13),
    Datapath(LNSFormat(12, 128), vector_size=16),
    Datapath(acc_bits=32),
]


def decode_hex(path, bits, size, k):
    """The codes of a .hex file, read digit by digit: an independent reading of the format's description."""
    rows, row = [], []
    for line in path.read_text().splitlines():
        binary = "".join(f"{int(digit, 16):04b}" for digit in line)[::-1]
        row += [int(binary[i * bits : (i + 1) * bits][::-1], 2) for i in range(size)]
        if len(row) >= k:
            assert not any(row[k:])
            rows.append(row[:k])
            row = []
    return rows


@pytest.mark.parametrize("datapath", CONFIGURATIONS, ids=repr)
@pytest.mark.parametrize("source", ["random", "corner"])
def test_files_say_what_the_reference_computes(tmp_path, datapath, source):
    made = make_vectors(datapath, source, count=20, k=45)
    made.write(tmp_path)
    d = json.loads((tmp_path / "vectors.json").read_text())
    f = datapath.format
    a, b = (decode_hex(tmp_path / f"{name}.hex", f.bits, d["datapath"]["vector_size"], d["k"]) for name in "ab")
    accumulators = [int(line, 16) for line in (tmp_path / "acc.hex").read_text().split()]
    assert len(a) == len(b) == len(accumulators) == d["dot_products"]
    scales, codes = (
        [int(line, 16) for line in (tmp_path / f"{name}.hex").read_text().split()] for name in ("scale", "code")
    )
    for x, y, acc, listed, scale, code in zip(a, b, accumulators, d["accumulators"], scales, codes):
        expected = reference.dot(x, y, datapath)
        assert listed == expected and acc == expected % (1 << datapath.acc_bits)
        assert code == reference.accumulator_code(expected, made.converter, scale - (scale >> 23 << 24))
    assert d["scales"] == made.scales.tolist() and d["codes"] == codes and len(set(scales)) > 3
    assert d["datapath"]["acc_lsb"] == reference.acc_lsb(datapath) and d["constants"] == datapath.constants
    again = read_vectors(tmp_path)
    assert again.datapath.encode() == datapath.encode() and again.names == made.names
    assert np.array_equal(again.a, made.a) and np.array_equal(again.b, made.b)
    assert again.converter == made.converter and np.array_equal(again.codes, made.codes)
    assert check_results(again, tmp_path / "acc.hex") is None


@pytest.mark.parametrize(
    "datapath",
    [Datapath(LNSFormat(6, 4), vector_size=5), Datapath(lut_entries=2, bins="signed", bin_bits=12)],
    ids=lambda d: d.bins,
)
def test_intermediates_are_those_of_the_trace(tmp_path, datapath):
    made = make_vectors(datapath, "random", count=7, k=12)
    made.write(tmp_path, intermediates=True)
    lines = {name: (tmp_path / f"{name}.hex").read_text().splitlines() for name in ("bins", "y", "z")}
    found = zip(*([[int(w, 16) for w in line.split()] for line in file] for file in lines.values()))
    for a, b in zip(made.a.tolist(), made.b.tolist()):
        for v in reference.trace(a, b, datapath):
            assert next(found) == ([p % 2**64 for p in v.bins], [v.Y % 2**64], [v.Z % 2**64])
    assert not list(found)


@pytest.mark.parametrize(
    "datapath, block, k, formats",
    [
        (Datapath(vector_size=16), 32, 100, None),  # the last block is short
        (Datapath(vector_size=8, rounding="nearest", acc_bits=20), 8, 45, None),
        (Datapath(lut_entries=2, bins="signed", bin_bits=16, keep_fraction=True), 32, 64, None),
        (Datapath(LNSFormat(6, 4), vector_size=5, acc_bits=32), 10, 7, None),  # a block is longer than K
        (Datapath(overflow="wrap", acc_bits=20), 64, 130, (LNSFormat(8, 8), LNSFormat(5, 2))),
    ],
    ids=repr,
)
@pytest.mark.parametrize("source", ["random", "corner"])
def test_block_scales(tmp_path, datapath, block, k, formats, source):
    """Files, read digit by digit, and intermediates, against the reference of block scales."""
    if source == "corner" and formats:
        with pytest.raises(ValueError, match="own format"):
            make_vectors(datapath, source, k=k, formats=formats, block=block)
        return
    made = make_vectors(datapath, source, count=20, k=k, formats=formats, block=block)
    made.write(tmp_path, intermediates=True)
    d = json.loads((tmp_path / "vectors.json").read_text())
    assert d["block"] == block and d["coverage"]["shifted_accumulations"] > 0
    size, f, per = datapath.vector_size, datapath.format, d["vectors_per_dot_product"]
    own = formats or (f, f)
    a, b = (decode_hex(tmp_path / f"{x}.hex", o.bits, size, k) for x, o in zip("ab", own))
    a, b = (reference.recode(np.array(codes), o, f).tolist() for codes, o in zip((a, b), own))
    shifts = [[int(line, 16) for line in (tmp_path / f"{x}_shift.hex").read_text().split()] for x in "ab"]
    y, z = ((tmp_path / f"{x}.hex").read_text().split() for x in "yz")
    for i, acc in enumerate(d["accumulators"]):
        of = slice(i * per, (i + 1) * per)
        s = [sum(pair) for pair in zip(*(side[of] for side in shifts))]
        assert acc == reference_blocks.dot(a[i], b[i], datapath, s)
        trace = list(reference.trace(a[i], b[i], datapath, s))
        assert [int(w, 16) for w in y[of]] == [v.Y % 2**64 for v in trace]
        assert [int(w, 16) for w in z[of]] == [v.Z % 2**64 for v in trace]
    again = read_vectors(tmp_path)
    assert again.block == block and all(map(np.array_equal, again.shifts, made.shifts))
    assert check_results(again, tmp_path / "acc.hex") is None
    words = (tmp_path / "acc.hex").read_text().split()
    words[-1] = f"{int(words[-1], 16) ^ 1:0{len(words[-1])}x}"
    (tmp_path / "wrong.hex").write_text("\n".join(words))
    shown = str(check_results(again, tmp_path / "wrong.hex"))
    assert f"  s_a {shifts[0][-1]}  s_b {shifts[1][-1]}  Z " in shown.splitlines()[-1]


def test_corner_cases_of_blocks():
    made = make_vectors(Datapath(headroom_bits=0), "corner", k=100, block=32)
    result, high = dict(zip(made.names, made.accumulators.tolist())), (1 << 23) - 1
    assert result["largest times largest at shifts 1 + 0"] == high
    assert result["largest times minus largest at shifts 0 + 1"] == -high - 1
    assert 0 < result["largest times largest at shifts 15 + 0"] < high
    assert result["minus one unit of the lanes at shifts 15 + 15"] == -1
    assert result["the first block to the limit, then down by shifted ones"] < high
    assert result["a shifted block, then down to the limit"] == -high - 1
    assert {int(n) for side in made.shifts for n in side.reshape(-1)} == set(range(16))
    zeros = (made.a.reshape(len(made.a), -1, 20) == 0).all(2)
    assert zeros.any() and {tuple(s) for s in made.shifts[0]} >= {(0, 15, 15, 15), (15, 0, 0, 0)}
    nearest = make_vectors(Datapath(rounding="nearest"), "corner", k=32, block=32)
    result = dict(zip(nearest.names, nearest.accumulators.tolist()))
    assert [result[f"{sign}about half a unit at shifts 2 + 1"] for sign in ("", "minus ")] == [1, 0]


def test_blocks_of_ones_own(tmp_path):
    path = tmp_path / "layer.npz"
    x = lns_sim.quantize(torch.randn(6, 70), dim=1, block=32)
    arrays = {"a": x.codes.numpy(), "b": x.codes.numpy(), "a_shifts": x.shifts.numpy()}
    np.savez(path, **arrays, b_shifts=np.zeros((6, 3), int))
    made = make_vectors(Datapath(), f"npz:{path}", block=32)
    plain = lns_sim.LNSTensor(x.codes, x.scale, x.format)
    both = lns_sim.matmul(x, plain.mT, return_accumulator=True).diagonal()
    assert made.accumulators.tolist() == both.tolist()
    for changes, block, message in [
        ({}, None, "say how long a block is"),
        ({"b_shifts": np.zeros((6, 2), int)}, 32, "shape"),
        ({"b_shifts": np.full((6, 3), 256)}, 32, "outside 0 .. 255"),
        ({"b_shifts": np.zeros((6, 3))}, 32, "must be integers"),
        ({}, 32, "lacks b_shifts"),
        ({}, 33, "no multiple"),
    ]:
        np.savez(path, **arrays, **changes)
        with pytest.raises(ValueError, match=message):
            make_vectors(Datapath(), f"npz:{path}", block=block)
    with pytest.raises(ValueError, match="no shifts"):
        make_vectors(LogDatapath(), block=32)


def test_vectors_without_blocks_from_before(tmp_path):
    """Files that know nothing of blocks, as they were written before there were any."""
    make_vectors(Datapath(), count=3, k=40).write(tmp_path)
    path = tmp_path / "vectors.json"
    d = json.loads(path.read_text())
    assert d.pop("block") is None
    path.write_text(json.dumps(d))
    assert check_results(read_vectors(tmp_path), tmp_path / "acc.hex") is None


def test_folders_where_a_file_is_asked(tmp_path):
    golden, other = tmp_path / "golden", tmp_path / "other"
    make_vectors(Datapath(), count=3, k=40).write(golden)
    other.mkdir()
    for results, codes, message in [(golden, None, "results"), (golden / "acc.hex", other, "codes")]:
        with pytest.raises(IsADirectoryError, match=f"is a folder: give the file of the design's {message}"):
            check_results(read_vectors(golden), results, codes)
    with pytest.raises(FileNotFoundError, match="no folder that lns-sim vectors wrote"):
        read_vectors(other)


@pytest.mark.parametrize("scale", [None, -7])
@pytest.mark.parametrize("underflow", ["clamp", "flush"])
def test_codes_are_the_quantizers(scale, underflow):
    """What quantize makes of the float32 results at the same scale, where that is the one it chooses."""
    d = Datapath(acc_bits=30, acc_lsb=4)
    made = make_vectors(d, "random", 500, 40, converter=AccumulatorConverter(d.format, underflow), scale=scale)
    assert scale is None or set(made.scales.tolist()) == {scale}
    for acc, s, code in zip(made.accumulators.tolist(), made.scales.tolist(), made.codes.tolist()):
        q = lns_sim.quantize(torch.tensor([acc * 2.0**s, 2.0**15.5]), underflow=underflow)
        if abs(acc) * 2.0**s < 2**15.5:
            assert int(q.k) == 0 and int(q.codes[0]) == code


def test_coverage_and_warnings(tmp_path):
    d = Datapath(LNSFormat(4, 2), vector_size=2, acc_bits=8, acc_lsb=3)
    zero, top, low = [0, 0], [7, 7], [1, 1]
    a, b = [zero, top, low, top, top], [top, top, low, [7, 15], [7, 7]]
    np.savez(tmp_path / "five.npz", a=np.array(a), b=np.array(b))
    made = make_vectors(d, f"npz:{tmp_path / 'five.npz'}")
    assert made.accumulators.tolist() == [0, 32, 0, 0, 32] and made.seed == 0
    assert {name: made.coverage[name] for name in ("saturated", "cancelled", "vanished", "zero")} == {
        "saturated": 0, "cancelled": 1, "vanished": 1, "zero": 1
    }  # fmt: skip
    expected = dict(products=10, zero_products=2, vanished_products=2, accumulations=5, overflowed_sums=0, sums=5)
    assert made.coverage.items() >= expected.items()
    np.savez(tmp_path / "five.npz", a=np.array([top] * 3), b=np.array([top] * 3))
    for overflow, saturated in (("saturate", 3), ("wrap", 0)):
        with pytest.warns(UserWarning, match="every dot product overflows"):
            full = make_vectors(replace(d, acc_lsb=-2, overflow=overflow), f"npz:{tmp_path / 'five.npz'}")
        assert full.coverage["saturated"] == saturated and full.coverage["overflowed_sums"] == 3
    with pytest.warns(UserWarning, match="no product is seen"):
        make_vectors(replace(d, acc_lsb=20), f"npz:{tmp_path / 'five.npz'}")


def test_corner_cases_reach_the_corners():
    made = make_vectors(Datapath(headroom_bits=0), "corner", k=100)
    result = dict(zip(made.names, made.accumulators))
    high = (1 << 23) - 1
    assert result["largest times largest: to the upper limit"] == high
    assert result["largest times minus largest: to the lower limit"] == -high - 1
    assert result["all zero"] == result["negative zeros times the largest"] == result["signs in turn: cancels"] == 0
    edge = [acc for name, acc in result.items() if "edge of vanishing" in name]
    assert 0 in edge and any(edge)
    assert {int(name.split()[-1]) for name in made.names if "remainder" in name} == set(range(8))


@given(datapath=datapaths() | datapaths(foreign=True), k=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=200)
def test_traces_obey_the_equations(datapath, k, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 1 << datapath.format.bits, k) for _ in range(2))
    t = trace_dot(a, b, datapath)
    assert t.accumulator == reference.dot(a.tolist(), b.tolist(), datapath)
    g, acc = datapath.format.gamma, 0
    low, high = datapath.product_range or (
        -datapath.product_offset,
        2 * datapath.format.e_max - datapath.product_offset,
    )
    bounded, signed = datapath.bin_bits is not None, datapath.bins == "signed"
    weights = [*datapath.constants, *(-c for c in datapath.constants)] if signed else datapath.constants
    for v in t.vectors:
        assert v.p == [q * g + r for q, r in zip(v.q, v.r)] and all(low <= p <= high for p in v.p)
        if signed:
            assert all(0 <= p < 1 << datapath.bin_bits for p in v.bins)
        elif bounded:
            assert all(-(1 << datapath.bin_bits - 1) <= p < 1 << datapath.bin_bits - 1 for p in v.bins)
        else:
            assert sum(v.bins) == sum(v.lanes)
        assert sum(p * c for p, c in zip(v.bins, weights)) == v.Y
        half = 1 << datapath.lut_bits - 2 if datapath.rounding == "nearest" else 0
        assert (v.Y if datapath.keep_fraction else v.Y + half >> datapath.lut_bits - 1) == v.Z
        inside = abs(acc + v.Z) < 1 << (datapath.acc_bits - 1)
        assert (v.acc == acc + v.Z and (bounded or not v.overflowed)) or not inside  # a bounded bin overflows, too
        acc = v.acc


def test_trace_of_tensors_and_its_errors():
    generator = random.Random(0)
    a, b = ([generator.randrange(256) for _ in range(70)] for _ in range(2))
    assert trace_dot(a, b).accumulator == -27911  # the specification's check value
    x, y = lns_sim.quantize(torch.randn(40)), lns_sim.quantize(torch.randn(40))
    expected = lns_sim.matmul(x.unsqueeze(0), y.unsqueeze(1), return_accumulator=True).item()
    t = lns_sim.trace_dot(x, y)
    assert t.accumulator == expected and f"acc {expected}" in str(t) and str(t).startswith("vector 0\n  p    ")
    wide = Datapath(LNSFormat(12, 128))
    z = lns_sim.quantize(-torch.rand(5) - 1, LNSFormat(12, 128))  # int16 codes with the sign bit set
    assert trace_dot(z, z, wide).accumulator > 0
    for arguments, message in [
        (([1, 2], [1]), "one length"),
        (([[1]], [[1]]), "one-dimensional"),
        (([256], [1]), "from 0 to 255"),
        ((x, y, Datapath(LNSFormat(8, 16))), "has format"),
    ]:
        with pytest.raises(ValueError, match=message):
            trace_dot(*arguments)
    with pytest.raises(TypeError, match="integer codes"):
        trace_dot([1.5], [1.5])


def test_codes_of_ones_own(tmp_path):
    np.savez(tmp_path / "layer.npz", a=np.full((3, 10), 127), b=np.full((3, 10), 255))
    made = make_vectors(Datapath(), f"npz:{tmp_path / 'layer.npz'}")
    assert (made.accumulators == reference.dot([127] * 10, [255] * 10, Datapath())).all()
    for arrays, message in [
        (dict(a=np.zeros((2, 3), int)), "lacks b; it holds a"),
        (dict(a=np.zeros(3, int), b=np.zeros(3, int)), "shape"),
        (dict(a=np.full((1, 2), 256), b=np.zeros((1, 2), int)), "outside 0 .. 255"),
        (dict(a=np.zeros((1, 2), int), b=np.zeros((2, 2), int)), "one shape"),
    ]:
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            make_vectors(Datapath(), f"npz:{tmp_path / 'bad.npz'}")
    with pytest.raises(ValueError, match="source must be"):
        make_vectors(Datapath(), "layer")


def test_commands_find_the_first_wrong_result(tmp_path):
    folder = tmp_path / "golden"
    made = command("vectors", str(folder), "--source", "corner", "--k", "70", "--lut-entries", "2", "--acc-bits", "22")
    assert made.returncode == 0 and "dot products of 70 codes" in made.stdout, made.stderr
    lines = (folder / "acc.hex").read_text().split()
    results = tmp_path / "results.hex"
    # As $writememh writes it, one word sign-extended to whole digits.
    signed = next(i for i, line in enumerate(lines) if int(line, 16) >> 21)
    lines[signed] = f"{int(lines[signed], 16) | 0xC00000:06x}"
    results.write_text("// results\n@0\n" + "\n".join(lines) + "\n")
    good = command("check-vectors", str(folder), str(results))
    assert good.returncode == 0 and f"All {len(lines)} accumulators are equal." in good.stdout, (
        good.stdout + good.stderr
    )

    codes = (folder / "code.hex").read_text().split()
    written = tmp_path / "codes.hex"
    written.write_text("\n".join(codes))
    both = command("check-vectors", str(folder), str(results), "--codes", str(written))
    assert both.returncode == 0 and "accumulators and codes are equal." in both.stdout
    written.write_text("\n".join([*codes[:-1], f"{int(codes[-1], 16) ^ 1:x}"]))
    wrong = command("check-vectors", str(folder), str(results), "--codes", str(written))
    assert wrong.returncode == 1 and f"dot product {len(codes) - 1} " in wrong.stdout
    assert "code at scale" in wrong.stdout

    lines[4] = f"{int(lines[4], 16) ^ 1:06x}"
    results.write_text("\n".join(lines))
    bad = command("check-vectors", str(folder), str(results))
    assert bad.returncode == 1 and bad.stdout.startswith("dot product 4 (minus times minus): got ")
    quiet = command("check-vectors", str(folder), str(results), "--quiet")
    assert quiet.returncode == 1 and quiet.stdout == "" and quiet.stderr.startswith("lns-sim: dot product 4 (minus")
    assert all(f"  {name} " in bad.stdout for name in ("p", "q", "r", "lane", "bins", "Y")) and "vector 2" in bad.stdout

    for text, message in [
        ("xxxxxx\n", "no hex number"),
        ("ffffffff\n", "does not fit 22 bits"),
        ("0\n", "1 results for"),
    ]:
        results.write_text(text)
        refused = command("check-vectors", str(folder), str(results))
        assert refused.returncode == 1 and message in refused.stderr
    (folder / "b.hex").write_text("0\n")
    damaged = command("check-vectors", str(folder), str(results))
    assert damaged.returncode == 1 and "is no set of vectors" in damaged.stderr


def test_results_that_are_no_text_are_named(tmp_path):
    (tmp_path / "results.hex").write_bytes(b"1f\n\xff\xfe\n")
    with pytest.raises(ValueError, match="line 2 of .*results.hex holds .*, which is no hex number"):
        read_words(tmp_path / "results.hex", 8, True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "pe",
    [
        Datapath(bin_bits=8),
        LogDatapath(order="tree", vector_size=64, acc_bits=10, acc_gamma=8, underflow="saturate", offset=300),
    ],
    ids=["bins", "sums of logarithms"],
)
def test_vectors_whose_parts_saturate_are_not_called_overflowing(pe):
    coverage = make_vectors(pe, "random", 200, 128).coverage
    saturations = coverage.get("overflowed_sums", coverage.get("saturated_operations"))
    assert coverage["saturated"] == 0 and saturations >= coverage["accumulations"]
