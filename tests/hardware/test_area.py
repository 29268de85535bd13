"""The vectors that the PE's area is compared with compute what they should, and Yosys measures them all."""

import shutil
import subprocess

import numpy as np
import pytest
import torch

from csrc.rtl.design import fp8_vector, int8_vector, pe
from csrc.rtl.simulation import verilate
from csrc.rtl.synthesis import area, yosys
from lns_sim import Datapath, LNSFormat


def accumulate(values, entries, first, bits):
    """Saturating accumulators, one a clock."""
    held, out = [0] * 16, []
    limit = 1 << (bits - 1)
    for value, entry, clear in zip(values, entries, first):
        held[entry] = max(-limit, min(limit - 1, (0 if clear else held[entry]) + int(value)))
        out.append(held[entry])
    return out


@pytest.mark.usefixtures("verilator")
@pytest.mark.parametrize("top", ["int8_vector", "fp8_vector"])
@pytest.mark.slow
def test_comparison_vectors(top, tmp_path):
    lanes, bits, drop, count = 8, 16, 14, 20_000
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, count, lanes))
    if top == "int8_vector":
        sums = (a.astype(np.int8).astype(np.int64) * b.astype(np.int8)).sum(1)
    else:
        a, b = (np.where(x & 127 == 127, 0, x) for x in (a, b))  # NaN
        x, y = (torch.from_numpy(v.astype(np.uint8)).view(torch.float8_e4m3fn).double().numpy() for v in (a, b))
        products = x * y * 2.0**18  # integers
        sums = (np.sign(products) * (np.abs(products).astype(np.int64) >> drop)).sum(1).astype(np.int64)
    entries, first = rng.integers(0, 16, count), rng.integers(0, 4, count) == 0
    first[:200] = True
    records = np.zeros((count, 4 + 2 * lanes), np.uint8)
    records[:, 0], records[:, 1], records[:, 4 : 4 + lanes], records[:, 4 + lanes :] = entries, first, a, b
    (tmp_path / "in").write_bytes(np.array([count, lanes], np.int32).tobytes() + records.tobytes())
    design = int8_vector(lanes, bits) if top == "int8_vector" else fp8_vector(lanes, bits, drop)
    assert verilate.lint(design) == ""
    subprocess.run([verilate.build(design, tmp_path / "v"), tmp_path / "in", tmp_path / "out"], check=True)
    found = np.fromfile(tmp_path / "out", np.int32).tolist()
    expected = accumulate(sums, entries, first, bits)
    assert found == expected and max(found) == 2 ** (bits - 1) - 1 and min(found) == -(2 ** (bits - 1))


@pytest.mark.usefixtures("yosys")
@pytest.mark.slow
def test_areas():
    small = [Datapath(LNSFormat(5, 2), vector_size=4, lut_entries=n) for n in (1, 2)]
    one, two, bins = (area.synthesize(design) for design in (*map(pe, small), pe(small[1], "bins")))
    assert bins.transistors > two.transistors
    assert (
        two.transistors > one.transistors > area.FLIP_FLOP * one.flip_flops
        and two.cells > one.cells > one.flip_flops > 16 * 24
    )
    wide = area.synthesize(pe(Datapath(LNSFormat(5, 2), vector_size=4, lut_entries=1, acc_bits=32)))
    assert wide.flip_flops > one.flip_flops + 16 * 8 - 1
    assert 5 < one.depth < 200
    assert 30 < yosys.luts(int8_vector(lanes=1, acc_bits=4)) < 500
    names = [d.name for d in area.designs()]
    assert len(set(names)) == len(names) == 15


def test_without_yosys_the_command_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install yosys"):
        area.synthesize(area.designs()[0])
